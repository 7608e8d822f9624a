// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/body.h"

namespace tripwire::conform {
namespace {

constexpr int kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5;

bool TakeVarint(In& in, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = in.U8();
    if (!in.ok()) return false;
    *value |= uint64_t{byte & 0x7fu} << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

}  // namespace

void BodyWriter::PutVarint(uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    out_.U8(static_cast<uint8_t>(value | 0x80));
  out_.U8(static_cast<uint8_t>(value));
}

void BodyWriter::Tag(int field, int wire_type) {
  PutVarint(static_cast<uint64_t>(field) << 3 |
            static_cast<uint64_t>(wire_type));
}

BodyWriter& BodyWriter::Fixed32(int field, uint32_t value) {
  Tag(field, kFixed32);
  out_.U32(value);
  return *this;
}

BodyWriter& BodyWriter::Varint(int field, uint64_t value) {
  Tag(field, kVarint);
  PutVarint(value);
  return *this;
}

BodyWriter& BodyWriter::String(int field, std::span<const uint8_t> value) {
  Tag(field, kLengthDelimited);
  PutVarint(value.size());
  out_.Add(value);
  return *this;
}

BodyWriter& BodyWriter::String(int field, std::string_view value) {
  return String(field, std::span(reinterpret_cast<const uint8_t*>(value.data()),
                                 value.size()));
}

bool ParseBody(std::span<const uint8_t> bytes, Body* body) {
  *body = Body{};
  In in(bytes);
  while (in.left() > 0) {
    uint64_t tag = 0, value = 0;
    if (!TakeVarint(in, &tag)) return false;
    const int field = static_cast<int>(tag >> 3);
    switch (tag & 7) {
      case kVarint:
        if (!TakeVarint(in, &value)) return false;
        body->numbers[field] = value;
        break;
      case kFixed32:
        body->numbers[field] = in.U32();
        break;
      case kFixed64:
        body->numbers[field] = in.U64();
        break;
      case kLengthDelimited: {
        if (!TakeVarint(in, &value) || value > in.left()) return false;
        const auto text = in.Take(value);
        body->strings[field].emplace_back(text.begin(), text.end());
        break;
      }
      default:
        return false;
    }
    if (!in.ok()) return false;
  }
  return true;
}

}  // namespace tripwire::conform
