// SPDX-License-Identifier: BSD-3-Clause
// What statistics may see. Each call looks at a bounded number of slots, so
// that nobody who waits for the engine's lock waits for a table of a million
// entries.
#include <algorithm>

#include "nic/datapath/engine.h"

namespace tripwire {

bool Engine::ShowLinks(StatsCursor& at, size_t most,
                       absl::FunctionRef<void(const Link& link)> show) const {
  const size_t end = std::min(links_.size(), at.slot + most);
  for (; at.slot < end; ++at.slot) {
    const Link* link = links_[at.slot].get();
    if (link != nullptr && link->state != LinkState::kFree) show(*link);
  }
  return at.slot < links_.size();
}

bool Engine::ShowApertures(
    StatsCursor& at, size_t most,
    absl::FunctionRef<void(uint32_t context, uint32_t handle,
                           const ApertureEntry& entry)>
        show) const {
  while (at.table < contexts_.size()) {
    const ContextState& context = *contexts_[at.table];
    const size_t size = context.live ? context.apertures.slots() : 0;
    const size_t end = std::min(size, at.slot + most);
    most -= std::max(end, at.slot) - at.slot;
    for (; at.slot < end; ++at.slot) {
      const auto handle = static_cast<uint32_t>(at.slot);
      const ApertureEntry& entry = context.apertures.slot(handle);
      if (entry.exported) show(static_cast<uint32_t>(at.table), handle, entry);
    }
    if (at.slot < size || most == 0) return true;
    ++at.table;
    at.slot = 0;
    --most;  // contexts count, too
  }
  return false;
}

bool Engine::ShowTripwires(
    StatsCursor& at, size_t most,
    absl::FunctionRef<void(uint32_t id, const TripwireEntry& entry,
                           const TripwireRange& range)>
        show) const {
  const size_t end = std::min(tripwires_.size(), at.slot + most);
  for (; at.slot < end; ++at.slot) {
    const TripwireEntry& entry = tripwires_[at.slot];
    if (entry.made != 0) {
      show(static_cast<uint32_t>(at.slot), entry, ranges_[at.slot]);
    }
  }
  return at.slot < tripwires_.size();
}

}  // namespace tripwire
