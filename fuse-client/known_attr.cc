// SPDX-License-Identifier: BSD-3-Clause
// Attributes, and the absence of extended ones, that answers to other questions told.
//
// After each change of ours the kernel asks for the attributes of what was changed
// (of the directory, after a create), and before the first write of a file for its
// security.capability; `ls -l` asks for an ACL of each file. Replies to the change, and
// to the listing, have told us already; while the server's promise lasts, we answer by
// ourselves.
#include <algorithm>
#include <cerrno>

#include "fuse-client/op.h"

namespace tripwire::fuse {

void FileSystem::KeepAttr(const Op& op, const Mutating& mutation, Node* node,
                          const pb::Attr& attr) {
  const auto& fixed =
      node->type == S_IFDIR ? options_.dir_timeout_s : options_.file_timeout_s;
  const uint32_t ms = op.reply.attr_cache_ms();
  if (fixed || ms == 0 || (attr.mode() & S_IFMT) != node->type) return;
  if (!spare_known) spare_known = std::make_unique<KnownAttr>();
  KnownAttr* known = spare_known.get();
  FillStat(attr, &known->stat);
  known->until_ns = op.start_ns + TrustedNs(ms);
  known->recalls_before = op.recalls_before;
  MutexLock lock(&node->mu);
  if (mutation.WasAlone()) node->known = std::move(spare_known);
}

bool FileSystem::AnswerKnownAttr(fuse_req_t req, Node* node) {
  ReaderMutexLock gate(&recalls_.gate);
  struct stat stat;
  uint64_t left_ns;
  {
    MutexLock lock(&node->mu);
    if (!node->known) return false;
    const uint64_t now_ns = MonotonicNs();
    if (node->known->until_ns <= now_ns ||
        recalls_.RecalledSince(node->known->recalls_before, node->handle)) {
      node->known.reset();
      return false;
    }
    stat = node->known->stat;
    left_ns = node->known->until_ns - now_ns;
  }
  node->attributes_given.store(true);
  fuse_reply_attr(req, &stat, static_cast<double>(left_ns) / 1e9);
  return true;
}

void FileSystem::NoteLacks(const Asked& asked, Node* node, bool all,
                           uint32_t cache_ms) {
  MutexLock lock(&node->mu);
  // One of ours may have been given to it meanwhile.
  if (asked.xattrs_set != xattrs_set_.load()) return;
  Lacks& lacks = node->lacks;
  lacks.capability = true;
  lacks.all = all;
  lacks.until_ns = asked.start_ns + TrustedNs(cache_ms);
  lacks.recalls_before = asked.recalls_before;
}

void FileSystem::StillLacks(const Asked& asked, Node* node, uint32_t cache_ms) {
  MutexLock lock(&node->mu);
  Lacks& lacks = node->lacks;
  if (lacks.until_ns <= asked.start_ns) return;
  if (recalls_.RecalledSince(lacks.recalls_before, node->handle)) {
    lacks = {};
    return;
  }
  lacks.until_ns =
      std::max(lacks.until_ns, asked.start_ns + TrustedNs(cache_ms));
  lacks.recalls_before = asked.recalls_before;
}

bool FileSystem::KnowsItLacks(Node* node, std::string_view xattr) {
  ReaderMutexLock gate(&recalls_.gate);
  MutexLock lock(&node->mu);
  const Lacks& lacks = node->lacks;
  if (lacks.until_ns <= MonotonicNs() ||
      recalls_.RecalledSince(lacks.recalls_before, node->handle)) {
    return false;
  }
  return lacks.all || (lacks.capability && xattr == kCapability);
}

bool FileSystem::XattrsAreWanted() const {
  constexpr uint64_t kLately = 5 * kSecond;
  return MonotonicNs() - xattr_asked_ns_.load(std::memory_order_relaxed) < kLately;
}

}  // namespace tripwire::fuse
