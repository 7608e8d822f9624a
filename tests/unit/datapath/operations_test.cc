// SPDX-License-Identifier: BSD-3-Clause
// When operations end, and how; tripwires that go while they are touched; links
// that end in the middle.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "tests/unit/datapath/scripted_peer_test.h"

namespace tripwire {
namespace {

class OperationsTest : public ScriptedPeerTest {
 protected:
  // An acknowledgement of what is before `acknowledged`, sent when the script
  // had sent all before `sent`.
  void Acknowledge(uint64_t acknowledged, uint64_t sent) {
    wire::FrameHeader header = peer_.Header(wire::kAck);
    header.acknowledged = static_cast<uint32_t>(acknowledged);
    header.sequence = static_cast<uint32_t>(sent);
    peer_.Send(peer_.Frame(header, Bytes(32)));
  }
};

TEST_F(OperationsTest, AWriteIsNotDoneWhileItsRefusalMayBeOnTheWay) {
  Completion completion;
  ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 0, kWord, &completion));
  peer_.Run();
  const uint64_t refusal = peer_.sequence();
  Acknowledge(2, refusal + 1);  // overtook the refusal that was sent before it
  EXPECT_FALSE(completion.done());
  peer_.Say(wire::kOpError,
            ErrorBody(1, static_cast<uint8_t>(OpStatus::kNoRights)));
  EXPECT_EQ(completion.status.load(), OpStatus::kNoRights);
}

TEST_F(OperationsTest, ARefusalForAnUnknownReasonIsStillARefusal) {
  for (const uint8_t status : {0, 1, 10, 255}) {
    Completion completion;
    ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 0, kWord, &completion));
    peer_.Run();
    peer_.Say(wire::kOpError,
              ErrorBody(static_cast<uint32_t>(peer_.expected() - 1), status));
    peer_.SayAck();
    EXPECT_EQ(completion.status.load(), OpStatus::kBadHandle);
  }
}

// The last of several acknowledgements that wait for a lost frame is not
// forgotten: once the frame is there, everything ends at once.
TEST_F(OperationsTest, EveryWaitingAcknowledgementCountsInTheEnd) {
  Completion first, second, third;
  const uint64_t missing = peer_.sequence();
  ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 0, kWord, &first));
  peer_.Run();
  Acknowledge(2, missing + 1);
  ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 0, kWord, &second));
  peer_.Run();
  Acknowledge(3, missing + 1);
  ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 0, kWord, &third));
  peer_.Run();
  Acknowledge(4, missing + 2);
  EXPECT_FALSE(first.done() || second.done() || third.done());
  const auto late = [&](uint64_t sequence) {
    wire::FrameHeader header = peer_.Header(wire::kWrite);
    header.acknowledged = 1;  // as when it was first sent
    header.sequence = static_cast<uint32_t>(sequence);
    peer_.Send(peer_.Frame(header, WriteBody(name_, 0, kWord)));
  };
  late(missing);
  EXPECT_TRUE(first.done() && second.done());
  EXPECT_FALSE(third.done());
  late(missing + 1);
  EXPECT_EQ(third.status.load(), OpStatus::kOk);
}

TEST_F(OperationsTest, RefusalsAreSentBeforeTheFrameIsAcknowledged) {
  ApertureName wrong = name_;
  wrong.handle = 99;
  peer_.set_credit(0);  // nothing may be sent to the script just now
  peer_.SayAck();
  peer_.Take();
  const auto refused = static_cast<uint32_t>(peer_.sequence());
  peer_.Say(wire::kWrite, WriteBody(wrong, 0, kWord));
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  EXPECT_EQ(memory_[0], 0x42);
  peer_.Run(5 * kMillisecond);
  for (const Bytes& frame : peer_.Take()) {
    EXPECT_EQ(ScriptedPeer::View(frame).header->acknowledged.get(), refused);
  }
  peer_.set_credit(10);
  peer_.SayAck();
  const auto heard = peer_.Take();
  ASSERT_FALSE(heard.empty());
  EXPECT_EQ(ScriptedPeer::View(heard[0]).type(), wire::kOpError);
  EXPECT_EQ(ScriptedPeer::View(heard.back()).header->acknowledged.get(),
            refused + 2);
}

TEST_F(OperationsTest, ALinkIdNeverMeansTwoLinks) {
  std::set<LinkId> seen;
  for (int i = 0; i < 10000; ++i) {
    Link& link = engine().NewLink(peer_.context());
    link.state = LinkState::kConnecting;
    ASSERT_TRUE(seen.insert(link.id).second) << i;
    ASSERT_EQ(engine().FindLink(link.id), &link);
    engine().FreeLink(link);
  }
}

// A peer's questions are taken however much of our own waits to be sent.
TEST_F(OperationsTest, OwnQueuedWorkDoesNotKeepPeersFromAsking) {
  peer_.set_acknowledge(1);
  for (int i = 0; i < 6000; ++i) {
    ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 0, kWord, nullptr));
  }
  const uint64_t before = peer_.sequence();
  peer_.Say(wire::kFlushRequest, {});
  peer_.Say(wire::kReadRequest, ReadBody(name_, 0, 8));
  EXPECT_EQ(engine().FindLink(peer_.link())->expected, before + 2);
}

TEST_F(OperationsTest, ATripwireRemovedWhileTouchedDoesNotFireNorItsSuccessor) {
  const uint32_t old = Watch(0, 8);
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord), 0);  // not the last
  engine().Unwatch(old);
  const uint32_t successor = Watch(512, 8);
  EXPECT_EQ(successor, old) << "the id is used again";
  peer_.Say(wire::kWrite, WriteBody(name_, 64, kWord));  // the last
  EXPECT_EQ(engine().tripwire(successor).count, 0u);
  EXPECT_TRUE(peer_.Events().empty());
}

TEST_F(OperationsTest, ATripwireRemovedWithItsEventQueuedTellsNothing) {
  const uint32_t old = Watch(0, 8);
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  EXPECT_EQ(engine().tripwire(old).count, 1u);
  engine().Unwatch(old);
  const uint32_t other = Watch(0, 8);
  EXPECT_NE(other, old);
  EXPECT_TRUE(peer_.Events().empty());
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].count, 1u);
}

TEST_F(OperationsTest, AnAccessInManyFramesFiresOnceAtItsEnd) {
  const uint32_t all = Watch(0, 4096), middle = Watch(1000, 8);
  for (uint64_t i = 0; i < 200; ++i) {
    peer_.Say(wire::kWrite, WriteBody(name_, 16 * i, Bytes(16, 1)),
              i == 199 ? wire::kLast : 0);
    EXPECT_EQ(engine().tripwire(all).count, i == 199 ? 1u : 0u);
  }
  EXPECT_EQ(engine().tripwire(middle).count, 1u);
}

TEST_F(OperationsTest, FiringsCoalesceWithAnExactCount) {
  Watch(0, 8);
  for (int i = 0; i < 1000; ++i) {
    peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  }
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kTripwire);
  EXPECT_EQ(events[0].count, 1000u);
}

TEST_F(OperationsTest, OneShotFiresOnceAndArmSeesWhatChangedBefore) {
  TripwireSpec entry;
  entry.context = peer_.context();
  entry.length = 8;
  entry.access = Access::kWrite;
  entry.one_shot = true;
  entry.handle = name_.handle;
  entry.generation = name_.generation;
  const uint32_t id = engine().Watch(entry);
  EXPECT_TRUE(engine().ArmIfEqual(id, 0));
  for (int i = 0; i < 3; ++i) {
    peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  }
  EXPECT_EQ(engine().tripwire(id).count, 1u);
  EXPECT_FALSE(engine().ArmIfEqual(id, 0)) << "the word has changed";
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  EXPECT_EQ(engine().tripwire(id).count, 1u) << "not armed";
  EXPECT_TRUE(engine().ArmIfEqual(id, 0x4242424242424242));
  peer_.Say(wire::kWrite, WriteBody(name_, 4, {1}));
  EXPECT_EQ(engine().tripwire(id).count, 2u);
}

TEST_F(OperationsTest, ACloseAmongHeldFramesDropsTheRest) {
  const auto at = [&](uint64_t ahead, uint8_t type, const Bytes& body) {
    wire::FrameHeader header = peer_.Header(type);
    header.sequence = static_cast<uint32_t>(peer_.sequence() + ahead);
    peer_.Send(peer_.Frame(header, body));
  };
  at(3, wire::kWrite, WriteBody(name_, 24, kWord));
  at(2, wire::kClose, {});
  at(1, wire::kWrite, WriteBody(name_, 8, kWord));
  at(0, wire::kWrite, WriteBody(name_, 0, kWord));
  EXPECT_EQ(memory_[0], 0x42);
  EXPECT_EQ(memory_[8], 0x42);
  EXPECT_EQ(memory_[24], 0) << "after the close";
  EXPECT_EQ(peer_.fabric().FramesHeld(peer_.nic_mac()), 0u);
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].end, LinkEnd::kClosedByPeer);
  EXPECT_EQ(engine().FindLink(peer_.link()), nullptr) << "told, so let go";
}

TEST_F(OperationsTest, TheEndOfALinkEndsEveryOperationOnce) {
  Completion write, read, flush;
  std::vector<uint8_t> into(64);
  ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 0, kWord, &write));
  ASSERT_TRUE(engine().Read(peer_.link(), kTheirs, 0, into, &read));
  ASSERT_TRUE(engine().Flush(peer_.link(), &flush));
  peer_.Run();
  engine().EndLink(*engine().FindLink(peer_.link()), LinkEnd::kTimedOut);
  for (Completion* c : {&write, &read, &flush}) {
    EXPECT_EQ(c->status.load(), OpStatus::kLinkLost);
  }
  EXPECT_FALSE(engine().Write(peer_.link(), kTheirs, 0, kWord, nullptr));
  // Late answers find nobody, and are told so.
  peer_.Take();
  peer_.Say(wire::kReadResponse, ReadResponseBody(2, 0, Bytes(64, 0xff)));
  EXPECT_EQ(into, std::vector<uint8_t>(64));
  EXPECT_EQ(peer_.Take(wire::kReset).size(), 1u);
}

TEST_F(OperationsTest, AClosedContextIsOutOfReach) {
  const uint32_t tripwire = Watch(0, 8);
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));  // its event is not taken
  EXPECT_EQ(engine().tripwire(tripwire).count, 1u);
  peer_.Throw(peer_.Frame(peer_.Header(wire::kWrite),
                          WriteBody(name_, 8, kWord)));
  engine().DestroyContext(peer_.context());
  peer_.Take();
  peer_.Run();
  EXPECT_EQ(memory_[8], 0);
  EXPECT_FALSE(peer_.Take(wire::kReset).empty()) << "the peer is told";
  EXPECT_EQ(engine().CreateContext(), peer_.context());
}

TEST_F(OperationsTest, ReadsSeeTheWritesBeforeThemAndFireReadTripwires) {
  TripwireSpec entry;
  entry.context = peer_.context();
  entry.length = 8;
  entry.access = Access::kRead;
  entry.handle = name_.handle;
  entry.generation = name_.generation;
  const uint32_t id = engine().Watch(entry);
  engine().Arm(id);
  peer_.Say(wire::kWrite, WriteBody(name_, 0, Bytes(8, 0x77)));
  const auto asked = static_cast<uint32_t>(peer_.sequence());
  peer_.Say(wire::kReadRequest, ReadBody(name_, 0, 16));
  const auto answers = peer_.Take(wire::kReadResponse);
  ASSERT_EQ(answers.size(), 1u);
  const auto view = ScriptedPeer::View(answers[0]);
  EXPECT_EQ(view.body<wire::ReadResponsePayload>().operation.get(), asked);
  const auto data = view.data<wire::ReadResponsePayload>();
  EXPECT_EQ(Bytes(data.begin(), data.end()), Bytes(8, 0x77) + Bytes(8, 0));
  EXPECT_EQ(engine().tripwire(id).count, 1u);
}

TEST_F(OperationsTest, AReadOfRevokedMemoryIsRefusedInTheMiddle) {
  peer_.set_acknowledge(1);
  peer_.set_credit(2);
  peer_.SayAck();
  peer_.Say(wire::kReadRequest, ReadBody(name_, 0, 1 << 16));
  EXPECT_EQ(peer_.Take(wire::kReadResponse).size(), 2u);
  engine().Revoke(peer_.context(), name_);
  std::fill(memory_.begin(), memory_.end(), 0xee);
  peer_.set_acknowledge(3);
  peer_.SayAck();
  EXPECT_TRUE(peer_.Take(wire::kReadResponse).empty());
}

}  // namespace
}  // namespace tripwire
