// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_SCALE_TRAFFIC_H_
#define TRIPWIRE_TESTS_SIM_SCALE_TRAFFIC_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/scale/scale_network.h"

namespace tripwire {

struct TrafficOptions {
  uint32_t aperture_bytes = 4096;
  uint32_t tripwires = 6;    // of each link: in-bound and out-bound
  uint32_t operations = 20;  // of each link; 0: until Stop
  uint32_t window = 4;       // operations of a link under way at once
  // Writes of this length and nothing else; 0: a mix of everything.
  uint32_t bulk_bytes = 0;
};

// What the reference model found, summed over all links.
struct Verdict {
  uint64_t links = 0;
  uint64_t operations = 0;
  uint64_t firings = 0;  // that the model expects
  uint64_t missed = 0, false_firings = 0;
  uint64_t wrong_events = 0;   // events tell another number than the count
  uint64_t early_firings = 0;  // told before the data was there
  uint64_t wrong_memory = 0;   // links whose memory differs from the model's
  uint64_t wrong_answers = 0;  // reads and atomics that gave something else
  uint64_t failed = 0;         // operations that ended otherwise than well

  bool is_perfect() const {
    return missed + false_firings + wrong_events + early_firings +
               wrong_memory + wrong_answers + failed ==
           0;
  }
};

// Links with traffic, and a model of what it does to memory and tripwires: what
// an operation does is entered into the model when it is issued, and found when
// all are done.
class Traffic {
 public:
  Traffic(ScaleNetwork& network, TrafficOptions options);
  ~Traffic();

  // Connects these pairs of nodes (initiator, target); false when some are not
  // up in time.
  bool Connect(const std::vector<std::pair<size_t, size_t>>& pairs);
  void Start();
  // Nothing new from now on.
  void Stop() { is_stopped_ = true; }
  // Runs until everything issued is done, or for the time.
  bool Finish(uint64_t limit_ns);
  void RunFor(uint64_t ns);

  size_t links() const { return flows_.size(); }
  uint64_t bytes_done(size_t link) const;
  uint64_t bytes_done() const { return bytes_done_; }
  uint64_t finished_ns(size_t link) const;  // when its last operation was done
  Verdict Check();

 private:
  struct Flow;
  struct Operation;
  struct Watched;

  void OnTurn(size_t node);
  void OnEvent(size_t node, const Event& event);
  void Accept(size_t node, LinkId link);
  void LinkUp(size_t node, LinkId link);
  void SetTripwires(Flow& flow);
  void Issue(Flow& flow);
  void IssueMixed(Flow& flow, Operation& operation);
  void IssueWrite(Flow& flow, Operation& operation, uint64_t offset,
                  std::span<const uint8_t> data);
  void Touch(Flow& flow, uint64_t offset, uint64_t length, Access access);
  void OnDone(Operation& operation);

  ScaleNetwork& network_;
  const TrafficOptions options_;
  std::vector<uint8_t> pool_;  // data of writes: random bytes
  std::vector<std::unique_ptr<Flow>> flows_;
  std::vector<absl::flat_hash_map<uint32_t, uint32_t>>
      flow_of_link_;                             // by node
  std::vector<std::vector<uint32_t>> runnable_;  // by node
  size_t up_ = 0;
  size_t active_ = 0;  // flows that have not finished
  bool is_stopped_ = false;
  uint64_t bytes_done_ = 0;
  Verdict verdict_;
};

// 1 when all have the same, 1/n when one has everything (Jain, Chiu, Hawe
// 1984).
double JainIndex(const std::vector<double>& shares);

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_SIM_SCALE_TRAFFIC_H_
