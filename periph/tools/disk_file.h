// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_DISK_FILE_H_
#define TRIPWIRE_PERIPH_TOOLS_DISK_FILE_H_

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "periph/client/disk.h"

struct fuse_lowlevel_ops;

namespace tripwire::periph {

// What the local kernel keeps of a disk in its memory.
enum class DiskCache {
  kThrough,  // what was read; a write returns when the server has the data
  kBack,     // writes too, until an fsync, or until it likes to write them
  kNone,     // nothing
};

// The errno that users of a file get for a disk's error.
int ErrnoOf(const absl::Status& status);

// A file system of a directory with one file, the disk. As a disk, and unlike other files,
// it has one size for ever: it cannot grow, and what is beyond its end is ENOSPC to write.
// Thread-safe.
class DiskFile {
 public:
  DiskFile(std::shared_ptr<RemoteDisk> disk, std::string name, DiskCache cache);

  // For fuse_session_new, with the DiskFile as its user data.
  static const fuse_lowlevel_ops& Operations();

  static constexpr uint64_t kDirectoryInode = 1, kFileInode = 2;
  RemoteDisk& disk() { return *disk_; }
  const std::string& name() const { return name_; }
  DiskCache cache() const { return cache_; }
  uint64_t size_bytes() const { return disk_->geometry().size_bytes; }
  bool read_only() const { return disk_->geometry().read_only; }

  struct stat Attributes(uint64_t inode);
  // Sets what `mask` (FUSE_SET_ATTR_*) names.
  void SetAttributes(uint64_t inode, const struct stat& wanted, int mask);

 private:
  const std::shared_ptr<RemoteDisk> disk_;
  const std::string name_;
  const DiskCache cache_;
  std::mutex mutex_;
  struct stat directory_ = {}, file_ = {};
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_TOOLS_DISK_FILE_H_
