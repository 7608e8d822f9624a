// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_CLOCK_OFFSET_H_
#define TRIPWIRE_PERIPH_STREAM_CLOCK_OFFSET_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace tripwire::periph {

// How far a peer's clock is from ours, from exchanges of four times as in NTP
// (RFC 5905, section 8) with its clock filter (section 10): of the last eight
// exchanges the one with the smallest error is believed. That is half the round
// trip, because queues delay one direction and never make a trip shorter, and
// 100 ppm of the time since, for clocks that drift apart.
class ClockOffset {
 public:
  // Sent and received here at `sent_ns`, `back_ns`; received and answered there
  // at `there_ns`, `answered_ns`. False (and ignored) if the times cannot be: a
  // peer may say anything.
  bool Add(uint64_t sent_ns, uint64_t there_ns, uint64_t answered_ns,
           uint64_t back_ns);

  bool known() const { return count_ > 0; }
  int64_t offset_ns() const;  // our clock minus the peer's; 0 if not known
  uint64_t error_ns()
      const;  // the bound, at the last exchange; all there is if not known
  // A time of the peer's on our clock, or the nearest that there is.
  uint64_t ToOurs(uint64_t peer_ns) const;

 private:
  struct Sample {
    int64_t offset_ns;
    uint64_t round_trip_ns;
    uint64_t back_ns;
  };
  uint64_t ErrorOf(const Sample& sample) const;
  const Sample& best() const;
  std::array<Sample, 8> samples_{};
  size_t count_ = 0, next_ = 0;
  uint64_t newest_ns_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_CLOCK_OFFSET_H_
