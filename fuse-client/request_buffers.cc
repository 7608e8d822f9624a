// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/request_buffers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstdlib>

namespace tripwire::fuse {

void BufferDeleter::operator()(char* p) const {
  if (pool != nullptr) {
    pool->Give(p);
  } else {
    std::free(p);
  }
}

RequestBuffer MallocBuffer(size_t bytes) {
  return RequestBuffer(static_cast<char*>(std::malloc(bytes)));
}

BufferPool::BufferPool(size_t buffer_bytes)
    : buffer_bytes_((buffer_bytes + 4095) / 4096 * 4096) {
  assert(buffer_bytes_ <= kChunkBytes);
}

BufferPool::~BufferPool() {
  for (const Chunk& chunk : chunks_) {
    if (!chunk.is_shown) munmap(chunk.base, kChunkBytes);
  }
}

void BufferPool::Show(std::span<uint8_t> shown) {
  MutexLock lock(&mu_);
  shown_begin_ = reinterpret_cast<char*>(shown.data());
  shown_bytes_ = shown.size();
  for (size_t end = shown.size() / kChunkBytes; end-- > 0;) {
    shown_.push_back(reinterpret_cast<char*>(shown.data()) + end * kChunkBytes);
  }
}

bool BufferPool::Grow() {
  Chunk chunk;
  if (!shown_.empty()) {
    chunk.base = shown_.back();
    chunk.is_shown = true;
    shown_.pop_back();
  } else if (!MapChunk(&chunk)) {
    return false;
  }
  for (size_t end = kChunkBytes / buffer_bytes_; end-- > 0;) {
    spare_.push_back(chunk.base + end * buffer_bytes_);
  }
  chunks_.insert(std::upper_bound(chunks_.begin(), chunks_.end(), chunk,
                                  [](const Chunk& a, const Chunk& b) {
                                    return a.base < b.base;
                                  }),
                 chunk);
  return true;
}

// A chunk begins where a huge page can.
bool BufferPool::MapChunk(Chunk* chunk) {
  void* at = mmap(nullptr, kChunkBytes + kHugePage, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return false;
  char* start = static_cast<char*>(at);
  const size_t before =
      (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
  if (before > 0) munmap(start, before);
  if (before < kHugePage)
    munmap(start + before + kChunkBytes, kHugePage - before);
  chunk->base = start + before;
  madvise(chunk->base, kChunkBytes, MADV_HUGEPAGE);  // a wish
  return true;
}

BufferPool::Chunk& BufferPool::ChunkOf(const char* p) {
  auto it = std::upper_bound(
      chunks_.begin(), chunks_.end(), p,
      [](const char* at, const Chunk& chunk) { return at < chunk.base; });
  return *(it - 1);
}

RequestBuffer BufferPool::Take() {
  MutexLock lock(&mu_);
  if (spare_.empty() && !Grow()) return nullptr;
  char* p = spare_.back();
  spare_.pop_back();
  ++ChunkOf(p).used;
  return RequestBuffer(p, BufferDeleter{this});
}

void BufferPool::Give(char* p) {
  MutexLock lock(&mu_);
  --ChunkOf(p).used;
  spare_.push_back(p);
}

void BufferPool::Trim(size_t keep_bytes) {
  MutexLock lock(&mu_);
  size_t kept = 0;
  auto out = chunks_.begin();
  for (Chunk& chunk : chunks_) {
    if (chunk.used > 0 || kept + kChunkBytes <= keep_bytes) {
      kept += kChunkBytes;
      *out++ = chunk;
      continue;
    }
    spare_.erase(std::remove_if(spare_.begin(), spare_.end(),
                                [&](const char* p) { return chunk.Holds(p); }),
                 spare_.end());
    if (chunk.is_shown) {
      madvise(chunk.base, kChunkBytes, MADV_REMOVE);  // its pages; zero from now on
      shown_.push_back(chunk.base);
    } else {
      munmap(chunk.base, kChunkBytes);
    }
  }
  chunks_.erase(out, chunks_.end());
}

size_t BufferPool::held_bytes() {
  MutexLock lock(&mu_);
  return chunks_.size() * kChunkBytes;
}

}  // namespace tripwire::fuse
