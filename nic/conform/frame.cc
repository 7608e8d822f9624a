// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/frame.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace tripwire::conform {
namespace {

uint64_t Load(std::span<const uint8_t> bytes, size_t at, size_t n) {
  uint64_t v = 0;
  for (size_t i = 0; i < n && at + i < bytes.size(); ++i) {
    v |= uint64_t{bytes[at + i]} << 8 * i;
  }
  return v;
}

// How long the fixed part of a payload is; -1 for types nobody knows.
int FixedBytes(uint8_t t) {
  switch (t) {
    case type::kAck:
      return 32;
    case type::kReset:
      return 8;
    case type::kWrite:
      return 14;
    case type::kReadRequest:
      return 20;
    case type::kReadResponse:
      return 10;
    case type::kFlushResponse:
      return 4;
    case type::kError:
      return 8;
    case type::kMessage:
      return 8;
    case type::kAtomicRequest:
      return 32;
    case type::kAtomicResponse:
      return 12;
    case type::kFlushRequest:
    case type::kClose:
    case type::kDiscover:
    case type::kAnnounce:
    case type::kConnect:
    case type::kAccept:
    case type::kReject:
      return 0;
    default:
      return -1;
  }
}

std::string DescribePayload(const Packet& p) {
  switch (p.type) {
    case type::kWrite:
      return absl::StrFormat("handle %u.%u offset %u, %u bytes", p.U32(0),
                             p.U32(4), p.U48(8), p.From(14).size());
    case type::kReadRequest:
      return absl::StrFormat("handle %u.%u offset %u length %u", p.U32(0),
                             p.U32(4), p.U48(8), p.U48(14));
    case type::kReadResponse:
      return absl::StrFormat("of %u at %u, %u bytes", p.U32(0), p.U48(4),
                             p.From(10).size());
    case type::kFlushResponse:
      return absl::StrFormat("of %u", p.U32(0));
    case type::kError:
      return absl::StrFormat(
          "of %u: %s", p.U32(0),
          StatusName(p.payload.size() > 4 ? p.payload[4] : 0));
    case type::kMessage:
      return absl::StrFormat("%u of %u, %u bytes", p.U32(4), p.U32(0),
                             p.From(8).size());
    case type::kAtomicRequest:
      return absl::StrFormat("handle %u.%u offset %u op %u", p.U32(0), p.U32(4),
                             p.U48(8),
                             p.payload.size() > 14 ? p.payload[14] : 0);
    case type::kAtomicResponse:
      return absl::StrFormat("of %u: %u", p.U32(0), p.U64(4));
    case type::kReset:
      return absl::StrFormat("names %08x %08x", p.U32(0), p.U32(4));
    case type::kAck: {
      std::string bits;
      for (size_t i = 0; i < 256 && i / 8 < p.payload.size(); ++i) {
        if (p.payload[i / 8] >> (i % 8) & 1) {
          absl::StrAppendFormat(&bits, " %u", p.acknowledged + 1 + i);
        }
      }
      return bits.empty() ? "nothing early" : "early:" + bits;
    }
    default:
      return absl::StrFormat("%u bytes", p.payload.size());
  }
}

}  // namespace

std::string TypeName(uint8_t t) {
  switch (t) {
    case type::kAck:
      return "ack";
    case type::kReset:
      return "reset";
    case type::kWrite:
      return "write";
    case type::kReadRequest:
      return "read-request";
    case type::kReadResponse:
      return "read-response";
    case type::kFlushRequest:
      return "flush-request";
    case type::kFlushResponse:
      return "flush-response";
    case type::kError:
      return "error";
    case type::kMessage:
      return "message";
    case type::kClose:
      return "close";
    case type::kAtomicRequest:
      return "atomic-request";
    case type::kAtomicResponse:
      return "atomic-response";
    case type::kDiscover:
      return "discover";
    case type::kAnnounce:
      return "announce";
    case type::kConnect:
      return "connect";
    case type::kAccept:
      return "accept";
    case type::kReject:
      return "reject";
    default:
      return absl::StrFormat("type-%u", t);
  }
}

std::string StatusName(uint8_t s) {
  static constexpr const char* kNames[] = {
      "ok",         "pending",          "bad handle", "stale generation",
      "no rights",  "out of bounds",    "link lost",  "too large",
      "misaligned", "unknown operation"};
  return s < std::size(kNames) ? kNames[s] : absl::StrFormat("status %u", s);
}

uint32_t Packet::U32(size_t at) const {
  return static_cast<uint32_t>(Load(payload, at, 4));
}
uint64_t Packet::U48(size_t at) const { return Load(payload, at, 6); }
uint64_t Packet::U64(size_t at) const { return Load(payload, at, 8); }

// RFC 3720, 12.1: the polynomial 0x1edc6f41, reflected.
uint32_t Crc32c(std::span<const uint8_t> bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> t;
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) {
        crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
      }
      t[i] = crc;
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (const uint8_t byte : bytes) crc = (crc >> 8) ^ table[(crc ^ byte) & 255];
  return ~crc;
}

Bytes Encode(const Packet& p) {
  Out out;
  out.Add(p.destination.bytes).Add(p.source.bytes).Add(p.ether_type);
  const uint16_t flags = p.checksum ? p.flags | flag::kChecksummed : p.flags;
  out.U8(p.version).U8(p.type).U16(flags).U32(p.link).U32(p.epoch);
  out.U32(p.sequence).U32(p.acknowledged).U16(p.credit);
  out.U16(p.length.value_or(static_cast<uint16_t>(p.payload.size())));
  out.Add(p.payload);
  if (p.checksum) {
    out.U32(Crc32c(std::span(out.bytes()).subspan(14)) ^ p.spoil_checksum);
  }
  Bytes bytes = out;
  if (bytes.size() < kMinFrameBytes) {
    bytes.resize(kMinFrameBytes, p.padding.value_or(0));
  }
  if (p.cut_to && *p.cut_to < bytes.size()) bytes.resize(*p.cut_to);
  return bytes;
}

Decoded Decode(std::span<const uint8_t> frame, Packet* p, std::string* why) {
  if (frame.size() < 14 || frame[12] != 0x88 || frame[13] != 0xb5) {
    return Decoded::kNotOurs;
  }
  const auto bad = [&](std::string text) {
    *why = std::move(text);
    return Decoded::kMalformed;
  };
  *p = Packet{};
  std::copy_n(frame.begin(), 6, p->destination.bytes.begin());
  std::copy_n(frame.begin() + 6, 6, p->source.bytes.begin());
  if (frame.size() < kMinFrameBytes) {
    return bad(absl::StrFormat("a frame of %u bytes: Ethernet has at least 60",
                               frame.size()));
  }
  p->version = frame[14];
  p->type = frame[15];
  p->flags = static_cast<uint16_t>(Load(frame, 16, 2));
  p->link = static_cast<uint32_t>(Load(frame, 18, 4));
  p->epoch = static_cast<uint32_t>(Load(frame, 22, 4));
  p->sequence = static_cast<uint32_t>(Load(frame, 26, 4));
  p->acknowledged = static_cast<uint32_t>(Load(frame, 30, 4));
  p->credit = static_cast<uint16_t>(Load(frame, 34, 2));
  const size_t length = Load(frame, 36, 2);
  p->checksum = p->has(flag::kChecksummed);
  if (p->version != 1) return bad(absl::StrFormat("version %u", p->version));
  const int fixed = FixedBytes(p->type);
  if (fixed < 0) return bad(absl::StrFormat("unknown type %u", p->type));
  size_t end = kHeaderBytes + length;
  if (end > frame.size()) return bad("its length passes the frame's end");
  if (length < static_cast<size_t>(fixed)) {
    return bad("its payload is shorter than its type's fixed part");
  }
  p->payload.assign(frame.begin() + kHeaderBytes, frame.begin() + end);
  if ((p->source.bytes[0] & 1) != 0) return bad("sent by a group address");
  if (p->checksum) {
    if (end + 4 > frame.size()) return bad("no room for its checksum");
    if (Load(frame, end, 4) != Crc32c(frame.subspan(14, end - 14))) {
      return bad("a wrong checksum");
    }
    end += 4;
  } else if (IsControl(p->type) || p->type == type::kReset) {
    return bad("no checksum, where there must be one");
  }
  // A medium may deliver short frames with padding of its own.
  for (size_t i = end; i < frame.size() && frame.size() <= kMinFrameBytes;
       ++i) {
    if (frame[i] != 0) return bad("padding that is not zero");
  }
  return Decoded::kOk;
}

std::string Describe(std::span<const uint8_t> frame) {
  Packet p;
  std::string why;
  switch (Decode(frame, &p, &why)) {
    case Decoded::kNotOurs:
      return absl::StrFormat("%u bytes of another protocol", frame.size());
    case Decoded::kMalformed:
      return absl::StrFormat("%s, malformed: %s", TypeName(p.type), why);
    case Decoded::kOk:
      break;
  }
  std::string flags;
  if (p.has(flag::kAckRequested)) flags += " ASK";
  if (p.has(flag::kLast)) flags += " LAST";
  if (p.has(flag::kUnordered)) flags += " UNORDERED";
  if (!p.checksum) flags += " no checksum";
  if (p.flags >> flag::kHopsShift) {
    absl::StrAppendFormat(&flags, " hops %u", p.flags >> flag::kHopsShift);
  }
  if (IsControl(p.type)) {
    return absl::StrFormat("%s link %08x epoch %08x: %s", TypeName(p.type),
                           p.link, p.epoch, DescribePayload(p));
  }
  return absl::StrFormat(
      "%s link %08x epoch %08x seq %u ack %u credit %u%s: %s", TypeName(p.type),
      p.link, p.epoch, p.sequence, p.acknowledged, p.credit, flags,
      DescribePayload(p));
}

Bytes WriteBody(const Name& to, uint64_t offset,
                std::span<const uint8_t> data) {
  return Out().U32(to.handle).U32(to.generation).U48(offset).Add(data);
}

Bytes ReadBody(const Name& from, uint64_t offset, uint64_t length) {
  return Out().U32(from.handle).U32(from.generation).U48(offset).U48(length);
}

Bytes MessageBody(uint32_t total, uint32_t offset,
                  std::span<const uint8_t> data) {
  return Out().U32(total).U32(offset).Add(data);
}

Bytes AtomicBody(const Name& to, uint64_t offset, uint8_t operation,
                 uint64_t operand, uint64_t expected) {
  return Out()
      .U32(to.handle)
      .U32(to.generation)
      .U48(offset)
      .U8(operation)
      .U8(0)
      .U64(operand)
      .U64(expected);
}

Bytes Pattern(size_t n, uint8_t seed) {
  Bytes bytes(n);
  uint32_t x = 0x9e3779b9u * seed + 1;
  for (uint8_t& byte : bytes) {
    x = x * 1664525u + 1013904223u;
    byte = static_cast<uint8_t>(x >> 24);
  }
  return bytes;
}

Bytes Word(uint64_t value) { return Out().U64(value); }

uint64_t Expand(uint32_t wire, uint64_t near) {
  return near + static_cast<int64_t>(
                    static_cast<int32_t>(wire - static_cast<uint32_t>(near)));
}

}  // namespace tripwire::conform
