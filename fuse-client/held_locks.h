// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_HELD_LOCKS_H_
#define TRIPWIRE_FUSE_CLIENT_HELD_LOCKS_H_

#include <cstdint>
#include <vector>

#include "fs-server/proto/fs.pb.h"

namespace tripwire::fuse {

// One lock the server granted us. `end` is the last byte, UINT64_MAX for "to the
// end of the file".
struct HeldLock {
  fs::pb::LockKind kind = fs::pb::LOCK_KIND_POSIX;
  fs::pb::LockType type = fs::pb::LOCK_TYPE_READ;
  uint64_t owner = 0;
  uint32_t pid = 0;
  uint64_t start = 0;
  uint64_t end = UINT64_MAX;
};

// The locks held on one file, kept so that they can be reclaimed after the
// server restarted. Ranges of one owner are replaced, split and joined as fcntl(2)
// does. Not thread-safe.
struct HeldLocks {
  std::vector<HeldLock> locks;

  // A lock or, with type LOCK_TYPE_UNLOCK, an unlock was granted.
  void Apply(const HeldLock& granted);
  // All locks of an owner are gone.
  void Drop(fs::pb::LockKind kind, uint64_t owner);
  bool Has(fs::pb::LockKind kind, uint64_t owner) const;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_HELD_LOCKS_H_
