// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/host_locks.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "fs-server/identity.h"

namespace tripwire::fs {
namespace {

struct flock Range(short type, uint64_t start, uint64_t end) {
  struct flock range = {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(std::min<uint64_t>(start, INT64_MAX));
  range.l_len = end >= INT64_MAX ? 0 : static_cast<off_t>(end - start + 1);
  return range;
}

}  // namespace

HostLocks::HostLocks(int fd) {
  struct stat st;
  if (fd < 0 || fstat(fd, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) ||
      identity::AssumeSelf() != 0) {
    return;
  }
  char path[40];
  std::snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  if (S_ISREG(st.st_mode)) fd_.reset(open(path, O_RDWR | kFlags));
  if (!fd_) fd_.reset(open(path, O_RDONLY | kFlags));
}

bool HostLocks::SetRange(uint64_t start, uint64_t end, Strength strength) {
  if (!fd_ || start > INT64_MAX) return true;
  const short type = strength == Strength::kNone     ? F_UNLCK
                     : strength == Strength::kShared ? F_RDLCK
                                                     : F_WRLCK;
  struct flock range = Range(type, start, end);
  if (fcntl(fd_.get(), F_OFD_SETLK, &range) == 0) return true;
  return errno != EAGAIN && errno != EACCES;
}

bool HostLocks::SetWhole(Strength strength) {
  if (!fd_) return true;
  const int operation = strength == Strength::kNone     ? LOCK_UN
                        : strength == Strength::kShared ? LOCK_SH
                                                        : LOCK_EX;
  return flock(fd_.get(), operation | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

bool HostLocks::FindConflict(uint64_t start, uint64_t end, bool exclusive,
                             Conflict* conflict) const {
  if (!fd_ || start > INT64_MAX) return false;
  struct flock range = Range(exclusive ? F_WRLCK : F_RDLCK, start, end);
  if (fcntl(fd_.get(), F_OFD_GETLK, &range) != 0 || range.l_type == F_UNLCK) return false;
  conflict->exclusive = range.l_type == F_WRLCK;
  conflict->start = static_cast<uint64_t>(range.l_start);
  conflict->end = range.l_len == 0 ? UINT64_MAX
                                   : static_cast<uint64_t>(range.l_start + range.l_len - 1);
  return true;
}

}  // namespace tripwire::fs
