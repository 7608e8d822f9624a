// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_ATTR_H_
#define TRIPWIRE_FS_SERVER_ATTR_H_

#include <sys/stat.h>

#include "fs-server/proto/fs.pb.h"

namespace tripwire::fs {

// What GETATTR needs of statx.
inline constexpr unsigned kAttrMask = STATX_BASIC_STATS | STATX_BTIME;

void ToAttr(const struct statx& stx, pb::Attr* attr);

// Attr::change of a file. ctime moves with every change of data or attributes; its
// granularity is the kernel's.
uint64_t ChangeOf(const struct statx& stx);

// statx of an open descriptor of any kind. 0 or an errno.
int StatFd(int fd, struct statx* stx, int sync_flags = 0);

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_ATTR_H_
