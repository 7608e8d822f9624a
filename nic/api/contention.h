// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_CONTENTION_H_
#define TRIPWIRE_NIC_API_CONTENTION_H_

#include <algorithm>
#include <cstdint>

namespace tripwire {

// Whether others want the processors that our threads spin on. Then spinning
// costs the spinner most: the scheduler prefers, when he wakes, who has slept,
// and lets who has spun away his share wait for whole slices of others.
//
// It is taken to be so, for some time, once spinning threads have lost more time
// to others than they kept of late; and for longer each time that it soon turns
// out not to have ended.
//
// Thread safety: none; but any thread may ask for itself.
class Contention {
 public:
  // Whether the calling thread had to leave its processor since it last asked.
  static bool WasPreempted();

  explicit Contention(bool (*was_preempted)() = &WasPreempted)
      : was_preempted_(was_preempted) {}

  // A spinning thread looked at the clock at these two times, and did not sleep
  // in between.
  void Note(uint64_t before_ns, uint64_t now_ns) {
    const uint64_t between_ns = now_ns - before_ns;
    if (between_ns > kStolenNs) [[unlikely]] {
      NoteLong(between_ns, now_ns);
    } else {
      kept_ns_ = std::min(kept_ns_ + between_ns, kMostKeptNs);
    }
  }
  bool is_there(uint64_t now_ns) const { return now_ns < until_ns_; }
  // How often it began, or turned out not to have ended.
  uint64_t times() const { return times_; }

 private:
  // Longer than a turn of a spin and any visit of the system's own threads; much
  // shorter than a slice.
  static constexpr uint64_t kStolenNs = 500'000;
  static constexpr uint64_t kMostKeptNs = 20'000'000;

  void NoteLong(uint64_t between_ns, uint64_t now_ns);

  bool (*const was_preempted_)();
  uint64_t kept_ns_ = 0;  // of late, less what was lost
  uint64_t until_ns_ = 0, for_ns_ = 0;
  uint64_t times_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_CONTENTION_H_
