// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_RING_H_
#define TRIPWIRE_NIC_COMM_RING_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "nic/api/context.h"
#include "nic/base/wire_int.h"
#include "nic/comm/mapping.h"

// The idiom beneath message queues and streams: a ring of bytes in the
// receiver's aperture. The sender writes data, then the count of all bytes ever
// written (the tail); the receiver, now and then, writes the count of all bytes
// ever taken (the head) into an aperture of the sender's. Each side works on its
// own last look at the other's count, which can only be too pessimistic, and
// looks again, or waits for a change, only when the ring seems empty or full.
namespace tripwire::comm {

inline constexpr uint64_t kRingEnd = uint64_t{1} << 63;  // in either count

// The receiver's block: this, then the data.
struct RingBlock {
  Le64 tail;          // with kRingEnd once no more will come
  Le64 joined;        // not 0 once the names below are there
  uint8_t head_name[ApertureName::kWireBytes];     // of the sender's HeadBlock
  uint8_t reverse_name[ApertureName::kWireBytes];  // of a ring the other way, if any
};
static_assert(sizeof(RingBlock) == 64);
static_assert(offsetof(RingBlock, joined) == 8);

// The sender's block.
struct HeadBlock {
  Le64 head;  // with kRingEnd once nobody takes any more
};
static_assert(sizeof(HeadBlock) == 8);

inline constexpr uint32_t kMinRingBytes = 64;
inline constexpr uint32_t kMaxRingBytes = 1u << 30;

// Errors of both ends, besides those named: UNAVAILABLE (the link is lost),
// DATA_LOSS (the peer broke the rules of the ring), DEADLINE_EXCEEDED.

// The receiving end. Not thread-safe; made for one thread, or a lock outside.
class RingReceiver {
 public:
  // `ring_bytes` is rounded up to a multiple of 64.
  RingReceiver(Context& context, LinkId link, uint32_t ring_bytes);
  ~RingReceiver();  // tells the sender that nobody takes any more
  RingReceiver(const RingReceiver&) = delete;

  const ApertureName& name() const { return aperture_.name(); }
  uint64_t capacity() const { return capacity_; }

  // Waits until at least `bytes` can be taken. OUT_OF_RANGE: the sender has
  // ended and fewer are left. REQUIRES: 0 < bytes <= capacity().
  absl::Status WaitReadable(uint64_t bytes, uint64_t deadline_ns);
  // As known so far; after a failed wait, all there is.
  uint64_t readable() const { return tail_ - head_; }
  // Copies from `offset` bytes past the oldest. REQUIRES: within readable().
  void Peek(uint64_t offset, std::span<uint8_t> into) const;
  // Frees the oldest `bytes`; tells the sender once a quarter of the ring, or
  // all there was, is free.
  void Consume(uint64_t bytes);

  // The name the sender gave of a ring the other way; waits for it. May be
  // called beside the receiving thread.
  absl::Status WaitJoined(ApertureName* reverse, uint64_t deadline_ns);

  // For event loops: with `tripwire` made by Watch, Arm() is false if something
  // may be there already; else the context gets one event when it comes.
  Tripwire Watch(uint64_t cookie);
  bool Arm(Tripwire& tripwire);

 private:
  absl::Status Look(uint64_t deadline_ns);
  bool Join();
  void Report();

  Context& context_;
  const LinkId link_;
  const uint64_t capacity_;
  Mapping memory_;
  Aperture aperture_;
  std::optional<RemoteAperture> head_block_;  // once joined
  uint64_t raw_tail_ = 0;  // the word as it was last seen
  uint64_t tail_ = 0, head_ = 0, reported_ = 0;
  bool ended_ = false;
  bool broken_ = false;
};

// The sending end. Not thread-safe.
class RingSender {
 public:
  // Joins the ring `name`, which the receiver handed over, and names `reverse`.
  RingSender(Context& context, LinkId link, const ApertureName& name,
             const ApertureName& reverse = {});
  ~RingSender();  // ends the ring, as End
  RingSender(const RingSender&) = delete;

  uint64_t capacity() const { return capacity_; }
  // Waits until at least `bytes` can be written. FAILED_PRECONDITION: the
  // receiver takes no more. REQUIRES: bytes <= capacity().
  absl::Status WaitWritable(uint64_t bytes, uint64_t deadline_ns);
  uint64_t writable() const { return capacity_ - (tail_ - head_); }
  // Writes behind what was put before; not visible before Publish.
  // REQUIRES: within writable().
  absl::Status Put(std::span<const uint8_t> data);
  absl::Status Publish();
  absl::Status End();

 private:
  absl::Status Look(uint64_t deadline_ns);

  Context& context_;
  const LinkId link_;
  const RemoteAperture ring_;
  const uint64_t capacity_;
  Mapping memory_;
  Aperture aperture_;
  uint64_t raw_head_ = 0;
  uint64_t tail_ = 0, head_ = 0;
  bool refused_ = false, broken_ = false, ended_ = false;
};

}  // namespace tripwire::comm

#endif  // TRIPWIRE_NIC_COMM_RING_H_
