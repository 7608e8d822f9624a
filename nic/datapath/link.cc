// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/link.h"

#include <algorithm>

namespace tripwire {
namespace {

// The first time-out is a probe (one frame) and comes soon; real time-outs must
// outlast a scheduler that leaves a process aside for milliseconds.
constexpr uint64_t kMinProbeNs = 2 * kMillisecond;
constexpr uint64_t kMaxProbeNs = 20 * kMillisecond;
constexpr uint64_t kMinTimeoutNs = 10 * kMillisecond;
constexpr uint64_t kMaxTimeoutNs = 500 * kMillisecond;

}  // namespace

// RFC 6298 section 2.
void Link::MeasureRoundTrip(uint64_t sample_ns) {
  if (smoothed_rtt == 0) {
    smoothed_rtt = least_rtt = std::max<uint64_t>(sample_ns, 1);
    rtt_variance = sample_ns / 2;
    return;
  }
  // It follows a path that has become longer, in some hundreds of round trips.
  least_rtt = sample_ns < least_rtt ? sample_ns
                                    : least_rtt + (sample_ns - least_rtt) / 256;
  const uint64_t error = sample_ns > smoothed_rtt ? sample_ns - smoothed_rtt
                                                  : smoothed_rtt - sample_ns;
  rtt_variance = (3 * rtt_variance + error) / 4;
  smoothed_rtt = std::max<uint64_t>((7 * smoothed_rtt + sample_ns) / 8, 1);
}

uint64_t Link::RetransmitTimeoutNs() const {
  if (backoff == 0) {
    return std::clamp(2 * smoothed_rtt + rtt_variance, kMinProbeNs, kMaxProbeNs);
  }
  const uint64_t base =
      std::max(smoothed_rtt + 4 * rtt_variance, kMinTimeoutNs);
  const uint64_t timeout = std::min(base << std::min(backoff - 1, 10u), kMaxTimeoutNs);
  return timeout + timeout * timeout_spread / (2 * kSpreads);
}

uint64_t ExpandSequence(uint32_t wire, uint64_t near) {
  const auto difference =
      static_cast<int32_t>(wire - static_cast<uint32_t>(near));
  return near + static_cast<int64_t>(difference);
}

}  // namespace tripwire
