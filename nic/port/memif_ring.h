// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MEMIF_RING_H_
#define TRIPWIRE_NIC_PORT_MEMIF_RING_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nic/port/memif_layout.h"

namespace tripwire {

// A mapped region of the shared memory.
struct MemifRegion {
  uint8_t* base = nullptr;
  uint64_t size_bytes = 0;
};

enum class MemifDirection { kC2s, kS2c };

// What both ends of a ring know about it. The peer may write anything into the
// memory at any time: every index and descriptor is read once, checked, and
// only the copy is used.
class MemifRingView {
 public:
  MemifRing* ring = nullptr;
  MemifDirection direction = MemifDirection::kC2s;
  uint16_t slot_count = 0;  // a power of two
  std::span<const MemifRegion> regions;
  // The end that owns the buffers (the client) uses them in turn, here in
  // region 0; the other end finds them in the descriptors. There may be fewer
  // buffers than slots: the fewer, the better the cache holds them.
  bool owns_buffers = false;
  uint16_t buffer_count = 0;  // a power of two, at most slot_count
  uint32_t first_buffer = 0;  // offset
  uint32_t buffer_stride_bytes = 0;
  uint32_t buffer_bytes = 0;

  MemifDescriptor ReadDescriptor(uint16_t slot) const {
    uint64_t* words = DescriptorWords(slot);
    const uint64_t copy[2] = {
        std::atomic_ref<uint64_t>(words[0]).load(std::memory_order_relaxed),
        std::atomic_ref<uint64_t>(words[1]).load(std::memory_order_relaxed)};
    return std::bit_cast<MemifDescriptor>(copy);
  }
  void WriteDescriptor(uint16_t slot, const MemifDescriptor& descriptor) const {
    uint64_t* words = DescriptorWords(slot);
    std::atomic_ref<uint64_t>(words[0]).store(
        Word(descriptor.flags | uint32_t{descriptor.region} << 16,
             descriptor.length_bytes),
        std::memory_order_relaxed);
    std::atomic_ref<uint64_t>(words[1]).store(
        Word(descriptor.offset, descriptor.metadata),
        std::memory_order_relaxed);
  }
  // Null when the buffer does not lie within its region.
  uint8_t* Resolve(const MemifDescriptor& descriptor) const {
    if (descriptor.region >= regions.size()) return nullptr;
    const MemifRegion& region = regions[descriptor.region];
    if (descriptor.offset > region.size_bytes ||
        descriptor.length_bytes > region.size_bytes - descriptor.offset) {
      return nullptr;
    }
    return region.base + descriptor.offset;
  }
  // For the slot with this running number.
  MemifDescriptor OwnBuffer(uint16_t index) const {
    const uint32_t buffer = index & (buffer_count - 1u);
    MemifDescriptor descriptor{};
    descriptor.length_bytes = buffer_bytes;
    descriptor.offset = first_buffer + buffer * buffer_stride_bytes;
    return descriptor;
  }
  // The index the producer advances, and the one the consumer does.
  uint16_t& FilledIndex() const {
    return direction == MemifDirection::kC2s ? ring->head : ring->tail;
  }
  uint16_t& FreedIndex() const {
    return direction == MemifDirection::kC2s ? ring->tail : ring->head;
  }

 private:
  // Two words that lie beside each other, the first at the lower address. Put
  // together in a register: what is stored in parts and loaded whole is loaded
  // only when all that was stored before it, frames too, is in the cache.
  static uint64_t Word(uint32_t first, uint32_t second) {
    static_assert(std::endian::native == std::endian::little);
    return first | uint64_t{second} << 32;
  }
  uint64_t* DescriptorWords(uint16_t slot) const {
    return reinterpret_cast<uint64_t*>(ring + 1) + 2 * size_t{slot};
  }
};

// The filling end of a ring.
// Thread safety: none.
class MemifProducer {
 public:
  // With `may_skew`, long frames need not begin where a buffer does: true of
  // our own buffers, and of others whose owner looks at the descriptor again.
  MemifProducer(const MemifRingView& view, bool may_skew)
      : view_(view), may_skew_(may_skew) {}

  // Copies one frame, in two parts of which the second may be empty, into the
  // ring, over several slots if it is longer than their buffers. False when
  // there is no room, or when the peer broke the rules. Invisible to the peer
  // until Publish.
  bool Push(std::span<const uint8_t> head, std::span<const uint8_t> tail);
  // Shows the peer what was pushed.
  void Publish();
  // After Publish: whether the peer wants its doorbell rung. If `claim`, only
  // one caller per sleep is told so.
  bool PeerSleeps(bool claim);

  uint16_t room();  // in slots
  bool is_broken() const { return is_broken_; }

 private:
  uint16_t FreshRoom();
  bool PushChained(std::span<const uint8_t> head,
                   std::span<const uint8_t> tail);
  // The buffer of the slot with this running number, of
  // descriptor->length_bytes; null when the peer broke the rules. In line, so
  // that the descriptor stays in registers, see MemifRingView::Word.
  [[gnu::always_inline]] uint8_t* Slot(uint16_t number,
                                       MemifDescriptor* descriptor) {
    const auto slot = static_cast<uint16_t>(number & (view_.slot_count - 1));
    *descriptor =
        view_.owns_buffers ? view_.OwnBuffer(slot) : view_.ReadDescriptor(slot);
    uint8_t* buffer = view_.Resolve(*descriptor);
    if (buffer == nullptr || descriptor->length_bytes == 0) {
      is_broken_ = true;
      return nullptr;
    }
    return buffer;
  }

  MemifRingView view_;
  const bool may_skew_;
  uint16_t filled_ = 0;     // slots ever filled
  uint16_t published_ = 0;  // and shown to the peer
  uint16_t room_ = 0;       // at least this many slots are free; lazily updated
  bool is_broken_ = false;
};

// The emptying end of a ring.
// Thread safety: none.
class MemifConsumer {
 public:
  explicit MemifConsumer(const MemifRingView& view) : view_(view) {}

  // REQUIRES: owns_buffers and S2C. Offers all buffers to the producer.
  void OfferBuffers();

  // Returns the next frame where it lies; empty when there is none, or when it
  // lies in several slots (then Pop may have it) or is empty. HasFrames tells
  // whether more can be had. The slots of either are the producer's again, and
  // may be written by it, only after Release; a bad producer writes anyway.
  std::span<uint8_t> PopInPlace();
  // Copies the next frame out and returns its length; 0 when there is none,
  // when it is empty, or when the peer broke the rules. A frame longer than
  // `buffer` is dropped, with *is_too_long set and 0 returned.
  size_t Pop(std::span<uint8_t> buffer, bool* is_too_long);
  void Release();
  bool HasFrames() { return Available() != 0; }

  // Ask for, or do without, the doorbell. Between Unmask and sleeping, a full
  // fence and then HasFrames is needed.
  void Unmask();
  void Mask();

  bool is_broken() const { return is_broken_; }

 private:
  uint16_t Available() {
    if (available_ != 0) return available_;
    // Pairs with the release store in MemifProducer::Publish.
    const uint16_t filled = std::atomic_ref<uint16_t>(view_.FilledIndex())
                                .load(std::memory_order_acquire);
    if (filled == emptied_ || is_broken_) return 0;
    return Count(filled);
  }
  uint16_t Count(uint16_t filled);
  void Break();

  MemifRingView view_;
  uint16_t emptied_ = 0;    // slots ever emptied
  uint16_t released_ = 0;   // and given back to the producer
  uint16_t available_ = 0;  // known to be filled, not yet emptied
  bool is_broken_ = false;
};

inline std::span<uint8_t> MemifConsumer::PopInPlace() {
  const uint16_t available = Available();
  if (available == 0) return {};
  const auto slot = static_cast<uint16_t>(emptied_ & (view_.slot_count - 1));
  if (view_.owns_buffers) {
    // Where the data is does not depend on the descriptor: fetch both.
    __builtin_prefetch(view_.regions[0].base +
                       view_.OwnBuffer(emptied_).offset);
  }
  const MemifDescriptor descriptor = view_.ReadDescriptor(slot);
  if ((descriptor.flags & kMemifChained) != 0) return {};
  uint8_t* data = view_.Resolve(descriptor);
  if (data == nullptr) {
    Break();
    return {};
  }
  ++emptied_;
  available_ = static_cast<uint16_t>(available - 1);
  return {data, descriptor.length_bytes};
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MEMIF_RING_H_
