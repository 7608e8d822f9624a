// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_STATS_TELEMETRY_H_
#define TRIPWIRE_NIC_API_STATS_TELEMETRY_H_

#include <cstdint>
#include <string>

#include "nic/api/nic.h"

namespace tripwire::stats {

// While it lives, DPDK's telemetry tells of this NIC (docs/tools.md has the
// commands). Costs nothing while nobody asks. The NIC must outlive it.
// Thread-safe.
class TelemetrySource {
 public:
  TelemetrySource(Nic& nic, std::string program);
  ~TelemetrySource();  // waits for an answer under way
  TelemetrySource(const TelemetrySource&) = delete;

 private:
  uint64_t number_;
};

}  // namespace tripwire::stats

#endif  // TRIPWIRE_NIC_API_STATS_TELEMETRY_H_
