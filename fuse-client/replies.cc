// SPDX-License-Identifier: BSD-3-Clause
// From the server's replies to the kernel's: attributes, entries and for how long
// they may be believed.
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "fuse-client/op.h"

namespace tripwire::fuse {
namespace {

// Two file systems under one export may use the same inode numbers; those of the
// export's own file system are shown as they are.
uint64_t MixedIno(uint64_t ino, uint64_t fsid) {
  uint64_t x = ino ^ (fsid * 0x9e3779b97f4a7c15u);
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93u;
  x ^= x >> 32;
  return x < 2 ? x + 2 : x;
}

bool IsKnownType(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG: case S_IFDIR: case S_IFLNK: case S_IFCHR:
    case S_IFBLK: case S_IFIFO: case S_IFSOCK:
      return true;
    default:
      return false;
  }
}

}  // namespace

void FileSystem::FillStat(const pb::Attr& attr, struct stat* out) const {
  *out = {};
  const uint64_t root_fsid = root_fsid_.load(std::memory_order_relaxed);
  out->st_ino = attr.fsid() == root_fsid ? attr.ino()
                                         : MixedIno(attr.ino(), attr.fsid());
  out->st_mode = attr.mode();
  out->st_nlink = attr.nlink();
  out->st_uid = attr.uid();
  out->st_gid = attr.gid();
  out->st_size = static_cast<off_t>(attr.size());
  out->st_blocks = static_cast<blkcnt_t>(attr.blocks());
  out->st_blksize = attr.blksize();
  out->st_rdev = makedev(attr.rdev_major(), attr.rdev_minor());
  out->st_mtim = {attr.mtime_s(), static_cast<long>(attr.mtime_ns())};
  out->st_ctim = {attr.ctime_s(), static_cast<long>(attr.ctime_ns())};
  out->st_atim = {attr.atime_s(), static_cast<long>(attr.atime_ns())};
}

// The lease began, at the latest, when the server answered; we count from when we
// asked.
double FileSystem::TrustLeft(uint64_t asked_ns, uint32_t ms) {
  const uint64_t until = asked_ns + TrustedNs(ms);
  const uint64_t now = MonotonicNs();
  return until > now ? static_cast<double>(until - now) / 1e9 : 0;
}

FileSystem::Timeouts FileSystem::TimeoutsFor(const Op& op, bool directory,
                                             uint32_t attr_ms,
                                             uint32_t name_ms) const {
  const auto left = [&](uint32_t ms) { return TrustLeft(op.start_ns, ms); };
  const auto& fixed = directory ? options_.dir_timeout_s : options_.file_timeout_s;
  Timeouts timeouts;
  timeouts.attr = fixed ? *fixed : left(attr_ms);
  timeouts.entry = options_.dir_timeout_s ? *options_.dir_timeout_s : left(name_ms);
  return timeouts;
}

bool FileSystem::MakeEntry(Op& op, Node* parent, std::string_view name,
                           fuse_entry_param* entry, Node** out) {
  const pb::Reply& reply = op.reply;
  if (reply.handle().empty() || reply.handle().size() > 64 ||
      !IsKnownType(reply.attr().mode())) {
    return false;
  }
  Node* node = nodes_.Enter({reply.handle(), reply.attr().ino(),
                             reply.attr().fsid(), reply.attr().mode() & S_IFMT},
                            parent, name);
  if (!node) return false;
  if (!AskAgainIfWrittenBehind(op, node)) {
    nodes_.Forget(node->id, 1);
    return false;
  }
  entry->ino = node->id;
  entry->generation = node->generation;
  FillStat(reply.attr(), &entry->attr);
  const Timeouts timeouts = TimeoutsFor(op, node->type == S_IFDIR,
                                        reply.attr_cache_ms(), reply.name_cache_ms());
  entry->attr_timeout = timeouts.attr;
  entry->entry_timeout = timeouts.entry;
  *out = node;
  return true;
}

void FileSystem::ReplyEntry(Op& op, Node* parent, std::string_view name) {
  fuse_entry_param entry = {};
  Node* node = nullptr;
  if (!MakeEntry(op, parent, name, &entry, &node)) {
    fuse_reply_err(op.req, EIO);
    return;
  }
  Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kLook);
  if (op.reply.exact_names() && node->type == S_IFDIR) AdoptNoNames(op, node);
  int sent;
  {
    ReaderMutexLock gate(&recalls_.gate);
    if (recalls_.RecalledSince(op.recalls_before, op.reply.handle())) {
      entry.attr_timeout = 0;
    }
    if (recalls_.RecalledSince(op.recalls_before, parent->Handle())) {
      entry.entry_timeout = 0;
    }
    if (entry.attr_timeout > 0) node->attributes_given.store(true);
    if (op.reply.attr().no_xattrs()) {
      NoteLacks({op.start_ns, op.recalls_before, op.xattrs_set_before}, node, true,
                op.reply.attr_cache_ms());
    }
    sent = fuse_reply_entry(op.req, &entry);
  }
  if (sent != 0) nodes_.Forget(entry.ino, 1);  // nobody took it
}

void FileSystem::ReplyAttr(Op& op, Node* node) {
  const pb::Reply& reply = op.reply;
  if (!reply.has_attr() || (reply.attr().mode() & S_IFMT) != node->type) {
    fuse_reply_err(op.req, reply.has_attr() ? ESTALE : EIO);
    return;
  }
  struct stat st;
  FillStat(reply.attr(), &st);
  const std::string handle = node->Handle();
  ReaderMutexLock gate(&recalls_.gate);
  double timeout =
      TimeoutsFor(op, node->type == S_IFDIR, reply.attr_cache_ms(), 0).attr;
  if (recalls_.RecalledSince(op.recalls_before, handle)) timeout = 0;
  if (timeout > 0) node->attributes_given.store(true);
  fuse_reply_attr(op.req, &st, timeout);
}

}  // namespace tripwire::fuse
