// SPDX-License-Identifier: BSD-3-Clause
// Rules of docs/wire-format.md that no other test looks at, frame by frame.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/unit/datapath/scripted_peer_test.h"

namespace tripwire {
namespace {

class WireRules : public ScriptedPeerTest {
 protected:
  // Ends what is still under way, before the memory of it goes.
  void EndLink() {
    engine().EndLink(*engine().FindLink(peer_.link()), LinkEnd::kTimedOut);
  }
  bool IsUntouched() const {
    return std::all_of(memory_.begin(), memory_.end(),
                       [](uint8_t b) { return b == 0; });
  }
};

TEST_F(WireRules, FramesToSomebodyElseAreIgnored) {
  Bytes frame = peer_.Frame(peer_.Header(wire::kWrite),
                            WriteBody(name_, 0, kWord));
  frame[5] ^= 1;
  const NicCounters before = peer_.counters();
  peer_.Send(frame);
  EXPECT_TRUE(IsUntouched());
  EXPECT_TRUE(peer_.Take().empty());
  EXPECT_EQ(peer_.counters().drop_unknown_link, before.drop_unknown_link);
}

TEST_F(WireRules, BytesBeyondAFixedPayloadAreIgnored) {
  peer_.Say(wire::kReadRequest, ReadBody(name_, 0, 8) + Bytes(9, 0xff));
  EXPECT_EQ(peer_.Take(wire::kReadResponse).size(), 1u);
  peer_.Say(wire::kFlushRequest, Bytes(3, 0xff));
  EXPECT_EQ(peer_.Take(wire::kFlushResponse).size(), 1u);
  peer_.Say(wire::kAtomicRequest,
            AtomicBody(name_, 0, wire::kFetchAdd, 1) + Bytes(100, 0xff));
  EXPECT_EQ(memory_[0], 1);
  EXPECT_EQ(peer_.Take(wire::kAtomicResponse).size(), 1u);
}

TEST_F(WireRules, OnlyKnownFlagsAreSent) {
  std::vector<uint8_t> data(5000), into(5000);
  Completion write, read, flush, atomic;
  engine().Write(peer_.link(), kTheirs, 0, data, &write);
  engine().Write(peer_.link(), kTheirs, 0, kWord, nullptr);
  engine().Read(peer_.link(), kTheirs, 0, into, &read);
  engine().Flush(peer_.link(), &flush);
  engine().Atomic(peer_.link(), kTheirs, 0, wire::kFetchAdd, 1, 0, nullptr,
                  &atomic);
  engine().SendMessage(peer_.link(), data);
  peer_.Say(wire::kReadRequest, ReadBody(name_, 0, 5000));
  peer_.Say(wire::kWrite, WriteBody(name_, 1 << 16, kWord));  // refused
  peer_.Run(kMillisecond);
  const auto heard = peer_.Take();
  EXPECT_GT(heard.size(), 15u);
  for (const Bytes& frame : heard) {
    const auto view = ScriptedPeer::View(frame);
    EXPECT_EQ(view.header->flags.get() &
                  ~(wire::kAckRequested | wire::kChecksummed | wire::kLast),
              0)
        << int{view.type()};
  }
  EndLink();
}

TEST_F(WireRules, ReservedFlagsAndHopsChangeNothing) {
  uint8_t value = 0;
  for (int bit = 5; bit < 16; ++bit) {
    const auto flags = static_cast<uint16_t>(wire::kLast | 1 << bit);
    peer_.Say(wire::kWrite, WriteBody(name_, 8, Bytes(8, ++value)), flags);
    EXPECT_EQ(memory_[8], value) << bit;
    peer_.Say(wire::kWrite, WriteBody(name_, 1 << 16, kWord), flags);
    EXPECT_EQ(peer_.Take(wire::kOpError).size(), 1u) << bit;
    peer_.SayAck();
  }
  peer_.Take();
  const auto all = static_cast<uint16_t>(wire::kLast | wire::kReservedFlags |
                                         wire::kHopsMask | wire::kUnordered);
  peer_.Say(wire::kReadRequest, ReadBody(name_, 8, 8), all);
  const auto answers = peer_.Take(wire::kReadResponse);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(ScriptedPeer::View(answers[0]).payload[10], value);
  // Not early, though they ask for it: only writes may be.
  wire::FrameHeader header = peer_.Header(wire::kAtomicRequest);
  header.sequence = static_cast<uint32_t>(peer_.sequence() + 1);
  header.flags = all;
  peer_.Send(peer_.Frame(header, AtomicBody(name_, 64, wire::kFetchAdd, 7)));
  EXPECT_EQ(memory_[64], 0);
  peer_.Say(wire::kFlushRequest, {}, all);
  EXPECT_EQ(memory_[64], 7);
  EXPECT_EQ(peer_.Take(wire::kFlushResponse).size(), 1u);
  peer_.set_sequence(peer_.sequence() + 1);
}

TEST_F(WireRules, AnUnorderedWriteTripsOnlyInItsTurn) {
  const uint32_t id = Watch(0, 4096);
  const auto unordered = [&](uint64_t ahead, uint64_t offset, uint8_t value,
                             bool last) {
    wire::FrameHeader header = peer_.Header(wire::kWrite);
    header.sequence = static_cast<uint32_t>(peer_.sequence() + ahead);
    header.flags = static_cast<uint16_t>(wire::kUnordered |
                                         (last ? wire::kLast : 0));
    peer_.Send(peer_.Frame(header, WriteBody(name_, offset, Bytes(64, value))));
  };
  peer_.Take();
  unordered(2, 128, 3, true);
  unordered(2, 128, 3, true);
  unordered(1, 64, 2, false);
  EXPECT_EQ(engine().tripwire(id).count, 0u);
  for (const Bytes& frame : peer_.Take()) {
    EXPECT_EQ(ScriptedPeer::View(frame).header->acknowledged.get(),
              static_cast<uint32_t>(peer_.sequence()));
  }
  unordered(0, 0, 1, false);
  EXPECT_EQ(engine().tripwire(id).count, 1u);
  EXPECT_EQ(memory_[0], 1);
  EXPECT_EQ(memory_[64], 2);
  EXPECT_EQ(memory_[191], 3);
  unordered(1, 64, 9, false);  // late once more
  EXPECT_EQ(memory_[64], 2);
  EXPECT_EQ(engine().tripwire(id).count, 1u);
  peer_.set_sequence(peer_.sequence() + 3);
  engine().Unwatch(id);
}

// They are placed and remembered: no buffer is held, revocation stays exact, and
// what was refused is told in its turn.
TEST_F(WireRules, EarlyUnorderedWritesArePlacedAndHoldNoBuffer) {
  const ApertureName other = engine().Export(
      peer_.context(), std::span(memory_).subspan(4096, 4096), Access::kWrite,
      std::nullopt);
  const auto early = [&](uint64_t ahead, const ApertureName& name,
                         uint64_t offset, uint8_t value) {
    wire::FrameHeader header = peer_.Header(wire::kWrite);
    header.sequence = static_cast<uint32_t>(peer_.sequence() + ahead);
    header.flags = wire::kUnordered | wire::kLast;
    peer_.Send(peer_.Frame(header, WriteBody(name, offset, Bytes(8, value))));
  };
  const uint32_t first = Watch(0, 8), on_other = Watch(4096, 4096);
  early(3, name_, 0, 3);
  EXPECT_EQ(memory_[0], 3) << "before its turn";
  early(4, name_, 1 << 16, 4);  // refused
  early(5, other, 0, 5);
  EXPECT_EQ(memory_[4096], 5);
  engine().Revoke(peer_.context(), other);
  early(6, other, 8, 6);
  EXPECT_EQ(memory_[4104], 0) << "revoked when it came";
  early(5, name_, 64, 9);
  EXPECT_EQ(memory_[64], 0) << "a number that was here before";
  EXPECT_EQ(peer_.fabric().FramesHeld(peer_.nic_mac()), 0u);
  EXPECT_EQ(peer_.counters().placed_early, 4u);
  EXPECT_EQ(engine().tripwire(first).count, 0u);
  EXPECT_TRUE(peer_.Take(wire::kOpError).empty());
  for (int i = 0; i < 3; ++i) peer_.Say(wire::kWrite, WriteBody(name_, 8, kWord));
  peer_.Run();
  EXPECT_EQ(engine().tripwire(first).count, 1u);
  EXPECT_EQ(engine().tripwire(on_other).count, 0u);
  EXPECT_EQ(memory_[0], 3);
  const auto refusals = peer_.Take(wire::kOpError);
  ASSERT_EQ(refusals.size(), 2u);
  const auto one = ScriptedPeer::View(refusals[0]);
  const auto two = ScriptedPeer::View(refusals[1]);
  const auto next = static_cast<uint32_t>(peer_.sequence());
  EXPECT_EQ(one.body<wire::OpErrorPayload>().operation.get(), next + 1);
  EXPECT_EQ(one.body<wire::OpErrorPayload>().status,
            static_cast<uint8_t>(OpStatus::kOutOfBounds));
  EXPECT_EQ(two.body<wire::OpErrorPayload>().operation.get(), next + 3);
  EXPECT_EQ(two.body<wire::OpErrorPayload>().status,
            static_cast<uint8_t>(OpStatus::kStaleGeneration));
  EXPECT_EQ(engine().FindLink(peer_.link())->expected, uint64_t{next} + 4);
  peer_.set_sequence(uint64_t{next} + 4);
  engine().Unwatch(on_other);
  engine().Unwatch(first);
}

// The flags `kUnordered` of the writes heard since the last call.
std::vector<bool> UnorderedFlags(ScriptedPeer& peer) {
  std::vector<bool> flags;
  for (const Bytes& frame : peer.Take(wire::kWrite)) {
    flags.push_back(ScriptedPeer::View(frame).has(wire::kUnordered));
  }
  return flags;
}

TEST_F(WireRules, AfterAFenceWritesKeepTheirPlaceUntilWhatIsBeforeIsDone) {
  peer_.set_acknowledge(1);
  const Bytes data(100, 1);
  std::vector<Completion> done(5);
  const auto write = [&](size_t i) {
    ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 0, data, &done[i],
                               {.is_unordered = true}));
    peer_.Run();
  };
  write(0);
  write(1);
  EXPECT_EQ(UnorderedFlags(peer_), (std::vector<bool>{true, true}));
  ASSERT_TRUE(engine().Fence(peer_.link()));
  write(2);
  EXPECT_EQ(UnorderedFlags(peer_), (std::vector<bool>{false}));
  peer_.set_acknowledge(2);  // not all that is before the fence
  peer_.SayAck();
  write(3);
  EXPECT_EQ(UnorderedFlags(peer_), (std::vector<bool>{false}));
  peer_.set_acknowledge(3);
  peer_.SayAck();
  EXPECT_TRUE(done[1].done());
  write(4);
  EXPECT_EQ(UnorderedFlags(peer_), (std::vector<bool>{true}));
  EndLink();
}

TEST_F(WireRules, UnorderedWritesAreOrderedForAPeerThatKnowsNoOther) {
  ScriptedPeer old;
  old.set_features(wire::kFeatureAtomics);
  ASSERT_TRUE(old.Connect());
  old.Take();
  const Bytes data(3000, 1);
  Completion done;
  ASSERT_TRUE(old.engine().Write(old.link(), kTheirs, 0, data, &done,
                                 {.is_unordered = true}));
  old.Run();
  EXPECT_EQ(UnorderedFlags(old), (std::vector<bool>{false, false, false}));
  old.SayAck();
  EXPECT_EQ(done.status.load(), OpStatus::kOk);
}

TEST_F(WireRules, WhatIsAskedForEarlyOrRepeatedIsAcknowledgedAtOnce) {
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  EXPECT_TRUE(peer_.Take().empty()) << "nobody asked";
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord),
            wire::kLast | wire::kAckRequested);
  EXPECT_EQ(peer_.Take(wire::kAck).size(), 1u);
  wire::FrameHeader header = peer_.Header(wire::kWrite);
  header.sequence = static_cast<uint32_t>(peer_.sequence() - 1);
  peer_.Send(peer_.Frame(header, WriteBody(name_, 0, kWord)));
  EXPECT_EQ(peer_.Take(wire::kAck).size(), 1u) << "repeated";
  header.sequence = static_cast<uint32_t>(peer_.sequence() + 1);
  peer_.Send(peer_.Frame(header, WriteBody(name_, 0, kWord)));
  EXPECT_EQ(peer_.Take(wire::kAck).size(), 1u) << "early";
  peer_.Say(wire::kAck, Bytes(32), wire::kAckRequested);
  EXPECT_EQ(peer_.Take(wire::kAck).size(), 1u) << "nothing but the question";
}

TEST_F(WireRules, EveryFrameIsAcknowledgedInTheEnd) {
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  EXPECT_TRUE(peer_.Take().empty());
  peer_.Run(510 * kMicrosecond);
  auto acks = peer_.Take(wire::kAck);
  ASSERT_EQ(acks.size(), 1u);
  EXPECT_EQ(ScriptedPeer::View(acks[0]).header->acknowledged.get(),
            static_cast<uint32_t>(peer_.sequence()));
  for (int i = 0; i < 32; ++i) {
    wire::FrameHeader header = peer_.Header(wire::kWrite);
    header.sequence = static_cast<uint32_t>(peer_.sequence());
    peer_.set_sequence(peer_.sequence() + 1);
    peer_.Throw(peer_.Frame(header, WriteBody(name_, 0, kWord)));
  }
  peer_.Run();
  acks = peer_.Take(wire::kAck);
  ASSERT_FALSE(acks.empty()) << "after 32 frames";
  EXPECT_EQ(ScriptedPeer::View(acks.back()).header->acknowledged.get(),
            static_cast<uint32_t>(peer_.sequence()));
}

TEST_F(WireRules, AFrameSentAgainSaysWhatItSaidTheFirstTime) {
  peer_.set_acknowledge(1);
  Completion completion;
  ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, 8, kWord, &completion));
  peer_.Run();
  const auto first = peer_.Take(wire::kWrite);
  ASSERT_EQ(first.size(), 1u);
  for (int i = 0; i < 5; ++i) peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  peer_.Run(30 * kMillisecond);
  const auto again = peer_.Take(wire::kWrite);
  ASSERT_FALSE(again.empty());
  for (const Bytes& frame : again) {
    const auto one = ScriptedPeer::View(first[0]), two = ScriptedPeer::View(frame);
    EXPECT_EQ(one.sequence(), two.sequence());
    EXPECT_EQ(one.header->acknowledged.get(), two.header->acknowledged.get());
    EXPECT_TRUE(std::equal(one.payload.begin(), one.payload.end(),
                           two.payload.begin(), two.payload.end()));
  }
  EndLink();
}

TEST_F(WireRules, LongWritesAreCutAtMultiplesOf64) {
  for (const uint64_t offset : {0u, 1u, 63u, 64u, 1000u}) {
    for (const size_t length : {1u, 1400u, 3000u, 10000u}) {
      Bytes data(length);
      for (size_t i = 0; i < length; ++i) data[i] = static_cast<uint8_t>(i * 7);
      Completion completion;
      peer_.Take();
      ASSERT_TRUE(engine().Write(peer_.link(), kTheirs, offset, data, &completion));
      peer_.Run();
      Bytes seen;
      for (const Bytes& frame : peer_.Take(wire::kWrite)) {
        const auto view = ScriptedPeer::View(frame);
        const uint64_t at = view.body<wire::WritePayload>().offset.get();
        EXPECT_EQ(at, offset + seen.size());
        EXPECT_TRUE(seen.empty() || at % 64 == 0) << at;
        const auto piece = view.data<wire::WritePayload>();
        seen.insert(seen.end(), piece.begin(), piece.end());
        EXPECT_EQ(view.has(wire::kLast), seen.size() == length);
      }
      EXPECT_EQ(seen, data);
      peer_.SayAck();
      EXPECT_EQ(completion.status.load(), OpStatus::kOk);
    }
  }
}

TEST_F(WireRules, AWriteOfNothingIsCheckedAndTouchesNothing) {
  const uint32_t id = Watch(0, 4096);
  peer_.Say(wire::kWrite, WriteBody(name_, 8, {}));
  peer_.Say(wire::kWrite, WriteBody(name_, 1 << 16, {}));  // its very end
  EXPECT_EQ(engine().tripwire(id).count, 0u);
  EXPECT_TRUE(peer_.Take(wire::kOpError).empty());
  peer_.Say(wire::kWrite, WriteBody(name_, (1 << 16) + 1, {}));
  const auto refusals = peer_.Take(wire::kOpError);
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(ScriptedPeer::View(refusals[0]).body<wire::OpErrorPayload>().status,
            static_cast<uint8_t>(OpStatus::kOutOfBounds));
  engine().Unwatch(id);
}

TEST_F(WireRules, AReadIsAnsweredInOrderAndItsLastFrameIsMarked) {
  for (size_t i = 0; i < memory_.size(); ++i) {
    memory_[i] = static_cast<uint8_t>(i * 5);
  }
  for (const size_t length : {0u, 1u, 5000u}) {
    const auto asked = static_cast<uint32_t>(peer_.sequence());
    peer_.Say(wire::kReadRequest, ReadBody(name_, 3, length));
    Bytes seen;
    const auto answers = peer_.Take(wire::kReadResponse);
    ASSERT_FALSE(answers.empty());
    for (const Bytes& frame : answers) {
      const auto view = ScriptedPeer::View(frame);
      const auto& body = view.body<wire::ReadResponsePayload>();
      EXPECT_EQ(body.operation.get(), asked);
      EXPECT_EQ(body.offset.get(), seen.size());
      const auto piece = view.data<wire::ReadResponsePayload>();
      seen.insert(seen.end(), piece.begin(), piece.end());
      EXPECT_EQ(view.has(wire::kLast), &frame == &answers.back());
    }
    EXPECT_EQ(seen, Bytes(memory_.begin() + 3, memory_.begin() + 3 + length));
    peer_.SayAck();
  }
}

TEST_F(WireRules, AFlushIsAnsweredAfterWhatCameBefore) {
  const auto first = static_cast<uint32_t>(peer_.sequence());
  wire::FrameHeader flush = peer_.Header(wire::kFlushRequest);
  flush.sequence = first + 1;
  peer_.Send(peer_.Frame(flush, {}));
  EXPECT_TRUE(peer_.Take(wire::kFlushResponse).empty());
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  const auto answers = peer_.Take(wire::kFlushResponse);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(ScriptedPeer::View(answers[0])
                .body<wire::FlushResponsePayload>()
                .operation.get(),
            first + 1);
  EXPECT_EQ(memory_[0], 0x42);
  peer_.set_sequence(first + 2);
}

TEST_F(WireRules, AnOperationIsRefusedOnce) {
  const auto first = static_cast<uint32_t>(peer_.sequence());
  for (uint64_t i = 0; i < 5; ++i) {
    peer_.Say(wire::kWrite, WriteBody(name_, (1 << 16) - 64 + 64 * i, Bytes(64, 1)),
              i == 4 ? wire::kLast : 0);
  }
  auto refusals = peer_.Take(wire::kOpError);
  ASSERT_EQ(refusals.size(), 1u);
  const auto operation = ScriptedPeer::View(refusals[0])
                             .body<wire::OpErrorPayload>()
                             .operation.get();
  EXPECT_GE(operation, first);
  EXPECT_LT(operation, first + 5);
  // The next one is another operation.
  peer_.SayAck();
  peer_.Say(wire::kWrite, WriteBody(name_, 1 << 16, kWord));
  EXPECT_EQ(peer_.Take(wire::kOpError).size(), 1u);
}

TEST_F(WireRules, ACloseIsAcknowledgedAndEndsTheLink) {
  peer_.Say(wire::kWrite, WriteBody(name_, 0, kWord));
  peer_.Take();
  peer_.Say(wire::kClose, {});
  EXPECT_EQ(memory_[0], 0x42);
  const auto acks = peer_.Take(wire::kAck);
  ASSERT_EQ(acks.size(), 1u);
  EXPECT_EQ(ScriptedPeer::View(acks[0]).header->acknowledged.get(),
            static_cast<uint32_t>(peer_.sequence()));
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].end, LinkEnd::kClosedByPeer);
  peer_.Say(wire::kWrite, WriteBody(name_, 8, kWord));
  EXPECT_EQ(memory_[8], 0);
  EXPECT_EQ(peer_.Take(wire::kReset).size(), 1u);
}

}  // namespace
}  // namespace tripwire
