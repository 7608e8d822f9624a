// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_FUSE_ABI_H_
#define TRIPWIRE_FUSE_CLIENT_FUSE_ABI_H_

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

// Parts of the kernel's FUSE protocol that are newer than the headers this is built
// with or than the FUSE library. Layout only; host byte order, as the device speaks.
namespace tripwire::fuse::abi {

inline constexpr uint32_t kTmpFile = 51;  // request: fuse_create_in; Linux 6.2
inline constexpr uint32_t kStatX = 52;    // Linux 6.6

inline constexpr uint64_t kDirectIoAllowMmap = uint64_t{1} << 36;  // INIT; Linux 6.6

inline constexpr int32_t kNotifyIncEpoch = 8;  // no payload; Linux 6.16

struct StatXIn {
  uint32_t getattr_flags;
  uint32_t reserved;
  uint64_t fh;
  uint32_t sx_flags;
  uint32_t sx_mask;
};
static_assert(sizeof(StatXIn) == 24);

struct Time {
  int64_t seconds;
  uint32_t nanoseconds;
  int32_t reserved;
};
static_assert(sizeof(Time) == 16);

struct StatX {
  uint32_t mask;
  uint32_t blksize;
  uint64_t attributes;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint16_t mode;
  uint16_t spare0;
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  uint64_t attributes_mask;
  Time atime;
  Time btime;
  Time ctime;
  Time mtime;
  uint32_t rdev_major;
  uint32_t rdev_minor;
  uint32_t dev_major;
  uint32_t dev_minor;
  uint64_t spare2[14];
};
static_assert(sizeof(StatX) == 256);
static_assert(offsetof(StatX, atime) == 64);

struct StatXOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec;
  uint32_t flags;
  uint64_t spare[2];
  StatX stat;
};
static_assert(sizeof(StatXOut) == 288);

}  // namespace tripwire::fuse::abi

#endif  // TRIPWIRE_FUSE_CLIENT_FUSE_ABI_H_
