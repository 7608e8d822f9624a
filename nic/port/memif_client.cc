// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nic/port/memif_port.h"
#include "spdlog/spdlog.h"

namespace tripwire {
namespace {

constexpr uint64_t kJoinTimeoutNs = 5 * kSecond;
constexpr uint64_t kFirstBackoffNs = 1 * kMillisecond;
constexpr uint64_t kLastBackoffNs = 250 * kMillisecond;
constexpr int kRefusedRetries = 5;
constexpr useconds_t kRefusedPauseUs = 20'000;
constexpr uint32_t kDoorbellEvents = EPOLLIN | EPOLLET;

}  // namespace

absl::StatusOr<std::unique_ptr<Port>> MemifClientPort::Open(
    const MemifOptions& options) {
  auto pool = FramePool::Create(options.buffers, options.max_frame_bytes);
  if (!pool.ok()) return pool.status();
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return absl::ErrnoToStatus(errno, "cannot create an epoll");
  std::unique_ptr<MemifClientPort> port(
      new MemifClientPort(options, *std::move(pool), std::move(epoll)));
  port->MakeShownMemory();
  const absl::Status joined = port->JoinNow();
  if (!joined.ok()) {
    const bool may_come = absl::IsNotFound(joined) ||
                          absl::IsUnavailable(joined) ||
                          absl::IsDeadlineExceeded(joined);
    if (!options.wait || !may_come) return joined;
    port->StopJoining();
    port->next_step_ns_ = 0;  // Service tries again
  }
  return std::unique_ptr<Port>(std::move(port));
}

MemifClientPort::~MemifClientPort() {
  if (!shown_.empty()) munmap(shown_.data(), shown_.size());
}

// Without it, all goes by frames.
void MemifClientPort::MakeShownMemory() {
  const uint64_t bytes = options_.shown_bytes;
  UniqueFd memory(
      memfd_create("tripwire-shown", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (bytes == 0 || !memory ||
      ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return;
  }
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_NORESERVE, memory.get(), 0);
  if (base == MAP_FAILED) return;
  shown_ = {static_cast<uint8_t*>(base), bytes};
  shown_fd_ = std::move(memory);
}

// --- Traffic ----------------------------------------------------------------

size_t MemifClientPort::Receive(std::span<Frame> frames) {
  if (channel_ == nullptr) return 0;
  return ReceiveFrom(*channel_, 0, frames);
}

size_t MemifClientPort::Transmit(PathId path, std::span<const Frame> frames,
                                 Ring ring) {
  size_t done = 0;
  while (done < frames.size()) {
    std::span<const Frame> rest = frames.subspan(done);
    const size_t run = CountSendable(rest);
    if (run == 0) {
      done += Drop(rest.first(CountUnsendable(rest)));
      continue;
    }
    if (channel_ == nullptr || (path != 0 && path != kAllPaths) ||
        channel_->is_broken()) {
      return done + Drop(rest);
    }
    rest = rest.first(run);
    const size_t sent = channel_->Send(rest, ring, ringer_, counters_);
    Release(rest.first(sent));
    done += sent;
    if (sent < run) {
      if (path != kAllPaths) break;
      // A broadcast goes where it has room.
      done += Drop(rest.subspan(sent));
    }
  }
  return done;
}

// --- Sleeping ---------------------------------------------------------------

bool MemifClientPort::ArmWakeup() {
  is_armed_ = true;
  if (channel_ == nullptr) return true;
  channel_->Unmask();
  // Pairs with the fence in MemifProducer::PeerSleeps: either the sender sees
  // that we sleep, or we see its frame below.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!channel_->HasFrames()) return true;
  DisarmWakeup();
  return false;
}

void MemifClientPort::DisarmWakeup() {
  if (!is_armed_) return;
  is_armed_ = false;
  if (channel_ != nullptr) channel_->Mask();
}

// --- Joining ----------------------------------------------------------------

absl::Status MemifClientPort::StartJoining(uint64_t now_ns) {
  absl::StatusOr<UniqueFd> socket = ConnectMemifSocket(options_.path);
  if (!socket.ok()) return socket.status();
  handshake_ = std::make_unique<MemifClientHandshake>(
      *std::move(socket), options_.max_frame_bytes, shown_fd_.get(),
      shown_.size());
  next_step_ns_ = now_ns + kJoinTimeoutNs;
  Watch(handshake_->socket(), EPOLLIN | EPOLLRDHUP, Source::kHandshake, 0);
  return absl::OkStatus();
}

absl::Status MemifClientPort::ContinueJoining() {
  const absl::StatusOr<bool> done = handshake_->Continue();
  if (!done.ok()) return done.status();
  if (!*done) return absl::OkStatus();
  Unwatch(handshake_->socket());
  channel_ = handshake_->TakeChannel();
  control_ = handshake_->TakeSocket();
  handshake_.reset();
  next_step_ns_ = kNever;
  backoff_ns_ = 0;
  Watch(control_.get(), EPOLLIN | EPOLLRDHUP, Source::kControl, 0);
  Watch(channel_->wake_fd(), kDoorbellEvents, Source::kDoorbell, 0);
  if (is_armed_) channel_->Unmask();
  if (std::exchange(has_left_, false)) ++counters_.rejoins;
  return absl::OkStatus();
}

absl::Status MemifClientPort::JoinNow() {
  SystemClock clock;
  const uint64_t deadline_ns = clock.NowNs() + kJoinTimeoutNs;
  absl::Status status = StartJoining(clock.NowNs());
  // A listener that is just starting has a socket before it listens on it.
  for (int i = 0; i < kRefusedRetries && absl::IsUnavailable(status); ++i) {
    usleep(kRefusedPauseUs);
    status = StartJoining(clock.NowNs());
  }
  while (status.ok() && channel_ == nullptr) {
    const uint64_t now_ns = clock.NowNs();
    if (now_ns >= deadline_ns) {
      return absl::DeadlineExceededError(
          absl::StrCat("the listener on ", options_.path, " does not answer"));
    }
    pollfd waiting{handshake_->socket(), POLLIN, 0};
    poll(&waiting, 1,
         static_cast<int>((deadline_ns - now_ns) / kMillisecond) + 1);
    status = ContinueJoining();
    if (!status.ok()) {
      return absl::UnavailableError(absl::StrCat(
          "cannot join the memif on ", options_.path, ": ", status.message()));
    }
  }
  return status;
}

void MemifClientPort::StopJoining() {
  if (handshake_ == nullptr) return;
  // Closing is not enough: epoll keeps what lives on in a child of this
  // process.
  Unwatch(handshake_->socket());
  handshake_.reset();
}

void MemifClientPort::RetryLater(uint64_t now_ns) {
  StopJoining();
  backoff_ns_ = std::clamp(backoff_ns_ * 2, kFirstBackoffNs, kLastBackoffNs);
  next_step_ns_ = now_ns + backoff_ns_;
}

void MemifClientPort::Leave(const char* why, uint64_t now_ns) {
  spdlog::debug("{}: {}", info_.name, why);
  // The doorbell lives on in a peer that is still there.
  Unwatch(channel_->wake_fd());
  Unwatch(control_.get());
  Retire(std::move(channel_));
  has_left_ = true;
  control_.reset();
  backoff_ns_ = 0;
  RetryLater(now_ns);
}

uint64_t MemifClientPort::Service(uint64_t now_ns) {
  std::array<epoll_event, 8> events;
  const int count = epoll_wait(epoll_.get(), events.data(),
                               static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    switch (SourceOf(events[i])) {
      case Source::kHandshake:
        if (handshake_ != nullptr && !ContinueJoining().ok()) {
          RetryLater(now_ns);
        }
        break;
      case Source::kControl:
        if (channel_ != nullptr) Leave("the listener went away", now_ns);
        break;
      case Source::kDoorbell:
        ++counters_.wakeups;
        break;
      case Source::kListener:
      case Source::kGiven:
      case Source::kOwner:
        break;
    }
  }
  if (HasBroken()) {
    Leave("the listener broke the rules of the ring", now_ns);
  }
  if (channel_ == nullptr && next_step_ns_ <= now_ns) {
    // Either it is time to try again, or the answer is overdue.
    StopJoining();
    if (!StartJoining(now_ns).ok()) RetryLater(now_ns);
  }
  return next_step_ns_;
}

}  // namespace tripwire
