// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_WIRE_PARSE_H_
#define TRIPWIRE_NIC_WIRE_PARSE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "nic/base/mac_address.h"
#include "nic/wire/layout.h"

namespace tripwire::wire {

enum class ParseResult : uint8_t {
  kOk,
  kNotOurs,      // another EtherType: ignore
  kMalformed,    // ours, but no well-formed frame of a known version and type
  kBadChecksum,  // damaged on the way
};

// A validated frame. Handlers take only views.
//
// The frame may lie in memory that its sender can change at any time. So headers
// and the fixed part of the payload are copied once, and only the copy is looked
// at; data stays where it is, and nobody may believe it to be the same twice.
//
// Invariants: `header` is complete, of our version, its type known; `payload` is
// header->length bytes inside the frame, at least as long as the type's fixed
// part (so body<T>() is safe).
struct FrameView {
  FrameView() = default;
  FrameView(const FrameView& other) { *this = other; }
  FrameView& operator=(const FrameView& other);  // it points into itself

  const EthernetHeader* ethernet = nullptr;  // in `head`
  const FrameHeader* header = nullptr;       // in `head`
  std::span<const uint8_t> payload;          // in the frame
  uint8_t head[kHeaderBytes + kMaxFixedBytes];

  uint8_t type() const { return header->type; }
  uint32_t sequence() const { return header->sequence.get(); }
  bool has(FrameFlags flag) const { return (header->flags.get() & flag) != 0; }
  // How many actions of tripwires led to this frame.
  unsigned hops() const { return header->flags.get() >> kHopsShift; }
  MacAddress source() const;

  template <typename T>
  const T& body() const {
    static_assert(sizeof(T) <= kMaxFixedBytes && alignof(T) == 1);
    return *reinterpret_cast<const T*>(head + kHeaderBytes);
  }
  template <typename T>
  std::span<const uint8_t> data() const {
    return payload.subspan(sizeof(T));
  }
};

// The fixed part of each type's payload; -1 for unknown types.
int FixedPayloadBytes(uint8_t type);

// The one gate for received bytes. Control frames and resets must be
// checksummed; whether other frames must be is for their link to say.
ParseResult Parse(std::span<const uint8_t> frame, FrameView* view);

// CRC32C (RFC 3720 section 12.1) of `bytes`, continuing from `crc` (0 to begin).
uint32_t Crc32c(std::span<const uint8_t> bytes, uint32_t crc = 0);

// Completes a frame whose header and payload lie at `frame`: sets length, adds the
// checksum if asked, pads with zeros to the Ethernet minimum. Returns the frame's
// length. REQUIRES: room for kHeaderBytes + payload + 4, and for 60 bytes.
uint32_t Seal(uint8_t* frame, size_t payload_bytes, bool checksum);

}  // namespace tripwire::wire

#endif  // TRIPWIRE_NIC_WIRE_PARSE_H_
