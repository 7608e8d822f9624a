// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_DAEMON_H_
#define TRIPWIRE_FUSE_CLIENT_DAEMON_H_

#include <sys/types.h>

#include <string>

#include "nic/base/fd.h"

namespace tripwire::fuse {

// A small process that outlives this one by an instant and takes the mount away if
// this one could not (it was killed): a dead mount would make everyone who looks at
// it fail. Made while the process has one thread.
class MountGuard {
 public:
  static MountGuard Fork();
  // From now on there is something to take away.
  void Mounted(const std::string& mountpoint, const std::string& device);
  // The mount is gone; what is mounted there from now on is another's.
  void Ended();

 private:
  explicit MountGuard(UniqueFd pipe) : pipe_(std::move(pipe)) {}
  UniqueFd pipe_;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_DAEMON_H_
