// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/held_locks.h"

#include <algorithm>

namespace tripwire::fuse {

void HeldLocks::Apply(const HeldLock& granted) {
  std::vector<HeldLock> kept;
  kept.reserve(locks.size() + 2);
  HeldLock joined = granted;
  for (const HeldLock& lock : locks) {
    if (lock.kind != granted.kind || lock.owner != granted.owner) {
      kept.push_back(lock);
      continue;
    }
    const bool same_type = lock.type == granted.type;
    // Ranges that touch count as overlapping when they can be joined.
    const bool before =
        lock.end < granted.start &&
        !(same_type && granted.start != 0 && lock.end == granted.start - 1);
    const bool after =
        lock.start > granted.end &&
        !(same_type && granted.end != UINT64_MAX && lock.start == granted.end + 1);
    if (before || after) {
      kept.push_back(lock);
    } else if (same_type) {
      joined.start = std::min(joined.start, lock.start);
      joined.end = std::max(joined.end, lock.end);
    } else {
      if (lock.start < granted.start) {
        kept.push_back(lock);
        kept.back().end = granted.start - 1;
      }
      if (lock.end > granted.end) {
        kept.push_back(lock);
        kept.back().start = granted.end + 1;
      }
    }
  }
  if (granted.type != fs::pb::LOCK_TYPE_UNLOCK) kept.push_back(joined);
  locks = std::move(kept);
}

void HeldLocks::Drop(fs::pb::LockKind kind, uint64_t owner) {
  locks.erase(std::remove_if(locks.begin(), locks.end(),
                             [&](const HeldLock& lock) {
                               return lock.kind == kind && lock.owner == owner;
                             }),
              locks.end());
}

bool HeldLocks::Has(fs::pb::LockKind kind, uint64_t owner) const {
  return std::any_of(locks.begin(), locks.end(), [&](const HeldLock& lock) {
    return lock.kind == kind && lock.owner == owner;
  });
}

}  // namespace tripwire::fuse
