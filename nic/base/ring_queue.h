// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_RING_QUEUE_H_
#define TRIPWIRE_NIC_BASE_RING_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace tripwire {

// A queue in one growing power-of-two array: unlike std::deque it allocates
// nothing in steady state. Not thread-safe. Elements that own something are
// reset when popped, others only when their place is used again.
template <typename T>
class RingQueue {
 public:
  RingQueue() = default;
  RingQueue(RingQueue&& other) noexcept { *this = std::move(other); }
  RingQueue& operator=(RingQueue&& other) noexcept {
    slots_ = std::exchange(other.slots_, {});
    mask_ = std::exchange(other.mask_, SIZE_MAX);
    head_ = std::exchange(other.head_, 0);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  // REQUIRES: i < size(); 0 is the oldest.
  T& operator[](size_t i) { return slots_[(head_ + i) & mask_]; }
  const T& operator[](size_t i) const { return slots_[(head_ + i) & mask_]; }
  T& front() { return (*this)[0]; }
  const T& front() const { return (*this)[0]; }
  T& back() { return (*this)[size_ - 1]; }

  void push_back(T value) { emplace_back() = std::move(value); }
  // Adds an empty element, to be filled in place.
  T& emplace_back() {
    if (size_ == mask_ + 1) Grow();
    T& place = (*this)[size_++];
    if constexpr (std::is_trivially_destructible_v<T>)
      std::construct_at(&place);
    return place;
  }
  void pop_front() {
    if constexpr (!std::is_trivially_destructible_v<T>) front() = T{};
    head_ = (head_ + 1) & mask_;
    --size_;
  }
  void clear() {
    while (!empty()) pop_front();
  }

 private:
  void Grow() {
    std::vector<T> larger(slots_.empty() ? 4 : slots_.size() * 2);
    for (size_t i = 0; i < size_; ++i) larger[i] = std::move((*this)[i]);
    slots_ = std::move(larger);
    mask_ = slots_.size() - 1;
    head_ = 0;
  }
  std::vector<T> slots_;
  size_t mask_ = SIZE_MAX;  // slots less one
  size_t head_ = 0;
  size_t size_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_RING_QUEUE_H_
