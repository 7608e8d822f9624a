// SPDX-License-Identifier: BSD-3-Clause
// The bytes a feeder writes, against docs/streams.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "tests/unit/periph/stream/numbered_frames.h"

namespace tripwire::periph {
namespace {

TEST(LayoutTest, TheExampleOfTheDocumentation) {
  constexpr uint64_t kPayload = 100, kOffset = 256;
  SimNetwork net(1);
  StreamPair pair(net);
  pair.Connect();
  alignas(64) uint8_t memory[4 * SlotStride(kPayload)];
  std::fill(std::begin(memory), std::end(memory), 0xaa);
  Aperture ring = pair.right->Export(memory, Access::kWrite);
  pair.MakeFeeder({.policy = Policy::kDropNewest, .queue_frames = 1});
  ASSERT_TRUE(pair.feeder->Begin({ring.name(), 4, kPayload}).ok());

  // Five frames before it, and one that finds no place; two the source lost.
  for (uint64_t number = 0; number < 4; ++number) {
    ASSERT_EQ(pair.feeder->Offer(NumberedFrame(number, 1)),
              Feeder::Taken::kYes);
  }
  ASSERT_EQ(pair.feeder->Offer(NumberedFrame(4, 1)),
            Feeder::Taken::kYes);  // waits
  ASSERT_EQ(pair.feeder->Offer(NumberedFrame(5, 1)),
            Feeder::Taken::kYes);  // is dropped
  const Le64 released(4);
  ASSERT_TRUE(
      pair.right
          ->Write(
              pair.right->Import(pair.right_link, pair.feeder->credit_name()),
              0, {reinterpret_cast<const uint8_t*>(&released), sizeof released})
          .ok());
  pair.Settle();
  const std::string_view hello = "hello";
  Frame frame;
  frame.data = {reinterpret_cast<const uint8_t*>(hello.data()), hello.size()};
  frame.capture_ns = 5 * kSecond;
  frame.number = 9;
  frame.overrun = 2;
  std::fill(std::begin(memory) + 192, std::begin(memory) + 384, 0xaa);
  ASSERT_EQ(pair.feeder->Offer(frame), Feeder::Taken::kYes);
  pair.Settle();

  std::vector<uint8_t> wanted(384 - 192, 0);
  std::fill_n(wanted.begin(), kOffset - 192, 0xaa);
  auto at = wanted.begin() + (kOffset - 192);
  at = std::copy(hello.begin(), hello.end(), at) + 59;
  const uint8_t tail[64] = {
      0x00, 0xf2, 0x05, 0x2a, 0x01, 0,    0,    0,     // capture
      0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  // no time in the stream
      0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  // no duration
      5,    0,    0,    0,    0,    0,    0,    0,     // length, flags
      9,    0,    0,    0,    0,    0,    0,    0,     // number
      2,    0,    0,    0,    0,    0,    0,    0,     // overrun
      1,    0,    0,    0,    0,    0,    0,    0,     // dropped
      6,    0,    0,    0,    0,    0,    0,    0,     // sequence
  };
  std::copy(std::begin(tail), std::end(tail), at);
  EXPECT_EQ(std::vector<uint8_t>(memory + 192, memory + 384), wanted);
}

}  // namespace
}  // namespace tripwire::periph
