// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_FORWARDING_PORT_H_
#define TRIPWIRE_NIC_PORT_FORWARDING_PORT_H_

#include <memory>
#include <span>
#include <utility>

#include "nic/port/port.h"

namespace tripwire {

// Passes every call on to another port: the base of those that change some of
// what another does. What only some ports have (Adopt and Hear, memory in
// common) is not passed on; who still has it says so.
//
// Thread safety and invariants: as for Port.
class ForwardingPort : public Port {
 public:
  explicit ForwardingPort(std::unique_ptr<Port> inner)
      : inner_(std::move(inner)) {}

  Port& inner() { return *inner_; }

  const PortInfo& info() const override { return inner_->info(); }
  size_t Receive(std::span<Frame> frames) override {
    return inner_->Receive(frames);
  }
  size_t Allocate(std::span<Frame> frames) override {
    return inner_->Allocate(frames);
  }
  size_t Transmit(PathId path, std::span<const Frame> frames,
                  Ring ring) override {
    return inner_->Transmit(path, frames, ring);
  }
  void Release(std::span<const Frame> frames) override {
    inner_->Release(frames);
  }
  bool ArmWakeup() override { return inner_->ArmWakeup(); }
  void DisarmWakeup() override { inner_->DisarmWakeup(); }
  int wake_fd() const override { return inner_->wake_fd(); }
  uint64_t Service(uint64_t now_ns) override { return inner_->Service(now_ns); }
  PortCounters counters() const override { return inner_->counters(); }

 protected:
  const std::unique_ptr<Port> inner_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_FORWARDING_PORT_H_
