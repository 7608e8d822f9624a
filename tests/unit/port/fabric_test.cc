// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/fabric.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/unit/port/frames.h"

namespace tripwire {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::ReceiveTexts;
using testing::SendText;
using ::testing::SizeIs;

class FabricTest : public ::testing::Test {
 protected:
  void Settle() {
    while (fabric_.NextEventNs() != kNever) {
      clock_.AdvanceTo(fabric_.NextEventNs());
    }
  }
  ManualClock clock_;
  Fabric fabric_{clock_};
};

TEST_F(FabricTest, DeliversAtTheArrivalTimeAndNotBefore) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  fabric_.SetPropagationNs(500);
  ASSERT_TRUE(SendText(*a, b->info().mac, "hello"));
  EXPECT_EQ(fabric_.NextEventNs(), 501u);
  clock_.AdvanceTo(500);
  EXPECT_TRUE(b->ArmWakeup());
  EXPECT_THAT(ReceiveTexts(*b), IsEmpty());
  clock_.AdvanceTo(501);
  EXPECT_FALSE(b->ArmWakeup());
  EXPECT_THAT(ReceiveTexts(*b), ElementsAre("hello"));
  EXPECT_EQ(fabric_.NextEventNs(), kNever);
}

TEST_F(FabricTest, UnicastReachesOnlyItsOwnerAndBroadcastAllOthers) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  auto c = fabric_.AddPort("c");
  SendText(*a, c->info().mac, "one");
  SendText(*a, MacAddress::Broadcast(), "all");
  Settle();
  EXPECT_THAT(ReceiveTexts(*a), IsEmpty());
  EXPECT_THAT(ReceiveTexts(*b), ElementsAre("all"));
  EXPECT_THAT(ReceiveTexts(*c), ElementsAre("one", "all"));
}

TEST_F(FabricTest, BandwidthSpacesFramesOut) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  fabric_.SetPropagationNs(0);
  fabric_.SetBandwidth(1'000'000'000);                // 8 ns a byte
  SendText(*a, b->info().mac, std::string(86, 'x'));  // 100 + 24 on the wire
  SendText(*a, b->info().mac, std::string(86, 'y'));
  EXPECT_EQ(fabric_.NextEventNs(), 1u + 124 * 8);
  clock_.AdvanceTo(fabric_.NextEventNs());
  EXPECT_THAT(ReceiveTexts(*b), SizeIs(1));
  EXPECT_EQ(fabric_.NextEventNs(), 1u + 2 * 124 * 8);
}

TEST_F(FabricTest, TwoSendersShareTheReceiversWire) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  auto c = fabric_.AddPort("c");
  fabric_.SetPropagationNs(0);
  fabric_.SetBandwidth(1'000'000'000);
  SendText(*a, c->info().mac, std::string(86, 'x'));
  SendText(*b, c->info().mac, std::string(86, 'y'));
  clock_.AdvanceTo(1 + 124 * 8);
  EXPECT_THAT(ReceiveTexts(*c), SizeIs(1));
  clock_.AdvanceTo(1 + 2 * 124 * 8);
  EXPECT_THAT(ReceiveTexts(*c), SizeIs(1));
}

TEST_F(FabricTest, AFullWireAcceptsOnlyAPrefix) {
  FabricOptions options;
  options.bandwidth_bits_per_s = 1'000'000;
  options.tx_queue_frames = 3;
  Fabric slow(clock_, options);
  auto a = slow.AddPort("a");
  auto b = slow.AddPort("b");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(SendText(*a, b->info().mac, "x"));
  EXPECT_FALSE(SendText(*a, b->info().mac, "x"));
  clock_.AdvanceBy(kSecond);
  EXPECT_TRUE(SendText(*a, b->info().mac, "x"));
}

// Two senders at full speed: what the switch cannot hold for the third is lost,
// and the order of the rest kept.
TEST_F(FabricTest, AFullSwitchDropsTheNewest) {
  FabricOptions options;
  options.bandwidth_bits_per_s = 1'000'000;
  options.propagation_ns = 0;
  Fabric crowded(clock_, options);
  auto a = crowded.AddPort("a");
  const auto send_pairs = [](Fabric& fabric, Port& from, Port& too, Port& to) {
    for (const char* text : {"1", "2", "3", "4", "5", "6"}) {
      SendText(from, to.info().mac, text);
      SendText(too, to.info().mac, text);
    }
    return fabric.counters().switch_full;
  };
  auto b = crowded.AddPort("b"), c = crowded.AddPort("c");
  EXPECT_EQ(send_pairs(crowded, *a, *b, *c), 0u);  // no bound: nothing is lost
  options.switch_queue_bytes = 100;  // frames of 39 bytes on the wire
  Fabric bounded(clock_, options);
  auto d = bounded.AddPort("d"), e = bounded.AddPort("e"),
       f = bounded.AddPort("f");
  const uint64_t lost = send_pairs(bounded, *d, *e, *f);
  EXPECT_GE(lost, 2u);
  EXPECT_LE(lost, 4u);
  clock_.AdvanceBy(kSecond);
  EXPECT_EQ(ReceiveTexts(*c).size(), 12u);
  const auto texts = ReceiveTexts(*f);
  EXPECT_EQ(texts.size(), 12 - lost);
  EXPECT_TRUE(std::is_sorted(texts.begin(), texts.end()));
}

TEST_F(FabricTest, TellsOfEveryArrivalBeforeItHappens) {
  Fabric fabric(clock_);
  auto a = fabric.AddPort("a"), b = fabric.AddPort("b"),
       c = fabric.AddPort("c");
  std::vector<std::pair<MacAddress, uint64_t>> told;
  fabric.SetArrivalHook([&](const MacAddress& to, uint64_t at_ns) {
    told.push_back({to, at_ns});
  });
  SendText(*a, b->info().mac, "to one");
  SendText(*a, MacAddress::Broadcast(), "to all");
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[0].first, b->info().mac);
  EXPECT_EQ(told[0].second, clock_.NowNs() + kMicrosecond);
  clock_.AdvanceTo(told[0].second);
  EXPECT_THAT(ReceiveTexts(*b), ElementsAre("to one", "to all"));
}

TEST_F(FabricTest, AFullReceiveQueueDropsTheNewest) {
  FabricOptions options;
  options.rx_queue_frames = 2;
  Fabric small(clock_, options);
  auto a = small.AddPort("a");
  auto b = small.AddPort("b");
  for (const char* text : {"1", "2", "3"}) SendText(*a, b->info().mac, text);
  clock_.AdvanceBy(kSecond);
  EXPECT_THAT(ReceiveTexts(*b), ElementsAre("1", "2"));
  EXPECT_EQ(small.counters().queue_full, 1u);
}

TEST_F(FabricTest, ACrashedPortLosesItsFramesAndKeepsItsMac) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  const MacAddress mac = b->info().mac;
  SendText(*a, mac, "on its way");
  SendText(*b, a->info().mac, "last words");
  b.reset();
  SendText(*a, mac, "to nobody");
  EXPECT_EQ(fabric_.counters().no_such_mac, 1u);
  b = fabric_.AddPort("b");
  EXPECT_EQ(b->info().mac, mac);
  SendText(*a, mac, "to the new one");
  Settle();
  EXPECT_THAT(ReceiveTexts(*b), ElementsAre("to the new one"));
  EXPECT_THAT(ReceiveTexts(*a), ElementsAre("last words"));
}

TEST_F(FabricTest, ACutLinkLosesFramesBothWaysUntilRestored) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  SendText(*a, b->info().mac, "in flight");
  fabric_.SetLinkUp(b->info().mac, false);
  SendText(*a, b->info().mac, "in");
  SendText(*b, a->info().mac, "out");
  Settle();
  EXPECT_THAT(ReceiveTexts(*a), IsEmpty());
  EXPECT_THAT(ReceiveTexts(*b), IsEmpty());
  fabric_.SetLinkUp(b->info().mac, true);
  SendText(*a, b->info().mac, "again");
  Settle();
  EXPECT_THAT(ReceiveTexts(*b), ElementsAre("again"));
}

TEST_F(FabricTest, BlockingIsOneWay) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  fabric_.SetBlocked(a->info().mac, b->info().mac, true);
  SendText(*a, b->info().mac, "lost");
  SendText(*b, a->info().mac, "arrives");
  Settle();
  EXPECT_THAT(ReceiveTexts(*b), IsEmpty());
  EXPECT_THAT(ReceiveTexts(*a), ElementsAre("arrives"));
}

TEST_F(FabricTest, TheFilterPicksWhatIsLost) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  int seen = 0;
  fabric_.SetFilter([&](const MacAddress& from, std::span<const uint8_t>) {
    EXPECT_EQ(from, a->info().mac);
    return ++seen != 2;
  });
  for (const char* text : {"1", "2", "3"}) SendText(*a, b->info().mac, text);
  Settle();
  EXPECT_THAT(ReceiveTexts(*b), ElementsAre("1", "3"));
}

TEST_F(FabricTest, FramesThatDoNotFitTheReceiverAreDropped) {
  auto a = fabric_.AddPort("a", 9014);
  auto b = fabric_.AddPort("b", 1514);
  SendText(*a, b->info().mac, std::string(1501, 'x'));
  SendText(*a, b->info().mac, std::string(1500, 'x'));
  Settle();
  EXPECT_THAT(ReceiveTexts(*b), ElementsAre(SizeIs(1500)));
  EXPECT_EQ(fabric_.counters().too_long, 1u);
}

TEST_F(FabricTest, HeldFramesStayIntactWhileOthersComeAndGo) {
  auto a = fabric_.AddPort("a");
  auto b = fabric_.AddPort("b");
  SendText(*a, b->info().mac, "keep me");
  Settle();
  Frame held;
  ASSERT_EQ(b->Receive({&held, 1}), 1u);
  for (int i = 0; i < 1000; ++i) {
    SendText(*a, b->info().mac, "noise");
    Settle();
    ReceiveTexts(*b);
  }
  EXPECT_EQ(testing::TextOf(held), "keep me");
  EXPECT_EQ(fabric_.FramesHeld(b->info().mac), 1u);
  b->Release({&held, 1});
  EXPECT_EQ(fabric_.FramesHeld(b->info().mac), 0u);
}

TEST_F(FabricTest, BuffersRunOutAndComeBack) {
  FabricOptions options;
  options.buffers_per_port = 4;
  Fabric small(clock_, options);
  auto a = small.AddPort("a");
  std::vector<Frame> frames(6);
  EXPECT_EQ(a->Allocate(frames), 4u);
  EXPECT_EQ(a->Allocate({&frames[4], 1}), 0u);
  a->Release({frames.data(), 2});
  EXPECT_EQ(a->Allocate({frames.data(), 2}), 2u);
  a->Release({frames.data(), 4});
}

TEST_F(FabricTest, AThousandPortsHearABroadcast) {
  std::vector<std::unique_ptr<Port>> ports;
  for (int i = 0; i < 1000; ++i) {
    ports.push_back(fabric_.AddPort("node" + std::to_string(i)));
  }
  for (auto& port : ports) SendText(*port, MacAddress::Broadcast(), "hello");
  Settle();
  for (auto& port : ports) EXPECT_THAT(ReceiveTexts(*port), SizeIs(999));
}

TEST(FabricDeathTest, MisuseIsCaught) {
  ManualClock clock;
  Fabric fabric(clock);
  auto a = fabric.AddPort("a");
  auto b = fabric.AddPort("b");
  Frame frame;
  ASSERT_EQ(a->Allocate({&frame, 1}), 1u);
  EXPECT_DEATH(b->Release({&frame, 1}), "another port");
  a->Release({&frame, 1});
  EXPECT_DEATH(a->Release({&frame, 1}), "twice");
}

}  // namespace
}  // namespace tripwire
