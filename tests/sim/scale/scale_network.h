// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_SCALE_SCALE_NETWORK_H_
#define TRIPWIRE_TESTS_SIM_SCALE_SCALE_NETWORK_H_

#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "nic/api/context.h"
#include "nic/api/nic.h"
#include "nic/base/clock.h"
#include "nic/base/random.h"
#include "nic/port/fabric.h"
#include "nic/port/faulty_port.h"

namespace tripwire {

struct ScaleOptions {
  uint64_t seed = 1;
  size_t nodes = 2;
  bool go_back_n = false;
  uint32_t max_frame_bytes = 1514;
  FabricOptions fabric;
  FaultOptions faults;  // from SetFaults(true) on
  // A node's turn comes up to so much later than what it is for. Without, all of
  // a network goes in step, and who always comes just after others filled a queue
  // is shut out for ever (S. Floyd and V. Jacobson, On Traffic Phase Effects in
  // Packet-Switched Gateways, 1991; they recommend what one frame takes).
  uint64_t turn_jitter_ns = 0;
  // A node's processor is taken from it for stall_ns, on average every
  // stall_every_ns; 0: never.
  uint64_t stall_every_ns = 0, stall_ns = 5 * kMillisecond;
};

// A whole network in one thread, for sizes at which not every node can be
// looked at for every event: a node has its turn when a frame arrives for it or
// its own deadline is due. A run is a function of its options.
class ScaleNetwork {
 public:
  explicit ScaleNetwork(const ScaleOptions& options);
  ~ScaleNetwork();

  size_t size() const { return nodes_.size(); }
  Nic& nic(size_t node) { return *nodes_[node]->nic; }
  Context& context(size_t node) { return *nodes_[node]->context; }
  ManualClock& clock() { return clock_; }
  Random& random() { return random_; }
  Fabric& fabric() { return fabric_; }
  static std::string NameOf(size_t node);

  void SetFaults(bool are_on);
  // Gives a node its turn at this time, or soon after.
  void Wake(size_t node, uint64_t at_ns);

  // Runs until `done()` (true) or for `limit_ns` of simulated time; `on_turn`
  // is called with a node after each of its turns.
  bool Run(const std::function<void(size_t node)>& on_turn,
           const std::function<bool()>& done, uint64_t limit_ns);

  NicCounters Totals();

 private:
  struct Node {
    std::unique_ptr<Nic> nic;
    std::unique_ptr<Context> context;
    FaultyPort* port = nullptr;
    uint64_t deadline_ns = kNever;
    uint64_t next_stall_ns = kNever, stalled_until_ns = 0;
  };
  struct Turn {
    uint64_t at_ns;
    size_t node;
    bool is_deadline;  // and void when the node's deadline is another by then
    auto operator<=>(const Turn&) const = default;
  };

  uint64_t Jitter() { return random_.Below(options_.turn_jitter_ns + 1); }
  bool IsStalled(Node& node, uint64_t now_ns);

  const ScaleOptions options_;
  ManualClock clock_;
  Random random_;
  Fabric fabric_;
  std::vector<std::unique_ptr<Node>> nodes_;
  absl::flat_hash_map<uint64_t, size_t> node_of_mac_;
  std::priority_queue<Turn, std::vector<Turn>, std::greater<>> turns_;
  bool has_faults_ = false;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_SIM_SCALE_SCALE_NETWORK_H_
