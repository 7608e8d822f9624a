// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/memif_ring.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

namespace tripwire {
namespace {

using SharedIndex = std::atomic_ref<uint16_t>;
using SharedWord = std::atomic_ref<uint64_t>;

// The index the producer advances, and the one the consumer does.
uint16_t& FilledIndex(const MemifRingView& view) {
  return view.direction == MemifDirection::kC2s ? view.ring->head
                                                : view.ring->tail;
}
uint16_t& FreedIndex(const MemifRingView& view) {
  return view.direction == MemifDirection::kC2s ? view.ring->tail
                                                : view.ring->head;
}
uint64_t* DescriptorWords(const MemifRingView& view, uint16_t slot) {
  auto* descriptors = reinterpret_cast<uint64_t*>(view.ring + 1);
  return descriptors + 2 * size_t{slot};
}

}  // namespace

MemifDescriptor MemifRingView::ReadDescriptor(uint16_t slot) const {
  uint64_t* words = DescriptorWords(*this, slot);
  const uint64_t copy[2] = {
      SharedWord(words[0]).load(std::memory_order_relaxed),
      SharedWord(words[1]).load(std::memory_order_relaxed)};
  return std::bit_cast<MemifDescriptor>(copy);
}

void MemifRingView::WriteDescriptor(uint16_t slot,
                                    const MemifDescriptor& descriptor) const {
  struct Words {
    uint64_t word[2];
  };
  const auto copy = std::bit_cast<Words>(descriptor);
  uint64_t* words = DescriptorWords(*this, slot);
  SharedWord(words[0]).store(copy.word[0], std::memory_order_relaxed);
  SharedWord(words[1]).store(copy.word[1], std::memory_order_relaxed);
}

uint8_t* MemifRingView::Resolve(const MemifDescriptor& descriptor) const {
  if (descriptor.region >= regions.size()) return nullptr;
  const MemifRegion& region = regions[descriptor.region];
  if (descriptor.offset > region.size_bytes ||
      descriptor.length_bytes > region.size_bytes - descriptor.offset) {
    return nullptr;
  }
  return region.base + descriptor.offset;
}

MemifDescriptor MemifRingView::OwnBuffer(uint16_t index) const {
  const uint32_t buffer = index & (buffer_count - 1u);
  MemifDescriptor descriptor{};
  descriptor.length_bytes = buffer_bytes;
  descriptor.offset = first_buffer + buffer * buffer_stride_bytes;
  return descriptor;
}

// --- Producer ---------------------------------------------------------------

uint16_t MemifProducer::FreshRoom() {
  // Pairs with the release store in MemifConsumer::Release and OfferBuffers:
  // the consumer is done with the buffers it gives back.
  const uint16_t freed =
      SharedIndex(FreedIndex(view_)).load(std::memory_order_acquire);
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

bool MemifProducer::Push(std::span<const uint8_t> frame) {
  const auto mask = static_cast<uint16_t>(view_.slot_count - 1);
  uint16_t cursor = filled_;
  do {
    if (static_cast<uint16_t>(cursor - filled_) >= room_) {
      room_ = is_broken_ ? 0 : FreshRoom();
      if (static_cast<uint16_t>(cursor - filled_) >= room_) return false;
    }
    const auto slot = static_cast<uint16_t>(cursor & mask);
    MemifDescriptor descriptor =
        view_.owns_buffers ? view_.OwnBuffer(slot) : view_.ReadDescriptor(slot);
    uint8_t* buffer = view_.Resolve(descriptor);
    if (buffer == nullptr || descriptor.length_bytes == 0) {
      is_broken_ = true;
      return false;
    }
    const size_t part = std::min<size_t>(frame.size(), descriptor.length_bytes);
    std::memcpy(buffer, frame.data(), part);
    frame = frame.subspan(part);
    descriptor.length_bytes = static_cast<uint32_t>(part);
    descriptor.flags = frame.empty() ? 0 : kMemifChained;
    view_.WriteDescriptor(slot, descriptor);
    ++cursor;
  } while (!frame.empty());
  room_ =
      static_cast<uint16_t>(room_ - static_cast<uint16_t>(cursor - filled_));
  filled_ = cursor;
  return true;
}

void MemifProducer::Publish() {
  if (published_ == filled_) return;
  published_ = filled_;
  // Pairs with the acquire load in MemifConsumer::Available.
  SharedIndex(FilledIndex(view_)).store(filled_, std::memory_order_release);
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
  SharedIndex(FreedIndex(view_))
      .store(view_.buffer_count, std::memory_order_release);
}

uint16_t MemifConsumer::Available() {
  if (is_broken_) return 0;
  if (available_ != 0) return available_;
  // Pairs with the release store in MemifProducer::Publish.
  const uint16_t filled =
      SharedIndex(FilledIndex(view_)).load(std::memory_order_acquire);
  const auto count = static_cast<uint16_t>(filled - emptied_);
  if (count > view_.slot_count) {
    is_broken_ = true;
    return 0;
  }
  available_ = count;
  return count;
}

bool MemifConsumer::HasFrames() { return Available() != 0; }

size_t MemifConsumer::Pop(std::span<uint8_t> buffer, bool* is_too_long) {
  const auto mask = static_cast<uint16_t>(view_.slot_count - 1);
  *is_too_long = false;
  size_t length = 0;
  uint16_t available = Available();
  if (available == 0) return 0;
  while (true) {
    if (available == 0) {  // the chain ends in the air
      is_broken_ = true;
      return 0;
    }
    const auto slot = static_cast<uint16_t>(emptied_ & mask);
    if (view_.owns_buffers) {
      // Where the data is does not depend on the descriptor: fetch both.
      __builtin_prefetch(view_.regions[0].base +
                         view_.OwnBuffer(emptied_).offset);
    }
    const MemifDescriptor descriptor = view_.ReadDescriptor(slot);
    const uint8_t* data = view_.Resolve(descriptor);
    if (data == nullptr) {
      is_broken_ = true;
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
  SharedIndex(FreedIndex(view_)).store(freed, std::memory_order_release);
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
