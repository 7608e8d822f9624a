// SPDX-License-Identifier: BSD-3-Clause
// What each policy does with frames that find no free slot.
#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/periph/stream/numbered_frames.h"

namespace tripwire::periph {
namespace {

class PoliciesTest : public ::testing::Test {
 protected:
  void SetUp() override { pair_.Connect(); }
  // Two slots, and frames 0 to 9 offered while nobody takes any; then all are
  // taken.
  std::vector<uint64_t> TenIntoTwo(Policy policy, uint32_t queue_frames) {
    pair_.Make({.policy = policy, .queue_frames = queue_frames},
               {.slots = 2, .payload_bytes = 2000});
    for (uint64_t number = 0; number < 10; ++number) {
      EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(number, 1500)),
                Feeder::Taken::kYes);
      pair_.Settle();
    }
    queued_ = pair_.feeder->counters().queued;
    std::vector<uint64_t> taken = TakeAll();
    // One more, that tells what was dropped since.
    EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(10, 1500)),
              Feeder::Taken::kYes);
    EXPECT_EQ(TakeAll(), std::vector<uint64_t>{10});
    EXPECT_EQ(pair_.ring->counters().dropped, pair_.feeder->counters().dropped);
    EXPECT_EQ(pair_.ring->counters().dropped,
              11 - pair_.ring->counters().received);
    EXPECT_EQ(pair_.ring->counters().lost, 0u);
    return taken;
  }
  std::vector<uint64_t> TakeAll() {
    std::vector<uint64_t> taken;
    for (int idle = 0; idle < 3;) {
      pair_.Settle();
      pair_.feeder->Pump();
      pair_.Settle();
      auto view = pair_.ring->Take();
      if (!view.ok()) {
        ++idle;
        continue;
      }
      EXPECT_TRUE(IsNumbered(view->data(), view->frame().number));
      taken.push_back(view->frame().number);
    }
    return taken;
  }

  SimNetwork net_{1};
  StreamPair pair_{net_};
  uint64_t queued_ = 0;
};

TEST_F(PoliciesTest, DropOldestKeepsTheNewest) {
  EXPECT_EQ(TenIntoTwo(Policy::kDropOldest, 3),
            (std::vector<uint64_t>{0, 1, 7, 8, 9}));
  EXPECT_EQ(queued_, 3u);
}

TEST_F(PoliciesTest, DropNewestKeepsTheOldest) {
  EXPECT_EQ(TenIntoTwo(Policy::kDropNewest, 3),
            (std::vector<uint64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(queued_, 3u);
}

TEST_F(PoliciesTest, LatestKeepsOne) {
  EXPECT_EQ(TenIntoTwo(Policy::kLatest, 3), (std::vector<uint64_t>{0, 1, 9}));
  EXPECT_EQ(queued_, 1u);
}

TEST_F(PoliciesTest, AQueueOfNoneIsOne) {
  EXPECT_EQ(TenIntoTwo(Policy::kDropOldest, 0),
            (std::vector<uint64_t>{0, 1, 9}));
}

TEST_F(PoliciesTest, BlockLosesNothing) {
  pair_.Make({.policy = Policy::kBlock, .queue_frames = 3},
             {.slots = 2, .payload_bytes = 2000});
  uint64_t next = 0, taken = 0;
  while (taken < 40) {
    while (next < 40 && pair_.feeder->Offer(NumberedFrame(next, 1500)) ==
                            Feeder::Taken::kYes) {
      ++next;
    }
    EXPECT_LE(next, taken + 2);
    EXPECT_EQ(pair_.feeder->counters().queued, 0u);
    pair_.Settle();
    ExpectFrame(*pair_.ring, taken++, 1500);
    pair_.Settle();
    EXPECT_TRUE(pair_.feeder->Pump());
  }
  EXPECT_TRUE(pair_.feeder->drained());
  EXPECT_EQ(pair_.feeder->counters().offered, 40u);
  EXPECT_EQ(pair_.feeder->counters().dropped, 0u);
  EXPECT_EQ(pair_.ring->counters().dropped, 0u);
}

TEST_F(PoliciesTest, FramesWaitForTheFirstRing) {
  pair_.MakeFeeder({.policy = Policy::kDropOldest, .queue_frames = 2});
  for (uint64_t number = 0; number < 5; ++number) {
    EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(number, 100)),
              Feeder::Taken::kYes);
  }
  pair_.MakeRing({.slots = 4, .payload_bytes = 100});
  pair_.Begin();
  EXPECT_EQ(TakeAll(), (std::vector<uint64_t>{3, 4}));
  EXPECT_EQ(pair_.ring->counters().dropped, 3u);
  EXPECT_EQ(pair_.ring->counters().lost, 0u);
}

TEST_F(PoliciesTest, BlockIsFullWithoutARing) {
  pair_.MakeFeeder({.policy = Policy::kBlock});
  EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(0, 100)), Feeder::Taken::kFull);
  EXPECT_FALSE(pair_.feeder->Pump());
  pair_.MakeRing({.slots = 4, .payload_bytes = 100});
  pair_.Begin();
  EXPECT_TRUE(pair_.feeder->Pump());
}

TEST_F(PoliciesTest, WhatDoesNotFitASlotIsDroppedAndSaid) {
  for (const Policy policy : {Policy::kBlock, Policy::kDropNewest}) {
    pair_.Make({.policy = policy}, {.slots = 2, .payload_bytes = 1000});
    EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(0, 1000)), Feeder::Taken::kYes);
    EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(1, 1001)), Feeder::Taken::kYes);
    EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(2, 1000)), Feeder::Taken::kYes);
    EXPECT_EQ(TakeAll(), (std::vector<uint64_t>{0, 2}));
    EXPECT_EQ(pair_.feeder->counters().too_large, 1u);
    EXPECT_EQ(pair_.feeder->counters().dropped, 1u);
    EXPECT_EQ(pair_.ring->counters().dropped, 1u);
    EXPECT_EQ(pair_.ring->counters().lost, 0u);
  }
}

}  // namespace
}  // namespace tripwire::periph
