// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_CAPTURE_PORT_H_
#define TRIPWIRE_NIC_PORT_CAPTURE_PORT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "nic/base/clock.h"
#include "nic/port/capture_file.h"
#include "nic/port/forwarding_port.h"

namespace tripwire {

// A port that also writes what passes to a file: every frame received and every
// frame accepted for transmission, whole, in the order in which the owner of
// the port saw them. Frames are copied to the file's buffer; nothing waits for
// the file.
//
// Thread safety and invariants: as for Port.
class CapturePort final : public ForwardingPort {
 public:
  // Times in the file are those of `clock`, later by `epoch_ns`.
  CapturePort(std::unique_ptr<Port> inner, std::unique_ptr<CaptureFile> file,
              Clock& clock, uint64_t epoch_ns);

  size_t Receive(std::span<Frame> frames) override;
  size_t Transmit(PathId path, std::span<const Frame> frames,
                  Ring ring) override;
  PortCounters counters() const override;

 private:
  static constexpr size_t kBurst = 64;

  void Record(std::span<const Frame> frames, CaptureDirection direction);
  void Commit(size_t frames);

  std::unique_ptr<CaptureFile> file_;
  Clock& clock_;
  const uint64_t epoch_ns_;
  // The burst under way: its blocks, and where each frame's ends.
  std::vector<uint8_t> blocks_;
  std::array<size_t, kBurst> ends_{};
};

// What to add to SystemClock's time to get ns since 1970.
uint64_t SystemClockEpochNs();

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_CAPTURE_PORT_H_
