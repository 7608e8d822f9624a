// SPDX-License-Identifier: BSD-3-Clause
// Ends of a stream that break its rules.
#include <gtest/gtest.h>

#include "tests/unit/periph/stream/numbered_frames.h"

namespace tripwire::periph {
namespace {

std::span<const uint8_t> Bytes(const SlotTail& tail) {
  return {reinterpret_cast<const uint8_t*>(&tail), sizeof tail};
}

SlotTail TailOf(uint64_t sequence, uint32_t length) {
  SlotTail tail{};
  tail.length_bytes = length;
  tail.sequence = sequence;
  return tail;
}

constexpr uint32_t kSlots = 4;
constexpr uint64_t kPayload = 1000;

// The test writes what it likes into the ring.
class HostileFeeder : public ::testing::Test {
 protected:
  void SetUp() override {
    pair_.Connect();
    pair_.MakeRing({.slots = kSlots, .payload_bytes = kPayload});
  }
  void WriteTail(uint32_t slot, const SlotTail& tail) {
    const uint64_t offset = (slot + 1) * SlotStride(kPayload) - sizeof tail;
    ASSERT_TRUE(pair_.left
                    ->Write(pair_.left->Import(pair_.left_link,
                                               pair_.ring->name().aperture),
                            offset, Bytes(tail))
                    .ok());
    pair_.Settle();
  }
  // For good.
  void ExpectBroken() {
    EXPECT_FALSE(pair_.ring->Arm() && pair_.ring->Arm());
    EXPECT_TRUE(absl::IsDataLoss(pair_.ring->Take().status()));
    EXPECT_TRUE(absl::IsDataLoss(pair_.ring->Take().status()));
    EXPECT_FALSE(pair_.ring->Arm());
    EXPECT_FALSE(pair_.ring->Wait(0));
  }

  SimNetwork net_{1};
  StreamPair pair_{net_};
};

TEST_F(HostileFeeder, TheRulesKeptByHandAreAccepted) {
  for (uint64_t sequence = 1; sequence <= 3 * kSlots; ++sequence) {
    WriteTail((sequence - 1) % kSlots, TailOf(sequence, kPayload));
    auto view = pair_.ring->Take();
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->data().size(), kPayload);
  }
}

TEST_F(HostileFeeder, ASequenceTooHigh) {
  WriteTail(0, TailOf(2, 10));
  ExpectBroken();
}

TEST_F(HostileFeeder, ASequenceOfALapAhead) {
  WriteTail(0, TailOf(1 + kSlots, 10));
  ExpectBroken();
}

TEST_F(HostileFeeder, ASequenceThatGoesBack) {
  for (uint64_t sequence = 1; sequence <= kSlots; ++sequence) {
    WriteTail((sequence - 1) % kSlots, TailOf(sequence, 10));
    ASSERT_TRUE(pair_.ring->Take().ok());
  }
  WriteTail(0, TailOf(0, 10));
  ExpectBroken();
}

TEST_F(HostileFeeder, ALengthBeyondTheSlot) {
  WriteTail(0, TailOf(1, kPayload + 1));
  ExpectBroken();
}

TEST_F(HostileFeeder, TheLargestLength) {
  WriteTail(0, TailOf(1, UINT32_MAX));
  ExpectBroken();
}

TEST_F(HostileFeeder, ALengthWithinThePaddingIsBeyondTheSlotToo) {
  ASSERT_LT(kPayload, PaddedBytes(kPayload));
  WriteTail(0, TailOf(1, PaddedBytes(kPayload)));
  ExpectBroken();
}

TEST_F(HostileFeeder, ASlotFilledAnewWhileItIsLookedAt) {
  WriteTail(0, TailOf(1, 10));
  auto view = pair_.ring->Take();
  ASSERT_TRUE(view.ok());
  WriteTail(0, TailOf(1 + kSlots, 10));
  view->Release();
  ExpectBroken();
}

// The next frame by its number, in a slot whose frame is still looked at.
TEST_F(HostileFeeder, ASlotIsNotHandedOutTwice) {
  std::vector<FrameView> views;
  for (uint64_t sequence = 1; sequence <= kSlots; ++sequence) {
    WriteTail((sequence - 1) % kSlots, TailOf(sequence, 10));
    auto view = pair_.ring->Take();
    ASSERT_TRUE(view.ok());
    views.push_back(*std::move(view));
  }
  views.erase(views.begin() + 1);  // not the oldest: that slot is held
  WriteTail(0, TailOf(kSlots + 1, 10));
  ExpectBroken();
  EXPECT_EQ(pair_.ring->counters().received, kSlots);
}

TEST_F(HostileFeeder, AccountsThatMakeNoSenseHarmNothing) {
  uint64_t sequence = 0;
  for (const uint64_t word :
       {uint64_t{0}, UINT64_MAX, uint64_t{1}, UINT64_MAX - 1}) {
    SlotTail tail = TailOf(++sequence, 10);
    tail.number = word;
    tail.overrun = ~word;
    tail.dropped = word / 2;
    tail.capture_ns = word;
    tail.flags = static_cast<uint32_t>(word);
    pair_.ring->SetLateness(word, word % 2 == 0 ? INT64_MIN : INT64_MAX);
    WriteTail((sequence - 1) % kSlots, tail);
    EXPECT_TRUE(pair_.ring->Take().ok());
  }
}

TEST_F(HostileFeeder, OnlyTheLinkOfTheRingReachesIt) {
  // Another link of the same two contexts.
  const LinkId other = *pair_.left->StartConnect("right", "svc", {});
  bool up = false;
  ASSERT_TRUE(net_.RunUntil(
      [&] {
        Event event;
        while (pair_.right->Poll({&event, 1}) > 0) {
          if (event.kind == EventKind::kConnectRequest) {
            EXPECT_TRUE(pair_.right->Accept(event.link, {}).ok());
          }
        }
        while (pair_.left->Poll({&event, 1}) > 0) {
          up = up || event.kind == EventKind::kLinkUp;
        }
        return up;
      },
      kSecond));
  const SlotTail tail = TailOf(1, 10);
  ASSERT_TRUE(
      pair_.left
          ->Write(pair_.left->Import(other, pair_.ring->name().aperture),
                  SlotStride(kPayload) - sizeof tail, Bytes(tail))
          .ok());
  pair_.Settle();
  EXPECT_TRUE(absl::IsNotFound(pair_.ring->Take().status()));
}

// The test reports what credit it likes.
class HostileConsumer : public ::testing::Test {
 protected:
  void SetUp() override {
    pair_.Connect();
    pair_.MakeFeeder({.policy = Policy::kDropOldest});
    pair_.MakeRing({.slots = kSlots, .payload_bytes = kPayload});
    ASSERT_TRUE(pair_.feeder->Begin(pair_.ring->name()).ok());
    for (uint64_t number = 0; number < 3; ++number) {
      ASSERT_EQ(pair_.feeder->Offer(NumberedFrame(number, 100)),
                Feeder::Taken::kYes);
    }
  }
  void WriteCredit(uint64_t released) {
    const Le64 word(released);
    ASSERT_TRUE(
        pair_.right
            ->Write(pair_.right->Import(pair_.right_link,
                                        pair_.feeder->credit_name()),
                    0, {reinterpret_cast<const uint8_t*>(&word), sizeof word})
            .ok());
    pair_.Settle();
    pair_.feeder->Pump();
  }
  void ExpectBroken() {
    EXPECT_TRUE(absl::IsDataLoss(pair_.feeder->status()))
        << pair_.feeder->status();
    EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(9, 100)), Feeder::Taken::kGone);
    EXPECT_FALSE(pair_.feeder->Pump());
    EXPECT_TRUE(absl::IsDataLoss(pair_.feeder->Begin(pair_.ring->name())));
    EXPECT_EQ(pair_.feeder->counters().sent, 3u);
  }

  SimNetwork net_{1};
  StreamPair pair_{net_};
};

TEST_F(HostileConsumer, TheRulesKeptByHandAreAccepted) {
  WriteCredit(1);
  WriteCredit(3);
  EXPECT_TRUE(pair_.feeder->status().ok());
  EXPECT_TRUE(pair_.feeder->drained());
}

TEST_F(HostileConsumer, CreditBeyondWhatWasSent) {
  WriteCredit(4);
  ExpectBroken();
}

TEST_F(HostileConsumer, TheLargestCredit) {
  WriteCredit(UINT64_MAX);
  ExpectBroken();
}

TEST_F(HostileConsumer, CreditThatGoesBack) {
  WriteCredit(2);
  EXPECT_TRUE(pair_.feeder->status().ok());
  WriteCredit(1);
  ExpectBroken();
}

TEST_F(HostileConsumer, ARingThatIsNone) {
  const auto begin = [&](uint32_t slots, uint64_t payload, uint64_t length,
                         Access rights = Access::kWrite) {
    RingName name;
    name.aperture = pair_.ring->name().aperture;
    name.aperture.length_bytes = length;
    name.aperture.rights = rights;
    name.slots = slots;
    name.payload_bytes = payload;
    return pair_.feeder->Begin(name);
  };
  EXPECT_TRUE(absl::IsInvalidArgument(begin(0, 100, 4096)));
  EXPECT_TRUE(
      absl::IsInvalidArgument(begin(4, 1000, 4 * SlotStride(1000) - 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(begin(1, UINT64_MAX, UINT64_MAX)));
  EXPECT_TRUE(absl::IsInvalidArgument(begin(1, UINT64_MAX - 64, UINT64_MAX)));
  EXPECT_TRUE(
      absl::IsInvalidArgument(begin(UINT32_MAX, uint64_t{1} << 40, 1 << 20)));
  EXPECT_TRUE(absl::IsInvalidArgument(begin(1, 100, UINT64_MAX)));
  EXPECT_TRUE(absl::IsInvalidArgument(begin(1, 100, 4096, Access::kRead)));
  EXPECT_TRUE(absl::IsInvalidArgument(begin(1, 0, 0)));
  // The one there is goes on.
  EXPECT_TRUE(pair_.feeder->status().ok());
  EXPECT_EQ(pair_.feeder->Offer(NumberedFrame(3, 100)), Feeder::Taken::kYes);
  EXPECT_TRUE(begin(4, 1000, 4 * SlotStride(1000)).ok());
}

// A ring that is longer in words than in truth: the frame is refused over
// there.
TEST_F(HostileConsumer, ARingThatRefusesFrames) {
  RingName name = pair_.ring->name();
  name.payload_bytes = 1 << 20;
  name.aperture.length_bytes = kSlots * SlotStride(name.payload_bytes);
  ASSERT_TRUE(pair_.feeder->Begin(name).ok());
  ASSERT_EQ(pair_.feeder->Offer(NumberedFrame(3, 1 << 20)),
            Feeder::Taken::kYes);
  pair_.Settle();
  EXPECT_FALSE(pair_.feeder->Pump());
  EXPECT_TRUE(absl::IsDataLoss(pair_.feeder->status()))
      << pair_.feeder->status();
  EXPECT_EQ(pair_.feeder->in_flight(), 0u);
}

TEST_F(HostileConsumer,
       AConsumerThatTookItsOldRingAwayIsNoneIfItBroughtAnother) {
  pair_.net.port(1).SetStalled(true);
  ASSERT_EQ(pair_.feeder->Offer(NumberedFrame(3, 1000)), Feeder::Taken::kYes);
  ASSERT_EQ(pair_.feeder->Offer(NumberedFrame(4, 5000)),
            Feeder::Taken::kYes);  // waits
  pair_.ring.reset();
  pair_.MakeRing({.slots = kSlots, .payload_bytes = 5000});
  pair_.Begin();
  pair_.net.port(1).SetStalled(false);
  ASSERT_EQ(pair_.feeder->Offer(NumberedFrame(5, 5000)), Feeder::Taken::kYes);
  pair_.Settle();
  pair_.feeder->Pump();
  EXPECT_TRUE(pair_.feeder->status().ok()) << pair_.feeder->status();
  ExpectFrame(*pair_.ring, 4, 5000);
  ExpectFrame(*pair_.ring, 5, 5000);
}

}  // namespace
}  // namespace tripwire::periph
