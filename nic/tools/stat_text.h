// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_TOOLS_STAT_TEXT_H_
#define TRIPWIRE_NIC_TOOLS_STAT_TEXT_H_

#include <string>
#include <vector>

#include "nic/api/stats/stats.h"

// What `tw stat` prints for people.
namespace tripwire::tools {

struct StatLayout {
  bool zeros = false;  // counters and columns that are zero, too
};

// One program. With `before`, an earlier look at the same one, also what
// changed in a second.
std::string StatText(const stats::ProcessStats& now,
                     const stats::ProcessStats* before,
                     const StatLayout& layout);
// The few lines of --brief.
std::string BriefStatText(const stats::ProcessStats& now);

// Drops the groups and tables that `only` does not name, unless it is empty.
void KeepOnly(const std::vector<std::string>& only, stats::ProcessStats& stats);

}  // namespace tripwire::tools

#endif  // TRIPWIRE_NIC_TOOLS_STAT_TEXT_H_
