// SPDX-License-Identifier: BSD-3-Clause
// A node that was off its network and is back: it asks at once who is there, and
// blames nobody sooner for that.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

constexpr FaultOptions kFaults{
    .loss = 0.03, .duplicate = 0.05, .reorder = 0.1, .corrupt = 0.01};

// Both have heard of each other just now.
void Exchange(Pair& pair) {
  Completion flush;
  ASSERT_TRUE(pair.left->Flush(pair.left_link, &flush).ok());
  ASSERT_TRUE(pair.net.RunUntil([&] { return flush.done(); }, 10 * kSecond));
}

// The right node is gone without a word.
void CrashRight(Pair& pair) {
  pair.net.port(1).SetStalled(true);
  Nic* crashed = &pair.right_nic;
  pair.right.reset();
  pair.net.RemoveNode(*crashed);
}

// How the left one's link ended, if it did before `limit_ns` from now.
LinkEnd EndWithin(Pair& pair, uint64_t limit_ns) {
  LinkEnd end = LinkEnd::kNone;
  pair.net.RunUntil(
      [&] {
        Event event;
        while (pair.left->Poll({&event, 1}) > 0) {
          EXPECT_EQ(event.kind, EventKind::kLinkDown);
          end = event.end;
        }
        return end != LinkEnd::kNone;
      },
      limit_ns);
  return end;
}

// Long before anybody's silence would be worth a question.
TEST(RejoinSim, APeerRestartedMeanwhileSaysSoAtOnce) {
  ForPairs(200, kFaults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    Exchange(pair);
    const uint64_t heard_ns = net.clock().NowNs();
    net.SetWire(pair.left_nic, false);
    CrashRight(pair);
    net.RunFor(net.random().Below(400 * kMillisecond));
    net.AddNode("right");
    net.RunFor(net.random().Below(100 * kMillisecond));
    net.SetWire(pair.left_nic, true);
    EXPECT_EQ(EndWithin(pair, heard_ns + kSecond - net.clock().NowNs()),
              LinkEnd::kPeerRestarted);
    EXPECT_EQ(pair.left_nic.counters().links_lost, 1u);
    EXPECT_EQ(pair.left_nic.counters().links_disowned, 1u);
  });
}

TEST(RejoinSim, APeerThatIsStillThereAnswersAndNothingIsLost) {
  ForPairs(200, kFaults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    for (int round = 0; round < 3; ++round) {
      Exchange(pair);
      const uint64_t heard_ns = net.clock().NowNs();
      net.SetWire(pair.left_nic, false);
      net.RunFor(net.random().Below(400 * kMillisecond));
      const uint64_t frames = pair.left_nic.counters().rx_frames;
      net.SetWire(pair.left_nic, true);
      EXPECT_TRUE(net.RunUntil(
          [&] { return pair.left_nic.counters().rx_frames > frames; },
          heard_ns + kSecond - net.clock().NowNs()));
    }
    net.SetFaults({});  // with these, silence may be an accident
    EXPECT_EQ(EndWithin(pair, 20 * kSecond), LinkEnd::kNone);
    EXPECT_EQ(pair.left_nic.counters().links_lost, 0u);
  });
}

// Not even by one that is off and on its network all the time; but for ever it
// does not wait either.
TEST(RejoinSim, NobodyIsGivenUpSoonerOrLaterForIt) {
  ForPairs(200, kFaults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    Exchange(pair);
    const uint64_t heard_ns = net.clock().NowNs();
    CrashRight(pair);
    LinkEnd end = LinkEnd::kNone;
    while (end == LinkEnd::kNone &&
           net.clock().NowNs() < heard_ns + 20 * kSecond) {
      net.SetWire(pair.left_nic, false);
      net.RunFor(net.random().Below(10 * kMillisecond));
      net.SetWire(pair.left_nic, true);
      end = EndWithin(pair, net.random().Below(600 * kMillisecond));
    }
    EXPECT_EQ(end, LinkEnd::kTimedOut);
    EXPECT_GE(net.clock().NowNs(), heard_ns + 6 * kSecond);
    EXPECT_LE(net.clock().NowNs(), heard_ns + 8 * kSecond);
    EXPECT_EQ(pair.left_nic.counters().links_disowned, 0u);
  });
}

// A NIC that nobody polled for long asks three times, a second apart, before it
// gives anybody up, however often it is asked to hurry.
TEST(RejoinSim, HurriedQuestionsDoNotCountAsPatience) {
  SimNetwork net(7);
  Pair pair(net);
  pair.Connect();
  Exchange(pair);
  CrashRight(pair);
  net.SetWire(pair.left_nic, false);
  net.clock().AdvanceTo(net.clock().NowNs() + 3600 * kSecond);
  net.SetWire(pair.left_nic, true);
  EXPECT_EQ(EndWithin(pair, 2900 * kMillisecond), LinkEnd::kNone);
  EXPECT_EQ(EndWithin(pair, 2 * kSecond), LinkEnd::kTimedOut);
}

}  // namespace
}  // namespace tripwire
