// SPDX-License-Identifier: BSD-3-Clause
#include "nic/comm/bulk_pool.h"

#include <algorithm>

namespace tripwire::rpc {
namespace {
constexpr size_t kPageBytes = 4096;
// Below this, huge pages would only waste memory.
constexpr size_t kHugePageBytes = 2u << 20;
}  // namespace

struct BulkPool::Node {
  State* state;
  uint8_t* data;
};

struct BulkPool::State {
  std::mutex mutex;
  size_t references = 1;
  size_t buffer_bytes = 0;
  size_t buffers_per_chunk = 0;
  std::vector<Mapping> chunks;
  std::vector<std::unique_ptr<Node[]>> nodes;  // one array for each chunk
  std::vector<Node*> free;

  void Grow() {
    Mapping memory(buffer_bytes * buffers_per_chunk);
    if (memory.size() >= 2 * kHugePageBytes) {
      madvise(memory.data(), memory.size(), MADV_HUGEPAGE);  // only advice
    }
    auto array = std::make_unique<Node[]>(buffers_per_chunk);
    free.reserve((chunks.size() + 1) * buffers_per_chunk);
    for (size_t i = buffers_per_chunk; i-- > 0;) {
      array[i] = {this, memory.data() + i * buffer_bytes};
      free.push_back(&array[i]);
    }
    chunks.push_back(std::move(memory));
    nodes.push_back(std::move(array));
  }
};

BulkPool::BulkPool(size_t buffer_bytes, size_t buffers_per_chunk)
    : buffer_bytes_((std::max<size_t>(buffer_bytes, 1) + kPageBytes - 1) /
                    kPageBytes * kPageBytes),
      state_(new State) {
  state_->buffer_bytes = buffer_bytes_;
  state_->buffers_per_chunk = std::max<size_t>(buffers_per_chunk, 1);
}

BulkPool::~BulkPool() {
  bool is_last;
  {
    std::lock_guard lock(state_->mutex);
    is_last = --state_->references == 0;
  }
  if (is_last) delete state_;
}

void BulkPool::Return(Node* node) {
  State* state = node->state;
  bool is_last;
  {
    std::lock_guard lock(state->mutex);
    state->free.push_back(node);
    is_last = --state->references == 0;
  }
  if (is_last) delete state;
}

BulkBuffer BulkPool::Take() {
  std::lock_guard lock(state_->mutex);
  if (state_->free.empty()) state_->Grow();
  Node* node = state_->free.back();
  state_->free.pop_back();
  ++state_->references;
  // One pointer captured, so that std::function needs no memory of its own.
  return BulkBuffer(node->data, buffer_bytes_, [node] { Return(node); });
}

BulkPool::Place BulkPool::Find(const BulkBuffer& buffer) const {
  std::lock_guard lock(state_->mutex);
  for (size_t i = 0; i < state_->chunks.size(); ++i) {
    const Mapping& chunk = state_->chunks[i];
    const uint64_t offset = reinterpret_cast<uintptr_t>(buffer.data()) -
                            reinterpret_cast<uintptr_t>(chunk.data());
    if (offset < chunk.size()) return {static_cast<uint32_t>(i), offset};
  }
  return {};
}

size_t BulkPool::chunks() const {
  std::lock_guard lock(state_->mutex);
  return state_->chunks.size();
}

std::span<uint8_t> BulkPool::chunk(size_t i) const {
  std::lock_guard lock(state_->mutex);
  return state_->chunks[i].span();
}

}  // namespace tripwire::rpc
