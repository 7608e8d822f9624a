// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_PERF_STREAM_BENCH_H_
#define TRIPWIRE_TESTS_PERF_STREAM_BENCH_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "nic/tools/bench_pair.h"

namespace tripwire {

struct StreamLoad {
  uint64_t frame_bytes = 0;
  uint32_t slots = 4;
  uint64_t duration_ns = 0;
  uint64_t interval_ns = 0;  // between frames; 0: as many as go
  bool spin = true;          // wait by spinning, not by blocking
  // Frames the source makes in turn: more than one, so that they are not read
  // again from the nearest cache.
  uint32_t source_frames = 4;
};

// What one end did for all frames.
struct StreamEnd {
  uint64_t frames = 0, ns = 0, cpu_ns = 0;
  uint64_t allocations = 0, sleeps = 0, doorbells = 0, wakeups = 0;
  uint64_t reports = 0;  // of credit, by the consumer
  uint64_t lost = 0;     // frames that did not come, or not whole
};

struct StreamResult {
  StreamEnd feeder, consumer;
  uint64_t latency_p50_ns = 0, latency_p99_ns = 0;  // from Offer to Take
};

// Two processes: this one feeds, another consumes.
absl::StatusOr<StreamResult> RunStream(const tools::BenchEnds& ends,
                                       const StreamLoad& load);

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_PERF_STREAM_BENCH_H_
