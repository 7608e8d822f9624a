// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_CALLER_GROUPS_H_
#define TRIPWIRE_FUSE_CLIENT_CALLER_GROUPS_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "fuse-client/mutex.h"
#include "nic/base/fd.h"

namespace tripwire::fuse {

// The supplementary groups of callers, which FUSE does not tell.
//
// They are in /proc/TID/status. Opening that costs most, so the files of recent
// callers stay open: a descriptor for a thread that has ended reads as ESRCH, never
// as another thread's groups, and a read always tells the groups of this moment.
// One system call for a known caller. Thread-safe.
class CallerGroups {
 public:
  // Fills `groups`; empty when the caller is gone or not in our pid namespace.
  void Get(pid_t tid, std::vector<uint32_t>* groups);

  // Reads the "Groups:" line of a /proc/PID/status text.
  static void Parse(std::string_view status, std::vector<uint32_t>* groups);

 private:
  static constexpr size_t kSlots = 64;
  struct Slot {
    Mutex mu;
    pid_t tid = 0;
    UniqueFd fd;
  };
  std::array<Slot, kSlots> slots_;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_CALLER_GROUPS_H_
