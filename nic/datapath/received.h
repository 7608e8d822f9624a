// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_RECEIVED_H_
#define TRIPWIRE_NIC_DATAPATH_RECEIVED_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nic/datapath/aperture_table.h"
#include "nic/datapath/short_watches.h"
#include "nic/port/port.h"
#include "nic/wire/parse.h"

namespace tripwire {

// A frame of the burst being received: as the parser sees it, and, of a write,
// what a look ahead found out. All of it is true until the end of the burst.
struct Received {
  wire::ParseResult result = wire::ParseResult::kNotOurs;
  // The slot is all there is to know about who watches what is written.
  bool slot_is_all = false;
  // A write that came from where the frame before it in the burst did, for the
  // same link, with the same flags; that one was looked up and is in order.
  bool repeats = false;
  wire::FrameView view;
  // A write's, if it was looked up and all is in order with it.
  ApertureEntry* aperture = nullptr;
  // Then where it writes, and the offsets of the first and the last byte.
  uint8_t* memory = nullptr;
  uint64_t first = 0, last = 0;
  // Who watches the last byte, if somebody may.
  const ShortWatches::Watch* slot = nullptr;

  void Parse(const Frame& frame) {
    slot_is_all = false;
    repeats = false;
    aperture = nullptr;
    memory = nullptr;
    slot = nullptr;
    result = wire::Parse({frame.data, frame.length_bytes}, &view);
  }
  // Whether two frames have the same addresses, type, flags, link and epoch.
  // REQUIRES: both have a header.
  bool HasHeadOf(const Received& other) const {
    return std::memcmp(view.head, other.view.head, kHeadBytes) == 0;
  }
  // REQUIRES: both are writes.
  bool HasTargetOf(const Received& other) const {
    return std::memcmp(view.head + wire::kHeaderBytes,
                       other.view.head + wire::kHeaderBytes,
                       offsetof(wire::WritePayload, offset)) == 0;
  }
  // REQUIRES: checked, and length > 0.
  void WritesTo(ApertureEntry* into, uint64_t offset, uint64_t length) {
    aperture = into;
    memory = into->base + offset;
    first = offset;
    last = offset + length - 1;
  }
  // REQUIRES: WritesTo was called.
  void FindSlot() {
    const TripwireIndex* watches = aperture->tripwires.get();
    if (watches == nullptr) return;
    slot = watches->SlotAt(last);
    slot_is_all = slot != nullptr && watches->HasOnlyShort() &&
                  first >> ShortWatches::kGranuleShift ==
                      last >> ShortWatches::kGranuleShift;
  }

 private:
  static constexpr size_t kHeadBytes =
      sizeof(wire::EthernetHeader) + offsetof(wire::FrameHeader, sequence);
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_RECEIVED_H_
