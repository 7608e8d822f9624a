// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MEMIF_RING_H_
#define TRIPWIRE_NIC_PORT_MEMIF_RING_H_

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
struct MemifRingView {
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

  MemifDescriptor ReadDescriptor(uint16_t slot) const;
  void WriteDescriptor(uint16_t slot, const MemifDescriptor& descriptor) const;
  // Null when the buffer does not lie within its region.
  uint8_t* Resolve(const MemifDescriptor& descriptor) const;
  // For the slot with this running number.
  MemifDescriptor OwnBuffer(uint16_t index) const;
};

// The filling end of a ring.
// Thread safety: none.
class MemifProducer {
 public:
  explicit MemifProducer(const MemifRingView& view) : view_(view) {}

  // Copies one frame into the ring, over several slots if it is longer than
  // their buffers. False when there is no room, or when the peer broke the
  // rules. Invisible to the peer until Publish.
  bool Push(std::span<const uint8_t> frame);
  // Shows the peer what was pushed.
  void Publish();
  // After Publish: whether the peer wants its doorbell rung. If `claim`, only
  // one caller per sleep is told so.
  bool PeerSleeps(bool claim);

  uint16_t room();  // in slots
  bool is_broken() const { return is_broken_; }

 private:
  uint16_t FreshRoom();

  MemifRingView view_;
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

  // Copies the next frame out and returns its length; 0 when there is none,
  // when it is empty, or when the peer broke the rules. A frame longer than
  // `buffer` is dropped, with *is_too_long set and 0 returned. HasFrames tells
  // whether more can be had. The slots are the producer's again only after
  // Release.
  size_t Pop(std::span<uint8_t> buffer, bool* is_too_long);
  void Release();
  bool HasFrames();

  // Ask for, or do without, the doorbell. Between Unmask and sleeping, a full
  // fence and then HasFrames is needed.
  void Unmask();
  void Mask();

  bool is_broken() const { return is_broken_; }

 private:
  uint16_t Available();

  MemifRingView view_;
  uint16_t emptied_ = 0;    // slots ever emptied
  uint16_t released_ = 0;   // and given back to the producer
  uint16_t available_ = 0;  // known to be filled, not yet emptied
  bool is_broken_ = false;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MEMIF_RING_H_
