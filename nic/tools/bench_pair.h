// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_TOOLS_BENCH_PAIR_H_
#define TRIPWIRE_NIC_TOOLS_BENCH_PAIR_H_

#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"

namespace tripwire::tools {

// The two ends of one measurement.
struct BenchEnds {
  std::string near_port;  // of this process
  std::string far_port;   // of the process at the other end
  std::string
      far_netns;  // network namespace (a path) to put that one in; may be empty
  // The processors they run on; -1: any.
  int near_cpu = -1, far_cpu = -1;
};

// The first and the last processor that this process may use: left to itself,
// the scheduler puts two processes that wake each other on one processor, or
// does not, and nothing would compare with anything.
void PlaceApart(BenchEnds* ends);

// A child process that plays the other end: `body` runs in it, gets a
// descriptor to write its report to, and calls `ready` once the near end may
// start. Must be made before this process has threads. Dies with its parent.
class FarEnd {
 public:
  using Body = std::function<absl::Status(const std::function<void()>& ready,
                                          int report_fd)>;
  static absl::StatusOr<FarEnd> Start(const BenchEnds& ends, const Body& body);
  FarEnd(FarEnd&&) noexcept;
  ~FarEnd();  // ends it

  // Waits for it to end by itself and takes its report; an error if it failed.
  absl::StatusOr<std::string> Finish();

 private:
  FarEnd(pid_t pid, UniqueFd report) : pid_(pid), report_(std::move(report)) {}
  pid_t pid_;
  UniqueFd report_;
};

// Times of many round trips.
class Latencies {
 public:
  explicit Latencies(size_t expected) { times_ns_.reserve(expected); }
  void Add(uint64_t ns) { times_ns_.push_back(ns); }
  // REQUIRES: not empty; 0 <= fraction <= 1.
  uint64_t Quantile(double fraction) {
    const auto index = static_cast<size_t>(
        fraction * static_cast<double>(times_ns_.size() - 1));
    std::nth_element(times_ns_.begin(),
                     times_ns_.begin() + static_cast<long>(index),
                     times_ns_.end());
    return times_ns_[index];
  }

 private:
  std::vector<uint64_t> times_ns_;
};

struct RoundTrip {
  uint64_t median_ns = 0;
  uint64_t p99_ns = 0;
};

struct Goodput {
  uint64_t bytes = 0;   // of payload
  uint64_t frames = 0;  // Ethernet frames that carried it
  uint64_t ns = 0;
  double BytesPerSecond() const {
    return ns == 0 ? 0
                   : static_cast<double>(bytes) * 1e9 / static_cast<double>(ns);
  }
  double FramesPerSecond() const {
    return ns == 0
               ? 0
               : static_cast<double>(frames) * 1e9 / static_cast<double>(ns);
  }
};

// Runs a measurement in a process of its own, so that each starts with a fresh
// packet library and without the threads of the one before. T is plain data.
absl::Status RunIsolated(const BenchEnds& ends,
                         const std::function<absl::Status(void* result)>& body,
                         void* result, size_t result_bytes);
template <typename T, typename F>
absl::StatusOr<T> Isolated(const BenchEnds& ends, F measure) {
  static_assert(std::is_trivially_copyable_v<T>);
  T result{};
  const absl::Status status = RunIsolated(
      ends,
      [&](void* out) -> absl::Status {
        absl::StatusOr<T> measured = measure();
        if (measured.ok()) *static_cast<T*>(out) = *measured;
        return measured.status();
      },
      &result, sizeof result);
  if (!status.ok()) return status;
  return result;
}

template <typename T, typename F>
absl::StatusOr<T> Isolated(F measure) {  // on any processor
  return Isolated<T>(BenchEnds(), measure);
}

// The floor: the same ports with nothing on top.
absl::StatusOr<RoundTrip> RawRoundTrip(const BenchEnds& ends, int rounds);
// Frames of so many bytes, more than 64; 0: the largest there are. Their data
// comes out of and goes into `memory_bytes` of memory, front to back; 0: the
// sender writes none, and the receiver's stays in its cache.
absl::StatusOr<Goodput> RawGoodput(const BenchEnds& ends, uint64_t duration_ns,
                                   uint32_t frame_bytes = 0,
                                   uint64_t memory_bytes = 0);

// The NIC's API over them, waiting by spinning for as long as it takes.
absl::StatusOr<RoundTrip> NicRoundTrip(const BenchEnds& ends, int rounds);
// The same, waiting by blocking at once; and in turn with it, a few rounds of
// one and a few of the other, bare wake-ups between the same two threads. One
// after the other would meet another machine each: what waking a sleeper takes
// changes from second to second.
struct BlockingRoundTrip {
  RoundTrip nic, wake_up;
};
absl::StatusOr<BlockingRoundTrip> NicBlockingRoundTrip(const BenchEnds& ends,
                                                       int rounds);
// Writes of so many bytes, posted in lists of so many (1: each by a call of its
// own).
absl::StatusOr<Goodput> NicGoodput(const BenchEnds& ends, uint32_t write_bytes,
                                   size_t list, uint64_t duration_ns);

// Eventfds between two processes, whose reads block. To be made before the
// second process is.
class BareWakeUp {
 public:
  static absl::StatusOr<BareWakeUp> Make();
  bool AskAndAwait() const;     // the near end
  bool AwaitAndAnswer() const;  // the far end

 private:
  UniqueFd near_, far_;  // what each reads
};

// The same 8 bytes there and back by sockets, always on this machine. `spin`
// reads until something is there, otherwise reads block. REQUIRES: run by
// Isolated.
enum class Peer { kUdp, kTcp };
absl::StatusOr<RoundTrip> PeerRoundTrip(const BenchEnds& ends, Peer peer,
                                        bool spin, int rounds);

}  // namespace tripwire::tools

#endif  // TRIPWIRE_NIC_TOOLS_BENCH_PAIR_H_
