// SPDX-License-Identifier: BSD-3-Clause
// Who owns which slot, and who hears of it when.
#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/periph/stream/numbered_frames.h"

namespace tripwire::periph {
namespace {

using CreditTest = StreamTest;

TEST_F(CreditTest, AHeldSlotIsNotWrittenHoweverLongItIsHeld) {
  pair_.Make({.policy = Policy::kDropOldest, .queue_frames = 2},
             {.slots = 3, .payload_bytes = 2000});
  Send(0, 2000);
  pair_.Settle();
  auto first = pair_.ring->Take();
  ASSERT_TRUE(first.ok());
  for (uint64_t number = 1; number < 50; ++number) {
    Send(number, 2000);
    pair_.Settle();
    auto next = pair_.ring->Take();  // given back at once, behind the first
    EXPECT_EQ(next.ok(), number <= 2);
  }
  EXPECT_TRUE(IsNumbered(first->data(), 0));
  first->Release();
  for (const uint64_t number :
       {48, 49}) {  // all three are free; two were waiting
    pair_.Settle();
    pair_.feeder->Pump();
    pair_.Settle();
    ExpectFrame(*pair_.ring, number, 2000);
  }
  EXPECT_EQ(pair_.ring->counters().dropped, 45u);
  EXPECT_EQ(pair_.feeder->counters().dropped, 45u);
  EXPECT_EQ(pair_.ring->counters().lost, 0u);
}

TEST_F(CreditTest, ViewsMayBeReleasedInAnyOrder) {
  pair_.Make({.policy = Policy::kBlock}, {.slots = 4, .payload_bytes = 100});
  std::vector<FrameView> views;
  for (uint64_t number = 0; number < 4; ++number) Send(number, 100);
  EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(4, 100)), Feeder::Taken::kFull);
  pair_.Settle();
  for (uint64_t number = 0; number < 4; ++number) {
    views.push_back(*pair_.ring->Take());
  }
  for (const size_t i : {3u, 1u, 2u}) {
    views[i].Release();
    EXPECT_FALSE(views[i]);
    pair_.Settle();
    EXPECT_FALSE(pair_.feeder->Pump());
  }
  EXPECT_TRUE(IsNumbered(views[0].data(), 0));
  views.clear();
  pair_.Settle();
  EXPECT_TRUE(pair_.feeder->Pump());
  EXPECT_TRUE(pair_.feeder->drained());
  for (uint64_t number = 4; number < 8; ++number) Send(number, 100);
  EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(8, 100)), Feeder::Taken::kFull);
}

TEST_F(CreditTest, ABusyRingReportsAQuarterAtATime) {
  pair_.Make({.policy = Policy::kBlock}, {.slots = 16, .payload_bytes = 64});
  for (uint64_t number = 0; number < 160; ++number) {
    Send(number, 64);
    pair_.Settle();
    ExpectFrame(*pair_.ring, number, 64);
    pair_.Settle();
    pair_.feeder->Pump();
  }
  EXPECT_LE(pair_.ring->counters().reports, 160u / 4);
}

TEST_F(CreditTest, AFeederThatMayBeWaitingHearsOfEverySlot) {
  pair_.Make({.policy = Policy::kBlock}, {.slots = 16, .payload_bytes = 64});
  for (uint64_t number = 0; number < 16; ++number) Send(number, 64);
  EXPECT_FALSE(pair_.feeder->Pump());
  pair_.Settle();
  for (uint64_t number = 0; number < 3; ++number) {
    ExpectFrame(*pair_.ring, number, 64);
  }
  std::vector<FrameView> views;
  for (uint64_t number = 3; number < 16; ++number) {
    views.push_back(*pair_.ring->Take());
  }
  pair_.Settle();
  for (uint64_t number = 16; number < 19; ++number) Send(number, 64);
  EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(19, 64)), Feeder::Taken::kFull);
}

TEST_F(CreditTest, AnIdleConsumerReportsEachSlotAtOnce) {
  pair_.Make({}, {.slots = 16, .payload_bytes = 64});
  Send(0, 64);
  pair_.Settle();
  auto view = pair_.ring->Take();
  ASSERT_TRUE(view.ok());
  ASSERT_TRUE(pair_.ring->Arm());
  view->Release();
  pair_.Settle();
  pair_.feeder->Pump();
  EXPECT_TRUE(pair_.feeder->drained());
}

TEST_F(CreditTest, CreditOfTheRingBeforeIsVoid) {
  pair_.Make({}, {.slots = 2, .payload_bytes = 100});
  Send(0, 100);
  Send(1, 100);
  pair_.Settle();
  auto old = std::move(pair_.ring);
  std::vector<FrameView> views;
  views.push_back(*old->Take());
  views.push_back(*old->Take());
  pair_.MakeRing({.slots = 2, .payload_bytes = 100});
  pair_.Begin();
  Send(2, 100);
  Send(3, 100);
  views.clear();  // the old ring says so, too late
  pair_.Settle();
  pair_.feeder->Pump();
  EXPECT_TRUE(pair_.feeder->status().ok());
  EXPECT_FALSE(pair_.feeder->drained());
  Send(4, 100);
  EXPECT_EQ(pair_.feeder->counters().queued, 1u);
}

TEST_F(CreditTest, AnEventTellsTheFeederOfCredit) {
  pair_.Make({.policy = Policy::kBlock, .cookie = 5},
             {.slots = 2, .payload_bytes = 100});
  Send(0, 100);
  Send(1, 100);
  EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(2, 100)), Feeder::Taken::kFull);
  EXPECT_FALSE(pair_.feeder->Pump());
  pair_.Settle();
  Event event;
  EXPECT_EQ(pair_.left->Poll({&event, 1}), 0u);
  ExpectFrame(*pair_.ring, 0, 100);
  pair_.Settle();
  ASSERT_EQ(pair_.left->Poll({&event, 1}), 1u);
  EXPECT_EQ(event.cookie, 5u);
  EXPECT_TRUE(pair_.feeder->Pump());
  Send(2, 100);
}

// Or a source with few buffers would have none left, and nothing to come with.
TEST_F(CreditTest, AnEventTellsTheFeederThatFramesWereDelivered) {
  pair_.Make({.cookie = 5}, {.slots = 4, .payload_bytes = 50'000});
  for (const bool pumped : {false, true}) {
    Send(0, 50'000);
    if (pumped) {
      pair_.feeder->Pump();
    } else {
      Send(1, 50'000);
    }
    EXPECT_GT(*held_, 0);
    while (*held_ > 0) {
      EXPECT_EQ(NextCookie(), 5u);
      pair_.feeder->Pump();
    }
    while (pair_.ring->Take().ok()) {
    }
  }
}

TEST_F(CreditTest, WhatIsHeldIsBoundedWhateverTheConsumerClaims) {
  constexpr size_t kBytes = 1 << 20;
  pair_.Make({.policy = Policy::kBlock, .cookie = 5},
             {.slots = 1000, .payload_bytes = kBytes});
  uint64_t number = 0;
  while (pair_.feeder->Offer(NumberedFrame(number, kBytes, held_)) ==
         Feeder::Taken::kYes) {
    ASSERT_LT(++number, 1000u);
  }
  EXPECT_EQ(pair_.feeder->in_flight(), Feeder::kHeldFrames);
  EXPECT_FALSE(pair_.feeder->Pump());
  // It is told when there is room again, though no credit comes.
  EXPECT_EQ(NextCookie(), 5u);
  EXPECT_TRUE(pair_.feeder->Pump());
  Send(number, kBytes);
}

}  // namespace
}  // namespace tripwire::periph
