// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_SCALE_SCENARIOS_H_
#define TRIPWIRE_TESTS_SIM_SCALE_SCENARIOS_H_

#include <cstdint>

#include "nic/datapath/counters.h"
#include "tests/sim/scale/traffic.h"

// Runs of a whole network, each from a seed. Wires of 10 Gbit/s, frames of 1514
// bytes, 5 us from any node to any other, unless said otherwise.
namespace tripwire {

// Random links with a mix of everything, on a network that loses, repeats,
// reorders and damages frames and takes nodes their processor.
struct WholeNetwork {
  uint64_t seed = 1;
  size_t nodes = 50, links = 1000;
  bool go_back_n = false;
  double loss = 0.01;
  uint32_t operations = 12;  // of each link
  uint32_t aperture_bytes = 2048;
};
struct WholeResult {
  bool is_finished = false;
  Verdict verdict;
  NicCounters totals;
  uint64_t simulated_ns = 0;  // of traffic
};
WholeResult RunWhole(const WholeNetwork& network);

// As many links as senders, all to one node, always busy.
struct FairnessRun {
  uint64_t seed = 1;
  size_t senders = 8;
  bool go_back_n = false;
  uint64_t queue_bytes = 256 << 10;  // of the switch, for each port
  uint64_t warm_up_ns = 50 * kMillisecond, measured_ns = 200 * kMillisecond;
};
struct FairnessResult {
  double jain = 0;         // of what each got done in the time measured
  double utilisation = 0;  // of the receiver's wire, payload only
  uint64_t dropped = 0;
  Verdict verdict;
};
FairnessResult RunFairness(const FairnessRun& run);

// All senders begin at once, each with so much for the same node.
struct IncastRun {
  uint64_t seed = 1;
  size_t senders = 32;
  bool go_back_n = false;
  uint32_t bytes = 64 << 10;
  uint64_t queue_bytes = 256 << 10;
};
struct IncastResult {
  bool is_finished = false;
  double last_ms = 0;   // when the last one was done
  double slowdown = 0;  // that, to what the receiver's wire needs for it all
  uint64_t dropped = 0;
  Verdict verdict;
};
IncastResult RunIncast(const IncastRun& run);

// One link that is always busy.
struct GoodputRun {
  uint64_t seed = 1;
  bool go_back_n = false;
  double loss = 0, reorder = 0;
  uint64_t stall_every_ns = 0;
  uint64_t measured_ns = 200 * kMillisecond;
};
struct GoodputResult {
  double gigabits_per_s = 0;
  double sent_to_needed = 0;  // frames sent, to those that would have done
  NicCounters totals;
  Verdict verdict;
};
GoodputResult RunGoodput(const GoodputRun& run);

// Bytes of heap (of tripwires: of memory in use), both ends together where there are two.
struct Costs {
  double idle_link = 0;  // one end of a link on which nothing was sent
  double busy_link = 0;  // one end, when both have sent
  double tripwire = 0;
  double aperture = 0;
};
Costs MeasureCosts(size_t links, size_t tripwires);

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_SIM_SCALE_SCENARIOS_H_
