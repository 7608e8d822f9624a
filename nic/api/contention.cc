// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/contention.h"

#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "nic/base/clock.h"

namespace tripwire {
namespace {

// A slice is lost at each new look, so these are many slices.
constexpr uint64_t kAtFirstNs = 100 * kMillisecond;
constexpr uint64_t kAtMostNs = 2 * kSecond;

}  // namespace

bool Contention::WasPreempted() {
  thread_local long seen = 0;
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return std::exchange(seen, usage.ru_nivcsw) != usage.ru_nivcsw;
}

void Contention::NoteLong(uint64_t between_ns, uint64_t now_ns) {
  // It may have been a long burst, or the host of a virtual machine.
  if (!was_preempted_()) return;
  if (between_ns <= kept_ns_) {
    kept_ns_ -= between_ns;
    return;
  }
  kept_ns_ = 0;
  const bool again = now_ns < until_ns_ + kAtFirstNs;
  for_ns_ = again ? std::min(2 * for_ns_, kAtMostNs) : kAtFirstNs;
  until_ns_ = now_ns + for_ns_;
  ++times_;
}

}  // namespace tripwire
