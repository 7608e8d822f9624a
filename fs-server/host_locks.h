// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_HOST_LOCKS_H_
#define TRIPWIRE_FS_SERVER_HOST_LOCKS_H_

#include <cstdint>

#include "nic/base/fd.h"

namespace tripwire::fs {

// Clients' locks as the processes of the server's own host see them: locks of an open
// file description of ours (fcntl(2), F_OFD_SETLK; flock(2)), one for each file on which
// clients hold or want locks. Among clients they mean nothing.
//
// Where the server may not write a file, others see no exclusive range of it; on what is
// neither a file nor a directory, nothing at all.
class HostLocks {
 public:
  enum class Strength : uint8_t { kNone, kShared, kExclusive };

  // Opens the inode `fd` is on (O_PATH or not), acting as the server itself. For no
  // inode, -1.
  explicit HostLocks(int fd = -1);

  // Makes the lock on the bytes [start, end], or on the whole, this strong. False when a
  // process of this host is in the way. Never waits.
  bool SetRange(uint64_t start, uint64_t end, Strength strength);
  bool SetWhole(Strength strength);

  // Whether a process of this host is in the way of such a lock, and where.
  struct Conflict {
    bool exclusive = false;
    uint64_t start = 0;
    uint64_t end = UINT64_MAX;
  };
  bool FindConflict(uint64_t start, uint64_t end, bool exclusive, Conflict* conflict) const;

 private:
  UniqueFd fd_;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_HOST_LOCKS_H_
