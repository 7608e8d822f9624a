// SPDX-License-Identifier: BSD-3-Clause
// Fetch-add and compare-and-swap: what they do to the word, what they answer, how
// often, and what is refused.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/unit/datapath/scripted_peer_test.h"

namespace tripwire {
namespace {

class AtomicsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(peer_.Connect());
    name_ = Export(Access::kAtomic);
    peer_.Take();
  }
  Engine& engine() { return peer_.engine(); }
  ApertureName Export(Access rights, size_t from = 0) {
    return engine().Export(
        peer_.context(),
        std::span(reinterpret_cast<uint8_t*>(words_), sizeof words_)
            .subspan(from),
        rights, std::nullopt);
  }
  uint32_t Watch(uint64_t offset, uint64_t length, Access access) {
    return peer_.Watch(name_, offset, length, access);
  }
  // The values answered since the last call, in order.
  std::vector<uint64_t> Answers() {
    std::vector<uint64_t> values;
    for (const Bytes& frame : peer_.Take(wire::kAtomicResponse)) {
      values.push_back(ScriptedPeer::View(frame)
                           .body<wire::AtomicResponsePayload>()
                           .value.get());
    }
    return values;
  }

  alignas(64) uint64_t words_[16] = {};
  ScriptedPeer peer_;
  ApertureName name_;
};

TEST_F(AtomicsTest, ChangeTheWordAndAnswerWhatItHeld) {
  words_[1] = 10;
  peer_.Say(wire::kAtomicRequest, AtomicBody(name_, 8, wire::kFetchAdd, 5));
  EXPECT_EQ(words_[1], 15u);
  peer_.Say(wire::kAtomicRequest,
            AtomicBody(name_, 8, wire::kFetchAdd, UINT64_MAX));
  EXPECT_EQ(words_[1], 14u) << "it wraps";
  peer_.Say(wire::kAtomicRequest,
            AtomicBody(name_, 8, wire::kCompareAndSwap, 99, 14));
  EXPECT_EQ(words_[1], 99u);
  peer_.Say(wire::kAtomicRequest,
            AtomicBody(name_, 8, wire::kCompareAndSwap, 7, 14));
  EXPECT_EQ(words_[1], 99u);
  EXPECT_EQ(Answers(), (std::vector<uint64_t>{10, 15, 14, 99}));
  EXPECT_EQ(words_[0], 0u);
  EXPECT_EQ(words_[2], 0u);
  EXPECT_EQ(peer_.counters().atomics, 4u);
}

TEST_F(AtomicsTest, IsExecutedOnceHoweverOftenItComes) {
  const auto first = static_cast<uint32_t>(peer_.sequence());
  const auto send = [&](uint32_t ahead) {
    wire::FrameHeader header = peer_.Header(wire::kAtomicRequest);
    header.sequence = first + ahead;
    peer_.Send(peer_.Frame(header, AtomicBody(name_, 0, wire::kFetchAdd,
                                              uint64_t{1} << (8 * ahead))));
  };
  for (const uint32_t ahead : {2, 1, 2, 1, 0, 0, 1, 2, 3, 3}) send(ahead);
  EXPECT_EQ(words_[0], 0x01010101u);
  EXPECT_EQ(Answers(), (std::vector<uint64_t>{0, 1, 0x101, 0x10101}));
  peer_.set_sequence(first + 4);
}

TEST_F(AtomicsTest, RequestsWithEachFieldWrong) {
  const ApertureName readable = Export(Access::kWrite | Access::kRead);
  const ApertureName odd = Export(Access::kAtomic, 4);
  ApertureName unknown = name_, stale = name_;
  unknown.handle = 77;
  stale.generation += 1;
  struct Case {
    const char* what;
    Bytes body;
    OpStatus expected;
    uint64_t NicCounters::*counter;
  };
  const auto add = [](const ApertureName& name, uint64_t offset) {
    return AtomicBody(name, offset, wire::kFetchAdd, 1);
  };
  const Case cases[] = {
      {"unknown handle", add(unknown, 0), OpStatus::kBadHandle,
       &NicCounters::refused_handle},
      {"generation", add(stale, 0), OpStatus::kStaleGeneration,
       &NicCounters::refused_generation},
      {"rights", add(readable, 0), OpStatus::kNoRights,
       &NicCounters::refused_rights},
      {"at the end", add(name_, 128), OpStatus::kOutOfBounds,
       &NicCounters::refused_bounds},
      {"across the end", add(name_, 121), OpStatus::kOutOfBounds,
       &NicCounters::refused_bounds},
      {"highest offset", add(name_, Le48::kMax), OpStatus::kOutOfBounds,
       &NicCounters::refused_bounds},
      {"across two words", add(name_, 4), OpStatus::kMisaligned,
       &NicCounters::refused_alignment},
      {"aligned only in the aperture", add(odd, 8), OpStatus::kMisaligned,
       &NicCounters::refused_alignment},
      {"no operation", AtomicBody(name_, 0, 0, 1), OpStatus::kUnknownOperation,
       &NicCounters::refused_operation},
      {"operation 3", AtomicBody(name_, 0, 3, 1), OpStatus::kUnknownOperation,
       &NicCounters::refused_operation},
      {"operation 255", AtomicBody(name_, 4, 255, 1),
       OpStatus::kUnknownOperation, &NicCounters::refused_operation},
  };
  const uint32_t id = Watch(0, 128, Access::kAny);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const uint64_t before = peer_.counters().*c.counter;
    const auto asked = static_cast<uint32_t>(peer_.sequence());
    peer_.Say(wire::kAtomicRequest, c.body);
    const auto heard = peer_.Take();
    size_t refusals = 0;
    for (const Bytes& frame : heard) {
      const auto view = ScriptedPeer::View(frame);
      EXPECT_NE(view.type(), wire::kAtomicResponse);
      if (view.type() != wire::kOpError) continue;
      ++refusals;
      EXPECT_EQ(view.body<wire::OpErrorPayload>().operation.get(), asked);
      EXPECT_EQ(view.body<wire::OpErrorPayload>().status,
                static_cast<uint8_t>(c.expected));
    }
    EXPECT_EQ(refusals, 1u);
    EXPECT_EQ(peer_.counters().*c.counter, before + 1);
    peer_.SayAck();
  }
  for (const uint64_t word : words_) EXPECT_EQ(word, 0u);
  EXPECT_EQ(engine().tripwire(id).count, 0u);
  peer_.Say(wire::kAtomicRequest, add(odd, 4));
  EXPECT_EQ(words_[1], 1u) << "aligned in memory";
}

TEST_F(AtomicsTest, TripwiresFireForEachOnceItsValueIsVisible) {
  const uint32_t word = Watch(8, 8, Access::kAtomic);
  const uint32_t byte = Watch(15, 1, Access::kAny);
  const uint32_t beside = Watch(16, 8, Access::kAny);
  const uint32_t writes = Watch(8, 8, Access::kWrite);
  peer_.Say(wire::kAtomicRequest, AtomicBody(name_, 8, wire::kFetchAdd, 3));
  peer_.Say(wire::kAtomicRequest,
            AtomicBody(name_, 8, wire::kCompareAndSwap, 1, 99));
  EXPECT_EQ(engine().tripwire(word).count, 2u);
  EXPECT_EQ(engine().tripwire(byte).count, 2u);
  EXPECT_EQ(engine().tripwire(beside).count, 0u);
  EXPECT_EQ(engine().tripwire(writes).count, 0u);
  for (const Event& event : peer_.Events()) {
    EXPECT_EQ(event.count, 2u);
    EXPECT_EQ(words_[1], 3u);
  }
}

TEST_F(AtomicsTest, EndWithTheAnswerAndFireOutBound) {
  TripwireSpec entry;
  entry.context = peer_.context();
  entry.offset = 16;
  entry.length = 8;
  entry.access = Access::kAtomic;
  entry.outbound = true;
  entry.link = peer_.link();
  entry.handle = kTheirs.handle;
  entry.generation = kTheirs.generation;
  const uint32_t id = engine().Watch(entry);
  engine().Arm(id);
  uint64_t result = 0;
  Completion completion;
  ASSERT_TRUE(engine().Atomic(peer_.link(), kTheirs, 16, wire::kCompareAndSwap,
                              6, 5, &result, &completion));
  peer_.Run();
  const auto asked = peer_.Take(wire::kAtomicRequest);
  ASSERT_EQ(asked.size(), 1u);
  const auto view = ScriptedPeer::View(asked[0]);
  const auto& body = view.body<wire::AtomicRequestPayload>();
  EXPECT_EQ(body.operation, wire::kCompareAndSwap);
  EXPECT_EQ(body.operand.get(), 6u);
  EXPECT_EQ(body.expected.get(), 5u);
  peer_.SayAck();
  EXPECT_FALSE(completion.done()) << "acknowledged is not answered";
  EXPECT_EQ(engine().tripwire(id).count, 0u);
  peer_.Say(wire::kAtomicResponse, AtomicResponseBody(view.sequence(), 0x1234));
  EXPECT_EQ(completion.status.load(), OpStatus::kOk);
  EXPECT_EQ(result, 0x1234u);
  EXPECT_EQ(engine().tripwire(id).count, 1u);
}

TEST_F(AtomicsTest, RefusalsReachTheProgramWithOrWithoutACompletion) {
  Completion completion;
  uint64_t result = 0x77;
  ASSERT_TRUE(engine().Atomic(peer_.link(), kTheirs, 1, wire::kFetchAdd, 1, 0,
                              &result, &completion));
  ASSERT_TRUE(engine().Atomic(peer_.link(), kTheirs, 1, wire::kFetchAdd, 1, 0,
                              nullptr, nullptr));
  peer_.Run();
  for (const Bytes& frame : peer_.Take(wire::kAtomicRequest)) {
    peer_.Say(wire::kOpError,
              ErrorBody(ScriptedPeer::View(frame).sequence(),
                        static_cast<uint8_t>(OpStatus::kMisaligned)));
  }
  EXPECT_EQ(completion.status.load(), OpStatus::kMisaligned);
  EXPECT_EQ(result, 0x77u);
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kOpFailed);
  EXPECT_EQ(events[0].status, OpStatus::kMisaligned);
}

TEST_F(AtomicsTest, AnswersToWhatWasNeverAskedChangeNothing) {
  uint64_t result = 0x77;
  Completion atomic, read;
  std::vector<uint8_t> into(8, 0x11);
  ASSERT_TRUE(engine().Read(peer_.link(), kTheirs, 0, into, &read));
  ASSERT_TRUE(engine().Atomic(peer_.link(), kTheirs, 0, wire::kFetchAdd, 1, 0,
                              &result, &atomic));
  peer_.Run();
  const auto sequence_of = [&](const Bytes& frame) {
    return ScriptedPeer::View(frame).sequence();
  };
  const auto heard = peer_.Take();
  ASSERT_EQ(heard.size(), 2u);
  const uint32_t read_is = sequence_of(heard[0]), atomic_is = sequence_of(heard[1]);
  peer_.Say(wire::kAtomicResponse, AtomicResponseBody(read_is, ~uint64_t{0}));
  peer_.Say(wire::kAtomicResponse, AtomicResponseBody(9999, ~uint64_t{0}));
  peer_.Say(wire::kReadResponse,
            ReadResponseBody(atomic_is, 0, Bytes(8, 0xff)));
  EXPECT_FALSE(read.done() || atomic.done());
  EXPECT_EQ(result, 0x77u);
  EXPECT_EQ(into, std::vector<uint8_t>(8, 0x11));
  peer_.Say(wire::kAtomicResponse, AtomicResponseBody(atomic_is, 5));
  peer_.Say(wire::kAtomicResponse, AtomicResponseBody(atomic_is, 6));
  EXPECT_EQ(result, 5u);
  EXPECT_TRUE(atomic.done());
  engine().EndLink(*engine().FindLink(peer_.link()), LinkEnd::kTimedOut);
}

TEST_F(AtomicsTest, NothingIsSentToAPeerWithoutThem) {
  ScriptedPeer old;
  old.set_features(0);
  ASSERT_TRUE(old.Connect());
  old.Take();
  Completion completion;
  uint64_t result = 0x77;
  ASSERT_TRUE(old.engine().Atomic(old.link(), kTheirs, 0, wire::kFetchAdd, 1, 0,
                                  &result, &completion));
  EXPECT_EQ(completion.status.load(), OpStatus::kUnknownOperation);
  EXPECT_EQ(result, 0x77u);
  ASSERT_TRUE(old.engine().Atomic(old.link(), kTheirs, 0, wire::kFetchAdd, 1, 0,
                                  nullptr, nullptr));
  const auto events = old.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kOpFailed);
  EXPECT_EQ(events[0].status, OpStatus::kUnknownOperation);
  old.Run(kMillisecond);
  EXPECT_TRUE(old.Take(wire::kAtomicRequest).empty());
}

TEST_F(AtomicsTest, TheEndOfTheLinkEndsThem) {
  Completion sent, queued;
  ASSERT_TRUE(engine().Atomic(peer_.link(), kTheirs, 0, wire::kFetchAdd, 1, 0,
                              nullptr, &sent));
  peer_.set_credit(0);
  peer_.SayAck();
  ASSERT_TRUE(engine().Atomic(peer_.link(), kTheirs, 0, wire::kFetchAdd, 1, 0,
                              nullptr, &queued));
  engine().EndLink(*engine().FindLink(peer_.link()), LinkEnd::kTimedOut);
  EXPECT_EQ(sent.status.load(), OpStatus::kLinkLost);
  EXPECT_EQ(queued.status.load(), OpStatus::kLinkLost);
}

TEST_F(AtomicsTest, TheProgramsOwnThreadsMayUseTheSameWord) {
  constexpr uint64_t kEach = 20000;
  std::atomic<bool> is_running{false};
  std::thread local([&] {
    is_running = true;
    for (uint64_t i = 0; i < kEach; ++i) {
      __atomic_fetch_add(&words_[3], uint64_t{1} << 32, __ATOMIC_SEQ_CST);
    }
  });
  while (!is_running) std::this_thread::yield();
  for (uint64_t i = 0; i < kEach; i += 100) {
    for (int j = 0; j < 100; ++j) {
      wire::FrameHeader header = peer_.Header(wire::kAtomicRequest);
      peer_.set_sequence(peer_.sequence() + 1);
      peer_.Throw(peer_.Frame(header, AtomicBody(name_, 24, wire::kFetchAdd, 1)));
    }
    peer_.Run(4 * kMicrosecond);
    peer_.SayAck();
    peer_.Take();
  }
  local.join();
  peer_.Run(kMillisecond);
  EXPECT_EQ(words_[3], (kEach << 32) + kEach);
}

}  // namespace
}  // namespace tripwire
