// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <mutex>

#include "fs-server/attr.h"
#include "fs-server/ops/ops.h"

namespace tripwire::fs::ops {
namespace {

// What a name led to, to tell others of its new link count.
struct Named {
  Inode inode;
  uint64_t ino = 0;
  bool exists = false;
  bool directory = false;
};

Named LookAt(OpContext& ctx, const Inode& dir, const std::string& name) {
  Named named;
  if (ctx.store.Walk(dir.fd(), dir.id, name.c_str(), &named.inode.id, &named.inode.path) != 0) {
    return named;
  }
  struct statx stx;
  if (StatFd(named.inode.fd(), &stx) != 0) return named;
  named.ino = stx.stx_ino;
  named.directory = S_ISDIR(stx.stx_mode);
  named.exists = true;
  return named;
}

// After an inode lost a name: tells of it and forgets it when that was the last.
void LostName(OpContext& ctx, const Named& named, uint64_t links) {
  auto* result = ctx.reply.mutable_remove();
  ctx.Changed(named.inode.id, pb::RECALL_ATTR);
  if (links == 0 || named.directory) ctx.store.NameLost(named.inode.id);
  result->set_ino(named.ino);
  ctx.server.codec().Encode(ctx.exported.id, named.inode.id, result->mutable_handle());
}

// The last name of an open file is about to go: keeps it for the case that the server
// restarts before it is closed. Leaves the thread acting as the caller, or fails.
int KeepIfLast(OpContext& ctx, const Named& named, bool* kept) {
  *kept = false;
  if (!named.exists || named.directory || !ctx.server.opens().Find(named.inode.id)) return 0;
  struct statx stx;
  if (StatFd(named.inode.fd(), &stx) != 0 || !S_ISREG(stx.stx_mode) || stx.stx_nlink != 1) {
    return 0;
  }
  *kept = ctx.exported.unnamed->Keep(named.inode.id, named.inode.fd());
  const int error = identity::Assume(ctx.caller);
  if (error != 0 && *kept) ctx.exported.unnamed->Drop(named.inode.id);
  return error;
}

int Unlink(OpContext& ctx, const std::string& handle, const std::string& name, int flags) {
  Inode dir;
  if (const int error = CheckName(name); error != 0) return error;
  if (const int error = ctx.Find(handle, &dir); error != 0) return error;
  Named named;
  int error = 0;
  {
    std::lock_guard lock(ctx.server.Stripe(dir.id));
    ctx.reply.set_pre_change(ctx.ChangeNow(dir.fd()));
    named = LookAt(ctx, dir, name);
    Intent intent;
    intent.had_target = named.exists;
    intent.ino = named.ino;
    ctx.Intend(intent);
    const bool ours_is_gone =
        ctx.prior && ctx.prior->had_target != 0 && ctx.prior->ino != named.ino;
    // With that evidence the name, if there is one, is somebody else's new one.
    bool kept = false;
    if (!ours_is_gone) {
      if (flags == 0) error = KeepIfLast(ctx, named, &kept);
      if (error == 0 && unlinkat(dir.fd(), name.c_str(), flags) != 0) error = errno;
    }
    if (error != 0 && kept) ctx.exported.unnamed->Drop(named.inode.id);
    ctx.ReplyDirAttr(dir);
  }
  if (error == 0) {
    ctx.NameChanged(dir.id, name, true);
    if (named.exists) {
      ctx.ReplyAttr(named.inode);
      LostName(ctx, named, ctx.reply.attr().nlink());
    }
  }
  return error;
}

// Whether an earlier server did this rename, by what is where now.
bool RenameWasDone(const Intent& prior, uint32_t flags, const Named& source,
                   const Named& target) {
  if ((flags & pb::RENAME_FLAG_EXCHANGE) != 0) {
    return source.ino == prior.ino2 && target.ino == prior.ino && prior.ino != prior.ino2;
  }
  return source.ino != prior.ino && target.exists && target.ino == prior.ino;
}

int MoveName(OpContext& ctx, const Inode& from, const Inode& to, const Named& source,
             const Named& target) {
  const auto& op = ctx.request.rename();
  constexpr uint32_t kKeepsTarget = pb::RENAME_FLAG_EXCHANGE | pb::RENAME_FLAG_NOREPLACE;
  bool kept = false;
  int error = 0;
  if ((op.flags() & kKeepsTarget) == 0 && source.exists &&
      !(source.inode.id == target.inode.id)) {
    error = KeepIfLast(ctx, target, &kept);
  }
  if (error == 0 && syscall(SYS_renameat2, from.fd(), op.name().c_str(), to.fd(),
                            op.new_name().c_str(), op.flags()) != 0) {
    error = errno;
  }
  if (error != 0 && kept) ctx.exported.unnamed->Drop(target.inode.id);
  return error;
}

// Locks the stripes of two inodes, in one order everywhere.
class TwoStripes {
 public:
  TwoStripes(FileServer& server, const FileId& a, const FileId& b) {
    std::mutex* first = &server.Stripe(a);
    std::mutex* second = &server.Stripe(b);
    if (std::less<>()(second, first)) std::swap(first, second);
    first_ = std::unique_lock(*first);
    if (second != first) second_ = std::unique_lock(*second);
  }

 private:
  std::unique_lock<std::mutex> first_;
  std::unique_lock<std::mutex> second_;
};

}  // namespace

int Lookup(OpContext& ctx) {
  const auto& op = ctx.request.lookup();
  if (const int error = CheckName(op.name()); error != 0) return error;
  Inode dir;
  if (const int error = ctx.Find(op.dir(), &dir); error != 0) return error;
  ctx.Grant(dir.id, LeaseTable::kNames);
  if (op.dir_change()) ctx.reply.set_pre_change(ctx.ChangeNow(dir.fd()));
  Inode found;
  if (const int error = ctx.store.Walk(dir.fd(), dir.id, op.name().c_str(), &found.id, &found.path);
      error != 0) {
    if (error != ENOENT) ctx.reply.set_name_cache_ms(0);
    return error;
  }
  if (const int first = ctx.WritesFirst(found.id); first != 0) return first;
  const int error = ctx.ReplyAttr(found, true);
  if (op.xattrs() && error == 0) {
    ctx.reply.mutable_attr()->set_no_xattrs(ctx.HasNoXattrs(found.fd()));
  }
  return error;
}

int Remove(OpContext& ctx) {
  const auto& op = ctx.request.remove();
  return Unlink(ctx, op.dir(), op.name(), 0);
}

int RmDir(OpContext& ctx) {
  const auto& op = ctx.request.rmdir();
  return Unlink(ctx, op.dir(), op.name(), AT_REMOVEDIR);
}

int Rename(OpContext& ctx) {
  const auto& op = ctx.request.rename();
  constexpr uint32_t kKnown =
      pb::RENAME_FLAG_NOREPLACE | pb::RENAME_FLAG_EXCHANGE | pb::RENAME_FLAG_WHITEOUT;
  if ((op.flags() & ~kKnown) != 0) return EINVAL;
  if (const int error = CheckName(op.name()); error != 0) return error;
  if (const int error = CheckName(op.new_name()); error != 0) return error;
  Inode from, to;
  if (const int error = ctx.Find(op.dir(), &from); error != 0) return error;
  if (const int error = ctx.Find(op.new_dir(), &to); error != 0) return error;
  const bool exchange = (op.flags() & pb::RENAME_FLAG_EXCHANGE) != 0;
  const bool two_dirs = !(from.id == to.id);
  Named source, target;
  int error = 0;
  {
    TwoStripes lock(ctx.server, from.id, to.id);
    ctx.reply.set_pre_change(ctx.ChangeNow(from.fd()));
    if (two_dirs) ctx.reply.set_pre_change2(ctx.ChangeNow(to.fd()));
    source = LookAt(ctx, from, op.name());
    target = LookAt(ctx, to, op.new_name());
    Intent intent;
    intent.ino = source.ino;
    intent.ino2 = target.ino;
    intent.had_target = target.exists;
    ctx.Intend(intent);
    if (ctx.prior && RenameWasDone(*ctx.prior, op.flags(), source, target)) {
      source = target;  // it is there already
      target = {};
    } else {
      error = MoveName(ctx, from, to, source, target);
    }
    ctx.ReplyDirAttr(from);
    if (two_dirs) ctx.ReplyDirAttr(to, /*is_second=*/true);
  }
  if (error == 0) {
    ctx.NameChanged(from.id, op.name(), !exchange);
    ctx.NameChanged(to.id, op.new_name(), false);
    if (source.exists) {
      ctx.Changed(source.inode.id, pb::RECALL_ATTR);
      ctx.store.NameMoved(source.inode.id, to.id, op.new_name());
      ctx.ReplyAttr(source.inode, true);
    }
    if (target.exists && exchange) {
      ctx.Changed(target.inode.id, pb::RECALL_ATTR);
      ctx.store.NameMoved(target.inode.id, from.id, op.name());
    } else if (target.exists && !(target.inode.id == source.inode.id)) {
      struct statx stx;
      pb::Attr attr;
      if (StatFd(target.inode.fd(), &stx) == 0) ctx.FillAttr(target.inode.id, stx, &attr);
      LostName(ctx, target, attr.nlink());
    }
  }
  return error;
}

int Link(OpContext& ctx) {
  const auto& op = ctx.request.link();
  if (const int error = CheckName(op.name()); error != 0) return error;
  Inode object, dir;
  if (const int error = ctx.Find(op.object(), &object); error != 0) return error;
  if (const int error = ctx.Find(op.dir(), &dir); error != 0) return error;
  int error = 0;
  {
    std::lock_guard lock(ctx.server.Stripe(dir.id));
    ctx.reply.set_pre_change(ctx.ChangeNow(dir.fd()));
    struct statx stx;
    if (error = StatFd(object.fd(), &stx); error != 0) return error;
    if (S_ISDIR(stx.stx_mode)) return EPERM;
    if (ctx.exported.unnamed->IsExclusive(object.id)) return ENOENT;
    const Named before = LookAt(ctx, dir, op.name());
    Intent intent;
    intent.ino = stx.stx_ino;
    intent.had_target = before.exists;
    ctx.Intend(intent);
    const bool done = ctx.prior && ctx.prior->had_target == 0 && before.exists &&
                      before.inode.id == object.id;
    if (!done && linkat(AT_FDCWD, ProcPath(object.fd()), dir.fd(), op.name().c_str(),
                        AT_SYMLINK_FOLLOW) != 0) {
      error = errno;
    }
    ctx.ReplyDirAttr(dir);
  }
  if (error == 0) {
    ctx.NameChanged(dir.id, op.name(), false);
    ctx.Changed(object.id, pb::RECALL_ATTR);
    ctx.store.NameMoved(object.id, dir.id, op.name());
    error = ctx.ReplyAttr(object, true);
  }
  return error;
}

}  // namespace tripwire::fs::ops
