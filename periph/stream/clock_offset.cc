// SPDX-License-Identifier: BSD-3-Clause
#include "periph/stream/clock_offset.h"

#include <algorithm>

namespace tripwire::periph {
namespace {

__extension__ typedef __int128 Wide;  // sums of any two times

// How far two clocks may drift apart: 100 us in a second, two bad crystals.
constexpr uint64_t kDriftDivisor = 10'000;

}  // namespace

bool ClockOffset::Add(uint64_t sent_ns, uint64_t there_ns, uint64_t answered_ns,
                      uint64_t back_ns) {
  if (back_ns < sent_ns || answered_ns < there_ns ||
      answered_ns - there_ns > back_ns - sent_ns) {
    return false;
  }
  const Wide offset = (Wide{sent_ns} - there_ns + back_ns - answered_ns) / 2;
  if (offset < INT64_MIN || offset > INT64_MAX) return false;
  samples_[next_] = {static_cast<int64_t>(offset),
                     (back_ns - sent_ns) - (answered_ns - there_ns), back_ns};
  newest_ns_ = std::max(newest_ns_, back_ns);
  next_ = (next_ + 1) % samples_.size();
  count_ = std::min(count_ + 1, samples_.size());
  return true;
}

uint64_t ClockOffset::ErrorOf(const Sample& sample) const {
  // The middle of the exchange is when the clocks were compared.
  const uint64_t age_ns = newest_ns_ - sample.back_ns + sample.round_trip_ns;
  return (sample.round_trip_ns + 1) / 2 + age_ns / kDriftDivisor + 1;
}

const ClockOffset::Sample& ClockOffset::best() const {
  return *std::min_element(samples_.begin(),
                           samples_.begin() + static_cast<ptrdiff_t>(count_),
                           [this](const Sample& a, const Sample& b) {
                             return ErrorOf(a) < ErrorOf(b);
                           });
}

int64_t ClockOffset::offset_ns() const {
  return known() ? best().offset_ns : 0;
}

uint64_t ClockOffset::error_ns() const {
  return known() ? ErrorOf(best()) : UINT64_MAX;
}

uint64_t ClockOffset::ToOurs(uint64_t peer_ns) const {
  const Wide ours = Wide{peer_ns} + offset_ns();
  if (ours < 0) return 0;
  return ours > UINT64_MAX ? UINT64_MAX : static_cast<uint64_t>(ours);
}

}  // namespace tripwire::periph
