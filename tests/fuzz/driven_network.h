// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_FUZZ_DRIVEN_NETWORK_H_
#define TRIPWIRE_TESTS_FUZZ_DRIVEN_NETWORK_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "nic/api/context.h"
#include "nic/api/nic.h"
#include "nic/base/clock.h"
#include "nic/port/fabric.h"
#include "nic/port/forwarding_port.h"
#include "tests/fuzz/bytes.h"

namespace tripwire::fuzz {

// A port whose owner, when he looks at it, first makes the rest of the world go
// on. So calls that wait, of a program that knows nothing of it, return on a
// clock that nobody else moves, in one thread, and the same way each time.
class DrivingPort final : public ForwardingPort {
 public:
  DrivingPort(std::unique_ptr<Port> inner, std::function<void()> drive)
      : ForwardingPort(std::move(inner)), drive_(std::move(drive)) {}

  size_t Receive(std::span<Frame> frames) override {
    drive_();
    const size_t n = inner_->Receive(frames);
    if (n > 0) quiet_looks_ = 0;
    // Who waits on such a clock gives up when nothing comes: a frame that is
    // nobody's has him wait a little longer.
    if (n > 0 || ++quiet_looks_ % kPatience == 0 ||
        inner_->Allocate(frames.first(1)) == 0)
      return n;
    frames[0].length_bytes = kRuntBytes;
    std::fill_n(frames[0].data, kRuntBytes, uint8_t{0});
    return 1;
  }
  bool nothing_waits() { return inner_->ArmWakeup(); }

 private:
  static constexpr uint32_t kRuntBytes = 60;
  static constexpr int kPatience = 4;

  const std::function<void()> drive_;
  int quiet_looks_ = 0;
};

// Two nodes: one that a script plays, "there", which goes on whenever the
// other, "here", looks at its port.
class DrivenNetwork {
 public:
  // `turn` is what there does; `first` in each look, then only what must be.
  explicit DrivenNetwork(std::function<void(bool first)> turn)
      : turn_(std::move(turn)), fabric_(clock_) {
    there_ = Open("there", fabric_.AddPort("there"));
    auto port = std::make_unique<DrivingPort>(fabric_.AddPort("here"),
                                              [this] { Drive(); });
    port_ = port.get();
    here_ = Open("here", std::move(port));
  }
  Nic& here() { return *here_; }
  Nic& there() { return *there_; }
  ManualClock& clock() { return clock_; }
  // From now on there does nothing of its own.
  void Quieten() { turn_ = {}; }
  // At most so long.
  template <typename Done>
  void RunUntil(Done done, uint64_t limit_ns) {
    const uint64_t end_ns = clock_.NowNs() + limit_ns;
    while (!done() && clock_.NowNs() < end_ns) here_->Poll();
  }

 private:
  static constexpr int kMostTurns = 16;
  static constexpr uint64_t kTurnNs = kMillisecond;

  std::unique_ptr<Nic> Open(const char* name, std::unique_ptr<Port> port) {
    NicOptions options;
    options.node = name;
    options.ports.push_back(std::move(port));
    options.service_thread = false;
    options.clock = &clock_;
    options.seed = ++seed_;
    auto nic = Nic::Open(std::move(options));
    Require(nic.ok(), "a NIC can be made");
    return *std::move(nic);
  }
  // Until something comes, or for some while.
  void Drive() {
    if (there_ == nullptr || here_ == nullptr) return;
    for (int i = 0; i < kMostTurns && port_->nothing_waits(); ++i) {
      if (turn_) turn_(i == 0);
      while (there_->Poll()) {
      }
      const uint64_t now_ns = clock_.NowNs();
      // Time always moves, also past a deadline nobody acts on.
      const uint64_t timer_ns =
          std::max(there_->NextDeadlineNs(), now_ns + kTurnNs / 10);
      clock_.AdvanceTo(std::clamp(std::min(fabric_.NextEventNs(), timer_ns),
                                  now_ns + 100, now_ns + kTurnNs));
    }
  }

  std::function<void(bool first)> turn_;
  ManualClock clock_;
  Fabric fabric_;
  uint64_t seed_ = 0;
  DrivingPort* port_ = nullptr;
  std::unique_ptr<Nic> there_, here_;
};

}  // namespace tripwire::fuzz

#endif  // TRIPWIRE_TESTS_FUZZ_DRIVEN_NETWORK_H_
