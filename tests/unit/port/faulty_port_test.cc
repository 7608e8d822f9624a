// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/faulty_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "nic/port/fabric.h"
#include "tests/unit/port/frames.h"

namespace tripwire {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::ReceiveTexts;
using testing::SendText;
using ::testing::SizeIs;

FabricOptions Reliable() {
  FabricOptions options;
  options.is_reliable = true;
  return options;
}

// Port a of a fabric made faulty, and b that is not.
class FaultyPortTest : public ::testing::Test {
 protected:
  void Make(const FaultOptions& options, uint64_t seed = 1) {
    faulty_ = std::make_unique<FaultyPort>(fabric_.AddPort("a"), clock_,
                                           options, seed);
    good_ = fabric_.AddPort("b");
  }
  // Sends `count` numbered frames from one to the other; what came, in order.
  std::vector<std::string> Pass(Port& from, Port& to, int count) {
    std::vector<std::string> all;
    auto receive = [&] {
      auto texts = ReceiveTexts(to);
      all.insert(all.end(), texts.begin(), texts.end());
    };
    for (int i = 0; i < count; ++i) {
      SendText(from, to.info().mac, std::to_string(i));
      clock_.AdvanceBy(10 * kMicrosecond);
      receive();
    }
    for (int i = 0; i < 2; ++i) {
      clock_.AdvanceBy(kSecond);
      from.Service(clock_.NowNs());
      to.Service(clock_.NowNs());
    }
    clock_.AdvanceBy(kSecond);
    receive();
    return all;
  }
  size_t BuffersHeld() { return fabric_.FramesHeld(faulty_->info().mac); }

  ManualClock clock_;
  Fabric fabric_{clock_, Reliable()};
  std::unique_ptr<FaultyPort> faulty_;
  std::unique_ptr<Port> good_;
};

TEST_F(FaultyPortTest, WithoutFaultsItOnlyTakesAwayReliability) {
  Make({});
  EXPECT_FALSE(faulty_->info().is_reliable);
  EXPECT_TRUE(good_->info().is_reliable);
  EXPECT_THAT(Pass(*faulty_, *good_, 3), ElementsAre("0", "1", "2"));
  EXPECT_THAT(Pass(*good_, *faulty_, 3), ElementsAre("0", "1", "2"));
}

TEST_F(FaultyPortTest, LosesAboutAsManyAsAskedEachWay) {
  FaultOptions options;
  options.loss = 0.1;
  Make(options);
  EXPECT_NEAR(Pass(*faulty_, *good_, 5000).size(), 4500, 150);
  EXPECT_NEAR(Pass(*good_, *faulty_, 5000).size(), 4500, 150);
  EXPECT_EQ(BuffersHeld(), 0u);
}

TEST_F(FaultyPortTest, OneDirectionCanBeSpared) {
  FaultOptions options;
  options.loss = 1;
  options.on_receive = false;
  Make(options);
  EXPECT_THAT(Pass(*faulty_, *good_, 10), IsEmpty());
  EXPECT_THAT(Pass(*good_, *faulty_, 10), SizeIs(10));
}

TEST_F(FaultyPortTest, DuplicatesAreCompleteFrames) {
  FaultOptions options;
  options.duplicate = 1;
  Make(options);
  EXPECT_THAT(Pass(*faulty_, *good_, 2), ElementsAre("0", "0", "1", "1"));
  EXPECT_THAT(Pass(*good_, *faulty_, 2), ElementsAre("0", "0", "1", "1"));
  EXPECT_EQ(BuffersHeld(), 0u);
}

TEST_F(FaultyPortTest, ReorderingLosesNothing) {
  FaultOptions options;
  options.reorder = 0.2;
  Make(options);
  for (auto [from, to] : {std::pair<Port*, Port*>{faulty_.get(), good_.get()},
                          {good_.get(), faulty_.get()}}) {
    auto texts = Pass(*from, *to, 1000);
    EXPECT_THAT(texts, SizeIs(1000));
    EXPECT_EQ(std::set<std::string>(texts.begin(), texts.end()).size(), 1000u);
    int late = 0;
    for (size_t i = 1; i < texts.size(); ++i) {
      late += std::stoi(texts[i]) < std::stoi(texts[i - 1]);
    }
    EXPECT_GT(late, 50);
  }
  EXPECT_EQ(BuffersHeld(), 0u);
}

TEST_F(FaultyPortTest, AHeldBackFrameComesByItselfInTime) {
  FaultOptions options;
  options.reorder = 1;
  options.reorder_hold_ns = 300 * kMicrosecond;
  Make(options);
  SendText(*good_, faulty_->info().mac, "x");
  clock_.AdvanceTo(fabric_.NextEventNs());
  EXPECT_THAT(ReceiveTexts(*faulty_), IsEmpty());
  const uint64_t due_ns = faulty_->Service(clock_.NowNs());
  EXPECT_EQ(due_ns, clock_.NowNs() + 300 * kMicrosecond);
  EXPECT_TRUE(faulty_->ArmWakeup());
  faulty_->DisarmWakeup();
  clock_.AdvanceTo(due_ns);
  EXPECT_FALSE(faulty_->ArmWakeup());
  EXPECT_THAT(ReceiveTexts(*faulty_), ElementsAre("x"));
}

TEST_F(FaultyPortTest, CorruptionFlipsAFewBitsAndKeepsTheLength) {
  FaultOptions options;
  options.corrupt = 1;
  options.on_transmit = false;
  Make(options);
  const std::string sent(200, 'a');
  for (int i = 0; i < 100; ++i) {
    SendText(*good_, faulty_->info().mac, sent);
    clock_.AdvanceBy(kSecond);
    Frame frame;
    ASSERT_EQ(faulty_->Receive({&frame, 1}), 1u);
    EXPECT_EQ(testing::TextOf(frame).size(), sent.size());
    faulty_->Release({&frame, 1});
  }
  EXPECT_EQ(faulty_->fault_counters().corrupted, 100u);
}

TEST_F(FaultyPortTest, TheSameSeedGivesTheSameFaults) {
  FaultOptions options;
  options.loss = options.duplicate = options.reorder = 0.2;
  Make(options, 42);
  const auto first = Pass(*faulty_, *good_, 300);
  faulty_.reset();
  good_.reset();
  Make(options, 42);
  EXPECT_EQ(Pass(*faulty_, *good_, 300), first);
  faulty_.reset();
  good_.reset();
  Make(options, 43);
  EXPECT_NE(Pass(*faulty_, *good_, 300), first);
}

TEST_F(FaultyPortTest, AStalledPortDoesNothingUntilItsTimeIsUp) {
  FaultOptions options;
  options.stall = 1;
  options.stall_ns = 100;
  Make(options);
  SendText(*good_, faulty_->info().mac, "x");
  clock_.AdvanceBy(kSecond);
  EXPECT_THAT(ReceiveTexts(*faulty_), IsEmpty());
  EXPECT_TRUE(faulty_->ArmWakeup());
  EXPECT_EQ(faulty_->Service(clock_.NowNs()), clock_.NowNs() + 100);
  EXPECT_FALSE(SendText(*faulty_, good_->info().mac, "y"));
  faulty_->SetOptions({});
  clock_.AdvanceBy(100);
  EXPECT_FALSE(faulty_->ArmWakeup());
  EXPECT_THAT(ReceiveTexts(*faulty_), ElementsAre("x"));
  EXPECT_TRUE(SendText(*faulty_, good_->info().mac, "y"));
}

TEST_F(FaultyPortTest, StallingByHandLastsUntilUndone) {
  Make({});
  faulty_->SetStalled(true);
  EXPECT_THAT(Pass(*good_, *faulty_, 3), IsEmpty());
  faulty_->SetStalled(false);
  EXPECT_THAT(ReceiveTexts(*faulty_), SizeIs(3));
}

// Whoever sends through a full inner port loses nothing that was accepted.
TEST_F(FaultyPortTest, AcceptedFramesSurviveAFullInnerPort) {
  FabricOptions slow;
  slow.bandwidth_bits_per_s = 1'000'000'000;
  slow.tx_queue_frames = 4;
  Fabric fabric(clock_, slow);
  FaultOptions options;
  options.duplicate = 0.5;
  FaultyPort faulty(fabric.AddPort("a"), clock_, options, 9);
  auto good = fabric.AddPort("b");
  int accepted = 0;
  std::set<std::string> arrived;
  for (int i = 0; i < 5000; ++i) {
    accepted += SendText(faulty, good->info().mac, std::to_string(accepted));
    clock_.AdvanceBy(200);
    for (auto& text : ReceiveTexts(*good)) arrived.insert(text);
  }
  for (int i = 0; i < 1000; ++i) {
    clock_.AdvanceBy(kMicrosecond);
    faulty.Service(clock_.NowNs());
    for (auto& text : ReceiveTexts(*good)) arrived.insert(text);
  }
  EXPECT_GT(accepted, 1000);
  EXPECT_EQ(arrived.size(), static_cast<size_t>(accepted));
}

}  // namespace
}  // namespace tripwire
