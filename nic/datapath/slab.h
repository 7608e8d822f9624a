// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_SLAB_H_
#define TRIPWIRE_NIC_DATAPATH_SLAB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace tripwire {

// A growing array whose elements stay where they are: dense, one step from index to
// element, and adding one never moves the others. Elements are used again by their
// owner, never given back.
template <typename T>
class Slab {
 public:
  // REQUIRES: i < size().
  T& operator[](size_t i) { return chunks_[i / kChunk][i % kChunk]; }
  const T& operator[](size_t i) const { return chunks_[i / kChunk][i % kChunk]; }
  size_t size() const { return size_; }
  // Adds an element; returns its index.
  uint32_t Add() {
    if (size_ == chunks_.size() * kChunk) {
      chunks_.push_back(std::make_unique<T[]>(kChunk));
    }
    return static_cast<uint32_t>(size_++);
  }

 private:
  static constexpr size_t kChunk = 1024;
  std::vector<std::unique_ptr<T[]>> chunks_;
  size_t size_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_SLAB_H_
