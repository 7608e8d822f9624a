// SPDX-License-Identifier: BSD-3-Clause
// Frames through a ring, with both ends well-behaved.
#include "periph/stream/frame_ring.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/unit/comm/connected_pair.h"
#include "tests/unit/periph/stream/numbered_frames.h"

namespace tripwire::periph {
namespace {

using FrameRingTest = StreamTest;

TEST_F(FrameRingTest, FramesOfAllLengthsArriveWholeAndAligned) {
  pair_.Make({}, {.slots = 3, .payload_bytes = 10'000});
  uint64_t number = 0;
  for (const size_t bytes : {0u, 1u, 63u, 64u, 65u, 1023u, 1024u, 1025u, 1400u,
                             4096u, 9999u, 10'000u}) {
    Send(number, bytes);
    pair_.Settle();
    auto view = pair_.ring->Take();
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->data().size(), bytes);
    EXPECT_TRUE(IsNumbered(view->data(), number));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data().data()) % 64, 0u);
    EXPECT_EQ(view->frame().number, number);
    EXPECT_EQ(view->frame().capture_ns, number * 1000);
    EXPECT_EQ(view->frame().pts_ns, number * 7);
    EXPECT_EQ(view->frame().duration_ns, 7u);
    EXPECT_EQ(view->arrival_ns(), net_.clock().NowNs());
    ++number;
  }
  EXPECT_TRUE(absl::IsNotFound(pair_.ring->Take().status()));
  EXPECT_EQ(pair_.ring->counters().received, number);
  EXPECT_EQ(pair_.feeder->counters().sent, number);
}

TEST_F(FrameRingTest, FlagsArriveAndUnknownOnesDoNot) {
  pair_.Make({}, {.slots = 2, .payload_bytes = 64});
  Frame frame = NumberedFrame(5, 10);
  frame.flags = kKeyFrame | kDiscontinuity | 0x80;
  frame.pts_ns = kNoTime;
  ASSERT_EQ(pair_.feeder->Offer(frame), Feeder::Taken::kYes);
  pair_.Settle();
  auto view = pair_.ring->Take();
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->frame().flags, kKeyFrame | kDiscontinuity);
  EXPECT_EQ(view->frame().pts_ns, kNoTime);
}

TEST_F(FrameRingTest, MemoryIsHeldUntilDeliveredAndNoLonger) {
  pair_.Make({}, {.slots = 4, .payload_bytes = 50'000});
  Send(0, 50'000);
  EXPECT_EQ(*held_, 1);
  EXPECT_EQ(pair_.feeder->in_flight(), 1u);
  Send(1, 100);  // was copied
  EXPECT_EQ(*held_, 1);
  pair_.Settle();
  pair_.feeder->Pump();
  EXPECT_EQ(*held_, 0);
  EXPECT_EQ(pair_.feeder->in_flight(), 0u);
  ExpectFrame(*pair_.ring, 0, 50'000);
  ExpectFrame(*pair_.ring, 1, 100);
}

TEST_F(FrameRingTest, AFrameWithoutAnOwnerIsItsCallersAgainAtOnce) {
  pair_.Make({}, {.slots = 1, .payload_bytes = 5000});
  for (uint64_t number = 0; number < 3; ++number) {  // one is sent, two wait
    std::vector<uint8_t> bytes = NumberedBytes(number, 5000);
    Frame frame;
    frame.data = bytes;
    frame.number = number;
    ASSERT_EQ(pair_.feeder->Offer(frame), Feeder::Taken::kYes);
    std::fill(bytes.begin(), bytes.end(), 0xee);
  }
  for (uint64_t number = 0; number < 3; ++number) {
    pair_.Settle();
    ExpectFrame(*pair_.ring, number, 5000);
    EXPECT_TRUE(absl::IsNotFound(pair_.ring->Take().status()));
    EXPECT_TRUE(absl::IsNotFound(pair_.ring->Take().status()));
    pair_.Settle();
    pair_.feeder->Pump();
  }
  pair_.Settle();
  pair_.feeder->Pump();
  EXPECT_TRUE(pair_.feeder->drained());
}

TEST_F(FrameRingTest, ViewsOutliveTheRingItsLinkAndItsContext) {
  pair_.Make({}, {.slots = 4, .payload_bytes = 3000});
  for (uint64_t number = 0; number < 4; ++number) Send(number, 3000);
  pair_.Settle();
  std::vector<FrameView> views;
  while (views.size() < 3) views.push_back(*pair_.ring->Take());
  pair_.ring.reset();
  EXPECT_TRUE(IsNumbered(views[0].data(), 0));
  views[0].Release();
  // Late frames do not touch what is still looked at.
  Send(4, 3000);
  Send(5, 3000);
  pair_.Settle();
  EXPECT_TRUE(IsNumbered(views[1].data(), 1));
  pair_.right->Close(pair_.right_link);
  pair_.Settle();
  FrameView moved = std::move(views[1]);
  pair_.feeder.reset();
  pair_.right.reset();
  EXPECT_TRUE(IsNumbered(moved.data(), 1));
  EXPECT_TRUE(IsNumbered(views[2].data(), 2));
  moved.Release();
}

TEST_F(FrameRingTest, AnotherRingAtAFormatChange) {
  pair_.Make({.queue_frames = 8}, {.slots = 2, .payload_bytes = 1000});
  for (uint64_t number = 0; number < 2; ++number) Send(number, 1000);
  pair_.feeder->Pause();
  for (uint64_t number = 2; number < 5; ++number) Send(number, 7000);
  pair_.Settle();
  EXPECT_EQ(pair_.feeder->counters().sent, 2u);
  // What was sent before is still there, is given back, and is heard of.
  ExpectFrame(*pair_.ring, 0, 1000);
  auto held = pair_.ring->Take();
  ASSERT_TRUE(held.ok());
  const StreamPosition position = pair_.ring->position();
  pair_.MakeRing(
      {.slots = 3, .payload_bytes = 7000, .cookie = 0, .after = position});
  held->Release();
  pair_.Begin();
  pair_.feeder->Pump();
  pair_.Settle();
  for (uint64_t number = 2; number < 5; ++number) {
    ExpectFrame(*pair_.ring, number, 7000);
  }
  EXPECT_EQ(pair_.ring->counters().lost, 0u);
  EXPECT_TRUE(pair_.feeder->status().ok());
  for (uint64_t number = 5; number < 20; ++number) {
    Send(number, 6000);
    pair_.Settle();
    pair_.feeder->Pump();
    pair_.Settle();
    ExpectFrame(*pair_.ring, number, 6000);
  }
}

TEST_F(FrameRingTest, AnEventTellsOfTheNextFrame) {
  pair_.Make({}, {.slots = 4, .payload_bytes = 100, .cookie = 77});
  ASSERT_TRUE(pair_.ring->Arm());
  Event event;
  EXPECT_EQ(pair_.right->Poll({&event, 1}), 0u);
  Send(0, 100);
  pair_.Settle();
  ASSERT_EQ(pair_.right->Poll({&event, 1}), 1u);
  EXPECT_EQ(event.kind, EventKind::kTripwire);
  EXPECT_EQ(event.cookie, 77u);
  EXPECT_FALSE(pair_.ring->Arm());
  ExpectFrame(*pair_.ring, 0, 100);
  ASSERT_TRUE(pair_.ring->Arm());
  EXPECT_EQ(pair_.right->Poll({&event, 1}), 0u);
  Send(1, 100);
  pair_.Settle();
  EXPECT_EQ(pair_.right->Poll({&event, 1}), 1u);
}

TEST_F(FrameRingTest, LateFramesAreCounted) {
  pair_.Make({}, {.slots = 8, .payload_bytes = 100});
  constexpr int64_t kOffset =
      5 * kSecond;  // our clock is ahead of the feeder's
  pair_.ring->SetLateness(kMillisecond, kOffset);
  net_.RunFor(10 * kSecond);
  for (const uint64_t age_ns : {uint64_t{0}, kMillisecond, 2 * kMillisecond}) {
    Frame frame = NumberedFrame(age_ns, 10);
    frame.capture_ns = net_.clock().NowNs() - kOffset - age_ns;
    ASSERT_EQ(pair_.feeder->Offer(frame), Feeder::Taken::kYes);
    ASSERT_TRUE(
        net_.RunUntil([&] { return pair_.ring->Take().ok(); }, kSecond));
  }
  EXPECT_EQ(pair_.ring->counters().late, 2u);
  pair_.ring->SetLateness(kNever, 0);
  Send(9'000'000, 10);
  pair_.Settle();
  EXPECT_TRUE(pair_.ring->Take().ok());
  EXPECT_EQ(pair_.ring->counters().late, 2u);
}

TEST_F(FrameRingTest, WhatIsMissingIsAccountedFor) {
  pair_.Make({}, {.slots = 8, .payload_bytes = 100});
  struct Step {
    uint64_t number, overrun;
  };
  // From 3, two were lost at the source before 6; 8 and 9 nobody speaks of. At
  // last a source that says more than its numbers do.
  for (const Step step :
       {Step{3, 10}, Step{6, 12}, Step{7, 12}, Step{10, 12}, Step{12, 50}}) {
    Frame frame = NumberedFrame(step.number, 10);
    frame.overrun = step.overrun;
    ASSERT_EQ(pair_.feeder->Offer(frame), Feeder::Taken::kYes);
  }
  pair_.Settle();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(pair_.ring->Take().ok());
  EXPECT_EQ(pair_.ring->counters().overrun, 40u);
  EXPECT_EQ(pair_.ring->counters().dropped, 0u);
  EXPECT_EQ(pair_.ring->counters().lost, 2u);
}

TEST_F(FrameRingTest, AfterALostLinkWhatCameIsTaken) {
  pair_.Make({}, {.slots = 4, .payload_bytes = 2000});
  Send(0, 2000);
  Send(1, 2000);
  pair_.Settle();
  net_.port(0).SetStalled(true);
  EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(2, 2000, held_)),
            Feeder::Taken::kYes);
  net_.RunFor(60 * kSecond);
  EXPECT_FALSE(pair_.ring->Arm());
  ExpectFrame(*pair_.ring, 0, 2000);
  ExpectFrame(*pair_.ring, 1, 2000);
  EXPECT_TRUE(absl::IsUnavailable(pair_.ring->Take().status()));
  EXPECT_FALSE(pair_.ring->Arm());
  EXPECT_FALSE(pair_.ring->Wait(kNever));
  EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(3, 2000)), Feeder::Taken::kGone);
  EXPECT_TRUE(absl::IsUnavailable(pair_.feeder->status()));
  EXPECT_EQ(*held_, 0);
}

TEST_F(FrameRingTest, AFeederThatGoesKeepsMemoryTheNicStillReads) {
  pair_.Make({}, {.slots = 4, .payload_bytes = 2 << 20});
  Send(0, 2 << 20);
  pair_.feeder.reset();
  EXPECT_EQ(*held_, 1);
  pair_.Settle();
  ExpectFrame(*pair_.ring, 0, 2 << 20);
  // The next feeder of the process lets go of it.
  pair_.MakeFeeder({});
  pair_.feeder->Pump();
  EXPECT_EQ(*held_, 0);
}

TEST_F(FrameRingTest, BadOptionsAreRefused) {
  const auto make = [&](uint32_t slots, uint64_t bytes) {
    return FrameRing::Create(*pair_.right, pair_.right_link,
                             {.slots = slots, .payload_bytes = bytes})
        .status();
  };
  EXPECT_TRUE(absl::IsInvalidArgument(make(0, 100)));
  EXPECT_TRUE(absl::IsInvalidArgument(make(4, uint64_t{1} << 32)));
  EXPECT_TRUE(absl::IsInvalidArgument(make(4, UINT64_MAX)));
  EXPECT_TRUE(absl::IsInvalidArgument(make(UINT32_MAX, 1 << 20)));
  EXPECT_TRUE(make(4, 0).ok());
}

TEST(FrameRingQuotaTest, OverTheQuotaIsSaid) {
  SimNetwork net(1);
  StreamPair pair(net);
  ContextQuotas none;
  none.apertures = 0;
  pair.right = pair.right_nic.CreateContext(none);
  pair.left = pair.left_nic.CreateContext(none);
  pair.Connect();
  EXPECT_TRUE(absl::IsResourceExhausted(
      FrameRing::Create(*pair.right, pair.right_link, {}).status()));
  pair.MakeFeeder({});
  EXPECT_TRUE(absl::IsResourceExhausted(pair.feeder->status()));
  EXPECT_EQ(pair.feeder->Offer(NumberedFrame(0, 10)), Feeder::Taken::kGone);
}

// With real threads, on both sides and for the views.
TEST(FrameRingThreadsTest, AThreadWaitsAndOthersRelease) {
  constexpr uint64_t kCount = 3000;
  ConnectedPair pair;
  auto ring = *FrameRing::Create(*pair.right, pair.right_link,
                                 {.slots = 8, .payload_bytes = 5000});
  Feeder feeder(*pair.left, pair.left_link,
                {.policy = Policy::kBlock, .cookie = 1});
  ASSERT_TRUE(feeder.Begin(ring->name()).ok());
  ring->SetCredit(feeder.credit_name());
  std::thread feeding([&] {
    for (uint64_t number = 0; number < kCount; ++number) {
      const Frame frame = NumberedFrame(number, number * 37 % 5001);
      while (feeder.Offer(frame) == Feeder::Taken::kFull) {
        Event event;
        if (!feeder.Pump()) {
          pair.left->Wait({&event, 1}, ConnectedPair::Soon(*pair.left_nic));
        }
      }
      ASSERT_TRUE(feeder.status().ok()) << feeder.status();
    }
  });
  std::vector<std::thread> releasing;
  for (uint64_t number = 0; number < kCount; ++number) {
    ASSERT_TRUE(ring->Wait(ConnectedPair::Soon(*pair.right_nic)));
    auto view = ring->Take();
    ASSERT_TRUE(view.ok()) << view.status();
    ASSERT_EQ(view->frame().number, number);
    ASSERT_TRUE(IsNumbered(view->data(), number));
    if (number % 64 == 0) {
      releasing.emplace_back(
          [held = *std::move(view)]() mutable { held.Release(); });
    }
  }
  feeding.join();
  for (std::thread& thread : releasing) thread.join();
  EXPECT_EQ(ring->counters().lost, 0u);
}

}  // namespace
}  // namespace tripwire::periph
