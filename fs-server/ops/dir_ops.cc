// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>

#include "fs-server/attr.h"
#include "fs-server/exact_names.h"
#include "fs-server/ops/dir_records.h"
#include "fs-server/ops/ops.h"
#include "fs-server/proto/dir_stream.h"
#include "nic/base/clock.h"

namespace tripwire::fs::ops {
namespace {

class Lister {
 public:
  Lister(OpContext& ctx, const Inode& dir, int fd, DirStreamWriter* out)
      : ctx_(ctx),
        dir_(dir),
        fd_(fd),
        plus_(ctx.request.readdir().plus()),
        xattrs_(ctx.request.readdir().xattrs()),
        out_(out),
        now_ns_(SystemClock().NowNs()) {}

  // False when the entry does not fit.
  bool Add(const DirRecord& raw) {
    if (raw.IsDots()) return true;
    if (std::strcmp(raw.name, UnnamedFiles::kDirectory) == 0) return true;
    entry_.Clear();
    entry_.set_name(raw.name);
    entry_.set_ino(raw.ino);
    entry_.set_type(raw.type);
    entry_.set_cookie(raw.next);
    if (plus_) AddDetails(raw);
    if (!out_->Append(entry_)) return false;
    ++entries_;
    return true;
  }
  uint32_t entries() const { return entries_; }

 private:
  void AddDetails(const DirRecord& raw) {
    FileId id;
    struct statx stx;
    // The name must not come to mean another object in between.
    std::unique_lock<std::mutex> steady;
    if (xattrs_) steady = std::unique_lock(ctx_.server.Stripe(dir_.id));
    // Beside a write lease there are no details: who wants them looks the name up.
    bool granted = false;
    auto grant = [&](const FileId& found) {
      granted = ctx_.GrantUnder(found, LeaseTable::kInode, now_ns_);
    };
    int error = ctx_.store.IdentifyAt(fd_, dir_.id, raw.name, raw.ino, grant, &id, &stx);
    if (error == EXDEV) {  // a mount point, or replaced since it was listed
      SharedFd child;
      error = ctx_.store.Walk(fd_, dir_.id, raw.name, &id, &child);
      if (error == 0) {
        grant(id);
        error = StatFd(child->get(), &stx);
      }
    }
    if (error != 0 || !granted) return;
    ctx_.server.codec().Encode(ctx_.exported.id, id, entry_.mutable_handle());
    ctx_.FillAttr(id, stx, entry_.mutable_attr());
    if (xattrs_) entry_.mutable_attr()->set_no_xattrs(ctx_.HasNoXattrs(fd_, raw.name));
    entry_.set_ino(stx.stx_ino);
  }

  OpContext& ctx_;
  const Inode& dir_;
  const int fd_;
  const bool plus_;
  const bool xattrs_;
  DirStreamWriter* const out_;
  const uint64_t now_ns_;
  pb::DirEntry entry_;
  uint32_t entries_ = 0;
};

}  // namespace

int ReadDir(OpContext& ctx) {
  const auto& op = ctx.request.readdir();
  Inode dir;
  if (const int error = ctx.Find(op.object(), &dir); error != 0) return error;
  size_t room = ctx.call->bulk_reply_capacity();
  if (op.max_bytes() != 0 && op.max_bytes() < room) room = op.max_bytes();
  if (room < 1024) return EINVAL;  // less than the largest entry: about 600 bytes
  if (op.cookie() > INT64_MAX) return EINVAL;
  if (dir.open && !dir.open->directory) return ENOTDIR;
  ctx.Grant(dir.id, LeaseTable::kNames | LeaseTable::kInode);
  UniqueFd holder;
  int fd = -1;
  if (const int error =
          ctx.DataFd(dir, pb::OPEN_READ | pb::OPEN_DIRECTORY, &holder, &fd);
      error != 0) {
    return error;
  }
  std::unique_lock<std::mutex> position;
  if (dir.open) position = std::unique_lock(dir.open->position_mutex);
  if (lseek(fd, static_cast<off_t>(op.cookie()), SEEK_SET) < 0) return EINVAL;
  if (op.cookie() == 0) {
    ctx.reply.set_exact_names(NamesAreExact(fd));
    ctx.reply.set_pre_change(ctx.ChangeNow(fd));
  }
  ctx.bulk = ctx.call->AllocateBulk(room);
  DirStreamWriter out(ctx.bulk.data(), room);
  Lister lister(ctx, dir, fd, &out);
  // An entry of ours is larger than the kernel's, more so with attributes: what is
  // read in vain at the end is bounded by reading in small pieces.
  thread_local std::vector<char> buffer(32 * 1024);
  const size_t piece = std::min(buffer.size(), std::max<size_t>(room / (op.plus() ? 4 : 1), 4096));
  bool more = true;
  bool eof = false;
  while (more) {
    const long n = ReadDirRecords(fd, buffer.data(), piece);
    if (n < 0) return errno;
    if (n == 0) {
      eof = true;
      break;
    }
    more = ForEachRecord(buffer.data(), static_cast<size_t>(n),
                         [&](const DirRecord& entry) { return lister.Add(entry); });
  }
  ctx.bulk_bytes = out.size();
  auto* result = ctx.reply.mutable_readdir();
  result->set_entries(lister.entries());
  result->set_eof(eof);
  if (op.plus()) result->set_attr_cache_ms(ctx.server.config().lease_ms);
  Inode self = dir;
  return ctx.ReplyAttr(self);
}

}  // namespace tripwire::fs::ops
