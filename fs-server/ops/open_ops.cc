// SPDX-License-Identifier: BSD-3-Clause
#include <sys/stat.h>

#include <cerrno>

#include "fs-server/attr.h"
#include "fs-server/ops/ops.h"

namespace tripwire::fs::ops {

int Open(OpContext& ctx) {
  const auto& op = ctx.request.open();
  if (op.state() == 0) return EINVAL;
  uint32_t flags = op.flags();
  if (op.reclaim()) flags &= ~static_cast<uint32_t>(pb::OPEN_TRUNCATE);
  if ((flags & pb::OPEN_WRITE) != 0 &&
      (ctx.session.read_only || ctx.exported.config.read_only)) {
    return EROFS;
  }
  Inode inode;
  if (const int error = ctx.Find(op.handle(), &inode); error != 0) return error;
  // A repeated call finds its work done.
  if (auto open = ctx.session.FindOpen(op.state()); open && open->id == inode.id) {
    ctx.reply.mutable_open()->set_state(op.state());
    return ctx.ReplyAttr(inode);
  }
  if (!ctx.server.opens().HasRoom()) return ENFILE;
  UniqueFd fd;
  int error = op.reclaim() ? ctx.OpenDataAgain(inode, flags, &fd) : ctx.OpenData(inode, flags, &fd);
  if (error != 0) return error;
  if ((flags & pb::OPEN_TRUNCATE) != 0) {
    ctx.Changed(inode.id, pb::RECALL_ATTR | pb::RECALL_DATA);
  }
  if (error = ctx.ReplyAttr(inode); error != 0) return error;
  ctx.AddOpen(op.state(), inode.id, std::move(fd), flags, S_ISDIR(ctx.reply.attr().mode()));
  return 0;
}

int Close(OpContext& ctx) {
  const auto& op = ctx.request.close();
  auto id = ctx.server.codec().Decode(ctx.exported.id, op.handle());
  if (!id) return ESTALE;
  LockManager::Request range;
  range.owner.session = ctx.session.id;
  if (op.unlock_posix()) {
    range.kind = LockManager::Kind::kPosix;
    range.owner.id = op.posix_owner();
    ctx.server.locks().Unlock(*id, range);
  }
  if (op.unlock_flock()) {
    range.kind = LockManager::Kind::kFlock;
    range.owner.id = op.flock_owner();
    ctx.server.locks().Unlock(*id, range);
  }
  std::shared_ptr<OpenFile> file;
  {
    std::lock_guard lock(ctx.session.mutex);
    auto it = ctx.session.opens.find(op.state());
    // Unknown after a restart, which closed it well enough.
    if (it == ctx.session.opens.end()) return 0;
    if (!(it->second->id == *id)) return EBADF;
    file = std::move(it->second);
    ctx.session.opens.erase(it);
  }
  ctx.server.opens().Remove(file);
  if (ctx.server.leases().HasWriters() && !ctx.server.opens().IsOpen(ctx.session.id, *id)) {
    ctx.server.leases().EndWrites(*id, ctx.session.id);
  }
  ctx.server.Closed(ctx.exported, *id);
  struct stat st;
  // A descriptor kept in the cache would keep a deleted file's space.
  if (fstat(file->fd.get(), &st) == 0 && st.st_nlink == 0) ctx.store.Forget(*id);
  return 0;
}

}  // namespace tripwire::fs::ops
