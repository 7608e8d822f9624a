// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_DIRECTORY_NAMES_H_
#define TRIPWIRE_FUSE_CLIENT_DIRECTORY_NAMES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/hash/hash.h"

namespace tripwire::fuse {

// All names there are in a directory, so that the mount itself can say that another does
// not exist.
//
// Names are kept as hashes, 8 bytes each, and one that goes stays: two names of one hash,
// or a name that is gone, make the mount ask in vain, and that is all. Not thread-safe: a
// node's lock guards it.
//
// Invariants:
//  1. Whatever existed when the directory's change attribute was `change` is in it, and so
//     is whatever this mount has begun to make there since.
//  2. Changes of ours are followed in the order in which the server made them, however
//     their replies come; what does not join on was somebody else's.
class DirectoryNames {
 public:
  // `total` counts the names of all directories.
  explicit DirectoryNames(std::atomic<size_t>* total) : total_(total) {}
  ~DirectoryNames() { total_->fetch_sub(hashes_.size(), std::memory_order_relaxed); }
  DirectoryNames(const DirectoryNames&) = delete;
  DirectoryNames& operator=(const DirectoryNames&) = delete;

  void Add(std::string_view name) {
    if (hashes_.insert(HashOf(name)).second) {
      total_->fetch_add(1, std::memory_order_relaxed);
    }
  }
  bool MayHave(std::string_view name) const { return hashes_.contains(HashOf(name)); }
  size_t size() const { return hashes_.size(); }

  // The value of the change attribute as of which they are all.
  void StartFrom(uint64_t change) { change_ = change; }
  // A change of ours made `after` of `before`.
  void Follow(uint64_t before, uint64_t after);
  // Whether nobody else has changed the directory if its change attribute is this.
  bool AreAllAsOf(uint64_t change) const { return ahead_.empty() && change == change_; }

  // Who is known to be allowed to search the directory.
  void MaySearch(uint32_t uid, uint32_t gid);
  bool IsSearchedBy(uint32_t uid, uint32_t gid) const;
  // `others` are of the same directory, which has not changed since.
  void SearchedAs(const DirectoryNames& others) { searchers_ = others.searchers_; }

  uint64_t listed_ns = 0;       // CLOCK_MONOTONIC, as the next
  uint64_t until_ns = 0;        // as long as the server promised
  uint64_t recalls_before = 0;  // RecallLog::Now() before that was asked for
  uint32_t answers = 0;         // lookups answered from here

 private:
  static constexpr size_t kMostAhead = 64;     // as many calls may be under way at once
  static constexpr size_t kMostSearchers = 16;
  static uint64_t HashOf(std::string_view name) {
    return absl::Hash<std::string_view>()(name);
  }

  std::atomic<size_t>* const total_;
  absl::flat_hash_set<uint64_t> hashes_;
  uint64_t change_ = 0;
  // Changes of ours whose replies overtook those of earlier ones.
  absl::InlinedVector<std::pair<uint64_t, uint64_t>, 2> ahead_;
  absl::InlinedVector<std::pair<uint32_t, uint32_t>, 2> searchers_;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_DIRECTORY_NAMES_H_
