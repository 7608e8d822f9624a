// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_LENDING_PORT_H_
#define TRIPWIRE_TESTS_SIM_LENDING_PORT_H_

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "nic/port/forwarding_port.h"

namespace tripwire {

// A port that behaves as one over shared memory may: received frames are
// borrowed, are scribbled over the moment they are given back, and must all be
// given back before the next are asked for. What is sent may have a tail.
class LendingPort final : public ForwardingPort {
 public:
  explicit LendingPort(std::unique_ptr<Port> inner)
      : ForwardingPort(std::move(inner)), info_(inner_->info()) {
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

 private:
  PortInfo info_;
  size_t lent_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_SIM_LENDING_PORT_H_
