// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_FRAME_H_
#define TRIPWIRE_NIC_CONFORM_FRAME_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nic/base/mac_address.h"

// Frames as docs/wire-format.md describes them, written down a second time: the
// suite shares no layout, parser or checksum with the NIC it judges, or a
// mistake in one would agree with itself.
namespace tripwire::conform {

using Bytes = std::vector<uint8_t>;

namespace type {
inline constexpr uint8_t kAck = 1, kReset = 2, kWrite = 16, kReadRequest = 17,
                         kReadResponse = 18, kFlushRequest = 19,
                         kFlushResponse = 20, kError = 21, kMessage = 22,
                         kClose = 23, kAtomicRequest = 24, kAtomicResponse = 25,
                         kDiscover = 48, kAnnounce = 49, kConnect = 50,
                         kAccept = 51, kReject = 52;
}  // namespace type
constexpr bool IsSequenced(uint8_t t) { return t >= 16 && t < 48; }
constexpr bool IsControl(uint8_t t) { return t >= 48; }
std::string TypeName(uint8_t type);

namespace flag {
inline constexpr uint16_t kAckRequested = 1, kChecksummed = 2, kLast = 4,
                          kAuthenticated = 8, kUnordered = 16;
inline constexpr int kHopsShift = 12;
}  // namespace flag

// What an error frame says.
namespace status {
inline constexpr uint8_t kOk = 0, kPending = 1, kBadHandle = 2, kStale = 3,
                         kNoRights = 4, kOutOfBounds = 5, kLinkLost = 6,
                         kTooLarge = 7, kMisaligned = 8, kUnknown = 9;
}  // namespace status
std::string StatusName(uint8_t status);

inline constexpr size_t kHeaderBytes = 38;  // Ethernet's 14 and ours
inline constexpr size_t kMinFrameBytes = 60;
inline constexpr uint32_t kWindow = 256;  // frames one may be ahead

// A frame, field by field, and every way in which it may be made wrong.
struct Packet {
  MacAddress destination, source;
  std::array<uint8_t, 2> ether_type{0x88, 0xb5};
  uint8_t version = 1;
  uint8_t type = 0;
  uint16_t flags = 0;
  uint32_t link = 0, epoch = 0, sequence = 0, acknowledged = 0;
  uint16_t credit = 0;
  Bytes payload;

  // For Encode: a checksum is added, and flagged, unless told otherwise.
  bool checksum = true;
  uint32_t spoil_checksum = 0;     // xor-ed into it
  std::optional<uint16_t> length;  // what the header says instead
  std::optional<size_t> cut_to;    // the frame ends here
  std::optional<uint8_t> padding;  // pads with these instead of zeros

  bool has(uint16_t f) const { return (flags & f) != 0; }
  uint32_t U32(size_t at) const;  // of the payload; 0 beyond its end
  uint64_t U48(size_t at) const;
  uint64_t U64(size_t at) const;
  std::span<const uint8_t> From(size_t at) const {
    return at >= payload.size() ? std::span<const uint8_t>()
                                : std::span<const uint8_t>(payload).subspan(at);
  }
};

Bytes Encode(const Packet& packet);

enum class Decoded { kOk, kNotOurs, kMalformed };
// Strict: what a conforming NIC sends, with zero padding and a right checksum.
// `why` says what is wrong.
Decoded Decode(std::span<const uint8_t> frame, Packet* packet,
               std::string* why);

// One line: "write link 00200000 seq 5 ack 2 credit 256 LAST: handle 0 ...".
std::string Describe(std::span<const uint8_t> frame);

uint32_t Crc32c(std::span<const uint8_t> bytes);

// Builds little-endian payloads: Out().U32(1).U48(2).Bytes(data).
class Out {
 public:
  Out& U8(uint8_t v) { return Put(v, 1); }
  Out& U16(uint16_t v) { return Put(v, 2); }
  Out& U32(uint32_t v) { return Put(v, 4); }
  Out& U48(uint64_t v) { return Put(v, 6); }
  Out& U64(uint64_t v) { return Put(v, 8); }
  Out& Add(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Out& Text(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    return *this;
  }
  operator Bytes() const { return bytes_; }  // NOLINT: implicit by intent
  const Bytes& bytes() const { return bytes_; }

 private:
  Out& Put(uint64_t v, int n) {
    for (int i = 0; i < n; ++i)
      bytes_.push_back(static_cast<uint8_t>(v >> 8 * i));
    return *this;
  }
  Bytes bytes_;
};

// Reads little-endian fields; past the end it gives zeros and remembers.
class In {
 public:
  explicit In(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  uint8_t U8() { return static_cast<uint8_t>(Get(1)); }
  uint16_t U16() { return static_cast<uint16_t>(Get(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Get(4)); }
  uint64_t U64() { return Get(8); }
  std::span<const uint8_t> Take(size_t n) {
    if (n > bytes_.size()) {
      short_ = true;
      return {};
    }
    const auto taken = bytes_.first(n);
    bytes_ = bytes_.subspan(n);
    return taken;
  }
  std::span<const uint8_t> Rest() { return Take(bytes_.size()); }
  size_t left() const { return bytes_.size(); }
  bool ok() const { return !short_; }

 private:
  uint64_t Get(size_t n) {
    uint64_t v = 0;
    const auto bytes = Take(n);
    for (size_t i = 0; i < bytes.size(); ++i) v |= uint64_t{bytes[i]} << 8 * i;
    return v;
  }
  std::span<const uint8_t> bytes_;
  bool short_ = false;
};

// The name of an aperture, as ApertureName::Serialize and wire-format.md have
// it.
struct Name {
  uint32_t handle = 0, generation = 0;
  uint64_t length = 0;
  uint8_t rights = 0;
};

Bytes WriteBody(const Name& to, uint64_t offset, std::span<const uint8_t> data);
Bytes ReadBody(const Name& from, uint64_t offset, uint64_t length);
Bytes MessageBody(uint32_t total, uint32_t offset,
                  std::span<const uint8_t> data);
inline constexpr uint8_t kFetchAdd = 1, kCompareSwap = 2;
Bytes AtomicBody(const Name& to, uint64_t offset, uint8_t operation,
                 uint64_t operand, uint64_t expected);

// Bytes that differ from place to place and from seed to seed.
Bytes Pattern(size_t n, uint8_t seed = 1);
Bytes Word(uint64_t value);

// The 64-bit number nearest to `near` whose low half is `wire`.
uint64_t Expand(uint32_t wire, uint64_t near);

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_FRAME_H_
