// SPDX-License-Identifier: BSD-3-Clause
#include "periph/stream/clock_offset.h"

#include <gtest/gtest.h>

#include "nic/base/clock.h"

namespace tripwire::periph {
namespace {

TEST(ClockOffsetTest, NothingIsKnownBeforeTheFirstExchange) {
  ClockOffset clock;
  EXPECT_FALSE(clock.known());
  EXPECT_EQ(clock.offset_ns(), 0);
  EXPECT_EQ(clock.error_ns(), UINT64_MAX);
  EXPECT_EQ(clock.ToOurs(123), 123u);
}

TEST(ClockOffsetTest, AnEvenRoundTripGivesTheOffset) {
  ClockOffset clock;
  // The peer is 1000 behind; 10 there, 5 to answer, 10 back.
  ASSERT_TRUE(clock.Add(5000, 4010, 4015, 5025));
  EXPECT_TRUE(clock.known());
  EXPECT_EQ(clock.offset_ns(), 1000);
  EXPECT_EQ(clock.ToOurs(4010), 5010u);
  EXPECT_GE(clock.error_ns(), 10u);
  EXPECT_LE(clock.error_ns(), 12u);
}

TEST(ClockOffsetTest, TheShortestOfTheLastEightIsBelieved) {
  ClockOffset clock;
  ASSERT_TRUE(clock.Add(1000, 110, 110, 1020));  // offset 900, round trip 20
  for (uint64_t t = 2000; t < 9000; t += 1000) {
    ASSERT_TRUE(clock.Add(t, t - 300, t - 300,
                          t + 600));  // 600, queued on the way back
    EXPECT_EQ(clock.offset_ns(), 900);
  }
  ASSERT_TRUE(clock.Add(9000, 8700, 8700, 9600));  // the first is forgotten
  EXPECT_EQ(clock.offset_ns(), 600);
}

TEST(ClockOffsetTest, AnOldExchangeIsBelievedLessAsClocksDrift) {
  ClockOffset clock;
  ASSERT_TRUE(clock.Add(kSecond, 0, 0, kSecond + 1000));
  const uint64_t fresh_ns = clock.error_ns();
  ASSERT_TRUE(
      clock.Add(2 * kSecond, kSecond, kSecond, 2 * kSecond + kMillisecond));
  EXPECT_GE(clock.error_ns(), fresh_ns + 100 * kMicrosecond);
  // 100 ppm of 60 s are more than half a millisecond.
  ASSERT_TRUE(clock.Add(61 * kSecond, 60 * kSecond, 60 * kSecond,
                        61 * kSecond + kMillisecond));
  EXPECT_EQ(clock.offset_ns(),
            static_cast<int64_t>(kSecond + kMillisecond / 2));
}

TEST(ClockOffsetTest, TimesThatCannotBeAreIgnored) {
  ClockOffset clock;
  EXPECT_FALSE(clock.Add(1000, 10, 10, 999));    // back before it was sent
  EXPECT_FALSE(clock.Add(1000, 11, 10, 1100));   // answered before it came
  EXPECT_FALSE(clock.Add(1000, 10, 111, 1100));  // longer there than under way
  // Further apart than can be said.
  EXPECT_FALSE(clock.Add(10, UINT64_MAX, UINT64_MAX, 20));
  EXPECT_FALSE(clock.Add(UINT64_MAX - 9, 0, 0, UINT64_MAX));
  EXPECT_FALSE(clock.known());
}

TEST(ClockOffsetTest, TimesBeyondTheClockAreTheNearestThereIs) {
  ClockOffset ahead, behind;
  ASSERT_TRUE(ahead.Add(5000, 1000, 1000, 5000));
  EXPECT_EQ(ahead.ToOurs(UINT64_MAX - 1), UINT64_MAX);
  ASSERT_TRUE(behind.Add(1000, 5000, 5000, 1000));
  EXPECT_EQ(behind.offset_ns(), -4000);
  EXPECT_EQ(behind.ToOurs(100), 0u);
}

}  // namespace
}  // namespace tripwire::periph
