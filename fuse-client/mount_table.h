// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_MOUNT_TABLE_H_
#define TRIPWIRE_FUSE_CLIENT_MOUNT_TABLE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tripwire::fuse {

// The device ("0:53") of the topmost mount on `path` (absolute, no symbolic links)
// according to /proc/self/mountinfo; empty when nothing is mounted there. Does not
// touch the mounted file system.
std::string DeviceOfMount(std::string_view path);
std::string DeviceOfMount(std::string_view mountinfo, std::string_view path);

// Takes what is mounted on `path` away, also when it is in use: umount2(2) for root,
// fusermount3 for others.
void DetachMount(const std::string& path);

// The absolute path of a directory to mount on, or why it cannot be one, in one
// sentence: it does not exist, is no directory, is a dead FUSE mount, has one of
// ours mounted already, or may not be mounted on by this user.
absl::StatusOr<std::string> CheckMountPoint(const std::string& path);

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_MOUNT_TABLE_H_
