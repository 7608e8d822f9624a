// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/directory_names.h"

#include <algorithm>

namespace tripwire::fuse {

void DirectoryNames::Follow(uint64_t before, uint64_t after) {
  if (before != change_) {
    // Nothing joins on for ever after a change of somebody else's: then there is no use
    // in remembering more of ours.
    if (ahead_.size() < kMostAhead) ahead_.emplace_back(before, after);
    return;
  }
  change_ = after;
  for (auto next = ahead_.begin(); next != ahead_.end();) {
    if (next->first == change_) {
      change_ = next->second;
      ahead_.erase(next);
      next = ahead_.begin();
    } else {
      ++next;
    }
  }
}

void DirectoryNames::MaySearch(uint32_t uid, uint32_t gid) {
  if (!IsSearchedBy(uid, gid) && searchers_.size() < kMostSearchers) {
    searchers_.emplace_back(uid, gid);
  }
}

bool DirectoryNames::IsSearchedBy(uint32_t uid, uint32_t gid) const {
  return std::find(searchers_.begin(), searchers_.end(), std::pair(uid, gid)) !=
         searchers_.end();
}

}  // namespace tripwire::fuse
