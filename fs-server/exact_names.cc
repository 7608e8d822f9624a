// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/exact_names.h"

#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace tripwire::fs {
namespace {

// struct xfs_fsop_geom_v1 of the kernel's xfs_fs.h, as far as it matters here.
struct XfsGeometry {
  uint8_t sizes_and_ids[92];
  uint32_t flags;
  uint8_t rest[16];
};
static_assert(offsetof(XfsGeometry, flags) == 92 && sizeof(XfsGeometry) == 112);
constexpr unsigned long kXfsGetGeometry = _IOR('X', 100, XfsGeometry);
constexpr uint32_t kXfsFoldsAscii = 1u << 13;

}  // namespace

bool NamesAreExact(int fd) {
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) return false;
  switch (static_cast<uint32_t>(fs.f_type)) {
    case BTRFS_SUPER_MAGIC:
      return true;
    case XFS_SUPER_MAGIC: {
      XfsGeometry geometry = {};
      return ioctl(fd, kXfsGetGeometry, &geometry) == 0 &&
             (geometry.flags & kXfsFoldsAscii) == 0;
    }
    case EXT4_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC: {  // these fold by directory
      int flags = 0;
      if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) return (flags & FS_CASEFOLD_FL) == 0;
      return errno == ENOTTY && fs.f_type == TMPFS_MAGIC;  // before Linux 6.13: never
    }
    default:
      return false;
  }
}

}  // namespace tripwire::fs
