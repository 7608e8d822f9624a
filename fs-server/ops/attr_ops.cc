// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "fs-server/attr.h"
#include "fs-server/ops/ops.h"

namespace tripwire::fs::ops {
namespace {

constexpr uint32_t kNsPerSecond = 1'000'000'000;

// The new size, by the open file's rights or else the caller's.
int Truncate(const OpContext& ctx, const Inode& inode, uint64_t size) {
  if (size > INT64_MAX) return EFBIG;
  const auto length = static_cast<off_t>(size);
  if (inode.open && (inode.open->flags & pb::OPEN_WRITE) != 0) {
    return ftruncate(inode.fd(), length) == 0 ? 0 : errno;
  }
  static_cast<void>(ctx);
  return truncate(ProcPath(inode.fd()), length) == 0 ? 0 : errno;
}

int SetTimes(const Inode& inode, const pb::SetAttr& op) {
  const uint32_t fields = op.fields();
  auto time = [&](uint32_t set, uint32_t now, int64_t seconds, uint32_t ns) {
    timespec t{};
    if ((fields & now) != 0) {
      t.tv_nsec = UTIME_NOW;
    } else if ((fields & set) != 0) {
      t.tv_sec = seconds;
      t.tv_nsec = ns;
    } else {
      t.tv_nsec = UTIME_OMIT;
    }
    return t;
  };
  const timespec times[2] = {
      time(pb::SET_ATIME, pb::SET_ATIME_NOW, op.atime_s(), op.atime_ns()),
      time(pb::SET_MTIME, pb::SET_MTIME_NOW, op.mtime_s(), op.mtime_ns())};
  return utimensat(inode.fd(), "", times, AT_EMPTY_PATH) == 0 ? 0 : errno;
}

int Apply(const OpContext& ctx, const Inode& inode, const pb::SetAttr& op) {
  const uint32_t fields = op.fields();
  if ((fields & pb::SET_SIZE) != 0) {
    if (const int error = Truncate(ctx, inode, op.size()); error != 0) return error;
  }
  if ((fields & (pb::SET_UID | pb::SET_GID)) != 0) {
    const uid_t uid = (fields & pb::SET_UID) != 0 ? op.uid() : static_cast<uid_t>(-1);
    const gid_t gid = (fields & pb::SET_GID) != 0 ? op.gid() : static_cast<gid_t>(-1);
    if (fchownat(inode.fd(), "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) {
      return errno;
    }
  }
  if ((fields & pb::SET_MODE) != 0 && chmod(ProcPath(inode.fd()), op.mode() & 07777) != 0) {
    return errno;
  }
  constexpr uint32_t kTimes =
      pb::SET_ATIME | pb::SET_MTIME | pb::SET_ATIME_NOW | pb::SET_MTIME_NOW;
  return (fields & kTimes) != 0 ? SetTimes(inode, op) : 0;
}

}  // namespace

int GetAttr(OpContext& ctx) {
  const auto& op = ctx.request.getattr();
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode); error != 0) return error;
  const int sync = op.force_sync()  ? AT_STATX_FORCE_SYNC
                   : op.dont_sync() ? AT_STATX_DONT_SYNC
                                    : 0;
  return ctx.ReplyAttr(inode, false, sync);
}

int SetAttr(OpContext& ctx) {
  const auto& op = ctx.request.setattr();
  if (op.atime_ns() >= kNsPerSecond || op.mtime_ns() >= kNsPerSecond ||
      ((op.fields() & pb::SET_UID) != 0 && op.uid() == UINT32_MAX) ||
      ((op.fields() & pb::SET_GID) != 0 && op.gid() == UINT32_MAX)) {
    return EINVAL;
  }
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode); error != 0) return error;
  int error = 0;
  {
    std::lock_guard lock(ctx.server.Stripe(inode.id));
    struct statx before;
    if (error = StatFd(inode.fd(), &before); error != 0) return error;
    ctx.reply.set_pre_change(ChangeOf(before));
    const bool guarded = (op.fields() & pb::SET_GUARD) != 0;
    if (guarded) {
      const bool same = before.stx_ctime.tv_sec == op.guard_ctime_s() &&
                        before.stx_ctime.tv_nsec == op.guard_ctime_ns();
      // With an intent but no reply, an earlier server may have been the one that
      // moved ctime; what is asked for is then done already or done again.
      if (!same && !ctx.prior) error = EAGAIN;
      Intent intent;
      intent.ino = before.stx_ino;
      if (error == 0) ctx.Intend(intent);
    }
    if (error == 0) error = Apply(ctx, inode, op);
  }
  if (error != EAGAIN) {
    ctx.Changed(inode.id, pb::RECALL_ATTR |
                              ((op.fields() & pb::SET_SIZE) != 0 ? pb::RECALL_DATA : 0));
  }
  const int stat_error = ctx.ReplyAttr(inode);
  return error != 0 ? error : stat_error;
}

int Access(OpContext& ctx) {
  const auto& op = ctx.request.access();
  Inode inode;
  if (const int error = ctx.Find(op.handle(), &inode); error != 0) return error;
  if (const int error = ctx.ReplyAttr(inode); error != 0) return error;
  uint32_t granted = 0;
  for (const uint32_t bit : {R_OK, W_OK, X_OK}) {
    if ((op.mask() & bit) == 0) continue;
    if (faccessat(inode.fd(), "", static_cast<int>(bit), AT_EACCESS | AT_EMPTY_PATH) == 0) {
      granted |= bit;
    } else if (errno != EACCES && errno != EPERM && errno != EROFS) {
      return errno;
    }
  }
  if (ctx.session.read_only && !S_ISCHR(ctx.reply.attr().mode()) &&
      !S_ISBLK(ctx.reply.attr().mode()) && !S_ISFIFO(ctx.reply.attr().mode())) {
    granted &= ~uint32_t{W_OK};
  }
  ctx.reply.set_access(granted);
  if ((op.mask() & ~granted & (R_OK | W_OK | X_OK)) == 0) return 0;
  return (op.mask() & ~granted) == W_OK && ctx.session.read_only ? EROFS : EACCES;
}

int ReadLink(OpContext& ctx) {
  Inode inode;
  if (const int error = ctx.Find(ctx.request.readlink().handle(), &inode); error != 0) return error;
  if (const int error = ctx.ReplyAttr(inode); error != 0) return error;
  if (!S_ISLNK(ctx.reply.attr().mode())) return EINVAL;
  char target[PATH_MAX];
  const ssize_t n = readlinkat(inode.fd(), "", target, sizeof(target));
  if (n < 0) return errno;
  ctx.reply.set_target(target, static_cast<size_t>(n));
  return 0;
}

}  // namespace tripwire::fs::ops
