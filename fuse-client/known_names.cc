// SPDX-License-Identifier: BSD-3-Clause
// Names known not to exist, because all those are known that do.
//
// Programs look for things where they are not: a compiler for a header in each directory of
// its path, a shell for a program, the kernel for the name that is about to be made or
// renamed to. A listing from its start to its end tells all names; while the server's
// promise to recall them lasts, any other is answered here, without a call. The promise is
// renewed by what needs a call anyway, as long as the directory's change attribute is the
// one that the names are as of, or the one that our own changes have led to. A directory in
// which many names were looked for in vain is listed for this alone.
#include <algorithm>
#include <cerrno>

#include "fs-server/proto/dir_stream.h"
#include "fuse-client/op.h"

namespace tripwire::fuse {
namespace {

constexpr size_t kLongestName = 255;
constexpr size_t kMostNamesInOne = 1u << 20;
constexpr size_t kMostNames = 4u << 20;  // in all: some 70 MB
// A change on the server's own host that falls between the two looks which the server
// takes at a directory around one of our changes shows in nothing that it tells.
constexpr uint64_t kLongestNs = 30 * kSecond;

constexpr size_t kListingBytesPerMiss = 8 << 10;  // some 250 names
constexpr size_t kMostListingBytes = 512 << 10;

}  // namespace

bool FileSystem::AnswerKnownAbsent(fuse_req_t req, Node* dir, std::string_view name) {
  if (name.size() > kLongestName) return false;  // the server knows what to say to that
  const fuse_ctx& caller = *fuse_req_ctx(req);
  fuse_entry_param absent = {};
  ReaderMutexLock gate(&recalls_.gate);
  {
    MutexLock lock(&dir->mu);
    if (!dir->names) return false;
    const uint64_t now_ns = MonotonicNs();
    DirectoryNames& names = *dir->names;
    if (now_ns > names.listed_ns + kLongestNs ||
        recalls_.RecalledSince(names.recalls_before, dir->handle)) {
      ForgetNames(dir);
      return false;
    }
    if (names.until_ns <= now_ns || !names.IsSearchedBy(caller.uid, caller.gid) ||
        names.MayHave(name)) {
      return false;
    }
    ++names.answers;
    absent.entry_timeout = static_cast<double>(names.until_ns - now_ns) / 1e9;
  }
  fuse_reply_entry(req, &absent);
  return true;
}

bool FileSystem::KnowsNames(Node* dir) {
  MutexLock lock(&dir->mu);
  return dir->names != nullptr;
}

// What was of little use is not listed again so soon.
void FileSystem::ForgetNames(Node* dir) {
  if (!dir->names) return;
  if (dir->names->answers >= dir->list_after_misses) {
    dir->list_after_misses = Node::kFirstMisses;
  } else {
    dir->list_after_misses = std::min(2 * dir->list_after_misses, 1u << 20);
  }
  dir->names.reset();
}

void FileSystem::NoteLookedIn(const Op& op, Node* dir, bool allowed) {
  ReaderMutexLock gate(&recalls_.gate);
  MutexLock lock(&dir->mu);
  if (!dir->names) return;
  DirectoryNames& names = *dir->names;
  const uint64_t change = op.reply.pre_change();
  if (recalls_.RecalledSince(names.recalls_before, dir->handle)) {
    ForgetNames(dir);
  } else if (change != 0 && names.AreAllAsOf(change)) {
    RenewNames(op, &names, dir);
    if (allowed) names.MaySearch(op.caller.uid, op.caller.gid);
  } else if (change != 0 && op.start_ns > names.until_ns &&
             dir->mutations.load() == 0) {
    ForgetNames(dir);  // what it was as of will not come back
  }
}

void FileSystem::RenewNames(const Op& op, DirectoryNames* names, const Node* dir) {
  const uint32_t ms = op.reply.name_cache_ms();
  if (ms == 0 || recalls_.RecalledSince(op.recalls_before, dir->handle)) return;
  names->until_ns = std::max(names->until_ns, op.start_ns + TrustedNs(ms));
  names->recalls_before = std::max(names->recalls_before, op.recalls_before);
}

void FileSystem::KeepDirectory(const Op& op, const Mutating& mutation, Node* dir,
                               bool is_second) {
  const pb::Attr& attr = is_second ? op.reply.dir_attr2() : op.reply.dir_attr();
  const uint64_t pre_change =
      is_second ? op.reply.pre_change2() : op.reply.pre_change();
  KeepAttr(op, mutation, dir, attr);
  ReaderMutexLock gate(&recalls_.gate);
  MutexLock lock(&dir->mu);
  if (!dir->names) return;
  DirectoryNames& names = *dir->names;
  if (recalls_.RecalledSince(names.recalls_before, dir->handle)) {
    ForgetNames(dir);
    return;
  }
  names.Follow(pre_change, attr.change());
  if (names.AreAllAsOf(attr.change())) RenewNames(op, &names, dir);
}

// ----------------------------------------------------------------- learning

void FileSystem::BeginNames(Node* dir, ListedNames* listed) {
  *listed = {};
  if (options_.dir_timeout_s) return;
  MutexLock lock(&dir->mu);
  if (dir->mutations.load() != 0) return;
  listed->mutations = dir->mutations_begun;
  listed->names = std::make_unique<DirectoryNames>(&names_known_);
}

void FileSystem::CollectNames(const Op& op, Node* dir,
                              const std::vector<pb::DirEntry>& entries,
                              ListedNames* listed) {
  if (!listed->names) return;
  const pb::Reply& reply = op.reply;
  if (op.call.readdir().cookie() == 0) {
    listed->change = reply.exact_names() ? reply.pre_change() : 0;
    listed->recalls_before = op.recalls_before;
  }
  for (const pb::DirEntry& entry : entries) listed->names->Add(entry.name());
  if (listed->change == 0 || listed->names->size() > kMostNamesInOne) {
    listed->names.reset();
  } else if (reply.readdir().eof()) {
    AdoptNames(op, dir, listed);
  }
}

void FileSystem::AdoptNames(const Op& op, Node* dir, ListedNames* listed) {
  // What is refused or replaced goes when no lock is held.
  std::unique_ptr<DirectoryNames> names = std::move(listed->names);
  {
    ReaderMutexLock gate(&recalls_.gate);
    MutexLock lock(&dir->mu);
    const bool are_all =
        op.reply.attr().change() == listed->change && op.reply.name_cache_ms() != 0 &&
        dir->mutations.load() == 0 && dir->mutations_begun == listed->mutations &&
        !recalls_.RecalledSince(listed->recalls_before, dir->handle);
    if (!are_all) return;
    names->StartFrom(listed->change);
    names->listed_ns = op.start_ns;
    names->until_ns = op.start_ns + TrustedNs(op.reply.name_cache_ms());
    names->recalls_before = op.recalls_before;
    if (dir->names) names->SearchedAs(*dir->names);
    dir->names.swap(names);
  }
  if (names_known_.load(std::memory_order_relaxed) <= kMostNames) return;
  nodes_.ForEach([](Node& node) {
    MutexLock lock(&node.mu);
    node.names.reset();
  });
}

void FileSystem::AdoptNoNames(const Op& op, Node* dir) {
  ListedNames none;
  BeginNames(dir, &none);
  none.change = op.reply.attr().change();
  none.recalls_before = op.recalls_before;
  if (none.names) AdoptNames(op, dir, &none);
}

NodeRef FileSystem::MissedOften(Node* dir, size_t* listing_bytes) {
  if (options_.dir_timeout_s) return {};
  MutexLock lock(&dir->mu);
  if (dir->names || ++dir->misses < dir->list_after_misses) return {};
  *listing_bytes =
      std::min(dir->misses * kListingBytesPerMiss, kMostListingBytes);
  dir->misses = 0;
  return nodes_.Ref(dir);
}

void FileSystem::ListNames(const fuse_ctx& caller, const NodeRef& dir,
                           size_t listing_bytes) {
  ListedNames listed;
  BeginNames(dir.get(), &listed);
  Op op(*this, caller, Op::Check::kCaller);
  op.Name(dir.get(), op.call.mutable_readdir()->mutable_object()->mutable_handle());
  op.frame.bulk_reply_capacity = listing_bytes;
  op.frame.timeout_ns = lease_ms_ * kMillisecond;  // nobody waits for it
  std::vector<pb::DirEntry> entries;
  if (op.Call() == 0 && ReadEntries(op, &entries)) {
    CollectNames(op, dir.get(), entries, &listed);
  }
  MutexLock lock(&dir->mu);
  // Too long a list, perhaps: it is tried again when it has been missed more.
  if (!dir->names) {
    dir->list_after_misses = std::min(4 * dir->list_after_misses, 1u << 20);
  }
}

}  // namespace tripwire::fuse
