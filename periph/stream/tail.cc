// SPDX-License-Identifier: BSD-3-Clause
#include "periph/stream/tail.h"

#include <cstring>

namespace tripwire::periph {

std::optional<CheckedTail> ReadTail(std::span<const uint8_t> slot,
                                    uint64_t payload_bytes, uint64_t sequence) {
  SlotTail tail;
  const uint8_t* const at = slot.data() + slot.size() - sizeof tail;
  std::memcpy(static_cast<void*>(&tail), at, sizeof tail);
  const uint64_t length = tail.length_bytes.get();
  if (tail.sequence.get() != sequence || length > payload_bytes)
    return std::nullopt;
  CheckedTail checked;
  checked.frame.data = {at - PaddedBytes(length), static_cast<size_t>(length)};
  checked.frame.capture_ns = tail.capture_ns.get();
  checked.frame.pts_ns = tail.pts_ns.get();
  checked.frame.duration_ns = tail.duration_ns.get();
  checked.frame.flags = tail.flags.get() & (kDiscontinuity | kKeyFrame);
  checked.frame.number = tail.number.get();
  checked.frame.overrun = tail.overrun.get();
  checked.dropped = tail.dropped.get();
  return checked;
}

uint64_t LoadSequence(std::span<const uint8_t> slot) {
  const uint8_t* at = slot.data() + slot.size() - sizeof(Le64);
  // Pairs with the NIC's store of a frame's last word: the rest of it is there.
  const uint64_t raw =
      __atomic_load_n(reinterpret_cast<const uint64_t*>(at), __ATOMIC_ACQUIRE);
  Le64 wire;
  std::memcpy(static_cast<void*>(&wire), &raw, sizeof wire);
  return wire.get();
}

}  // namespace tripwire::periph
