// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/node_table.h"

#include <sys/stat.h>

#include "fuse-client/held_locks.h"

namespace tripwire::fuse {

Node::Node() = default;
Node::~Node() = default;

NodeRef& NodeRef::operator=(NodeRef&& other) noexcept {
  if (this != &other) {
    if (node_) table_->Unref(node_);
    table_ = other.table_;
    node_ = std::exchange(other.node_, nullptr);
  }
  return *this;
}

NodeRef::~NodeRef() {
  if (node_) table_->Unref(node_);
}

NodeTable::NodeTable() : chunks_(new std::atomic<Node*>[kMaxChunks]) {
  for (uint64_t i = 0; i < kMaxChunks; ++i) {
    chunks_[i].store(nullptr, std::memory_order_relaxed);
  }
  Node* root = Allocate();  // the first slot: id 1
  root->type = S_IFDIR;
  root->refs.store(1);
}

NodeTable::~NodeTable() {
  for (uint64_t i = 0; i < kMaxChunks; ++i) {
    Node* chunk = chunks_[i].load(std::memory_order_relaxed);
    if (!chunk) break;
    delete[] chunk;
  }
}

Node* NodeTable::Slot(uint64_t id) const {
  if (id == 0 || id > slots_.load(std::memory_order_acquire)) return nullptr;
  Node* chunk =
      chunks_[(id - 1) / kChunkNodes].load(std::memory_order_acquire);
  return chunk ? &chunk[(id - 1) % kChunkNodes] : nullptr;
}

Node* NodeTable::Get(uint64_t id) {
  Node* node = Slot(id);
  if (!node || node->refs.load(std::memory_order_acquire) == 0) return nullptr;
  return node;
}

NodeRef NodeTable::Acquire(uint64_t id) {
  Node* node = Slot(id);
  if (!node) return {};
  // Take a reference only while there is one, as for a weak pointer.
  uint64_t refs = node->refs.load();
  while (refs != 0) {
    if (node->refs.compare_exchange_weak(refs, refs + 1)) {
      return NodeRef(this, node);
    }
  }
  return {};
}

NodeRef NodeTable::Find(std::string_view handle) {
  Shard& shard = ShardOf(handle);
  MutexLock lock(&shard.mu);
  auto it = shard.nodes.find(handle);
  if (it == shard.nodes.end()) return {};
  (*it)->refs.fetch_add(1);
  return NodeRef(this, *it);
}

NodeRef NodeTable::Ref(Node* node) {
  node->refs.fetch_add(1);
  return NodeRef(this, node);
}

Node* NodeTable::Allocate() {
  MutexLock lock(&free_mu_);
  if (free_.empty()) {
    const uint64_t used = slots_.load(std::memory_order_relaxed);
    const uint64_t chunk_index = used / kChunkNodes;
    if (chunk_index >= kMaxChunks) return nullptr;
    Node* chunk = new Node[kChunkNodes];
    for (uint64_t i = 0; i < kChunkNodes; ++i) {
      chunk[i].id = used + i + 1;
    }
    for (uint64_t i = kChunkNodes; i-- > 0;) free_.push_back(&chunk[i]);
    chunks_[chunk_index].store(chunk, std::memory_order_release);
    slots_.store(used + kChunkNodes, std::memory_order_release);
  }
  Node* node = free_.back();
  free_.pop_back();
  ++node->generation;
  live_.fetch_add(1, std::memory_order_relaxed);
  return node;
}

void NodeTable::Recycle(Node* node) {
  {
    MutexLock lock(&node->mu);
    std::string().swap(node->handle);
    std::string().swap(node->name);
    node->parent_id = 0;
    node->pages_change = 0;
    node->lease_until_ns = 0;
    node->has_pages = false;
    node->lacks = {};
    node->known.reset();
    node->names.reset();
    node->behind.reset();
    node->mutated_ns.store(0);
    node->misses = 0;
    node->list_after_misses = Node::kFirstMisses;
    node->locks.reset();
    node->lookups.store(0);
    node->attributes_given.store(true);
  }
  live_.fetch_sub(1, std::memory_order_relaxed);
  MutexLock lock(&free_mu_);
  free_.push_back(node);
}

void NodeTable::SetRoot(const Identity& identity) {
  Node* root = Slot(kRootId);
  root->ino = identity.ino;
  root->fsid = identity.fsid;
  Rekey(root, std::string(identity.handle));
}

Node* NodeTable::Enter(const Identity& identity, const Node* parent,
                       std::string_view name) {
  Shard& shard = ShardOf(identity.handle);
  Node* node = nullptr;
  {
    MutexLock lock(&shard.mu);
    auto it = shard.nodes.find(identity.handle);
    if (it != shard.nodes.end() && (*it)->type != identity.type) {
      // The server's file system gave a dead file's number to something else;
      // the old node keeps its id until the kernel lets go of it.
      shard.nodes.erase(it);
      it = shard.nodes.end();
    }
    if (it != shard.nodes.end()) {
      node = *it;
    } else {
      node = Allocate();
      if (!node) return nullptr;
      node->type = identity.type;
      node->ino = identity.ino;
      node->fsid = identity.fsid;
      MutexLock node_lock(&node->mu);
      node->handle.assign(identity.handle);
      shard.nodes.insert(node);
    }
    node->refs.fetch_add(1);
    node->lookups.fetch_add(1);
  }
  if (parent) Moved(node, parent, name);
  return node;
}

void NodeTable::Moved(Node* node, const Node* parent, std::string_view name) {
  MutexLock lock(&node->mu);
  node->parent_id = parent->id;
  node->parent_generation = parent->generation;
  if (node->name != name) node->name.assign(name);
}

void NodeTable::Forget(uint64_t id, uint64_t lookups) {
  if (id == kRootId || lookups == 0) return;
  Node* node = Get(id);
  if (!node) return;
  uint64_t known = node->lookups.load();
  while (!node->lookups.compare_exchange_weak(
      known, known > lookups ? known - lookups : 0)) {
  }
  Drop(node, lookups);
}

void NodeTable::Drop(Node* node, uint64_t count) {
  if (node->id == kRootId) {
    node->refs.fetch_sub(count);
    return;
  }
  // Not the last reference: no lock needed.
  uint64_t refs = node->refs.load();
  while (refs > count) {
    if (node->refs.compare_exchange_weak(refs, refs - count)) return;
  }
  // Perhaps the last: Enter and Find take references under the shard's lock, so
  // under it the count cannot rise from zero. The handle may change meanwhile
  // (Rekey), so the shard is looked for until it is the right one.
  for (;;) {
    const std::string handle = node->Handle();
    Shard& shard = ShardOf(handle);
    MutexLock lock(&shard.mu);
    if (node->Handle() != handle) continue;
    refs = node->refs.load();
    const uint64_t less = refs < count ? refs : count;
    if (node->refs.fetch_sub(less) != less) return;
    auto it = shard.nodes.find(handle);
    if (it != shard.nodes.end() && *it == node) shard.nodes.erase(it);
    break;
  }
  Recycle(node);
}

void NodeTable::Rekey(Node* node, const std::string& handle) {
  const std::string old = node->Handle();
  if (old == handle) return;
  {
    Shard& shard = ShardOf(old);
    MutexLock lock(&shard.mu);
    auto it = shard.nodes.find(std::string_view(old));
    if (it != shard.nodes.end() && *it == node) shard.nodes.erase(it);
  }
  Shard& shard = ShardOf(handle);
  MutexLock lock(&shard.mu);
  {
    MutexLock node_lock(&node->mu);
    node->handle = handle;
  }
  // Another node may have been made for the new handle already: then that one
  // keeps it, and this one goes on by its own copy.
  shard.nodes.insert(node);
}

void NodeTable::ForEach(const std::function<void(Node&)>& f) {
  const uint64_t slots = slots_.load(std::memory_order_acquire);
  for (uint64_t id = 1; id <= slots; ++id) {
    if (NodeRef ref = Acquire(id)) f(*ref.get());
  }
}

}  // namespace tripwire::fuse
