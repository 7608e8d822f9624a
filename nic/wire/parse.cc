// SPDX-License-Identifier: BSD-3-Clause
#include "nic/wire/parse.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace tripwire::wire {
namespace {

// The fixed part of each type's payload; -1 for unknown types.
constexpr int FixedBytesOf(uint8_t type) {
  switch (type) {
    case kAck: return sizeof(AckPayload);
    case kReset: return sizeof(ResetPayload);
    case kWrite: return sizeof(WritePayload);
    case kReadRequest: return sizeof(ReadRequestPayload);
    case kReadResponse: return sizeof(ReadResponsePayload);
    case kFlushRequest: return 0;
    case kFlushResponse: return sizeof(FlushResponsePayload);
    case kOpError: return sizeof(OpErrorPayload);
    case kMessage: return sizeof(MessagePayload);
    case kClose: return 0;
    case kAtomicRequest: return sizeof(AtomicRequestPayload);
    case kAtomicResponse: return sizeof(AtomicResponsePayload);
    case kDiscover:
    case kAnnounce:
    case kConnect:
    case kAccept:
    case kReject: return 0;
    default: return -1;
  }
}

constexpr auto kFixedBytes = [] {
  std::array<int8_t, 256> bytes{};
  for (int type = 0; type < 256; ++type) {
    bytes[static_cast<size_t>(type)] =
        static_cast<int8_t>(FixedBytesOf(static_cast<uint8_t>(type)));
  }
  return bytes;
}();

}  // namespace

int FixedPayloadBytes(uint8_t type) { return kFixedBytes[type]; }

FrameView& FrameView::operator=(const FrameView& other) {
  if (this == &other) return *this;
  payload = other.payload;
  std::memcpy(head, other.head, sizeof head);
  ethernet = other.ethernet == nullptr
                 ? nullptr
                 : reinterpret_cast<const EthernetHeader*>(head);
  header = other.header == nullptr ? nullptr
                                   : reinterpret_cast<const FrameHeader*>(
                                         head + sizeof(EthernetHeader));
  return *this;
}

MacAddress FrameView::source() const {
  MacAddress mac;
  std::copy_n(ethernet->source, 6, mac.bytes.begin());
  return mac;
}

uint32_t Crc32c(std::span<const uint8_t> bytes, uint32_t crc) {
  // isa-l's argument is not const, but it only reads.
  return ~crc32_iscsi(const_cast<uint8_t*>(bytes.data()),
                      static_cast<int>(bytes.size()), ~crc);
}

ParseResult Parse(std::span<const uint8_t> frame, FrameView* view) {
  if (frame.size() < sizeof(EthernetHeader)) return ParseResult::kNotOurs;
  // Every frame on Ethernet has 60 bytes: copied by a few fixed moves.
  const size_t head_bytes = std::min(frame.size(), sizeof view->head);
  if (head_bytes == sizeof view->head) {
    std::memcpy(view->head, frame.data(), sizeof view->head);
  } else if (head_bytes == kMinFrameBytes) {
    std::memcpy(view->head, frame.data(), kMinFrameBytes);
  } else if (head_bytes > kMinFrameBytes) {
    std::memcpy(view->head, frame.data(), kMinFrameBytes);
    std::memcpy(view->head + kMinFrameBytes, frame.data() + kMinFrameBytes,
                head_bytes - kMinFrameBytes);
  } else {
    std::memcpy(view->head, frame.data(), head_bytes);
  }
  view->ethernet = reinterpret_cast<const EthernetHeader*>(view->head);
  if (std::memcmp(view->ethernet->ether_type, kEtherType, 2) != 0) {
    return ParseResult::kNotOurs;
  }
  if (frame.size() < kHeaderBytes) return ParseResult::kMalformed;
  view->header = reinterpret_cast<const FrameHeader*>(view->head +
                                                      sizeof(EthernetHeader));
  const size_t length = view->header->length.get();
  if (length > frame.size() - kHeaderBytes) return ParseResult::kMalformed;
  view->payload = frame.subspan(kHeaderBytes, length);
  if (view->has(kChecksummed)) {
    if (frame.size() - kHeaderBytes - length < kChecksumBytes) {
      return ParseResult::kMalformed;
    }
    Le32 sent;
    std::memcpy(&sent, frame.data() + kHeaderBytes + length, sizeof sent);
    // Of what is believed: of the copy, as far as it goes.
    const size_t end = kHeaderBytes + length;
    const size_t copied = std::min(end, head_bytes);
    uint32_t computed = Crc32c({view->head + sizeof(EthernetHeader),
                                copied - sizeof(EthernetHeader)});
    computed = Crc32c(frame.subspan(copied, end - copied), computed);
    if (sent.get() != computed) return ParseResult::kBadChecksum;
  } else if (IsControl(view->header->type) || view->header->type == kReset) {
    return ParseResult::kMalformed;
  }
  // Only now is anything of the header worth believing.
  if (view->header->version != kVersion) return ParseResult::kMalformed;
  if (view->has(kAuthenticated)) return ParseResult::kMalformed;
  const int fixed = FixedPayloadBytes(view->header->type);
  if (fixed < 0 || length < static_cast<size_t>(fixed)) {
    return ParseResult::kMalformed;
  }
  return ParseResult::kOk;
}

uint32_t Seal(uint8_t* frame, size_t payload_bytes, bool checksum) {
  auto* header =
      reinterpret_cast<FrameHeader*>(frame + sizeof(EthernetHeader));
  header->length = static_cast<uint16_t>(payload_bytes);
  size_t length = kHeaderBytes + payload_bytes;
  if (checksum) {
    header->flags = header->flags.get() | kChecksummed;
    const uint32_t crc = Crc32c(
        {frame + sizeof(EthernetHeader), sizeof(FrameHeader) + payload_bytes});
    *reinterpret_cast<Le32*>(frame + length) = crc;
    length += kChecksumBytes;
  }
  if (length < kMinFrameBytes) {
    std::memset(frame + length, 0, kMinFrameBytes - length);
    length = kMinFrameBytes;
  }
  return static_cast<uint32_t>(length);
}

}  // namespace tripwire::wire
