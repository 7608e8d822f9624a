// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_DPDK_PORT_H_
#define TRIPWIRE_NIC_PORT_DPDK_PORT_H_

#include <rte_mbuf.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "nic/port/interface_address.h"
#include "nic/port/mbuf_pool.h"
#include "nic/port/port.h"

namespace tripwire {

// What a DPDK device is to be opened as.
struct DpdkPortOptions {
  std::string name;    // of the port, for messages
  std::string device;  // DPDK's name of the device
  uint32_t max_frame_bytes = 1514;
  uint32_t buffer_bytes =
      1514;  // at least max_frame_bytes; drivers may ask more
  uint32_t buffers = 8192;
  bool is_vdev = false;         // to be taken off its bus in the end
  bool set_mtu = false;         // tell the device how long frames are
  bool want_interrupt = false;  // wake by receive interrupt, if there is one
  // Ours, where others use the device too; else the device's.
  std::shared_ptr<const InterfaceAddress> address;
};

// One queue pair of a DPDK device: one wire, one path.
//
// Waking: by sockets of the driver that poll() can watch, so that a polling
// user pays nothing; by the device's receive interrupt; or not at all, and then
// wake_fd() is -1.
//
// Thread safety and invariants: as for Port.
class DpdkPort final : public Port {
 public:
  // Takes the device over. REQUIRES: DPDK runs and knows the device.
  static absl::StatusOr<std::unique_ptr<DpdkPort>> Open(
      const DpdkPortOptions& options);
  ~DpdkPort() override;

  // Sockets of the driver, readable when frames wait. REQUIRES: right after
  // Open.
  absl::Status WakeBySockets(const std::vector<int>& sockets);

  const PortInfo& info() const override { return info_; }
  size_t Receive(std::span<Frame> frames) override;
  size_t Allocate(std::span<Frame> frames) override;
  size_t Transmit(PathId path, std::span<const Frame> frames,
                  Ring ring) override;
  void Release(std::span<const Frame> frames) override;
  bool ArmWakeup() override;
  void DisarmWakeup() override;
  int wake_fd() const override { return epoll_.get(); }
  uint64_t Service(uint64_t now_ns) override;
  PortCounters counters() const override { return counters_; }

 private:
  static constexpr size_t kBurst = 32;

  DpdkPort(const DpdkPortOptions& options, uint16_t id, MbufPool pool)
      : options_(options), id_(id), pool_(std::move(pool)) {}
  absl::Status Configure(bool with_interrupt);
  absl::Status Start();
  void WatchInterrupt();
  void CloseForgottenSockets();
  size_t FillStash();
  Frame ToFrame(rte_mbuf* mbuf) const;
  rte_mbuf* ToMbuf(const Frame& frame) const;

  const DpdkPortOptions options_;
  const uint16_t id_;
  MbufPool pool_;
  PortInfo info_;
  PortCounters counters_;
  bool is_started_ = false;

  // Received while looking whether it is safe to sleep, or more than asked for.
  std::array<rte_mbuf*, kBurst> stash_{};
  size_t stash_begin_ = 0, stash_end_ = 0;

  UniqueFd epoll_;
  struct DriverSocket {
    int fd;
    uint64_t cookie;  // the kernel's unique name for it
  };
  std::vector<DriverSocket> sockets_;
  bool has_interrupt_ = false;
  bool is_armed_ = false;
  bool was_asleep_ = false;  // since the last frame received
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_DPDK_PORT_H_
