// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_SIM_NETWORK_H_
#define TRIPWIRE_TESTS_SIM_SIM_NETWORK_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nic/api/context.h"
#include "nic/api/nic.h"
#include "nic/api/nic_impl.h"
#include "nic/base/clock.h"
#include "nic/base/random.h"
#include "nic/port/fabric.h"
#include "nic/port/faulty_port.h"
#include "tests/sim/lending_port.h"

namespace tripwire {

// A whole network in one thread: NICs on an in-memory segment, a clock that
// jumps from event to event, and faults from a seed.
class SimNetwork {
 public:
  // With `lends`, ports lend their frames in place and gather what they send.
  explicit SimNetwork(uint64_t seed, FaultOptions faults = {},
                      FabricOptions fabric = {}, bool lends = false)
      : random_(seed),
        faults_(faults),
        fabric_(clock_, fabric),
        lends_(lends) {}

  Nic& AddNode(const std::string& name, uint32_t max_frame_bytes = 1514,
               NicOptions options = {}) {
    auto faulty = std::make_unique<FaultyPort>(
        fabric_.AddPort(name, max_frame_bytes), clock_, faults_,
        random_.Next());
    ports_.push_back(faulty.get());
    options.node = name;
    if (lends_) {
      options.ports.push_back(
          std::make_unique<LendingPort>(std::move(faulty)));
    } else {
      options.ports.push_back(std::move(faulty));
    }
    options.service_thread = false;
    options.clock = &clock_;
    options.seed = random_.Next() | 1;
    nics_.push_back(std::move(*Nic::Open(std::move(options))));
    return *nics_.back();
  }
  // A crash: the NIC is gone without a word (contexts must be destroyed before,
  // with their port cut, see Cut).
  void RemoveNode(Nic& nic) {
    for (size_t i = 0; i < nics_.size(); ++i) {
      if (nics_[i].get() != &nic) continue;
      nics_.erase(nics_.begin() + static_cast<ptrdiff_t>(i));
      ports_.erase(ports_.begin() + static_cast<ptrdiff_t>(i));
      return;
    }
  }
  FaultyPort& port(size_t node) { return *ports_[node]; }
  // REQUIRES: it is one of this network's.
  FaultyPort& port(const Nic& nic) {
    const auto it = std::find_if(nics_.begin(), nics_.end(),
                                 [&](auto& n) { return n.get() == &nic; });
    return *ports_[static_cast<size_t>(it - nics_.begin())];
  }
  // Pulls or puts back the node's cable, which its port notices, as one does that
  // has a descriptor.
  void SetWire(Nic& nic, bool up) {
    fabric_.SetLinkUp(port(nic).info().mac, up);
    nic.impl().engine().ServicePorts();
  }
  void SetFaults(const FaultOptions& faults) {
    faults_ = faults;
    for (FaultyPort* port : ports_) port->SetOptions(faults);
  }

  // Runs until `done()` or `limit_ns` of simulated time passed; returns done().
  bool RunUntil(const std::function<bool()>& done, uint64_t limit_ns) {
    const uint64_t end_ns = clock_.NowNs() + limit_ns;
    for (;;) {
      bool busy = true;
      while (busy) {
        busy = false;
        for (auto& nic : nics_) busy |= nic->Poll();
        if (done()) return true;
      }
      uint64_t next_ns = fabric_.NextEventNs();
      for (auto& nic : nics_) {
        next_ns = std::min(next_ns, nic->NextDeadlineNs());
      }
      if (clock_.NowNs() >= end_ns) return false;
      // Time always moves, also past a deadline nobody acts on.
      next_ns = std::max(next_ns, clock_.NowNs() + 100);
      clock_.AdvanceTo(std::min(next_ns, end_ns));
    }
  }
  void RunFor(uint64_t ns) {
    RunUntil([] { return false; }, ns);
  }

  ManualClock& clock() { return clock_; }
  Random& random() { return random_; }
  Fabric& fabric() { return fabric_; }

 private:
  ManualClock clock_;
  Random random_;
  FaultOptions faults_;
  Fabric fabric_;
  const bool lends_;
  std::vector<FaultyPort*> ports_;
  std::vector<std::unique_ptr<Nic>> nics_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_SIM_SIM_NETWORK_H_
