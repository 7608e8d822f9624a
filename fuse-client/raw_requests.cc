// SPDX-License-Identifier: BSD-3-Clause
// Requests the FUSE library does not know, answered by ourselves.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "fuse-client/fuse_abi.h"
#include "fuse-client/mount_session.h"

namespace tripwire::fuse {
namespace {

// Copies a structure from the front of the request's arguments.
template <class T>
bool Argument(const char* request, size_t size, T* out) {
  if (size < sizeof(fuse_in_header) + sizeof(T)) return false;
  std::memcpy(out, request + sizeof(fuse_in_header), sizeof(T));
  return true;
}

fuse_ctx CallerOf(const fuse_in_header& header, uint32_t umask) {
  fuse_ctx caller = {};
  caller.uid = header.uid;
  caller.gid = header.gid;
  caller.pid = static_cast<pid_t>(header.pid);
  caller.umask = umask;
  return caller;
}

void SplitSeconds(double seconds, uint64_t* whole, uint32_t* nanoseconds) {
  const double clipped = seconds < 0 ? 0 : seconds > 1e9 ? 1e9 : seconds;
  *whole = static_cast<uint64_t>(clipped);
  *nanoseconds =
      static_cast<uint32_t>((clipped - static_cast<double>(*whole)) * 1e9);
}

void FillAttr(const struct stat& st, fuse_attr* attr) {
  attr->ino = st.st_ino;
  attr->size = static_cast<uint64_t>(st.st_size);
  attr->blocks = static_cast<uint64_t>(st.st_blocks);
  attr->atime = static_cast<uint64_t>(st.st_atim.tv_sec);
  attr->mtime = static_cast<uint64_t>(st.st_mtim.tv_sec);
  attr->ctime = static_cast<uint64_t>(st.st_ctim.tv_sec);
  attr->atimensec = static_cast<uint32_t>(st.st_atim.tv_nsec);
  attr->mtimensec = static_cast<uint32_t>(st.st_mtim.tv_nsec);
  attr->ctimensec = static_cast<uint32_t>(st.st_ctim.tv_nsec);
  attr->mode = st.st_mode;
  attr->nlink = static_cast<uint32_t>(st.st_nlink);
  attr->uid = st.st_uid;
  attr->gid = st.st_gid;
  attr->rdev = static_cast<uint32_t>(st.st_rdev);
  attr->blksize = static_cast<uint32_t>(st.st_blksize);
}

}  // namespace

bool MountSession::HandleOurselves(const char* request, size_t size) {
  fuse_in_header header;
  if (size < sizeof(header)) return false;
  std::memcpy(&header, request, sizeof(header));
  current_request.opcode = header.opcode;
  current_request.kill_suidgid = false;
  switch (header.opcode) {
    case FUSE_WRITE: {
      fuse_write_in in;
      current_request.kill_suidgid = Argument(request, size, &in) &&
                                     (in.write_flags & FUSE_WRITE_KILL_SUIDGID);
      return false;
    }
    case FUSE_SETATTR: {
      fuse_setattr_in in;
      current_request.kill_suidgid =
          Argument(request, size, &in) && (in.valid & FATTR_KILL_SUIDGID);
      return false;
    }
    case abi::kTmpFile:
      AnswerTmpFile(request, size);
      return true;
    case abi::kStatX:
      AnswerStatX(request, size);
      return true;
    default:
      return false;
  }
}

int MountSession::Answer(uint64_t unique, int error, const iovec* parts,
                         int count) {
  fuse_out_header header = {};
  header.error = -error;
  header.unique = unique;
  iovec iov[4] = {{&header, sizeof(header)}};
  size_t length = sizeof(header);
  for (int i = 0; i < count; ++i) {
    iov[i + 1] = parts[i];
    length += parts[i].iov_len;
  }
  header.len = static_cast<uint32_t>(length);
  return writev(fd_, iov, count + 1) < 0 ? errno : 0;
}

void MountSession::AnswerTmpFile(const char* request, size_t size) {
  fuse_in_header header;
  std::memcpy(&header, request, sizeof(header));
  fuse_create_in in;
  if (!Argument(request, size, &in)) {
    Answer(header.unique, EIO, nullptr, 0);
    return;
  }
  const FileSystem::TmpFileResult made =
      fs_->TmpFile(CallerOf(header, in.umask), header.nodeid, in.mode,
                   static_cast<int>(in.flags));
  if (made.error != 0) {
    Answer(header.unique, made.error, nullptr, 0);
    return;
  }
  fuse_entry_out entry = {};
  entry.nodeid = made.entry.ino;
  entry.generation = made.entry.generation;
  SplitSeconds(made.entry.attr_timeout, &entry.attr_valid, &entry.attr_valid_nsec);
  FillAttr(made.entry.attr, &entry.attr);
  fuse_open_out open = {};
  open.fh = made.fh;
  const iovec parts[] = {{&entry, sizeof(entry)}, {&open, sizeof(open)}};
  if (Answer(header.unique, 0, parts, 2) != 0) fs_->DropTmpFile(made);
}

void MountSession::AnswerStatX(const char* request, size_t) {
  fuse_in_header header;
  std::memcpy(&header, request, sizeof(header));
  pb::Attr attr;
  struct stat st;
  double timeout_s = 0;
  const int error =
      fs_->StatX(CallerOf(header, 0), header.nodeid, &attr, &st, &timeout_s);
  if (error != 0) {
    Answer(header.unique, error, nullptr, 0);
    return;
  }
  abi::StatXOut out = {};
  SplitSeconds(timeout_s, &out.attr_valid, &out.attr_valid_nsec);
  abi::StatX& sx = out.stat;
  sx.mask = STATX_BASIC_STATS | (attr.has_btime() ? STATX_BTIME : 0);
  sx.blksize = static_cast<uint32_t>(st.st_blksize);
  sx.attributes = attr.attributes();
  sx.attributes_mask = attr.attributes_mask();
  sx.nlink = static_cast<uint32_t>(st.st_nlink);
  sx.uid = st.st_uid;
  sx.gid = st.st_gid;
  sx.mode = static_cast<uint16_t>(st.st_mode);
  sx.ino = st.st_ino;
  sx.size = static_cast<uint64_t>(st.st_size);
  sx.blocks = static_cast<uint64_t>(st.st_blocks);
  sx.atime = {attr.atime_s(), attr.atime_ns(), 0};
  sx.btime = {attr.btime_s(), attr.btime_ns(), 0};
  sx.ctime = {attr.ctime_s(), attr.ctime_ns(), 0};
  sx.mtime = {attr.mtime_s(), attr.mtime_ns(), 0};
  sx.rdev_major = attr.rdev_major();
  sx.rdev_minor = attr.rdev_minor();
  const iovec part = {&out, sizeof(out)};
  Answer(header.unique, 0, &part, 1);
}

}  // namespace tripwire::fuse
