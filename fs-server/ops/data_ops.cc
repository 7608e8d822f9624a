// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "fs-server/attr.h"
#include "fs-server/ops/ops.h"

namespace tripwire::fs::ops {
namespace {

constexpr size_t kInlineMax = 4096;
constexpr uint64_t kCopyMax = 64u << 20;  // in one call: a worker is busy meanwhile

bool InRange(uint64_t offset, uint64_t length) {
  return offset <= INT64_MAX && length <= INT64_MAX - offset;
}

ssize_t ReadAll(int fd, uint8_t* data, size_t length, uint64_t offset) {
  size_t done = 0;
  while (done < length) {
    const ssize_t n = pread(fd, data + done, length - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return done > 0 ? static_cast<ssize_t>(done) : -1;
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

// Writes all it can; what was written before an error counts.
ssize_t WriteAll(int fd, const uint8_t* data, size_t length, uint64_t offset, int flags) {
  size_t done = 0;
  do {
    iovec part{const_cast<uint8_t*>(data + done), length - done};
    const ssize_t n = pwritev2(fd, &part, 1, static_cast<off_t>(offset + done), flags);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return done > 0 ? static_cast<ssize_t>(done) : -1;
    if (n == 0) break;
    done += static_cast<size_t>(n);
  } while (done < length);
  return static_cast<ssize_t>(done);
}

// O_DIRECT wants aligned memory, which the peer's staging need not be.
ssize_t WriteAligned(int fd, const uint8_t* data, size_t length, uint64_t offset, int flags) {
  std::unique_ptr<uint8_t, decltype(&std::free)> copy(
      static_cast<uint8_t*>(std::aligned_alloc(4096, (length + 4095) / 4096 * 4096)), &std::free);
  if (!copy) {
    errno = ENOMEM;
    return -1;
  }
  std::memcpy(copy.get(), data, length);
  return WriteAll(fd, copy.get(), length, offset, flags);
}

// Where an earlier server's run of this append put it, if it did: at the size the
// file had then, followed by nothing but this.
bool AppendedBefore(const OpContext& ctx, int fd, const uint8_t* data, size_t length) {
  struct stat st;
  if (!ctx.prior || fstat(fd, &st) != 0 ||
      static_cast<uint64_t>(st.st_size) < ctx.prior->size + length) {
    return false;
  }
  UniqueFd reader(open(ProcPath(fd), O_RDONLY | O_CLOEXEC));
  std::vector<uint8_t> there(length);
  const int from = reader ? reader.get() : fd;
  return ReadAll(from, there.data(), length, ctx.prior->size) == static_cast<ssize_t>(length) &&
         std::memcmp(there.data(), data, length) == 0;
}

int OpenForWrite(OpContext& ctx, const pb::Object& object, Inode* inode, UniqueFd* holder,
                 int* fd) {
  if (const int error = ctx.Find(object, inode, true); error != 0) return error;
  if (inode->open && (inode->open->flags & pb::OPEN_WRITE) == 0) return EBADF;
  return ctx.DataFd(*inode, pb::OPEN_WRITE, holder, fd);
}

int DoWrite(OpContext& ctx, const pb::Write& op, const Inode& inode, int fd,
            std::span<const uint8_t> data) {
  const bool append =
      op.append() || (inode.open && (inode.open->flags & pb::OPEN_APPEND) != 0);
  if (!append && !InRange(op.offset(), data.size())) return EFBIG;
  int flags = op.stable() == pb::FILE_SYNC ? RWF_SYNC : op.stable() == pb::DATA_SYNC ? RWF_DSYNC : 0;
  uint64_t offset = op.offset();
  ssize_t n = 0;
  std::unique_lock<std::mutex> lock;
  if (append) {
    // The kernel appends atomically; the lock is to tell where.
    lock = std::unique_lock(ctx.server.Stripe(inode.id));
    struct stat st;
    if (fstat(fd, &st) != 0) return errno;
    Intent intent;
    intent.size = static_cast<uint64_t>(st.st_size);
    ctx.Intend(intent);
    flags |= RWF_APPEND;
    offset = intent.size;
    if (AppendedBefore(ctx, fd, data.data(), data.size())) {
      n = static_cast<ssize_t>(data.size());
      offset = ctx.prior->size;
    }
  }
  if (n == 0 && !data.empty()) {
    n = WriteAll(fd, data.data(), data.size(), offset, flags);
    if (n < 0 && errno == EINVAL && inode.open && (inode.open->flags & pb::OPEN_DIRECT) != 0) {
      n = WriteAligned(fd, data.data(), data.size(), offset, flags);
    }
    if (n < 0) return errno;
  }
  auto* result = ctx.reply.mutable_write();
  result->set_length(static_cast<uint32_t>(n));
  result->set_committed(op.stable());
  result->set_verifier(ctx.server.verifier());
  result->set_offset(offset);
  return 0;
}

}  // namespace

int Read(OpContext& ctx) {
  const auto& op = ctx.request.read();
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode, true); error != 0) return error;
  if (!InRange(op.offset(), op.length())) return EINVAL;
  UniqueFd holder;
  int fd = -1;
  if (const int error = ctx.DataFd(inode, pb::OPEN_READ, &holder, &fd); error != 0) return error;
  ctx.Grant(inode.id, LeaseTable::kInode);
  const size_t room = ctx.call->bulk_reply_capacity();
  const size_t length = std::min<size_t>(op.length(), room != 0 ? room : kInlineMax);
  alignas(4096) uint8_t small[kInlineMax];  // aligned, for files open for direct access
  uint8_t* data = small;
  if (room != 0) {
    ctx.bulk = ctx.call->AllocateBulk(length);
    data = ctx.bulk.data();
  }
  ssize_t n = pread(fd, data, length, static_cast<off_t>(op.offset()));
  if (n < 0) return errno;
  struct statx stx;
  if (const int error = StatFd(fd, &stx); error != 0) return error;
  if (static_cast<size_t>(n) < length && op.offset() + static_cast<uint64_t>(n) < stx.stx_size) {
    // Short, yet not at the end: an error in the middle (now it shows), or the file grew.
    const auto done = static_cast<size_t>(n);
    const ssize_t rest = ReadAll(fd, data + done, length - done, op.offset() + done);
    if (rest < 0) return errno;
    n += rest;
  }
  ctx.FillAttr(inode.id, stx, ctx.reply.mutable_attr());
  auto* result = ctx.reply.mutable_read();
  result->set_length(static_cast<uint32_t>(n));
  result->set_eof(op.offset() + static_cast<uint64_t>(n) >= stx.stx_size);
  if (room != 0) {
    ctx.bulk_bytes = static_cast<size_t>(n);
  } else {
    result->set_data(small, static_cast<size_t>(n));
  }
  return 0;
}

int Write(OpContext& ctx) {
  const auto& op = ctx.request.write();
  Inode inode;
  UniqueFd holder;
  int fd = -1;
  if (const int error = OpenForWrite(ctx, op.object(), &inode, &holder, &fd); error != 0) {
    return error;
  }
  std::span<const uint8_t> data = ctx.call->bulk_request();
  if (data.empty()) {
    data = {reinterpret_cast<const uint8_t*>(op.data().data()), op.data().size()};
  }
  ctx.reply.set_pre_change(ctx.ChangeNow(fd));
  const int error = DoWrite(ctx, op, inode, fd, data);
  if (error == EIO) ctx.server.DataLost();
  // Also of a failed write nobody knows how much was done.
  ctx.Changed(inode.id, pb::RECALL_ATTR | pb::RECALL_DATA);
  const int stat_error = ctx.ReplyAttr(inode);
  if (error != 0) return error;
  if (op.wants_lease() && inode.open && stat_error == 0) {
    ctx.reply.mutable_write()->set_lease(ctx.GrantWrites(inode.id));
  }
  return stat_error;
}

int Commit(OpContext& ctx) {
  const auto& op = ctx.request.commit();
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode); error != 0) return error;
  UniqueFd holder;
  int fd = -1;
  int error = ctx.DataFd(inode, pb::OPEN_READ, &holder, &fd);
  if (error == EACCES) error = ctx.DataFd(inode, pb::OPEN_WRITE, &holder, &fd);
  if (error != 0) return error;
  // Sampled before: a loss during the sync must look like one.
  const uint64_t verifier = ctx.server.verifier();
  if ((op.data_only() ? fdatasync(fd) : fsync(fd)) != 0) {
    error = errno;
    if (error == EIO || error == ENOSPC || error == EDQUOT) ctx.server.DataLost();
    return error;
  }
  ctx.reply.mutable_commit()->set_verifier(verifier);
  return ctx.ReplyAttr(inode);
}

int Sync(OpContext& ctx) {
  Inode inode;
  if (const int error = ctx.Find(ctx.request.sync().object(), &inode); error != 0) return error;
  UniqueFd holder;
  int fd = -1;
  // Any descriptor on the file system will do; the root's is always there.
  if (ctx.DataFd(inode, pb::OPEN_READ, &holder, &fd) != 0) fd = ctx.store.root_fd();
  return syncfs(fd) == 0 ? 0 : errno;
}

int Fallocate(OpContext& ctx) {
  const auto& op = ctx.request.fallocate();
  Inode inode;
  UniqueFd holder;
  int fd = -1;
  if (const int error = OpenForWrite(ctx, op.object(), &inode, &holder, &fd); error != 0) {
    return error;
  }
  if (!InRange(op.offset(), op.length())) return EFBIG;
  int error = 0;
  {
    std::lock_guard lock(ctx.server.Stripe(inode.id));
    struct statx stx;
    if (error = StatFd(fd, &stx); error != 0) return error;
    ctx.reply.set_pre_change(ChangeOf(stx));
    bool done = false;
    if ((op.mode() & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) != 0) {
      // The only modes that are not the same when done twice; they change the size.
      Intent intent;
      intent.size = stx.stx_size;
      ctx.Intend(intent);
      done = ctx.prior && ctx.prior->size != stx.stx_size;
    }
    if (!done && fallocate(fd, static_cast<int>(op.mode()), static_cast<off_t>(op.offset()),
                           static_cast<off_t>(op.length())) != 0) {
      error = errno;
    }
  }
  ctx.Changed(inode.id, pb::RECALL_ATTR | pb::RECALL_DATA);
  const int stat_error = ctx.ReplyAttr(inode);
  return error != 0 ? error : stat_error;
}

int Seek(OpContext& ctx) {
  const auto& op = ctx.request.seek();
  if (op.whence() != pb::SEEK_FOR_DATA && op.whence() != pb::SEEK_FOR_HOLE) return EINVAL;
  if (op.offset() > INT64_MAX) return ENXIO;
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode, true); error != 0) return error;
  UniqueFd holder;
  int fd = -1;
  if (const int error = ctx.DataFd(inode, pb::OPEN_READ, &holder, &fd); error != 0) return error;
  // The descriptor's position is nobody's: data moves by pread and pwrite.
  const off_t at = lseek(fd, static_cast<off_t>(op.offset()), static_cast<int>(op.whence()));
  if (at < 0) return errno;
  ctx.reply.set_offset(static_cast<uint64_t>(at));
  return 0;
}

int CopyRange(OpContext& ctx) {
  const auto& op = ctx.request.copy_range();
  if (!InRange(op.from_offset(), op.length()) || !InRange(op.to_offset(), op.length())) {
    return EINVAL;
  }
  Inode from, to;
  UniqueFd from_holder, to_holder;
  int from_fd = -1, to_fd = -1;
  if (const int error = ctx.Find(op.from(), &from, true); error != 0) return error;
  if (const int error = ctx.DataFd(from, pb::OPEN_READ, &from_holder, &from_fd); error != 0) {
    return error;
  }
  if (const int error = OpenForWrite(ctx, op.to(), &to, &to_holder, &to_fd); error != 0) {
    return error;
  }
  ctx.reply.set_pre_change(ctx.ChangeNow(to_fd));
  off64_t in = static_cast<off64_t>(op.from_offset());
  off64_t out = static_cast<off64_t>(op.to_offset());
  const ssize_t n =
      copy_file_range(from_fd, &in, to_fd, &out, std::min(op.length(), kCopyMax), 0);
  const int error = n < 0 ? errno : 0;
  ctx.Changed(to.id, pb::RECALL_ATTR | pb::RECALL_DATA);
  if (error == 0) ctx.reply.set_count(static_cast<uint64_t>(n));
  const int stat_error = ctx.ReplyAttr(to);
  return error != 0 ? error : stat_error;
}

}  // namespace tripwire::fs::ops
