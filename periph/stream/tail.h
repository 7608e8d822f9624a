// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_TAIL_H_
#define TRIPWIRE_PERIPH_STREAM_TAIL_H_

#include <cstdint>
#include <optional>
#include <span>

#include "periph/stream/frame.h"

namespace tripwire::periph {

// What the end of a slot says of the frame in it, checked.
struct CheckedTail {
  Frame frame;  // its data lies in the slot
  uint64_t dropped = 0;
};

// The one gate for what a feeder writes. Copies the tail of `slot` (padded
// payload and tail) once and judges the copy: nothing if its sequence is not
// `sequence`, or its length is beyond `payload_bytes`. REQUIRES: the sequence
// word was seen to be this one, with an acquire load; slot.size() ==
// SlotStride(payload_bytes).
std::optional<CheckedTail> ReadTail(std::span<const uint8_t> slot,
                                    uint64_t payload_bytes, uint64_t sequence);

// The sequence word of a slot, which may change at any time.
uint64_t LoadSequence(std::span<const uint8_t> slot);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_TAIL_H_
