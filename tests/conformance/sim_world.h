// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_CONFORMANCE_SIM_WORLD_H_
#define TRIPWIRE_TESTS_CONFORMANCE_SIM_WORLD_H_

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>

#include "nic/api/nic.h"
#include "nic/conform/responder.h"
#include "nic/conform/segment.h"
#include "nic/conform/world.h"
#include "nic/port/fabric.h"

namespace tripwire::conform {

// A NIC of ours and its responder at the other end of an in-memory segment, in
// this thread and on a clock that jumps: the suite runs over it as over a wire,
// the same each time and in no time.
class SimWorld final : public World {
 public:
  explicit SimWorld(uint64_t first_sequence = 1) : fabric_(clock_) {
    NicOptions options;
    options.node = "subject";
    options.ports.push_back(fabric_.AddPort("subject"));
    options.service_thread = false;
    options.clock = &clock_;
    options.seed = 7;
    options.first_sequence = first_sequence;
    nic_ = std::move(*Nic::Open(std::move(options)));
    responder_ = std::make_unique<Responder>(*nic_);
    if (!responder_->Start().ok()) std::abort();
    segment_ = std::make_unique<Segment>(fabric_.AddPort("tester"), *this,
                                         first_sequence);
  }

  Segment& segment() { return *segment_; }

  uint64_t NowNs() override { return clock_.NowNs(); }
  uint64_t SlackNs() const override { return 0; }
  void Wait(Port& port, uint64_t until_ns) override {
    bool busy = true;
    while (busy) {
      busy = nic_->Poll();
      busy |= responder_->Step();
    }
    if (!port.ArmWakeup()) return;  // something has come
    const uint64_t now_ns = clock_.NowNs();
    if (now_ns >= until_ns) return;
    const uint64_t next_ns =
        std::min(fabric_.NextEventNs(), nic_->NextDeadlineNs());
    // Time always moves, also past a deadline nobody acts on.
    clock_.AdvanceTo(std::min(std::max(next_ns, now_ns + 100), until_ns));
  }

 private:
  ManualClock clock_;
  Fabric fabric_;
  std::unique_ptr<Nic> nic_;
  std::unique_ptr<Responder> responder_;
  std::unique_ptr<Segment> segment_;
};

}  // namespace tripwire::conform

#endif  // TRIPWIRE_TESTS_CONFORMANCE_SIM_WORLD_H_
