// SPDX-License-Identifier: BSD-3-Clause
// Attributes, and the absence of capabilities, that answers to other questions told.
//
// After each change of ours the kernel asks for the attributes of what was changed
// (of the directory, after a create), and before the first write of a file for its
// security.capability. The reply to the change has told us already; while the
// server's promise lasts, we answer by ourselves.
#include <cerrno>

#include "fuse-client/op.h"

namespace tripwire::fuse {

void FileSystem::KeepAttr(const Op& op, const Mutating& mutation, Node* node,
                          const pb::Attr& attr) {
  const auto& fixed =
      node->type == S_IFDIR ? options_.dir_timeout_s : options_.file_timeout_s;
  const uint32_t ms = op.reply.attr_cache_ms();
  if (fixed || ms == 0 || (attr.mode() & S_IFMT) != node->type) return;
  auto known = std::make_unique<KnownAttr>();
  FillStat(attr, &known->stat);
  known->until_ns = op.start_ns + TrustedNs(ms);
  known->recalls_before = op.recalls_before;
  absl::MutexLock lock(&node->mu);
  if (mutation.WasAlone()) node->known = std::move(known);
}

bool FileSystem::AnswerKnownAttr(fuse_req_t req, Node* node) {
  absl::ReaderMutexLock gate(&recalls_.gate);
  struct stat stat;
  uint64_t left_ns;
  {
    absl::MutexLock lock(&node->mu);
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

void FileSystem::NoteNoCapability(const Op& op, Node* node) {
  absl::ReaderMutexLock gate(&recalls_.gate);
  absl::MutexLock lock(&node->mu);
  node->no_capability = !recalls_.RecalledSince(op.recalls_before, node->handle) &&
                        node->lease_until_ns > MonotonicNs();
}

bool FileSystem::KnowsNoCapability(Node* node) {
  absl::ReaderMutexLock gate(&recalls_.gate);  // a recall is wholly before, or after
  absl::MutexLock lock(&node->mu);
  return node->no_capability && node->lease_until_ns > MonotonicNs();
}

}  // namespace tripwire::fuse
