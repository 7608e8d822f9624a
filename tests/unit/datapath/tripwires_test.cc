// SPDX-License-Identifier: BSD-3-Clause
// What a tripwire fires for besides its range, and what it does then.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <vector>

#include "tests/unit/datapath/scripted_peer.h"

namespace tripwire {
namespace {

class TripwiresTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(peer_.Connect());
    name_ = engine().Export(
        peer_.context(),
        {reinterpret_cast<uint8_t*>(words_), sizeof words_}, Access::kAny,
        std::nullopt);
    peer_.Take();
  }
  Engine& engine() { return peer_.engine(); }
  uint32_t Watch(const std::function<void(TripwireSpec&)>& change) {
    TripwireSpec spec;
    spec.context = peer_.context();
    spec.length = 8;
    spec.access = Access::kAny;
    spec.handle = name_.handle;
    spec.generation = name_.generation;
    change(spec);
    const uint32_t id = engine().Watch(spec);
    engine().Arm(id);
    return id;
  }
  uint64_t Count(uint32_t id) { return engine().tripwire(id).count; }
  void Store(uint64_t value, uint64_t index = 0, unsigned hops = 0) {
    peer_.Say(wire::kWrite, WriteBody(name_, 8 * index, BytesOf(Le64(value))),
              static_cast<uint16_t>(wire::kLast | hops << wire::kHopsShift));
  }

  alignas(64) uint64_t words_[512] = {};
  ScriptedPeer peer_;
  ApertureName name_;
};

TEST_F(TripwiresTest, ConditionsLookAtTheWordTheAccessLeaves) {
  constexpr uint64_t kBig = uint64_t{1} << 63;
  struct Case {
    ValueCondition condition;
    std::vector<uint64_t> stored;
    uint64_t expected;
  };
  const Case cases[] = {
      {{Compare::kEqual, 5, 0}, {4, 5, 6, 5, 5 + (uint64_t{1} << 32)}, 2},
      {{Compare::kNotEqual, 5, 0}, {4, 5, 6, 5, 5 + (uint64_t{1} << 32)}, 3},
      {{Compare::kGreaterOrEqual, 5, 0}, {4, 5, 6, 0, UINT64_MAX}, 3},
      {{Compare::kGreaterOrEqual, kBig, 0}, {kBig - 1, kBig, 1, kBig + 1}, 2},
      {{Compare::kGreaterOrEqual, 0, 0}, {0, UINT64_MAX}, 2},
      {{Compare::kMasked, 2, 3}, {2, 6, 3, 0, 0xfffffffffffffffe}, 3},
      {{Compare::kMasked, 0, 0}, {1, 2}, 2},
      {{Compare::kMasked, 4, 3}, {4, 7, 0}, 0},  // what the mask cannot give
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(::testing::Message() << static_cast<int>(c.condition.compare)
                                      << " " << c.condition.value);
    const uint32_t id =
        Watch([&](TripwireSpec& s) { s.extra.condition = c.condition; });
    for (const uint64_t value : c.stored) Store(value);
    EXPECT_EQ(Count(id), c.expected);
    engine().Unwatch(id);
  }
}

TEST_F(TripwiresTest, AConditionCountsForReadsAndAtomicsAndOtherParts) {
  const uint32_t id = Watch([](TripwireSpec& s) {
    s.length = 64;
    s.extra.condition = {Compare::kEqual, 7, 0};
  });
  peer_.Say(wire::kReadRequest, ReadBody(name_, 32, 8));
  EXPECT_EQ(Count(id), 0u);
  peer_.Say(wire::kAtomicRequest, AtomicBody(name_, 0, wire::kFetchAdd, 7));
  EXPECT_EQ(Count(id), 1u) << "the value it leaves";
  peer_.Say(wire::kReadRequest, ReadBody(name_, 32, 8));
  EXPECT_EQ(Count(id), 2u);
  Store(1, 7);
  EXPECT_EQ(Count(id), 3u);
  Store(8, 0);
  EXPECT_EQ(Count(id), 3u);
}

TEST_F(TripwiresTest, ALongAccessIsJudgedByWhatItLeavesInTheEnd) {
  const uint32_t id = Watch([](TripwireSpec& s) {
    s.extra.condition = {Compare::kEqual, 2, 0};
  });
  const auto piece = [&](uint64_t value, bool last) {
    peer_.Say(wire::kWrite, WriteBody(name_, 0, BytesOf(Le64(value))),
              last ? wire::kLast : 0);
  };
  piece(2, false);
  piece(3, true);
  EXPECT_EQ(Count(id), 0u);
  piece(1, false);
  piece(2, true);
  EXPECT_EQ(Count(id), 1u);
}

TEST_F(TripwiresTest, EveryNthAccessFires) {
  const uint32_t third =
      Watch([](TripwireSpec& s) { s.extra.every = 3; });
  const uint32_t second_big = Watch([](TripwireSpec& s) {
    s.extra.every = 2;
    s.extra.condition = {Compare::kGreaterOrEqual, 10, 0};
  });
  const uint32_t once = Watch([](TripwireSpec& s) {
    s.extra.every = 2;
    s.one_shot = true;
  });
  for (const uint64_t value : {1, 20, 2, 30, 3, 4, 40}) Store(value);
  EXPECT_EQ(Count(third), 2u);
  EXPECT_EQ(Count(second_big), 1u);
  EXPECT_EQ(Count(once), 1u);
  engine().Arm(third);  // begins to count anew
  Store(5);
  Store(6);
  EXPECT_EQ(Count(third), 2u);
  Store(7);
  EXPECT_EQ(Count(third), 3u);
}

TEST_F(TripwiresTest, ACounterIsIncrementedForEachFiring) {
  std::atomic<uint64_t> all{0}, third{0};
  Watch([&](TripwireSpec& s) {
    s.extra.counter = &all;
    s.wants_events = false;
  });
  Watch([&](TripwireSpec& s) {
    s.extra.counter = &third;
    s.extra.every = 3;
  });
  for (uint64_t i = 0; i < 10; ++i) Store(i);
  EXPECT_EQ(all.load(), 10u);
  EXPECT_EQ(third.load(), 3u);
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].count, 3u);
}

TEST_F(TripwiresTest, DisarmTellsWhetherItHadFired) {
  const uint32_t id = Watch([](TripwireSpec&) {});
  EXPECT_FALSE(engine().Disarm(id));
  Store(1);
  EXPECT_EQ(Count(id), 0u) << "never will";
  EXPECT_FALSE(engine().Disarm(id));
  engine().Arm(id);
  Store(2);
  EXPECT_EQ(peer_.Events().size(), 1u);
  EXPECT_TRUE(engine().Disarm(id)) << "also when that was told";
  engine().Arm(id);
  EXPECT_FALSE(engine().Disarm(id)) << "not since it was armed again";
  const uint32_t once = Watch([](TripwireSpec& s) { s.one_shot = true; });
  Store(3);
  EXPECT_TRUE(engine().Disarm(once));
  EXPECT_EQ(Count(once), 1u);
}

TEST_F(TripwiresTest, OverlappingOnesFireEachForItself) {
  const uint32_t word = Watch([](TripwireSpec& s) { s.offset = 64; });
  const uint32_t same = Watch([](TripwireSpec& s) { s.offset = 64; });
  const uint32_t around = Watch([](TripwireSpec& s) { s.length = 4096; });
  const uint32_t edge = Watch([](TripwireSpec& s) {
    s.offset = 71;
    s.length = 2;
  });
  Store(1, 8);  // [64, 72)
  Store(1, 9);  // [72, 80)
  EXPECT_EQ(Count(word), 1u);
  EXPECT_EQ(Count(same), 1u);
  EXPECT_EQ(Count(around), 2u);
  EXPECT_EQ(Count(edge), 2u);
  engine().Unwatch(same);
  Store(1, 8);
  EXPECT_EQ(Count(word), 2u);
}

TEST_F(TripwiresTest, AFiringMayWriteToAPeer) {
  const ApertureName theirs{9, 4, 4096, Access::kWrite};
  const auto chain = [&](bool word, const Bytes& data) {
    ChainedWrite write;
    write.link = peer_.link();
    write.to = theirs;
    write.offset = 0x20;
    write.data = data;
    write.sends_word = word;
    return write;
  };
  const uint32_t of_word =
      Watch([&](TripwireSpec& s) { s.extra.write = chain(true, {}); });
  const uint32_t of_bytes = Watch([&](TripwireSpec& s) {
    s.offset = 8;
    s.extra.write = chain(false, {1, 2, 3});
  });
  const auto heard = [&](unsigned hops, const Bytes& expected) {
    const auto writes = peer_.Take(wire::kWrite);
    ASSERT_EQ(writes.size(), 1u);
    const auto view = ScriptedPeer::View(writes[0]);
    EXPECT_EQ(view.hops(), hops);
    const auto& body = view.body<wire::WritePayload>();
    EXPECT_EQ(body.handle.get(), theirs.handle);
    EXPECT_EQ(body.generation.get(), theirs.generation);
    EXPECT_EQ(body.offset.get(), 0x20u);
    const auto data = view.data<wire::WritePayload>();
    EXPECT_EQ(Bytes(data.begin(), data.end()), expected);
  };
  Store(0x1122334455667788, 0);
  heard(1, BytesOf(Le64(0x1122334455667788)));
  Store(0, 1, /*hops=*/7);
  heard(8, {1, 2, 3});
  Store(1, 1, /*hops=*/14);
  heard(15, {1, 2, 3});
  peer_.SayAck();
  EXPECT_EQ(peer_.counters().chained_writes, 3u);
  // The guard against loops.
  Store(2, 1, /*hops=*/15);
  EXPECT_TRUE(peer_.Take(wire::kWrite).empty());
  EXPECT_EQ(peer_.counters().chains_stopped, 1u);
  EXPECT_EQ(Count(of_bytes), 3u) << "it fires all the same";
  // Gone before its write was begun.
  peer_.Throw(peer_.Frame(peer_.Header(wire::kWrite),
                          WriteBody(name_, 0, Bytes(8, 1))));
  engine().Unwatch(of_word);
  peer_.Run();
  EXPECT_TRUE(peer_.Take(wire::kWrite).empty());
}

TEST_F(TripwiresTest, NoWriteGoesToAPeerThatCountsNoHopsOrIsGone) {
  ScriptedPeer old;
  old.set_features(wire::kFeatureAtomics);
  ASSERT_TRUE(old.Connect());
  alignas(8) uint64_t word = 0;
  const ApertureName name = old.engine().Export(
      old.context(), {reinterpret_cast<uint8_t*>(&word), 8}, Access::kAny,
      std::nullopt);
  TripwireSpec spec;
  spec.context = old.context();
  spec.length = 8;
  spec.access = Access::kWrite;
  spec.handle = name.handle;
  spec.generation = name.generation;
  spec.extra.write = ChainedWrite{old.link(), {1, 1, 8, Access::kWrite}, 0, {1}};
  const uint32_t id = old.engine().Watch(spec);
  old.engine().Arm(id);
  old.Take();
  old.Say(wire::kWrite, WriteBody(name, 0, Bytes(8, 1)));
  EXPECT_TRUE(old.Take(wire::kWrite).empty());
  EXPECT_EQ(old.counters().chains_lost, 1u);
  EXPECT_EQ(old.engine().tripwire(id).count, 1u);
}

TEST_F(TripwiresTest, ReadsAndOwnWritesChainToo) {
  const ApertureName theirs{9, 4, 4096, Access::kAny};
  const auto chain = [&](TripwireSpec& s) {
    s.extra.write = ChainedWrite{peer_.link(), theirs, 0, {0x77}};
  };
  Watch([&](TripwireSpec& s) {
    s.access = Access::kRead;
    chain(s);
  });
  peer_.Say(wire::kReadRequest, ReadBody(name_, 0, 8));
  auto writes = peer_.Take(wire::kWrite);
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_EQ(ScriptedPeer::View(writes[0]).hops(), 1u);
  Watch([&](TripwireSpec& s) {
    s.outbound = true;
    s.link = peer_.link();
    s.handle = theirs.handle;
    s.generation = theirs.generation;
    s.offset = 512;
    chain(s);
  });
  Completion done;
  ASSERT_TRUE(engine().Write(peer_.link(), theirs, 512, Bytes(8, 1), &done));
  peer_.Run();
  EXPECT_EQ(peer_.Take(wire::kWrite).size(), 1u);
  peer_.SayAck();
  writes = peer_.Take(wire::kWrite);
  ASSERT_EQ(writes.size(), 1u) << "when the first is acknowledged";
  EXPECT_EQ(ScriptedPeer::View(writes[0]).hops(), 1u);
}

// Many at once, removed in any order, ids used again: each counts its own.
TEST_F(TripwiresTest, ManyKeepTheirCountsApart) {
  std::vector<uint32_t> ids;
  std::vector<uint64_t> expected(512);
  for (uint64_t i = 0; i < 512; ++i) {
    ids.push_back(Watch([&](TripwireSpec& s) {
      s.offset = 8 * i;
      s.cookie = i;
      if (i % 5 == 0) s.extra.every = 2;
    }));
  }
  Random random(5);
  std::vector<uint64_t> accesses(512);
  for (int round = 0; round < 3000; ++round) {
    const uint64_t i = random.Below(512);
    if (random.Chance(0.2)) {
      engine().Unwatch(ids[i]);
      ids[i] = Watch([&](TripwireSpec& s) {
        s.offset = 8 * i;
        s.cookie = i;
        if (i % 5 == 0) s.extra.every = 2;
      });
      expected[i] = accesses[i] = 0;
    } else {
      Store(random.Next(), i);
      ++accesses[i];
      expected[i] = i % 5 == 0 ? accesses[i] / 2 : accesses[i];
    }
    if (random.Chance(0.05)) peer_.Events();
  }
  for (uint64_t i = 0; i < 512; ++i) EXPECT_EQ(Count(ids[i]), expected[i]) << i;
}

}  // namespace
}  // namespace tripwire
