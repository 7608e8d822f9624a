// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_STATS_COUNTERS_H_
#define TRIPWIRE_NIC_API_STATS_COUNTERS_H_

#include <cstddef>

#include "nic/api/nic.h"
#include "nic/api/stats/stats.h"

namespace tripwire::stats {

// Counters under the names that `tw stat` shows.
Group Describe(const NicCounters& counters);
Group Describe(size_t port_index, const PortCounters& counters);

}  // namespace tripwire::stats

#endif  // TRIPWIRE_NIC_API_STATS_COUNTERS_H_
