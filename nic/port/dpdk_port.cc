// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/dpdk_port.h"

#include <rte_bus_vdev.h>
#include <rte_ethdev.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "nic/base/clock.h"
#include "nic/port/eal.h"
#include "spdlog/spdlog.h"

namespace tripwire {
namespace {

constexpr uint32_t kEthernetHeaderBytes = 14;
constexpr uint16_t kWantedDescriptors = 1024;

absl::Status Failed(const std::string& name, const char* what, int error) {
  return absl::FailedPreconditionError(
      absl::StrCat("port ", name, ": cannot ", what, ": ",
                   std::strerror(std::abs(error)), ": ", Eal::TakeComplaint()));
}

// 0 when it is not a socket (any more).
uint64_t CookieOf(int fd) {
  uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) != 0) return 0;
  return cookie;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DpdkPort>> DpdkPort::Open(
    const DpdkPortOptions& options) {
  uint16_t id = 0;
  if (rte_eth_dev_get_port_by_name(options.device.c_str(), &id) != 0) {
    return absl::NotFoundError(absl::StrCat("port ", options.name,
                                            ": DPDK has no network device ",
                                            options.device));
  }
  auto pool = CreateMbufPool(absl::StrCat("tripwire_", id), options.buffers,
                             options.buffer_bytes);
  if (!pool.ok()) return pool.status();
  std::unique_ptr<DpdkPort> port(new DpdkPort(options, id, *std::move(pool)));
  absl::Status status = port->Configure(options.want_interrupt);
  if (status.ok()) status = port->Start();
  if (!status.ok() && options.want_interrupt) {
    status = port->Configure(false);
    if (status.ok()) status = port->Start();
  }
  if (!status.ok()) return status;
  port->WatchInterrupt();
  return port;
}

absl::Status DpdkPort::Configure(bool with_interrupt) {
  rte_eth_dev_info device{};
  int error = rte_eth_dev_info_get(id_, &device);
  if (error != 0) return Failed(options_.name, "ask the device", error);
  rte_eth_conf config{};
  config.intr_conf.rxq = with_interrupt ? 1 : 0;
  if (options_.set_mtu) {
    config.rxmode.mtu = options_.max_frame_bytes - kEthernetHeaderBytes;
  }
  has_interrupt_ = with_interrupt;
  error = rte_eth_dev_configure(id_, 1, 1, &config);
  if (error != 0) return Failed(options_.name, "configure the device", error);
  uint16_t rx_count = kWantedDescriptors, tx_count = kWantedDescriptors;
  error = rte_eth_dev_adjust_nb_rx_tx_desc(id_, &rx_count, &tx_count);
  if (error != 0) return Failed(options_.name, "size the queues", error);
  error = rte_eth_rx_queue_setup(id_, 0, rx_count, SOCKET_ID_ANY, nullptr,
                                 pool_.get());
  if (error != 0) return Failed(options_.name, "set up receiving", error);
  error = rte_eth_tx_queue_setup(id_, 0, tx_count, SOCKET_ID_ANY, nullptr);
  if (error != 0) return Failed(options_.name, "set up sending", error);
  return absl::OkStatus();
}

absl::Status DpdkPort::Start() {
  const int error = rte_eth_dev_start(id_);
  if (error != 0) return Failed(options_.name, "start the device", error);
  is_started_ = true;
  rte_ether_addr mac{};
  rte_eth_macaddr_get(id_, &mac);
  std::memcpy(info_.mac.bytes.data(), mac.addr_bytes, 6);
  if (options_.address) info_.mac = options_.address->mac();
  info_.name = options_.name;
  info_.max_frame_bytes = options_.max_frame_bytes;
  info_.is_reliable = false;
  return absl::OkStatus();
}

DpdkPort::~DpdkPort() {
  epoll_.reset();
  if (stash_end_ > stash_begin_) {
    rte_pktmbuf_free_bulk(stash_.data() + stash_begin_,
                          static_cast<unsigned>(stash_end_ - stash_begin_));
  }
  if (is_started_) rte_eth_dev_stop(id_);
  rte_eth_dev_close(id_);
  if (options_.is_vdev) rte_vdev_uninit(options_.device.c_str());
  CloseForgottenSockets();
}

// The AF_XDP driver leaves its socket open, and with it the interface's queue
// in use. Only what is certainly still that very socket is closed.
void DpdkPort::CloseForgottenSockets() {
  for (const auto& [fd, cookie] : sockets_) {
    if (cookie != 0 && CookieOf(fd) == cookie) close(fd);
  }
}

// --- Traffic ----------------------------------------------------------------

Frame DpdkPort::ToFrame(rte_mbuf* mbuf) const {
  Frame frame;
  frame.data = rte_pktmbuf_mtod(mbuf, uint8_t*);
  frame.length_bytes = mbuf->data_len;
  frame.capacity_bytes =
      static_cast<uint32_t>(mbuf->data_len) + rte_pktmbuf_tailroom(mbuf);
  frame.cookie = mbuf;
  return frame;
}

rte_mbuf* DpdkPort::ToMbuf(const Frame& frame) const {
  return static_cast<rte_mbuf*>(frame.cookie);
}

size_t DpdkPort::FillStash() {
  if (stash_begin_ == stash_end_) {
    stash_begin_ = 0;
    stash_end_ = rte_eth_rx_burst(id_, 0, stash_.data(), kBurst);
  }
  return stash_end_ - stash_begin_;
}

size_t DpdkPort::Receive(std::span<Frame> frames) {
  size_t count = 0;
  while (count < frames.size() && FillStash() > 0) {
    const bool was_full = stash_end_ == kBurst;
    while (count < frames.size() && stash_begin_ < stash_end_) {
      rte_mbuf* mbuf = stash_[stash_begin_++];
      if (mbuf->nb_segs != 1) {  // longer than we said we take
        rte_pktmbuf_free(mbuf);
        ++counters_.rx_no_buffer;
        continue;
      }
      frames[count++] = ToFrame(mbuf);
      ++counters_.rx_frames;
      counters_.rx_bytes += mbuf->data_len;
    }
    if (!was_full) break;
  }
  if (count > 0 && was_asleep_) {
    was_asleep_ = false;
    ++counters_.wakeups;
  }
  return count;
}

size_t DpdkPort::Allocate(std::span<Frame> frames) {
  size_t count = 0;
  while (count < frames.size()) {
    rte_mbuf* burst[kBurst];
    const size_t want = std::min(frames.size() - count, kBurst);
    // All of them, or none.
    if (rte_pktmbuf_alloc_bulk(pool_.get(), burst,
                               static_cast<unsigned>(want)) != 0) {
      break;
    }
    for (size_t i = 0; i < want; ++i) frames[count++] = ToFrame(burst[i]);
  }
  // What is left is not enough for so many.
  while (count < frames.size()) {
    rte_mbuf* mbuf = rte_pktmbuf_alloc(pool_.get());
    if (mbuf == nullptr) break;
    frames[count++] = ToFrame(mbuf);
  }
  return count;
}

void DpdkPort::Release(std::span<const Frame> frames) {
  for (size_t done = 0; done < frames.size();) {
    rte_mbuf* burst[kBurst];
    unsigned count = 0;
    while (count < kBurst && done < frames.size()) {
      burst[count++] = ToMbuf(frames[done++]);
    }
    rte_pktmbuf_free_bulk(burst, count);
  }
}

size_t DpdkPort::Transmit(PathId, std::span<const Frame> frames, Ring) {
  size_t done = 0;
  while (done < frames.size()) {
    rte_mbuf* burst[kBurst];
    uint16_t count = 0;
    uint64_t bytes[kBurst];
    while (count < kBurst && done + count < frames.size()) {
      const Frame& frame = frames[done + count];
      if (frame.length_bytes < kEthernetHeaderBytes ||
          frame.length_bytes > info_.max_frame_bytes) {
        break;
      }
      rte_mbuf* mbuf = ToMbuf(frame);
      mbuf->data_len = static_cast<uint16_t>(frame.length_bytes);
      mbuf->pkt_len = frame.length_bytes;
      bytes[count] = frame.length_bytes;
      burst[count++] = mbuf;
    }
    if (count == 0) {  // one that no wire takes
      ++counters_.tx_dropped;
      Release(frames.subspan(done++, 1));
      continue;
    }
    const uint16_t sent = rte_eth_tx_burst(id_, 0, burst, count);
    counters_.tx_frames += sent;
    for (uint16_t i = 0; i < sent; ++i) counters_.tx_bytes += bytes[i];
    done += sent;
    if (sent < count) break;
  }
  return done;
}

// --- Sleeping ---------------------------------------------------------------

absl::Status DpdkPort::WakeBySockets(const std::vector<int>& sockets) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return absl::ErrnoToStatus(errno, "cannot create an epoll");
  for (int fd : sockets) {
    epoll_event event{};
    event.events = EPOLLIN;  // as long as frames wait
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return absl::ErrnoToStatus(errno, "cannot watch the driver's socket");
    }
  }
  epoll_ = std::move(epoll);
  for (int fd : sockets) sockets_.push_back({fd, CookieOf(fd)});
  return absl::OkStatus();
}

void DpdkPort::WatchInterrupt() {
  if (!has_interrupt_) return;
  has_interrupt_ = false;
  const int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(id_, 0);
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (fd < 0 || !epoll) return;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;  // an edge for each interrupt
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return;
  epoll_ = std::move(epoll);
  has_interrupt_ = true;
}

bool DpdkPort::ArmWakeup() {
  if (has_interrupt_) rte_eth_dev_rx_intr_enable(id_, 0);
  is_armed_ = true;
  if (FillStash() > 0) {
    DisarmWakeup();
    return false;
  }
  was_asleep_ = true;
  return true;
}

void DpdkPort::DisarmWakeup() {
  if (is_armed_ && has_interrupt_) rte_eth_dev_rx_intr_disable(id_, 0);
  is_armed_ = false;
}

uint64_t DpdkPort::Service(uint64_t) {
  if (has_interrupt_) {
    epoll_event events[4];
    epoll_wait(epoll_.get(), events, 4, 0);  // takes the edge
  }
  // An interface that goes down leaves an error on the socket, and the socket
  // readable until the error is fetched.
  for (const auto& [fd, cookie] : sockets_) {
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 &&
        error != 0) {
      spdlog::warn("port {}: {}", info_.name, std::strerror(error));
    }
  }
  return kNever;
}

}  // namespace tripwire
