// SPDX-License-Identifier: BSD-3-Clause
// Sequence numbers, acknowledgements, windows and credit, seen from outside.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <set>
#include <vector>

#include "tests/unit/datapath/scripted_peer_test.h"

namespace tripwire {
namespace {

class WindowTest : public ::testing::Test {
 protected:
  void SetUp() override { Open({}); }
  void Open(EngineOptions options, bool second_port = false) {
    peer_ = std::make_unique<ScriptedPeer>(options, 1514, FabricOptions{},
                                           second_port);
    ASSERT_TRUE(peer_->Connect());
    name_ = peer_->engine().Export(peer_->context(), memory_, Access::kAny,
                                   std::nullopt);
    peer_->Take();
  }
  Engine& engine() { return peer_->engine(); }
  Link& link() { return *engine().FindLink(peer_->link()); }
  Bytes Word(uint64_t sequence, size_t index, uint8_t value) {
    wire::FrameHeader header = peer_->Header(wire::kWrite);
    header.sequence = static_cast<uint32_t>(sequence);
    return peer_->Frame(header, WriteBody(name_, 8 * index, Bytes(8, value)));
  }
  void WriteWords(int count) {
    for (int i = 0; i < count; ++i) {
      const uint64_t word = static_cast<uint64_t>(i);
      ASSERT_TRUE(engine().Write(
          peer_->link(), kTheirs, 8 * word,
          {reinterpret_cast<const uint8_t*>(&word), 8}, nullptr));
    }
    peer_->Run();
  }
  // The distinct sequence numbers among frames heard now.
  std::set<uint32_t> Heard(uint8_t type = wire::kWrite) {
    std::set<uint32_t> sequences;
    for (const Bytes& frame : peer_->Take(type)) {
      sequences.insert(ScriptedPeer::View(frame).sequence());
    }
    return sequences;
  }
  void Acknowledge(uint64_t acknowledged, const Bytes& bitmap = Bytes(32)) {
    wire::FrameHeader header = peer_->Header(wire::kAck);
    header.acknowledged = static_cast<uint32_t>(acknowledged);
    peer_->Send(peer_->Frame(header, bitmap));
  }

  std::vector<uint8_t> memory_ = std::vector<uint8_t>(4096);
  std::unique_ptr<ScriptedPeer> peer_;
  ApertureName name_;
};

TEST_F(WindowTest, CreditIsNeverExceeded) {
  for (const uint16_t credit : {1, 10, 40}) {
    Open({});
    peer_->set_acknowledge(1);
    peer_->set_credit(credit);
    peer_->SayAck();
    WriteWords(500);
    EXPECT_EQ(Heard().size(), credit);
    Acknowledge(1 + 1);
    EXPECT_EQ(Heard().size(), 1u);
  }
  Open({});
  peer_->set_acknowledge(1);
  peer_->set_credit(0);
  peer_->SayAck();
  WriteWords(10);
  EXPECT_TRUE(Heard().empty());
  peer_->set_credit(5);
  peer_->SayAck();
  EXPECT_EQ(Heard().size(), 5u);
}

TEST_F(WindowTest, NeverMoreThanTheWindowWithoutAnAcknowledgement) {
  WriteWords(2000);
  peer_->set_credit(UINT16_MAX);
  uint64_t acknowledged = 1, highest = 0;
  for (int turn = 0; turn < 400 && highest < 2000; ++turn) {
    for (const uint32_t sequence : Heard()) {
      highest = std::max<uint64_t>(highest, sequence);
    }
    ASSERT_LE(highest, acknowledged + kWindowFrames - 1);
    acknowledged = std::min(highest + 1, acknowledged + 10);
    Acknowledge(acknowledged);
  }
  EXPECT_EQ(highest, 2000u);
}

TEST_F(WindowTest, EarlyFramesWaitForTheirTurnAndAreReported) {
  const uint64_t first = peer_->sequence();
  for (const uint64_t ahead : {4, 2, 200, 255}) {
    peer_->Send(Word(first + ahead, ahead, 0xab));
  }
  EXPECT_TRUE(std::all_of(memory_.begin(), memory_.end(),
                          [](uint8_t b) { return b == 0; }));
  EXPECT_EQ(peer_->counters().early_frames, 4u);
  const auto acks = peer_->Take(wire::kAck);
  ASSERT_FALSE(acks.empty());
  const auto view = ScriptedPeer::View(acks.back());
  EXPECT_EQ(view.header->acknowledged.get(), static_cast<uint32_t>(first));
  const auto& bits = view.body<wire::AckPayload>().received;
  for (uint64_t i = 0; i < 256; ++i) {
    const bool is_set = (bits[i / 8] >> (i % 8) & 1) != 0;
    EXPECT_EQ(is_set, i == 3 || i == 1 || i == 199 || i == 254) << i;
  }
  for (uint64_t i = 0; i < 256; ++i) {
    if (i == 4 || i == 2 || i == 200 || i == 255) continue;
    peer_->Send(Word(first + i, i, 0xcd));
  }
  for (uint64_t i = 0; i < 256; ++i) {
    const bool was_early = i == 4 || i == 2 || i == 200 || i == 255;
    EXPECT_EQ(memory_[8 * i], was_early ? 0xab : 0xcd) << i;
  }
}

TEST_F(WindowTest, EachFrameCountsOnceHoweverOftenItComes) {
  TripwireSpec entry;
  entry.context = peer_->context();
  entry.offset = 0;
  entry.length = 8;
  entry.access = Access::kWrite;
  entry.handle = name_.handle;
  entry.generation = name_.generation;
  const uint32_t tripwire = engine().Watch(entry);
  engine().Arm(tripwire);
  const uint64_t first = peer_->sequence();
  for (int i = 0; i < 3; ++i) peer_->Send(Word(first + 1, 0, 2));
  for (int i = 0; i < 3; ++i) peer_->Send(Word(first, 0, 1));
  EXPECT_EQ(engine().tripwire(tripwire).count, 2u);
  EXPECT_EQ(memory_[0], 2);
  EXPECT_EQ(peer_->counters().duplicate_frames, 4u);
  engine().Unwatch(tripwire);
}

TEST_F(WindowTest, OnlyWhatIsMissingIsSentAgain) {
  WriteWords(40);
  EXPECT_EQ(Heard().size(), 40u);
  Bytes bitmap(32);  // all came but 1, 11 and 40
  for (int i = 0; i < 38; ++i) {
    if (i != 9) bitmap[i / 8] |= static_cast<uint8_t>(1 << (i % 8));
  }
  Acknowledge(1, bitmap);
  EXPECT_EQ(Heard(), (std::set<uint32_t>{1, 11}));
  Acknowledge(1, bitmap);
  EXPECT_TRUE(Heard().empty()) << "said before";
  Acknowledge(40);
  peer_->Run(50 * kMillisecond);
  EXPECT_EQ(Heard(), (std::set<uint32_t>{40})) << "a tail is lost in silence";
}

TEST_F(WindowTest, GoBackNSendsEverythingFromTheGapOn) {
  EngineOptions options;
  options.go_back_n = true;
  Open(options);
  WriteWords(20);
  EXPECT_EQ(Heard().size(), 20u);
  Bytes bitmap(32);
  for (int i = 9; i < 16; ++i) {
    bitmap[i / 8] |= static_cast<uint8_t>(1 << (i % 8));
  }
  Acknowledge(10, bitmap);
  const std::set<uint32_t> again = Heard();
  EXPECT_TRUE(again.contains(10));
  EXPECT_TRUE(again.contains(19));
}

// Nothing follows a lost tail that could tell of it. Once one frame of it was sent
// again and is acknowledged, what was sent before that is known to be lost: it does
// not wait for one time-out each.
TEST_F(WindowTest, ALostTailIsSentAgainTogether) {
  for (const bool go_back_n : {false, true}) {
    EngineOptions options;
    options.go_back_n = go_back_n;
    Open(options);
    WriteWords(20);
    ASSERT_EQ(Heard().size(), 20u);
    std::set<uint32_t> again;
    for (int i = 0; i < 100 && again.empty(); ++i) {
      peer_->Run(kMillisecond);
      again = Heard();
    }
    EXPECT_TRUE(again.contains(1));
    if (go_back_n) {
      EXPECT_GE(again.size(), 8u);  // nobody keeps what comes after a gap
      continue;
    }
    ASSERT_EQ(again.size(), 1u);
    Acknowledge(2);
    again = Heard();
    EXPECT_TRUE(again.contains(2));
    EXPECT_GE(again.size(), 8u);  // the least congestion window
  }
}

// A frame that comes late is acknowledged soon after it was sent again: that tells
// nothing of the frames that were sent in between.
TEST_F(WindowTest, OneLateFrameDoesNotMakeThoseAfterItLost) {
  WriteWords(20);
  peer_->Run(200 * kMicrosecond);
  Acknowledge(21);  // a round trip is some 200 us
  Heard();
  WriteWords(20);
  ASSERT_EQ(Heard().size(), 20u);
  peer_->Run(200 * kMicrosecond);
  Bytes bitmap(32);
  bitmap[0] = 0x07;
  Acknowledge(21, bitmap);
  EXPECT_EQ(Heard(), std::set<uint32_t>{21});
  Acknowledge(25);
  EXPECT_TRUE(Heard().empty());
  // Late enough, it is the answer to what was sent again.
  bitmap[0] = 0x07;
  Acknowledge(25, bitmap);
  EXPECT_EQ(Heard(), std::set<uint32_t>{25});
  peer_->Run(300 * kMicrosecond);
  Acknowledge(29);
  EXPECT_GE(Heard().size(), 8u);
}

// How soon an answer can come is what the path takes, not what a full queue made
// of it: else all that comes after a queue has drained passes for late.
TEST_F(WindowTest, AnAnswerMayComeSoonerThanWhileTheQueueWasFull) {
  uint32_t next = 1;
  const auto round = [&](uint64_t takes_ns) {
    WriteWords(20);
    peer_->Run(takes_ns);
    Acknowledge(next += 20);
    Heard();
  };
  round(200 * kMicrosecond);
  for (int i = 0; i < 10; ++i) round(1800 * kMicrosecond);
  WriteWords(20);
  ASSERT_EQ(Heard().size(), 20u);
  peer_->Run(1800 * kMicrosecond);
  Bytes bitmap(32);
  bitmap[0] = 0x07;
  Acknowledge(next, bitmap);
  EXPECT_EQ(Heard(), std::set<uint32_t>{next});
  peer_->Run(400 * kMicrosecond);
  Acknowledge(next + 4);
  EXPECT_GE(Heard().size(), 8u);
}

// A receiver that goes back n says only that it is still waiting.
TEST_F(WindowTest, GoBackNHearsOfAGapByRepeatedAcknowledgements) {
  EngineOptions options;
  options.go_back_n = true;
  Open(options);
  WriteWords(20);
  ASSERT_EQ(Heard().size(), 20u);
  Acknowledge(6);
  Acknowledge(6);
  Acknowledge(6);
  EXPECT_TRUE(Heard().empty());
  Acknowledge(6);
  std::set<uint32_t> again = Heard();
  EXPECT_TRUE(again.contains(6));
  EXPECT_TRUE(again.contains(20));
  // The rest of what came early is answered, too, and means nothing new.
  for (int i = 0; i < 10; ++i) Acknowledge(6);
  EXPECT_TRUE(Heard().empty());
}

// Both sequence spaces pass 2^32 in the middle of traffic both ways.
TEST_F(WindowTest, SequenceNumbersWrap) {
  EngineOptions options;
  options.first_sequence = (uint64_t{1} << 32) - 150;
  Open(options);
  std::deque<Completion> done(600);
  uint64_t next_heard = options.first_sequence;
  const std::vector<uint8_t> data(8, 0x42);
  Random random(8);
  std::vector<uint64_t> values(512);
  for (int i = 0; i < 600; ++i) {
    ASSERT_TRUE(engine().Write(peer_->link(), kTheirs, 8, data, &done[i]));
    const size_t word = random.Below(512);
    const auto value = static_cast<uint8_t>(random.Next());
    values[word] = value;
    const Bytes frame = Word(peer_->sequence(), word, value);
    if (random.Chance(0.3)) {  // the one after it comes first
      const size_t other = random.Below(512);
      const auto late = static_cast<uint8_t>(random.Next());
      values[other] = late;
      peer_->Send(Word(peer_->sequence() + 1, other, late));
      peer_->set_sequence(peer_->sequence() + 1);
    }
    peer_->set_sequence(peer_->sequence() + 1);
    peer_->Send(frame);
    peer_->SayAck();
    for (const Bytes& heard : peer_->Take(wire::kWrite)) {
      EXPECT_EQ(ScriptedPeer::View(heard).sequence(),
                static_cast<uint32_t>(next_heard++));
    }
  }
  EXPECT_EQ(next_heard, options.first_sequence + 600);
  EXPECT_GT(link().expected, uint64_t{1} << 32);
  for (const Completion& completion : done) {
    EXPECT_EQ(completion.status.load(), OpStatus::kOk);
  }
  for (size_t i = 0; i < 512; ++i) EXPECT_EQ(memory_[8 * i], values[i]) << i;
  EXPECT_EQ(peer_->counters().retransmitted_frames, 0u);
}

// Frames held while there is no room for them are delivered when there is, are
// never sent again by a peer that knows they arrived, and are delivered once.
TEST_F(WindowTest, HeldFramesAreDeliveredWhenThereIsRoomAgain) {
  const auto message = [&](uint64_t sequence, uint32_t number, size_t bytes) {
    wire::FrameHeader header = peer_->Header(wire::kMessage);
    header.sequence = static_cast<uint32_t>(sequence);
    Bytes data(bytes, 0x11);
    std::memcpy(data.data(), &number, 4);
    return peer_->Frame(
        header, MessageBody(static_cast<uint32_t>(bytes), 0, data));
  };
  uint32_t number = 0;
  uint64_t sequence = peer_->sequence();
  // Until one more does not fit.
  for (uint64_t total = 0; total + 1400 <= 16u << 20; total += 1400) {
    peer_->Throw(message(sequence++, number++, 1400));
    if (number % 200 == 0) peer_->Run();
  }
  peer_->Run();
  EXPECT_EQ(link().expected, sequence);
  // A small one that fits, behind it one that does not: early, then due.
  peer_->Send(message(sequence + 1, number + 1, 1400));
  peer_->Send(message(sequence, number, 4));
  EXPECT_EQ(link().expected, sequence + 1);
  peer_->Send(message(sequence + 1, number + 1, 1400));  // and once again
  EXPECT_EQ(link().expected, sequence + 1);
  uint32_t next = 0;
  const auto take = [&] {
    while (auto taken = engine().TakeMessage(peer_->link())) {
      uint32_t got = 0;
      std::memcpy(&got, taken->data(), 4);
      ASSERT_EQ(got, next++);
    }
  };
  take();
  peer_->Run();
  EXPECT_EQ(link().expected, sequence + 2) << "nobody sends it again";
  sequence += 2;
  number += 2;
  for (int i = 0; i < 600; ++i) {
    peer_->Send(message(sequence++, number++, 100));
    take();
  }
  EXPECT_EQ(next, number);
  peer_->set_sequence(sequence);
}

// A link's frames are cut for its port; another port could not hold them.
TEST_F(WindowTest, ALinkStaysOnItsPort) {
  Open({}, /*second_port=*/true);
  Bytes frame = Word(peer_->sequence(), 0, 9);
  std::copy_n(peer_->second_mac().bytes.begin(), 6, frame.begin());
  peer_->Send(frame);
  EXPECT_EQ(memory_[0], 0);
  EXPECT_EQ(link().port, 0u);
  EXPECT_EQ(peer_->counters().drop_unknown_link, 1u);
  const std::vector<uint8_t> large(1400, 1);
  ASSERT_TRUE(engine().Write(peer_->link(), kTheirs, 0, large, nullptr));
  peer_->Run();
  EXPECT_EQ(Heard().size(), 1u);
}

TEST_F(WindowTest, ASilentPeerIsProbedThenGivenUp) {
  peer_->Run(900 * kMillisecond);
  EXPECT_TRUE(peer_->Take().empty());
  peer_->Run(300 * kMillisecond);
  const auto probes = peer_->Take(wire::kAck);
  ASSERT_EQ(probes.size(), 1u);
  EXPECT_TRUE(ScriptedPeer::View(probes[0]).has(wire::kAckRequested));
  peer_->SayAck();
  peer_->Run(5500 * kMillisecond);
  EXPECT_TRUE(peer_->Events().empty());
  peer_->Run(2 * kSecond);
  const auto events = peer_->Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kLinkDown);
  EXPECT_EQ(events[0].end, LinkEnd::kTimedOut);
}

// What is left to be told apart at the sender when all it sent is acknowledged.
struct Settled {
  bool done = false, is_up = false;
  uint64_t in_flight = 0, queued_bytes = 0, answers = 0, fired = 0;
  double window = 0;
  bool has_timer = true;
  auto operator<=>(const Settled&) const = default;
};

TEST_F(WindowTest, AnAnswerAcknowledgesAsAnAcknowledgementByItselfDoes) {
  for (const int count : {1, 2, 4, 5, 40}) {
    for (const bool sent_again : {false, true}) {
      for (const bool closes : {false, true}) {
        Settled settled[2];
        for (const bool by_itself : {false, true}) {
          Open({});
          peer_->set_acknowledge(1);
          TripwireSpec spec;
          spec.context = peer_->context();
          spec.length = 4096;
          spec.access = Access::kWrite;
          spec.outbound = true;
          spec.handle = kTheirs.handle;
          spec.generation = kTheirs.generation;
          spec.link = peer_->link();
          const uint32_t tripwire = engine().Watch(spec);
          engine().Arm(tripwire);
          Completion completion;
          ASSERT_TRUE(engine().Write(peer_->link(), kTheirs, 0,
                                     {memory_.data(), 8}, &completion));
          peer_->Say(wire::kReadRequest, ReadBody(name_, 0, 8));
          WriteWords(count);
          if (closes) engine().CloseGracefully(link());
          if (sent_again) peer_->Run(30 * kMillisecond);
          ASSERT_FALSE(completion.done());
          const uint64_t sent = link().next_sequence;
          peer_->set_acknowledge(sent);
          if (by_itself) peer_->SayAck();
          peer_->Say(wire::kWrite, WriteBody(name_, 24, Bytes(8, 9)));
          Settled& state = settled[by_itself ? 1 : 0];
          state.done = completion.status == OpStatus::kOk;
          state.fired = engine().tripwire(tripwire).count;
          Link* end = engine().FindLink(peer_->link());
          state.is_up = end != nullptr;
          if (end == nullptr) continue;
          EXPECT_EQ(memory_[24], 9);
          memory_[24] = 0;
          state.in_flight = end->next_sequence - end->acked;
          state.queued_bytes = end->queued_bytes;
          state.answers = end->answers_queued;
          state.window = end->congestion_window;
          state.has_timer = end->retransmit_at != kNever;
        }
        EXPECT_EQ(settled[0], settled[1]) << count << sent_again << closes;
        EXPECT_TRUE(settled[0].done);
        EXPECT_EQ(settled[0].fired, static_cast<uint64_t>(count) + 1);
        EXPECT_EQ(settled[0].is_up, !closes);
        if (closes) continue;
        EXPECT_EQ(settled[0].in_flight, 0u);
        EXPECT_EQ(settled[0].queued_bytes, 0u);
        EXPECT_EQ(settled[0].answers, 0u);
        EXPECT_FALSE(settled[0].has_timer);
      }
    }
  }
}

TEST_F(WindowTest, ASleeperIsNotWokenForTimersThatHaveMoved) {
  for (int i = 0; i < 10; ++i) {  // each sets a timer here, and clears one
    WriteWords(1);
    peer_->Say(wire::kWrite, WriteBody(name_, 0, Bytes(8, 1)));
  }
  engine().FlushAcks();
  // Acknowledgements were to go out after half a millisecond, and went with words.
  EXPECT_GT(engine().NextDeadline() - peer_->clock().NowNs(), kMillisecond);
}

}  // namespace
}  // namespace tripwire
