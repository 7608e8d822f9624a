// SPDX-License-Identifier: BSD-3-Clause
// Spinning gives way where others want the processor.
#include "nic/api/contention.h"

#include <gtest/gtest.h>

#include "nic/base/clock.h"

namespace tripwire {
namespace {

bool preempted = true;
bool WasPreempted() { return preempted; }

class ContentionTest : public testing::Test {
 protected:
  ContentionTest() { preempted = true; }
  void Spin(uint64_t ns) {
    const uint64_t end_ns = now_ns_ + ns;
    while (now_ns_ < end_ns) Turn(10 * kMicrosecond);
  }
  void Turn(uint64_t ns) {
    contention_.Note(now_ns_, now_ns_ + ns);
    now_ns_ += ns;
  }
  bool is_there() const { return contention_.is_there(now_ns_); }

  Contention contention_{&WasPreempted};
  uint64_t now_ns_ = kSecond;
};

TEST_F(ContentionTest, WhoKeepsHisProcessorSpinsOn) {
  Spin(kSecond);
  EXPECT_FALSE(is_there());
  // Now and then somebody else has something to do.
  for (int i = 0; i < 100; ++i) {
    Turn(4 * kMillisecond);
    EXPECT_FALSE(is_there());
    Spin(10 * kMillisecond);
  }
  EXPECT_EQ(contention_.times(), 0u);
}

TEST_F(ContentionTest, WhoLosesMoreThanHeKeepsSpinsNoMore) {
  Spin(kSecond);
  int slices = 0;
  for (; !is_there(); ++slices) {
    ASSERT_LT(slices, 20);
    Spin(kMillisecond);
    Turn(4 * kMillisecond);
  }
  EXPECT_GT(slices, 1);
  EXPECT_EQ(contention_.times(), 1u);
}

TEST_F(ContentionTest, LongBurstsAreNobodysFault) {
  preempted = false;
  for (int i = 0; i < 100; ++i) Turn(4 * kMillisecond);
  EXPECT_EQ(contention_.times(), 0u);
}

TEST_F(ContentionTest, ItIsLookedForAgainEverMoreSeldomAndForgottenOnceItHasEnded) {
  const auto until_over = [&] {
    const uint64_t begun_ns = now_ns_;
    while (is_there()) now_ns_ += kMillisecond;
    return now_ns_ - begun_ns;
  };
  Turn(4 * kMillisecond);
  const uint64_t first_ns = until_over();
  EXPECT_GT(first_ns, 10 * kMillisecond);
  uint64_t last_ns = first_ns;
  for (int i = 0; i < 20; ++i) {
    Turn(4 * kMillisecond);
    const uint64_t next_ns = until_over();
    EXPECT_GE(next_ns, last_ns);
    last_ns = next_ns;
  }
  EXPECT_GT(last_ns, first_ns);
  EXPECT_LE(last_ns, 10 * kSecond);
  Spin(kSecond);
  for (int i = 0; i < 100 && !is_there(); ++i) Turn(4 * kMillisecond);
  EXPECT_EQ(until_over(), first_ns);
}

}  // namespace
}  // namespace tripwire
