// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_OPS_DIR_RECORDS_H_
#define TRIPWIRE_FS_SERVER_OPS_DIR_RECORDS_H_

#include <dirent.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tripwire::fs {

// A record of getdents64(2), copied out of the kernel's buffer.
struct DirRecord {
  uint64_t ino;
  uint64_t next;  // position after it
  uint8_t type;
  const char* name;

  bool IsDots() const {  // "." or ".."
    return name[0] == '.' &&
           (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
  }
};

// Bytes read, 0 at the end, -1 with errno.
inline long ReadDirRecords(int fd, char* buffer, size_t bytes) {
  return syscall(SYS_getdents64, fd, buffer, bytes);
}

// Calls `f` for each record read until it returns false; that is then returned.
template <typename F>
bool ForEachRecord(const char* buffer, size_t bytes, F f) {
  constexpr size_t kNameAt = offsetof(struct dirent64, d_name);
  for (size_t at = 0; at < bytes;) {
    struct dirent64 head;
    std::memcpy(&head, buffer + at, kNameAt);
    const DirRecord record{head.d_ino, static_cast<uint64_t>(head.d_off), head.d_type,
                           buffer + at + kNameAt};
    if (!f(record)) return false;
    at += head.d_reclen;
  }
  return true;
}

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_OPS_DIR_RECORDS_H_
