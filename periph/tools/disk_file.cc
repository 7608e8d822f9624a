// SPDX-License-Identifier: BSD-3-Clause
#define FUSE_USE_VERSION 312
#include "periph/tools/disk_file.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include "spdlog/spdlog.h"

namespace tripwire::periph {
namespace {

// All changes of names and attributes come through the one kernel that asks.
constexpr double kForEver = 86400;
constexpr unsigned kBlockBytes = 4096;

DiskFile& Self(fuse_req_t request) { return *static_cast<DiskFile*>(fuse_req_userdata(request)); }

void ReplyStatus(fuse_req_t request, const absl::Status& status) {
  const int error = ErrnoOf(status);
  if (error != 0) spdlog::error("{}", std::string(status.message()));
  fuse_reply_err(request, error);
}

bool IsOurs(uint64_t inode) {
  return inode == DiskFile::kDirectoryInode || inode == DiskFile::kFileInode;
}

void Init(void* self, fuse_conn_info* connection) {
  DiskFile& file = *static_cast<DiskFile*>(self);
  // With it the kernel would believe that the file is empty after an open with O_TRUNC.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC);
  // Nobody but this kernel changes the disk; times are no reason to drop its pages.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA);
  // Data goes to registered memory in any case: a pipe between would be no gain.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ);
  connection->want |= connection->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO);
  if (file.cache() == DiskCache::kBack) {
    connection->want |= connection->capable & FUSE_CAP_WRITEBACK_CACHE;
  }
  const auto piece = static_cast<unsigned>(file.disk().piece_bytes());
  connection->max_write = std::min(connection->max_write, piece);
  connection->max_read = piece;
  connection->max_readahead = piece;
  connection->max_background = 48;
  connection->congestion_threshold = 40;
}

void Lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  DiskFile& file = Self(request);
  fuse_entry_param entry = {};
  entry.entry_timeout = entry.attr_timeout = kForEver;
  if (parent != DiskFile::kDirectoryInode || file.name() != name) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  entry.ino = DiskFile::kFileInode;
  entry.attr = file.Attributes(entry.ino);
  fuse_reply_entry(request, &entry);
}

void GetAttr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  if (!IsOurs(inode)) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  const struct stat attributes = Self(request).Attributes(inode);
  fuse_reply_attr(request, &attributes, kForEver);
}

void SetAttr(fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int mask,
             fuse_file_info* info) {
  DiskFile& file = Self(request);
  if (!IsOurs(inode)) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  // open(2) with O_TRUNC, which disks ignore, comes without an open file.
  const bool is_open_truncating = info == nullptr && wanted->st_size == 0;
  if ((mask & FUSE_SET_ATTR_SIZE) && !is_open_truncating &&
      static_cast<uint64_t>(wanted->st_size) != file.size_bytes()) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  file.SetAttributes(inode, *wanted, mask);
  const struct stat attributes = file.Attributes(inode);
  fuse_reply_attr(request, &attributes, kForEver);
}

void Open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  DiskFile& file = Self(request);
  if (inode != DiskFile::kFileInode) {
    fuse_reply_err(request, EISDIR);
  } else if (file.read_only() && (info->flags & O_ACCMODE) != O_RDONLY) {
    fuse_reply_err(request, EROFS);
  } else {
    info->keep_cache = 1;
    info->direct_io = file.cache() == DiskCache::kNone;
    fuse_reply_open(request, info);
  }
}

void Read(fuse_req_t request, fuse_ino_t, size_t size, off_t offset, fuse_file_info*) {
  DiskFile& file = Self(request);
  const auto at = static_cast<uint64_t>(offset);
  if (offset < 0 || at >= file.size_bytes()) {
    fuse_reply_buf(request, nullptr, 0);
    return;
  }
  size = std::min<uint64_t>({size, file.size_bytes() - at, file.disk().piece_bytes()});
  thread_local rpc::Response response;  // its message's memory is used again
  const absl::Status status = file.disk().ReadPiece(at, size, &response);
  if (status.ok()) {
    fuse_reply_buf(request, reinterpret_cast<const char*>(response.bulk.data()), size);
  } else {
    ReplyStatus(request, status);
  }
  response.bulk.Reset();
}

void Write(fuse_req_t request, fuse_ino_t, const char* data, size_t size, off_t offset,
           fuse_file_info* info) {
  DiskFile& file = Self(request);
  const auto at = static_cast<uint64_t>(offset);
  if (offset < 0 || at >= file.size_bytes()) {
    fuse_reply_err(request, ENOSPC);
    return;
  }
  size = std::min<uint64_t>(size, file.size_bytes() - at);
  // Where the kernel keeps pages it asks for a flush by itself.
  const bool durable = file.cache() == DiskCache::kNone && (info->flags & O_DSYNC) != 0;
  const absl::Status status =
      file.disk().Write(at, {reinterpret_cast<const uint8_t*>(data), size}, durable);
  if (!status.ok()) return ReplyStatus(request, status);
  fuse_reply_write(request, size);
}

void FSync(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
  ReplyStatus(request, Self(request).disk().Flush());
}

// Whoever punches a hole reads zeroes there afterwards, which a discard does not promise.
void FAllocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset, off_t length,
               fuse_file_info*) {
  DiskFile& file = Self(request);
  constexpr int kZeroing = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  const auto at = static_cast<uint64_t>(offset);
  const auto bytes = static_cast<uint64_t>(length);
  if ((mode & ~(kZeroing | FALLOC_FL_KEEP_SIZE)) != 0 || (mode & kZeroing) == 0) {
    fuse_reply_err(request, EOPNOTSUPP);
  } else if (offset < 0 || length <= 0) {
    fuse_reply_err(request, EINVAL);
  } else if (at >= file.size_bytes() || bytes > file.size_bytes() - at) {
    fuse_reply_err(request, ENOSPC);
  } else if (file.read_only()) {
    fuse_reply_err(request, EROFS);
  } else {
    const bool may_unmap = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
    ReplyStatus(request, file.disk().WriteZeroes(at, bytes, may_unmap));
  }
}

void ReadDir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info*) {
  DiskFile& file = Self(request);
  if (inode != DiskFile::kDirectoryInode) {
    fuse_reply_err(request, ENOTDIR);
    return;
  }
  const std::pair<std::string, uint64_t> entries[] = {
      {".", inode}, {"..", inode}, {file.name(), DiskFile::kFileInode}};
  std::vector<char> out(size);
  size_t used = 0;
  for (off_t i = std::max<off_t>(offset, 0); i < 3; ++i) {
    const struct stat attributes = file.Attributes(entries[i].second);
    const size_t need = fuse_add_direntry(request, out.data() + used, size - used,
                                          entries[i].first.c_str(), &attributes, i + 1);
    if (need > size - used) break;
    used += need;
  }
  fuse_reply_buf(request, out.data(), used);
}

void StatFs(fuse_req_t request, fuse_ino_t) {
  struct statvfs out = {};
  out.f_bsize = out.f_frsize = kBlockBytes;
  out.f_blocks = Self(request).size_bytes() / kBlockBytes;
  out.f_files = 2;
  out.f_namemax = 255;
  fuse_reply_statfs(request, &out);
}

}  // namespace

int ErrnoOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kOutOfRange:
      return ENOSPC;
    case absl::StatusCode::kPermissionDenied:
      return EROFS;
    case absl::StatusCode::kUnimplemented:
      return EOPNOTSUPP;
    case absl::StatusCode::kUnavailable:
      return ENXIO;
    default:
      return EIO;
  }
}

DiskFile::DiskFile(std::shared_ptr<RemoteDisk> disk, std::string name, DiskCache cache)
    : disk_(std::move(disk)), name_(std::move(name)), cache_(cache) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  file_.st_uid = getuid();
  file_.st_gid = getgid();
  file_.st_atim = file_.st_mtim = file_.st_ctim = now;
  file_.st_blksize = kBlockBytes;
  directory_ = file_;
  directory_.st_ino = kDirectoryInode;
  directory_.st_mode = S_IFDIR | 0755;
  directory_.st_nlink = 2;
  file_.st_ino = kFileInode;
  file_.st_mode = S_IFREG | (read_only() ? 0400 : 0600);
  file_.st_nlink = 1;
  file_.st_size = static_cast<off_t>(size_bytes());
  file_.st_blocks = static_cast<blkcnt_t>((size_bytes() + 511) / 512);
}

struct stat DiskFile::Attributes(uint64_t inode) {
  std::lock_guard lock(mutex_);
  return inode == kFileInode ? file_ : directory_;
}

void DiskFile::SetAttributes(uint64_t inode, const struct stat& wanted, int mask) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  std::lock_guard lock(mutex_);
  struct stat& to = inode == kFileInode ? file_ : directory_;
  if (mask & FUSE_SET_ATTR_MODE) to.st_mode = (to.st_mode & S_IFMT) | (wanted.st_mode & 07777);
  if (mask & FUSE_SET_ATTR_UID) to.st_uid = wanted.st_uid;
  if (mask & FUSE_SET_ATTR_GID) to.st_gid = wanted.st_gid;
  if (mask & FUSE_SET_ATTR_ATIME) to.st_atim = wanted.st_atim;
  if (mask & FUSE_SET_ATTR_MTIME) to.st_mtim = wanted.st_mtim;
  if (mask & FUSE_SET_ATTR_CTIME) to.st_ctim = wanted.st_ctim;
  if (mask & FUSE_SET_ATTR_ATIME_NOW) to.st_atim = now;
  if (mask & FUSE_SET_ATTR_MTIME_NOW) to.st_mtim = now;
}

const fuse_lowlevel_ops& DiskFile::Operations() {
  static const fuse_lowlevel_ops operations = [] {
    fuse_lowlevel_ops ops = {};
    ops.init = &Init;
    ops.lookup = &Lookup;
    ops.getattr = &GetAttr;
    ops.setattr = &SetAttr;
    ops.open = &Open;
    ops.read = &Read;
    ops.write = &Write;
    ops.fsync = &FSync;
    ops.fallocate = &FAllocate;
    ops.readdir = &ReadDir;
    ops.statfs = &StatFs;
    return ops;
  }();
  return operations;
}

}  // namespace tripwire::periph
