// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_SLAB_H_
#define TRIPWIRE_NIC_DATAPATH_SLAB_H_

#include <sys/mman.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace tripwire {

// A growing array whose elements stay where they are: dense, one step from
// index to element, and adding one never moves the others. Elements are used
// again by their owner, never given back.
//
// A chunk is address space for a huge page; memory is taken as elements are
// added. A large slab asks for huge pages: what looks at a million elements in
// no order pays for finding their pages as much as for the elements.
template <typename T>
class Slab {
 public:
  Slab() = default;
  ~Slab() {
    for (size_t i = 0; i < size_; ++i) (*this)[i].~T();
    for (T* chunk : chunks_) munmap(chunk, kChunkBytes);
  }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  // REQUIRES: i < size().
  T& operator[](size_t i) { return chunks_[i / kChunk][i % kChunk]; }
  const T& operator[](size_t i) const {
    return chunks_[i / kChunk][i % kChunk];
  }
  size_t size() const { return size_; }
  // Adds an element; returns its index. Throws std::bad_alloc.
  uint32_t Add() {
    if (size_ == chunks_.size() * kChunk) AddChunk();
    new (&chunks_[size_ / kChunk][size_ % kChunk]) T();
    return static_cast<uint32_t>(size_++);
  }

 private:
  static constexpr size_t kChunkBytes = size_t{2} << 20;
  static constexpr size_t kChunk = std::bit_floor(kChunkBytes / sizeof(T));
  static_assert(kChunk > 0);

  void AddChunk() {
    chunks_.reserve(chunks_.size() + 1);
    void* at = mmap(nullptr, 2 * kChunkBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    // Where a huge page can begin.
    auto* start = static_cast<uint8_t*>(at);
    const size_t before =
        (kChunkBytes - reinterpret_cast<uintptr_t>(start) % kChunkBytes) %
        kChunkBytes;
    if (before > 0) munmap(start, before);
    munmap(start + before + kChunkBytes, kChunkBytes - before);
    // The first chunk need not fill: few elements are to take little memory.
    if (!chunks_.empty()) madvise(start + before, kChunkBytes, MADV_HUGEPAGE);
    chunks_.push_back(reinterpret_cast<T*>(start + before));
  }

  std::vector<T*> chunks_;
  size_t size_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_SLAB_H_
