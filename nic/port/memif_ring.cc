// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/memif_ring.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "nic/port/frame_pool.h"

namespace tripwire {
namespace {

using SharedIndex = std::atomic_ref<uint16_t>;

constexpr size_t kSkewFromBytes = 512;
constexpr size_t kShortBytes = 64;

template <size_t kBytes>
struct Piece {
  uint8_t bytes[kBytes];
};

// As memmove, which a short frame would wait for: a hostile peer may have
// offered a buffer where a frame lies that is sent.
void CopyPart(uint8_t* to, const uint8_t* from, size_t n) {
  if (n > kShortBytes || n < 32) {
    std::memmove(to, from, n);
    return;
  }
  // All is read before anything is written.
  Piece<32> begin, end;
  std::memcpy(&begin, from, sizeof begin);
  std::memcpy(&end, from + n - sizeof end, sizeof end);
  std::memcpy(to, &begin, sizeof begin);
  std::memcpy(to + n - sizeof end, &end, sizeof end);
}

}  // namespace

// --- Producer ---------------------------------------------------------------

uint16_t MemifProducer::FreshRoom() {
  // Pairs with the release store in MemifConsumer::Release and OfferBuffers:
  // the consumer is done with the buffers it gives back.
  const uint16_t freed =
      SharedIndex(view_.FreedIndex()).load(std::memory_order_acquire);
  // C2S: the consumer counts the slots it has emptied. S2C: the buffers it has
  // offered, which are those free and those filled.
  const bool is_c2s = view_.direction == MemifDirection::kC2s;
  const uint16_t limit =
      view_.owns_buffers ? view_.buffer_count : view_.slot_count;
  const auto room = static_cast<uint16_t>(is_c2s ? limit - (filled_ - freed)
                                                 : freed - filled_);
  if (room > limit) {
    is_broken_ = true;
    return 0;
  }
  return room;
}

uint16_t MemifProducer::room() {
  if (room_ == 0 && !is_broken_) room_ = FreshRoom();
  return room_;
}

bool MemifProducer::Push(std::span<const uint8_t> head,
                         std::span<const uint8_t> tail) {
  if (room_ == 0) {
    room_ = is_broken_ ? 0 : FreshRoom();
    if (room_ == 0) return false;
  }
  MemifDescriptor descriptor;
  uint8_t* buffer = Slot(filled_, &descriptor);
  if (buffer == nullptr) return false;
  const size_t total = head.size() + tail.size();
  if (total > descriptor.length_bytes) return PushChained(head, tail);
  if (may_skew_ && total >= kSkewFromBytes &&
      total + kFrameSkewBytes <= descriptor.length_bytes) {
    descriptor.offset += kFrameSkewBytes;
    buffer += kFrameSkewBytes;
  }
  CopyPart(buffer, head.data(), head.size());
  if (!tail.empty()) {
    std::memmove(buffer + head.size(), tail.data(), tail.size());
  }
  descriptor.length_bytes = static_cast<uint32_t>(total);
  descriptor.flags = 0;
  view_.WriteDescriptor(static_cast<uint16_t>(filled_ & (view_.slot_count - 1)),
                        descriptor);
  ++filled_;
  --room_;
  return true;
}

bool MemifProducer::PushChained(std::span<const uint8_t> head,
                                std::span<const uint8_t> tail) {
  const auto mask = static_cast<uint16_t>(view_.slot_count - 1);
  uint16_t cursor = filled_;
  do {
    if (static_cast<uint16_t>(cursor - filled_) >= room_) {
      room_ = is_broken_ ? 0 : FreshRoom();
      if (static_cast<uint16_t>(cursor - filled_) >= room_) return false;
    }
    MemifDescriptor descriptor;
    uint8_t* buffer = Slot(cursor, &descriptor);
    if (buffer == nullptr) return false;
    size_t used = 0;
    for (std::span<const uint8_t>* part : {&head, &tail}) {
      const size_t take =
          std::min<size_t>(part->size(), descriptor.length_bytes - used);
      if (take == 0) continue;
      std::memmove(buffer + used, part->data(), take);
      *part = part->subspan(take);
      used += take;
    }
    descriptor.length_bytes = static_cast<uint32_t>(used);
    descriptor.flags = head.empty() && tail.empty() ? 0 : kMemifChained;
    view_.WriteDescriptor(static_cast<uint16_t>(cursor & mask), descriptor);
    ++cursor;
  } while (!head.empty() || !tail.empty());
  room_ =
      static_cast<uint16_t>(room_ - static_cast<uint16_t>(cursor - filled_));
  filled_ = cursor;
  return true;
}

void MemifProducer::Publish() {
  if (published_ == filled_) return;
  published_ = filled_;
  // Pairs with the acquire load in MemifConsumer::Available.
  SharedIndex(view_.FilledIndex()).store(filled_, std::memory_order_release);
}

bool MemifProducer::PeerSleeps(bool claim) {
  // Pairs with the fence between Unmask and HasFrames: either we see that the
  // peer sleeps, or it sees what we published.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  SharedIndex flags(view_.ring->flags);
  if (flags.load(std::memory_order_relaxed) & kMemifMaskDoorbell) return false;
  if (!claim) return true;
  return (flags.fetch_or(kMemifMaskDoorbell, std::memory_order_relaxed) &
          kMemifMaskDoorbell) == 0;
}

// --- Consumer ---------------------------------------------------------------

void MemifConsumer::OfferBuffers() {
  for (uint16_t slot = 0; slot < view_.buffer_count; ++slot) {
    view_.WriteDescriptor(slot, view_.OwnBuffer(slot));
  }
  // Pairs with the acquire load in MemifProducer::FreshRoom.
  SharedIndex(view_.FreedIndex())
      .store(view_.buffer_count, std::memory_order_release);
}

void MemifConsumer::Break() {
  is_broken_ = true;
  available_ = 0;
}

uint16_t MemifConsumer::Count(uint16_t filled) {
  const auto count = static_cast<uint16_t>(filled - emptied_);
  if (count > view_.slot_count) {
    is_broken_ = true;
    return 0;
  }
  available_ = count;
  return count;
}

size_t MemifConsumer::Pop(std::span<uint8_t> buffer, bool* is_too_long) {
  const auto mask = static_cast<uint16_t>(view_.slot_count - 1);
  *is_too_long = false;
  size_t length = 0;
  uint16_t available = Available();
  if (available == 0) return 0;
  while (true) {
    if (available == 0) {  // the chain ends in the air
      is_broken_ = true;
      available_ = 0;
      return 0;
    }
    const auto slot = static_cast<uint16_t>(emptied_ & mask);
    const MemifDescriptor descriptor = view_.ReadDescriptor(slot);
    const uint8_t* data = view_.Resolve(descriptor);
    if (data == nullptr) {
      is_broken_ = true;
      available_ = 0;
      return 0;
    }
    ++emptied_;
    --available;
    if (descriptor.length_bytes <= buffer.size() - length) {
      std::memcpy(buffer.data() + length, data, descriptor.length_bytes);
      length += descriptor.length_bytes;
    } else {
      *is_too_long = true;
    }
    if ((descriptor.flags & kMemifChained) == 0) break;
  }
  available_ = available;
  return *is_too_long ? 0 : length;
}

void MemifConsumer::Release() {
  if (released_ == emptied_) return;
  uint16_t freed = emptied_;
  if (view_.owns_buffers) {
    // Offering late keeps the line with the index in the producer's cache.
    if (static_cast<uint16_t>(emptied_ - released_) < view_.buffer_count / 4) {
      return;
    }
    const auto mask = static_cast<uint16_t>(view_.slot_count - 1);
    freed = static_cast<uint16_t>(emptied_ + view_.buffer_count);
    for (auto i = static_cast<uint16_t>(released_ + view_.buffer_count);
         i != freed; ++i) {
      view_.WriteDescriptor(static_cast<uint16_t>(i & mask),
                            view_.OwnBuffer(i));
    }
  }
  released_ = emptied_;
  // Pairs with the acquire load in MemifProducer::FreshRoom.
  SharedIndex(view_.FreedIndex()).store(freed, std::memory_order_release);
}

void MemifConsumer::Unmask() {
  SharedIndex(view_.ring->flags).store(0, std::memory_order_relaxed);
}

void MemifConsumer::Mask() {
  SharedIndex flags(view_.ring->flags);
  if ((flags.load(std::memory_order_relaxed) & kMemifMaskDoorbell) == 0) {
    flags.store(kMemifMaskDoorbell, std::memory_order_relaxed);
  }
}

}  // namespace tripwire
