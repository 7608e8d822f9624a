// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_PERF_RING_PAIR_H_
#define TRIPWIRE_TESTS_PERF_RING_PAIR_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "nic/port/port.h"

namespace tripwire {

// Two ports of DPDK's ring driver in one process, wired to each other: what the
// packet library's own way of a frame costs, with no wire at all. Frames change
// hands without a copy, and the pools of our ports know no other thread: both
// are for one thread.
struct RingPair {
  // What either takes before the other must receive.
  static constexpr size_t kFrames = 1023;

  std::shared_ptr<void> rings;  // to be kept until both ports are gone
  std::unique_ptr<Port> sender, receiver;
};

absl::StatusOr<RingPair> OpenRingPair(uint32_t max_frame_bytes);

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_PERF_RING_PAIR_H_
