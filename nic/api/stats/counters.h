// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_STATS_COUNTERS_H_
#define TRIPWIRE_NIC_API_STATS_COUNTERS_H_

#include <cstddef>
#include <vector>

#include "nic/api/nic.h"
#include "nic/api/stats/stats.h"

namespace tripwire::stats {

// Counters under the names that `tw stat` shows: the NIC's, and what it dropped
// and refused, by reason.
std::vector<Group> Describe(const NicCounters& counters);
Group Describe(size_t port_index, const PortCounters& counters);
// All of the above.
std::vector<Group> Groups(Nic& nic);

// The NIC's links, apertures and tripwires: at most `limit` of each, the most
// active first.
std::vector<Table> Tables(Nic& nic, size_t limit);

}  // namespace tripwire::stats

#endif  // TRIPWIRE_NIC_API_STATS_COUNTERS_H_
