// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <utility>

#include "fs-server/attr.h"
#include "fs-server/exact_names.h"
#include "fs-server/ops/dir_records.h"
#include "fs-server/ops/ops.h"

namespace tripwire::fs::ops {
namespace {

// An exclusive create keeps its verifier in the new file's times, as NFSv3 servers
// do: it is as durable as the file, and the client sets the times next.
void StoreVerifier(int fd, uint64_t verifier) {
  const timespec times[2] = {{static_cast<time_t>(verifier >> 32 & 0x7fffffff), 0},
                             {static_cast<time_t>(verifier & 0x7fffffff), 0}};
  futimens(fd, times);
}

bool HasVerifier(const struct statx& stx, uint64_t verifier) {
  return static_cast<uint64_t>(stx.stx_atime.tv_sec) == (verifier >> 32 & 0x7fffffff) &&
         static_cast<uint64_t>(stx.stx_mtime.tv_sec) == (verifier & 0x7fffffff) &&
         stx.stx_atime.tv_nsec == 0 && stx.stx_mtime.tv_nsec == 0;
}

// Whether what has the name now was made by this very call under an earlier server:
// there was nothing when it came, and this is the caller's and newer than that.
bool MadeBefore(const OpContext& ctx, const struct statx& stx) {
  if (!ctx.prior || ctx.prior->had_target != 0) return false;
  if (ctx.server.acts_as_caller() && stx.stx_uid != ctx.caller.uid) return false;
  if ((stx.stx_mask & STATX_BTIME) == 0) return true;
  // The file system's clock ticks coarsely.
  constexpr int64_t kSlackNs = 20'000'000;
  return stx.stx_btime.tv_sec * 1'000'000'000 + stx.stx_btime.tv_nsec + kSlackNs >=
         ctx.prior->realtime_ns;
}

void IntendToMake(OpContext& ctx, const Inode& dir, const std::string& name) {
  Intent intent;
  struct stat st;
  intent.had_target =
      ctx.session.journal && fstatat(dir.fd(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  ctx.Intend(intent);
}

// What a reply for a new name has besides the directory's attributes.
int ReplyMade(OpContext& ctx, const Inode& dir, const std::string& name, const Inode& made,
              bool fresh = true) {
  if (fresh) ctx.NameChanged(dir.id, name, false);
  return ctx.ReplyAttr(made, true);
}

// For mkdir, symlink and mknod: `make` returns 0 or -1 with errno.
template <typename Make, typename IsIt>
int MakeNode(OpContext& ctx, const std::string& dir_handle, const std::string& name, Make make,
             IsIt is_it, Inode* made_out = nullptr) {
  if (const int error = CheckName(name); error != 0) return error;
  Inode dir, made;
  if (const int error = ctx.Find(dir_handle, &dir); error != 0) return error;
  int error = 0;
  {
    std::lock_guard lock(ctx.server.Stripe(dir.id));
    ctx.reply.set_pre_change(ctx.ChangeNow(dir.fd()));
    IntendToMake(ctx, dir, name);
    identity::SetUmask(ctx.caller.umask);
    if (make(dir.fd(), name.c_str()) != 0) error = errno;
    if (error == 0 || (error == EEXIST && ctx.prior)) {
      const int walk = ctx.store.Walk(dir.fd(), dir.id, name.c_str(), &made.id, &made.path);
      struct statx stx;
      if (error == 0) {
        error = walk;
      } else if (walk == 0 && StatFd(made.fd(), &stx) == 0 && MadeBefore(ctx, stx) &&
                 is_it(made.fd(), stx)) {
        error = 0;
      }
    }
    ctx.ReplyDirAttr(dir);
  }
  if (error == 0) error = ReplyMade(ctx, dir, name, made);
  if (made_out) *made_out = std::move(made);
  return error;
}

// Create found the name taken.
int OpenExisting(OpContext& ctx, const pb::Create& op, const Inode& dir, Inode* made,
                 UniqueFd* fd) {
  const int error =
      ctx.store.Walk(dir.fd(), dir.id, op.name().c_str(), &made->id, &made->path);
  if (error != 0) return error;
  struct statx stx;
  if (const int stat_error = StatFd(made->fd(), &stx); stat_error != 0) return stat_error;
  const bool ours = MadeBefore(ctx, stx);
  if (op.how() == pb::CREATE_EXCLUSIVE ? !ours && !HasVerifier(stx, op.verifier())
                                       : op.how() != pb::CREATE_UNCHECKED && !ours) {
    return EEXIST;
  }
  if (S_ISDIR(stx.stx_mode)) return EISDIR;
  if (!S_ISREG(stx.stx_mode)) return EEXIST;
  if (op.state() == 0) return 0;
  const int open_error = ctx.OpenData(*made, op.flags(), fd);
  // Who made a file may use it whatever its mode says.
  if (open_error != EACCES || !ours || !ctx.server.acts_as_caller()) return open_error;
  if (const int assume = identity::AssumeSelf(); assume != 0) return assume;
  const int again = ctx.OpenData(*made, op.flags(), fd);
  const int back = identity::Assume(ctx.caller);
  return again != 0 ? again : back;
}

// Whether somebody is writing what may be opened in place of a new file.
int WritesOfExistingFirst(OpContext& ctx, const pb::Create& op, const Inode& dir) {
  Inode existing;
  if (!ctx.server.leases().HasWriters() || op.how() != pb::CREATE_UNCHECKED ||
      ctx.store.Walk(dir.fd(), dir.id, op.name().c_str(), &existing.id, &existing.path) != 0) {
    return 0;
  }
  return ctx.WritesFirst(existing.id);
}

}  // namespace

int Create(OpContext& ctx) {
  const auto& op = ctx.request.create();
  if (const int error = CheckName(op.name()); error != 0) return error;
  const int flags = ToOpenFlags(op.flags());
  if (flags < 0 || (op.flags() & pb::OPEN_DIRECTORY) != 0) return EINVAL;
  if (op.state() != 0 && !ctx.server.opens().HasRoom()) return ENFILE;
  Inode dir, made;
  if (const int error = ctx.Find(op.dir(), &dir); error != 0) return error;
  UniqueFd fd;
  int error = 0;
  bool fresh = false;
  {
    std::lock_guard lock(ctx.server.Stripe(dir.id));
    if (const int first = WritesOfExistingFirst(ctx, op, dir); first != 0) return first;
    ctx.reply.set_pre_change(ctx.ChangeNow(dir.fd()));
    IntendToMake(ctx, dir, op.name());
    identity::SetUmask(ctx.caller.umask);
    for (int attempt = 0; attempt < 2; ++attempt) {
      fd.reset(openat(dir.fd(), op.name().c_str(), flags | O_CREAT | O_EXCL | O_NOFOLLOW,
                      op.mode() & 07777));
      if (fd || (errno != EMFILE && errno != ENFILE)) break;
      ctx.store.Purge(true);
    }
    if (fd) {
      fresh = true;
      if (op.how() == pb::CREATE_EXCLUSIVE) StoreVerifier(fd.get(), op.verifier());
      error = ctx.store.Identify(fd.get(), dir.id, op.name(), &made.id);
    } else if (error = errno; error == EEXIST) {
      error = OpenExisting(ctx, op, dir, &made, &fd);
    }
    ctx.ReplyDirAttr(dir);
  }
  if (error != 0) return error;
  if (fd && op.state() != 0) {
    ctx.AddOpen(op.state(), made.id, std::move(fd), op.flags(), false);
    made.open = ctx.session.FindOpen(op.state());
  } else if (fd) {
    made.path = Share(fd.release());
  }
  if (!fresh && (op.flags() & pb::OPEN_TRUNCATE) != 0) {
    ctx.Changed(made.id, pb::RECALL_ATTR | pb::RECALL_DATA);
  }
  if (op.state() != 0) ctx.reply.mutable_open()->set_created(fresh);
  return ReplyMade(ctx, dir, op.name(), made, fresh);
}

namespace {

int MakeTmpFile(OpContext& ctx, const Inode& dir, int flags, FileId* id, UniqueFd* fd) {
  identity::SetUmask(ctx.caller.umask);
  fd->reset(openat(dir.fd(), ".", (flags & ~O_DIRECTORY) | O_TMPFILE,
                   ctx.request.tmpfile().mode() & 07777));
  return *fd ? ctx.store.Identify(fd->get(), {}, "", id) : errno;
}

}  // namespace

int TmpFile(OpContext& ctx) {
  const auto& op = ctx.request.tmpfile();
  const int flags = ToOpenFlags(op.flags() & ~static_cast<uint32_t>(pb::OPEN_TRUNCATE));
  if (flags < 0 || op.state() == 0 || (op.flags() & pb::OPEN_WRITE) == 0) return EINVAL;
  if (!ctx.server.opens().HasRoom()) return ENFILE;
  Inode dir, made;
  if (const int error = ctx.Find(op.dir(), &dir); error != 0) return error;
  UniqueFd fd;
  if (const int error = MakeTmpFile(ctx, dir, flags, &made.id, &fd); error != 0) return error;
  // One that cannot be kept, and is never to be linked, the kernel must know to be so.
  if (!ctx.exported.unnamed->Keep(made.id, fd.get(), op.exclusive()) && op.exclusive()) {
    int error = identity::Assume(ctx.caller);
    if (error == 0) error = MakeTmpFile(ctx, dir, flags | O_EXCL, &made.id, &fd);
    if (error != 0) return error;
  }
  ctx.AddOpen(op.state(), made.id, std::move(fd), op.flags(), false);
  made.open = ctx.session.FindOpen(op.state());
  return ctx.ReplyAttr(made, true);
}

namespace {

bool IsEmpty(int dir_fd) {
  char buffer[512];
  const long n = ReadDirRecords(dir_fd, buffer, sizeof(buffer));
  return n > 0 &&
         ForEachRecord(buffer, static_cast<size_t>(n),
                       [](const DirRecord& record) { return record.IsDots(); }) &&
         ReadDirRecords(dir_fd, buffer, sizeof(buffer)) == 0;
}

}  // namespace

int MkDir(OpContext& ctx) {
  const auto& op = ctx.request.mkdir();
  Inode made;
  const int error = MakeNode(
      ctx, op.dir(), op.name(),
      [&](int dir, const char* name) { return mkdirat(dir, name, op.mode() & 07777); },
      [](int, const struct statx& stx) { return S_ISDIR(stx.stx_mode); }, &made);
  if (error != 0) return error;
  // From the lease on the client is told of what others make in it; before, somebody may
  // have been quick.
  ctx.Grant(made.id, LeaseTable::kNames);
  const UniqueFd fd(openat(made.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ctx.reply.set_exact_names(fd && NamesAreExact(fd.get()) && IsEmpty(fd.get()));
  return 0;
}

int SymLink(OpContext& ctx) {
  const auto& op = ctx.request.symlink();
  if (op.target().empty()) return ENOENT;
  if (op.target().size() > 4095) return ENAMETOOLONG;
  if (op.target().find('\0') != std::string::npos) return EINVAL;
  return MakeNode(
      ctx, op.dir(), op.name(),
      [&](int dir, const char* name) { return symlinkat(op.target().c_str(), dir, name); },
      [&](int fd, const struct statx& stx) {
        char target[4096];
        const ssize_t n = S_ISLNK(stx.stx_mode) ? readlinkat(fd, "", target, sizeof(target)) : -1;
        return n >= 0 && op.target() == std::string(target, static_cast<size_t>(n));
      });
}

int MkNod(OpContext& ctx) {
  const auto& op = ctx.request.mknod();
  const mode_t type = op.mode() & S_IFMT;
  if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR &&
      type != S_IFBLK) {
    return EINVAL;
  }
  return MakeNode(
      ctx, op.dir(), op.name(),
      [&](int dir, const char* name) {
        return mknodat(dir, name, type | (op.mode() & 07777),
                       makedev(op.rdev_major(), op.rdev_minor()));
      },
      [&](int, const struct statx& stx) { return (stx.stx_mode & S_IFMT) == type; });
}

}  // namespace tripwire::fs::ops
