// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_LENDING_PORT_H_
#define TRIPWIRE_TESTS_SIM_LENDING_PORT_H_

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "nic/port/port.h"

namespace tripwire {

// A port that behaves as one over shared memory may: received frames are
// borrowed, are scribbled over the moment they are given back, and must all be
// given back before the next are asked for. What is sent may have a tail.
class LendingPort final : public Port {
 public:
  explicit LendingPort(std::unique_ptr<Port> inner)
      : inner_(std::move(inner)), info_(inner_->info()) {
    info_.is_reliable = true;
    info_.gathers = true;
  }

  const PortInfo& info() const override { return info_; }
  size_t Receive(std::span<Frame> frames) override {
    if (lent_ > 0) std::abort();  // somebody holds what he was lent
    lent_ = inner_->Receive(frames);
    for (Frame& frame : frames.first(lent_)) frame.is_borrowed = true;
    return lent_;
  }
  size_t Allocate(std::span<Frame> frames) override {
    return inner_->Allocate(frames);
  }
  size_t Transmit(PathId path, std::span<const Frame> frames,
                  Ring ring) override {
    std::vector<Frame> whole(frames.begin(), frames.end());
    for (Frame& frame : whole) {
      if (frame.total_bytes() > frame.capacity_bytes) std::abort();
      if (frame.tail_bytes == 0) continue;
      std::memcpy(frame.data + frame.length_bytes, frame.tail,
                  frame.tail_bytes);
      frame.length_bytes += frame.tail_bytes;
      frame.tail_bytes = 0;
    }
    return inner_->Transmit(path, whole, ring);
  }
  void Release(std::span<const Frame> frames) override {
    for (const Frame& frame : frames) {
      if (!frame.is_borrowed) continue;
      std::memset(frame.data, 0xdd, frame.length_bytes);
      if (lent_-- == 0) std::abort();
    }
    inner_->Release(frames);
  }
  bool ArmWakeup() override { return inner_->ArmWakeup(); }
  void DisarmWakeup() override { inner_->DisarmWakeup(); }
  int wake_fd() const override { return inner_->wake_fd(); }
  uint64_t Service(uint64_t now_ns) override {
    return inner_->Service(now_ns);
  }
  PortCounters counters() const override { return inner_->counters(); }

 private:
  std::unique_ptr<Port> inner_;
  PortInfo info_;
  size_t lent_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_SIM_LENDING_PORT_H_
