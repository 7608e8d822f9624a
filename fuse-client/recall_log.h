// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_RECALL_LOG_H_
#define TRIPWIRE_FUSE_CLIENT_RECALL_LOG_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/hash/hash.h"
#include "fuse-client/mutex.h"

namespace tripwire::fuse {

// Which objects the server recalled lately, so that a reply which was under way
// when its object was recalled is not cached.
//
// A call notes Now() before it is sent. Its reply is handed to the kernel while
// holding `gate` for reading, together with the question RecalledSince(); a recall
// is noted while holding it for writing. So a reply is either handed over before
// the recall is noted, and what the kernel then caches is invalidated by the
// recall that follows, or it sees the recall and is not cached.
class RecallLog {
 public:
  Mutex gate;

  uint64_t Now() const { return sequence_.load(std::memory_order_acquire); }

  void Note(std::string_view handle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(gate) {
    const uint64_t next = sequence_.load(std::memory_order_relaxed) + 1;
    ring_[next % kSize] = Hash(handle);
    sequence_.store(next, std::memory_order_release);
  }
  // Everything that is known was recalled.
  void NoteAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(gate) {
    const uint64_t next = sequence_.load(std::memory_order_relaxed) + 1;
    all_before_ = next;
    sequence_.store(next, std::memory_order_release);
  }

  // Whether `handle` was recalled after `then`. May say yes for another object.
  bool RecalledSince(uint64_t then, std::string_view handle) const
      ABSL_SHARED_LOCKS_REQUIRED(gate) {
    const uint64_t now = sequence_.load(std::memory_order_relaxed);
    if (now == then) return false;
    if (now - then > kSize || all_before_ > then) return true;
    const uint64_t hash = Hash(handle);
    for (uint64_t i = then + 1; i <= now; ++i) {
      if (ring_[i % kSize] == hash) return true;
    }
    return false;
  }

 private:
  static constexpr uint64_t kSize = 4096;
  static uint64_t Hash(std::string_view handle) {
    return absl::Hash<std::string_view>()(handle);
  }
  std::atomic<uint64_t> sequence_{0};
  uint64_t all_before_ ABSL_GUARDED_BY(gate) = 0;
  std::array<uint64_t, kSize> ring_ ABSL_GUARDED_BY(gate) = {};
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_RECALL_LOG_H_
