// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_NODE_TABLE_H_
#define TRIPWIRE_FUSE_CLIENT_NODE_TABLE_H_

#include <sys/stat.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "fuse-client/directory_names.h"
#include "fuse-client/mutex.h"

namespace tripwire::fuse {

struct OpenFile;
struct HeldLocks;

// What the server says an object is; enough to know it again.
struct Identity {
  std::string_view handle;
  uint64_t ino = 0;
  uint64_t fsid = 0;
  uint32_t type = 0;  // S_IFMT bits
};

// Attributes of which the kernel has not been told.
struct KnownAttr {
  struct stat stat;
  uint64_t until_ns;        // CLOCK_MONOTONIC; as long as the server promised
  uint64_t recalls_before;  // RecallLog::Now() before they were asked for
};

// Writes of a file whose programs were answered before the server had them
// (write_behind.cc).
struct WritesBehind {
  struct Range {
    uint64_t number;
    uint64_t begin, end;  // bytes of the file
  };
  uint64_t until_ns = 0;  // CLOCK_MONOTONIC; more may begin for as long as this
  uint64_t begun = 0;     // the last one's number
  absl::InlinedVector<Range, 2> under_way;
};

// Extended attributes an object is known not to have.
struct Lacks {
  bool capability = false;  // security.capability
  bool all = false;
  uint64_t until_ns = 0;        // CLOCK_MONOTONIC; as long as the server promised
  uint64_t recalls_before = 0;  // RecallLog::Now() before it was asked
};

// One inode known to the kernel. About 250 bytes with its handle, so a million
// of them are a quarter of a gigabyte.
struct Node {
  static constexpr uint32_t kFirstMisses = 4;

  // Kernel lookups plus our own references; only NodeTable changes it.
  std::atomic<uint64_t> refs{0};
  // The kernel's alone: while it is not 0, the kernel knows the node, or is about to.
  std::atomic<uint64_t> lookups{0};
  uint64_t id = 0;           // FUSE nodeid
  uint32_t generation = 0;   // a slot's life; ids are reused, pairs are not
  uint32_t type = 0;
  uint64_t ino = 0;
  uint64_t fsid = 0;

  mutable Mutex mu;
  std::string handle ABSL_GUARDED_BY(mu);
  // Where it was last seen: to find it again should its handle go stale.
  uint64_t parent_id ABSL_GUARDED_BY(mu) = 0;
  uint32_t parent_generation ABSL_GUARDED_BY(mu) = 0;
  std::string name ABSL_GUARDED_BY(mu);

  // The kernel may have pages of the file, and they belong to this value of its
  // change attribute; 0: unknown, so they must go before they are trusted again.
  bool has_pages ABSL_GUARDED_BY(mu) = false;
  uint64_t pages_change ABSL_GUARDED_BY(mu) = 0;
  // Until when (CLOCK_MONOTONIC ns) the server promised to recall before anyone
  // else changes the object.
  uint64_t lease_until_ns ABSL_GUARDED_BY(mu) = 0;
  Lacks lacks ABSL_GUARDED_BY(mu);
  std::unique_ptr<KnownAttr> known ABSL_GUARDED_BY(mu);
  std::unique_ptr<DirectoryNames> names ABSL_GUARDED_BY(mu);
  std::unique_ptr<WritesBehind> behind ABSL_GUARDED_BY(mu);
  // Lookups in vain, and after how many of them the directory is listed.
  uint32_t misses ABSL_GUARDED_BY(mu) = 0;
  uint32_t list_after_misses ABSL_GUARDED_BY(mu) = kFirstMisses;
  // Counts calls of ours that change the object, when they begin.
  uint64_t mutations_begun ABSL_GUARDED_BY(mu) = 0;
  int forgetting ABSL_GUARDED_BY(mu) = 0;  // Forgetting objects
  OpenFile* opens ABSL_GUARDED_BY(mu) = nullptr;  // list through OpenFile::next
  std::unique_ptr<HeldLocks> locks ABSL_GUARDED_BY(mu);

  // Calls of ours under way that change this object: while there are any, the
  // kernel may hold its lock, and a recall must not wait for that lock.
  std::atomic<int> mutations{0};
  // When the last of them was over (CLOCK_MONOTONIC).
  std::atomic<uint64_t> mutated_ns{0};
  // The kernel was given attributes to believe since it was last told to forget them.
  // Telling it needlessly is worse than useless: it then ignores an answer to GETATTR
  // that is just under way, and reads by an old size. Set under RecallLog::gate.
  std::atomic<bool> attributes_given{true};
  // Reads of ours under way: pages that the kernel is about to have.
  std::atomic<int> reads{0};
  // LeaseKeeper's.
  std::atomic<bool> kept{false};
  std::atomic<bool> recently_active{false};

  // Another call than those of `mutations` has changed it.
  void ChangedBeside() {
    MutexLock lock(&mu);
    ++mutations_begun;
    known.reset();
  }

  std::string Handle() const {
    MutexLock lock(&mu);
    return handle;
  }

  Node();
  ~Node();
};

class NodeTable;

// Keeps a node alive beyond the kernel's interest.
class NodeRef {
 public:
  NodeRef() = default;
  NodeRef(NodeTable* table, Node* node) : table_(table), node_(node) {}
  NodeRef(NodeRef&& other) noexcept
      : table_(other.table_), node_(std::exchange(other.node_, nullptr)) {}
  NodeRef& operator=(NodeRef&& other) noexcept;
  ~NodeRef();
  Node* get() const { return node_; }
  Node* operator->() const { return node_; }
  explicit operator bool() const { return node_ != nullptr; }

 private:
  NodeTable* table_ = nullptr;
  Node* node_ = nullptr;
};

// Nodes by FUSE nodeid and by server handle.
//
// Thread-safe. Lock order: a shard's lock, then a node's `mu`.
//
// Invariants:
//  1. A node's memory is never returned, so a stale pointer reads a recycled
//     node at worst, and `Get` of any number is safe.
//  2. A live node is found by exactly one handle, and a handle finds at most one
//     live node.
//  3. The root (id 1) is never forgotten.
class NodeTable {
 public:
  static constexpr uint64_t kRootId = 1;

  NodeTable();
  ~NodeTable();
  NodeTable(const NodeTable&) = delete;
  NodeTable& operator=(const NodeTable&) = delete;

  // Sets or replaces (after a server restart) what the root is.
  void SetRoot(const Identity& identity);

  // The node, when it is live. Cheap; no reference is taken: the kernel keeps
  // the nodes it names in a request alive until the answer.
  Node* Get(uint64_t id);
  // The same with a reference, for ids from elsewhere.
  NodeRef Acquire(uint64_t id);
  NodeRef Find(std::string_view handle);

  // The node for an object the server named, made when new, with one more
  // lookup counted for the kernel.
  Node* Enter(const Identity& identity, const Node* parent, std::string_view name);
  void Forget(uint64_t id, uint64_t lookups);
  NodeRef Ref(Node* node);
  void Unref(Node* node) { Drop(node, 1); }

  // The object has a new handle (its old one went stale).
  void Rekey(Node* node, const std::string& handle);
  // Remembers where a node is now.
  void Moved(Node* node, const Node* parent, std::string_view name);

  // Calls `f` for every live node, each held alive meanwhile.
  void ForEach(const std::function<void(Node&)>& f);
  size_t size() const { return live_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kChunkNodes = 512;
  static constexpr uint64_t kMaxChunks = 1u << 18;  // 134 million nodes
  static constexpr size_t kShards = 32;

  struct ByHandle {
    using is_transparent = void;
    size_t operator()(std::string_view handle) const {
      return absl::Hash<std::string_view>()(handle);
    }
    size_t operator()(const Node* node) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return (*this)(std::string_view(node->handle));
    }
  };
  struct SameHandle {
    using is_transparent = void;
    static std::string_view Of(std::string_view handle) { return handle; }
    static std::string_view Of(const Node* node) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return node->handle;
    }
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
      return Of(a) == Of(b);
    }
  };
  struct Shard {
    Mutex mu;
    absl::flat_hash_set<Node*, ByHandle, SameHandle> nodes ABSL_GUARDED_BY(mu);
  };

  Shard& ShardOf(std::string_view handle) {
    return shards_[(absl::Hash<std::string_view>()(handle) >> 7) % kShards];
  }
  Node* Slot(uint64_t id) const;
  Node* Allocate();
  void Recycle(Node* node);
  void Drop(Node* node, uint64_t count);

  std::array<Shard, kShards> shards_;
  std::unique_ptr<std::atomic<Node*>[]> chunks_;
  std::atomic<uint64_t> slots_{0};  // ever handed out
  std::atomic<size_t> live_{0};
  Mutex free_mu_;
  std::vector<Node*> free_ ABSL_GUARDED_BY(free_mu_);
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_NODE_TABLE_H_
