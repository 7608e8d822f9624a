// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_LAYOUT_H_
#define TRIPWIRE_PERIPH_STREAM_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "nic/base/wire_int.h"

// What lies in a consumer's memory: a ring of slots of one size. A slot is
// filled from its end: the payload, padded to a multiple of 64 bytes, then the
// tail, whose last word is the sequence number. So a frame of any length is one
// write, a short one goes in one Ethernet frame, the payload starts 64-byte
// aligned, and by rule M11 of docs/memory-model.md the sequence is the last of
// it to be seen.
//
//   slot i:  |  unused  | payload | 0-63 zeros | tail, 64 bytes |
//            0                                 payload_bytes    slot stride
namespace tripwire::periph {

inline constexpr uint32_t kSlotAlignment = 64;

struct SlotTail {
  Le64 capture_ns;    // when the frame was taken, on its node's NIC clock
  Le64 pts_ns;        // its time in the stream; kNoTime if it has none
  Le64 duration_ns;   // kNoTime if it has none
  Le32 length_bytes;  // of the payload, without padding
  Le32 flags;         // FrameFlag bits; others are 0 and ignored
  Le64
      number;  // of the frame at its source, from 0: every frame it made counts
  Le64 overrun;   // frames the source itself lost before this one, in all
  Le64 dropped;   // frames this consumer did not get by its policy, in all
  Le64 sequence;  // of this write to this ring: 1, 2, ...
};
static_assert(sizeof(SlotTail) == 64);
static_assert(offsetof(SlotTail, length_bytes) == 24);
static_assert(offsetof(SlotTail, sequence) == 56);

inline constexpr uint64_t kNoTime = UINT64_MAX;

// In the feeder's memory; the consumer writes it.
struct CreditBlock {
  Le64
      released;  // how many slots the consumer has given back, in order, in all
};
static_assert(sizeof(CreditBlock) == 8);

constexpr uint64_t PaddedBytes(uint64_t length_bytes) {
  return (length_bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}
constexpr uint64_t SlotStride(uint64_t payload_bytes) {
  return PaddedBytes(payload_bytes) + sizeof(SlotTail);
}

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_LAYOUT_H_
