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

// How long we trust what the server promised for `ms`, in nanoseconds. A fifth less:
// the kernel counts from when it gets to it, and the server, when a promise runs out,
// waits for nobody's answer.
uint64_t TrustedNs(uint32_t ms) {
  constexpr uint32_t kLongestMs = 3'600'000;
  return std::min(ms, kLongestMs) * kMillisecond * 4 / 5;
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

void FileSystem::Observe(const Op& op, Node* node, const pb::Attr& attr,
                         uint32_t cache_ms, Cause cause, uint64_t pre_change) {
  Observe(Asked{op.start_ns, op.recalls_before}, node, attr, cache_ms, cause,
          pre_change);
}

void FileSystem::Observe(Asked asked, Node* node, const pb::Attr& attr,
                         uint32_t cache_ms, Cause cause, uint64_t pre_change) {
  if (node->type != S_IFREG) return;
  const std::string handle = node->Handle();
  bool stale = false;
  {
    // Under the gate, so that a recall is wholly before or wholly after this.
    absl::ReaderMutexLock gate(&recalls_.gate);
    const bool recalled = recalls_.RecalledSince(asked.recalls_before, handle);
    absl::MutexLock lock(&node->mu);
    // While the server has promised to tell us first, every change is our own.
    const bool promised = node->lease_until_ns > MonotonicNs() && !recalled;
    if (!node->has_pages) {
      // None, or only such as were read after the last recall.
      if (cause == Cause::kData) {
        node->has_pages = true;
        node->pages_change = attr.change();
      }
    } else if (node->pages_change != attr.change()) {
      const bool ours = node->pages_change != 0 &&
                        (promised || (pre_change != 0 &&
                                      pre_change == node->pages_change));
      if (ours) {
        node->pages_change = attr.change();
      } else if (node->opens != nullptr) {
        stale = true;
        node->has_pages = false;
      }  // else nobody can look at them before an open, which compares again
    }
    if (!recalled) {
      node->lease_until_ns =
          std::max(node->lease_until_ns, asked.start_ns + TrustedNs(cache_ms));
    }
  }
  if (!stale) return;
  if (cause == Cause::kLook) {
    // The kernel will not take in the attributes of an answer that was under way
    // meanwhile; it asks once more.
    ForgetPages(node->id);
  } else {
    // The kernel may hold locks on the very pages until it has our answer.
    ForgetPagesLater(node);
  }
}

// Asks for the promise on an open file once more; notices what happened meanwhile.
void FileSystem::RenewLease(Node& node) {
  Frame frame;
  const Asked asked = {MonotonicNs(), recalls_.Now()};
  frame.timeout_ns = lease_ms_ * kMillisecond;  // the rounds must go on
  pb::Object* object = frame.call().mutable_getattr()->mutable_object();
  object->set_handle(node.Handle());
  {
    absl::MutexLock lock(&node.mu);
    if (!node.opens) return;
    object->set_state(node.opens->state);
  }
  if (remote_.Invoke(frame, &committer_cancel_) != 0) return;
  const pb::Attr& attr = frame.reply().attr();
  if ((attr.mode() & S_IFMT) != node.type) return;
  Observe(asked, &node, attr, frame.reply().attr_cache_ms(), Cause::kLook);
}

void FileSystem::ForgetPagesLater(Node* node) {
  auto ref = std::make_shared<NodeRef>(nodes_.Ref(node));
  invalidator_.Post([this, ref] { ForgetPages((*ref)->id); });
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
  int sent;
  {
    absl::ReaderMutexLock gate(&recalls_.gate);
    if (recalls_.RecalledSince(op.recalls_before, op.reply.handle())) {
      entry.attr_timeout = 0;
    }
    if (recalls_.RecalledSince(op.recalls_before, parent->Handle())) {
      entry.entry_timeout = 0;
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
  absl::ReaderMutexLock gate(&recalls_.gate);
  double timeout =
      TimeoutsFor(op, node->type == S_IFDIR, reply.attr_cache_ms(), 0).attr;
  if (recalls_.RecalledSince(op.recalls_before, handle)) timeout = 0;
  fuse_reply_attr(op.req, &st, timeout);
}

}  // namespace tripwire::fuse
