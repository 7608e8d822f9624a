// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/attr.h"

#include <fcntl.h>

#include <cerrno>

namespace tripwire::fs {

uint64_t ChangeOf(const struct statx& stx) {
  return static_cast<uint64_t>(stx.stx_ctime.tv_sec) * 1'000'000'000u + stx.stx_ctime.tv_nsec;
}

int StatFd(int fd, struct statx* stx, int sync_flags) {
  return statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | sync_flags, kAttrMask, stx) == 0
             ? 0
             : errno;
}

void ToAttr(const struct statx& stx, pb::Attr* attr) {
  attr->set_ino(stx.stx_ino);
  attr->set_mode(stx.stx_mode);
  attr->set_nlink(stx.stx_nlink);
  attr->set_uid(stx.stx_uid);
  attr->set_gid(stx.stx_gid);
  attr->set_size(stx.stx_size);
  attr->set_blocks(stx.stx_blocks);
  attr->set_mtime_s(stx.stx_mtime.tv_sec);
  attr->set_mtime_ns(stx.stx_mtime.tv_nsec);
  attr->set_ctime_s(stx.stx_ctime.tv_sec);
  attr->set_ctime_ns(stx.stx_ctime.tv_nsec);
  attr->set_atime_s(stx.stx_atime.tv_sec);
  attr->set_atime_ns(stx.stx_atime.tv_nsec);
  attr->set_change(ChangeOf(stx));
  attr->set_blksize(stx.stx_blksize);
  if ((stx.stx_mask & STATX_BTIME) != 0) {
    attr->set_has_btime(true);
    attr->set_btime_s(stx.stx_btime.tv_sec);
    attr->set_btime_ns(stx.stx_btime.tv_nsec);
  }
  if (S_ISCHR(stx.stx_mode) || S_ISBLK(stx.stx_mode)) {
    attr->set_rdev_major(stx.stx_rdev_major);
    attr->set_rdev_minor(stx.stx_rdev_minor);
  }
  attr->set_attributes(stx.stx_attributes);
  attr->set_attributes_mask(stx.stx_attributes_mask);
  attr->set_fsid(static_cast<uint64_t>(stx.stx_dev_major) << 32 | stx.stx_dev_minor);
}

}  // namespace tripwire::fs
