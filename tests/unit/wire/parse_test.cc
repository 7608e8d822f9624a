// SPDX-License-Identifier: BSD-3-Clause
// The one gate for received bytes: every type, cut everywhere, damaged
// everywhere, lying about its length.
#include "nic/wire/parse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "nic/base/random.h"

namespace tripwire::wire {
namespace {

struct TypeCase {
  uint8_t type;
  size_t fixed_bytes;
  bool must_be_checksummed;
};
constexpr TypeCase kTypes[] = {
    {kAck, 32, false},          {kReset, 8, true},
    {kWrite, 14, false},        {kReadRequest, 20, false},
    {kReadResponse, 10, false}, {kFlushRequest, 0, false},
    {kFlushResponse, 4, false}, {kOpError, 8, false},
    {kMessage, 8, false},       {kClose, 0, false},
    {kAtomicRequest, 32, false}, {kAtomicResponse, 12, false},
    {kDiscover, 0, true},       {kAnnounce, 0, true},
    {kConnect, 0, true},        {kAccept, 0, true},
    {kReject, 0, true},
};

std::vector<uint8_t> Build(uint8_t type, size_t payload_bytes, bool checksum,
                           uint8_t version = kVersion) {
  std::vector<uint8_t> frame(kHeaderBytes + payload_bytes + 64, 0x5a);
  std::memcpy(frame.data() + 12, kEtherType, 2);
  auto* header = reinterpret_cast<FrameHeader*>(frame.data() + 14);
  *header = FrameHeader{};
  header->version = version;
  header->type = type;
  frame.resize(Seal(frame.data(), payload_bytes, checksum));
  return frame;
}

// Parses a copy that ends exactly where the frame does, so that a sanitizer
// sees any look beyond.
ParseResult ParseExactly(const std::vector<uint8_t>& frame, size_t length) {
  std::unique_ptr<uint8_t[]> copy(new uint8_t[length]);
  if (length > 0) std::memcpy(copy.get(), frame.data(), length);
  FrameView view;
  return Parse({copy.get(), length}, &view);
}

TEST(Parse, TakesEveryTypeAndGivesItsPayload) {
  for (const TypeCase& c : kTypes) {
    for (const bool checksum : {false, true}) {
      for (const size_t extra : {0, 1, 8, 1400}) {
        const auto frame = Build(c.type, c.fixed_bytes + extra, checksum);
        FrameView view;
        const ParseResult result = Parse(frame, &view);
        if (c.must_be_checksummed && !checksum) {
          EXPECT_EQ(result, ParseResult::kMalformed) << int{c.type};
          continue;
        }
        ASSERT_EQ(result, ParseResult::kOk) << int{c.type};
        EXPECT_EQ(view.type(), c.type);
        EXPECT_EQ(view.payload.size(), c.fixed_bytes + extra);
        EXPECT_EQ(view.payload.data(), frame.data() + kHeaderBytes);
        EXPECT_EQ(view.has(kChecksummed), checksum);
      }
    }
  }
}

// Frames may lie in memory their sender still writes to: what was checked is what
// is used, whatever becomes of the frame.
TEST(Parse, WhatWasCheckedDoesNotChange) {
  for (const TypeCase& c : kTypes) {
    auto frame = Build(c.type, c.fixed_bytes + 100, true);
    const auto before = frame;
    FrameView view;
    ASSERT_EQ(Parse(frame, &view), ParseResult::kOk);
    std::fill(frame.begin(), frame.end(), 0xff);
    EXPECT_EQ(view.type(), c.type);
    EXPECT_EQ(view.header->length.get(), c.fixed_bytes + 100);
    EXPECT_EQ(view.payload.size(), c.fixed_bytes + 100);
    EXPECT_EQ(std::memcmp(view.head, before.data(),
                          kHeaderBytes + c.fixed_bytes),
              0);
    const FrameView copy = view;
    EXPECT_EQ(copy.type(), c.type);
    EXPECT_EQ(static_cast<const void*>(copy.header),
              copy.head + sizeof(EthernetHeader));
  }
}

TEST(Parse, RefusesEveryTypeCutAtEveryLength) {
  for (const TypeCase& c : kTypes) {
    for (const bool checksum : {false, true}) {
      if (c.must_be_checksummed && !checksum) continue;
      const size_t payload = c.fixed_bytes + 40;
      const auto frame = Build(c.type, payload, checksum);
      const size_t whole = kHeaderBytes + payload + (checksum ? 4 : 0);
      ASSERT_EQ(frame.size(), whole);
      for (size_t length = 0; length < whole; ++length) {
        EXPECT_EQ(ParseExactly(frame, length),
                  length < sizeof(EthernetHeader) ? ParseResult::kNotOurs
                                                  : ParseResult::kMalformed)
            << int{c.type} << " cut to " << length;
      }
      EXPECT_EQ(ParseExactly(frame, whole), ParseResult::kOk);
    }
  }
}

TEST(Parse, RefusesPayloadsShorterThanTheTypesFixedPart) {
  for (const TypeCase& c : kTypes) {
    for (size_t bytes = 0; bytes < c.fixed_bytes; ++bytes) {
      EXPECT_EQ(ParseExactly(Build(c.type, bytes, true), 60 < bytes + 42
                                                             ? bytes + 42
                                                             : 60),
                ParseResult::kMalformed)
          << int{c.type} << " with " << bytes;
    }
  }
}

TEST(Parse, RefusesLengthsBeyondTheFrame) {
  auto frame = Build(kWrite, 100, false);
  auto* header = reinterpret_cast<FrameHeader*>(frame.data() + 14);
  for (const uint16_t length : {101, 1000, 0x7fff, 0xffff}) {
    header->length = length;
    EXPECT_EQ(ParseExactly(frame, frame.size()), ParseResult::kMalformed);
  }
}

TEST(Parse, IgnoresPaddingAndOtherEtherTypes) {
  auto frame = Build(kFlushRequest, 0, true);
  ASSERT_EQ(frame.size(), kMinFrameBytes);
  for (size_t i = kHeaderBytes + 4; i < frame.size(); ++i) frame[i] = 0xff;
  EXPECT_EQ(ParseExactly(frame, frame.size()), ParseResult::kOk);
  frame[12] = 0x08;
  EXPECT_EQ(ParseExactly(frame, frame.size()), ParseResult::kNotOurs);
}

TEST(Parse, RefusesOtherVersionsAndUnknownTypes) {
  for (int version = 0; version < 256; ++version) {
    const auto frame =
        Build(kWrite, 20, true, static_cast<uint8_t>(version));
    EXPECT_EQ(ParseExactly(frame, frame.size()), version == kVersion
                                                     ? ParseResult::kOk
                                                     : ParseResult::kMalformed);
  }
  for (int type = 0; type < 256; ++type) {
    bool known = false;
    for (const TypeCase& c : kTypes) known |= c.type == type;
    const auto frame = Build(static_cast<uint8_t>(type), 64, true);
    EXPECT_EQ(ParseExactly(frame, frame.size()),
              known ? ParseResult::kOk : ParseResult::kMalformed)
        << type;
  }
}

// Sets `flags` in a built frame, and the checksum anew if it has one.
void SetFlags(std::vector<uint8_t>& frame, size_t payload, uint16_t flags,
              bool checksum) {
  auto* header = reinterpret_cast<FrameHeader*>(frame.data() + 14);
  header->flags = flags;
  Seal(frame.data(), payload, checksum);
}

TEST(Parse, RefusesFramesWithATag) {
  for (const bool checksum : {false, true}) {
    auto frame = Build(kWrite, 40, checksum);
    SetFlags(frame, 40, kAuthenticated, checksum);
    EXPECT_EQ(ParseExactly(frame, frame.size()), ParseResult::kMalformed);
    SetFlags(frame, 40, kAuthenticated | kLast, checksum);
    EXPECT_EQ(ParseExactly(frame, frame.size()), ParseResult::kMalformed);
    SetFlags(frame, 40, kLast, checksum);
    EXPECT_EQ(ParseExactly(frame, frame.size()), ParseResult::kOk);
  }
}

TEST(Parse, TakesFramesWithReservedFlagsAndAnyHops) {
  for (int bit = 0; bit < 16; ++bit) {
    if ((1 << bit & (kReservedFlags | kHopsMask | kUnordered)) == 0) continue;
    auto frame = Build(kWrite, 40, true);
    SetFlags(frame, 40, static_cast<uint16_t>(1 << bit), true);
    FrameView view;
    EXPECT_EQ(Parse(frame, &view), ParseResult::kOk) << bit;
    EXPECT_EQ(view.hops(), bit < 12 ? 0u : 1u << (bit - 12));
    EXPECT_EQ(view.has(kUnordered), bit == 4);
  }
}

TEST(Parse, SeesEveryFlippedBitOfAChecksummedFrame) {
  const auto frame = Build(kWrite, 14 + 50, true);
  for (size_t bit = 14 * 8; bit < frame.size() * 8; ++bit) {
    auto damaged = frame;
    damaged[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    const auto* header =
        reinterpret_cast<const FrameHeader*>(damaged.data() + 14);
    const ParseResult result = ParseExactly(damaged, damaged.size());
    if ((header->flags.get() & kChecksummed) == 0) {
      // The flag itself was hit: for the link to refuse, which requires it.
      EXPECT_EQ(result, ParseResult::kOk);
    } else {
      EXPECT_NE(result, ParseResult::kOk) << "bit " << bit;
    }
  }
}

TEST(Parse, NeverLooksBeyondRandomBytes) {
  Random random(1);
  for (int run = 0; run < 100000; ++run) {
    std::vector<uint8_t> bytes(random.Below(120));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Next());
    if (bytes.size() >= 14) std::memcpy(bytes.data() + 12, kEtherType, 2);
    if (bytes.size() >= kHeaderBytes && random.Chance(0.8)) {
      bytes[14] = kVersion;
      bytes[15] = static_cast<uint8_t>(random.Below(56));
      bytes[36] = static_cast<uint8_t>(random.Below(90));
      bytes[37] = 0;
    }
    ParseExactly(bytes, bytes.size());
  }
}

TEST(Seal, PadsShortFramesWithZeros) {
  for (size_t payload = 0; payload < 40; ++payload) {
    for (const bool checksum : {false, true}) {
      const auto frame = Build(kClose, payload, checksum);
      const size_t used = kHeaderBytes + payload + (checksum ? 4 : 0);
      EXPECT_EQ(frame.size(), std::max(used, kMinFrameBytes));
      for (size_t i = used; i < frame.size(); ++i) EXPECT_EQ(frame[i], 0);
    }
  }
}

TEST(Crc32c, MatchesTheRfcsVectors) {
  // RFC 3720 appendix B.4.
  const std::vector<uint8_t> zeros(32, 0), ones(32, 0xff);
  std::vector<uint8_t> up(32);
  for (uint8_t i = 0; i < 32; ++i) up[i] = i;
  EXPECT_EQ(Crc32c(zeros), 0x8a9136aau);
  EXPECT_EQ(Crc32c(ones), 0x62a8ab43u);
  EXPECT_EQ(Crc32c(up), 0x46dd794eu);
  const std::span<const uint8_t> all(up);
  EXPECT_EQ(Crc32c(all.subspan(10), Crc32c(all.first(10))), Crc32c(all));
}

TEST(WireInt, IsLittleEndianAtAnyAlignment) {
  uint8_t bytes[9] = {};
  auto* at = reinterpret_cast<Le48*>(bytes + 1);
  at->set(0x010203040506);
  EXPECT_EQ(at->get(), 0x010203040506u);
  EXPECT_EQ(bytes[1], 6);
  EXPECT_EQ(bytes[6], 1);
  EXPECT_EQ(bytes[7], 0);
  EXPECT_EQ(Le48(Le48::kMax).get(), Le48::kMax);
  const Le32 word(0x01020304);
  EXPECT_EQ(reinterpret_cast<const uint8_t*>(&word)[0], 4);
}

}  // namespace
}  // namespace tripwire::wire
