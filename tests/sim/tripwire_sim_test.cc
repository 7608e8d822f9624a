// SPDX-License-Identifier: BSD-3-Clause
// Tripwires between whole NICs: writes that firings issue, waiting for any of many,
// what the API refuses.
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

FaultOptions Faults(uint64_t seed) {
  Random random(seed * 13);
  FaultOptions faults;
  faults.loss = random.Chance(0.5) ? 0 : 0.05;
  faults.duplicate = random.Chance(0.5) ? 0 : 0.1;
  faults.reorder = random.Chance(0.5) ? 0 : 0.2;
  return faults;
}

// A pair whose sides both export some words.
struct Words : Pair {
  explicit Words(SimNetwork& net) : Pair(net) {}
  void Export() {
    left_aperture = left->Export(Span(left_words), Access::kAny);
    right_aperture = right->Export(Span(right_words), Access::kAny);
    to_right = left->Import(left_link, right_aperture.name());
    to_left = right->Import(right_link, left_aperture.name());
  }
  static std::span<uint8_t> Span(std::vector<uint64_t>& words) {
    return {reinterpret_cast<uint8_t*>(words.data()), words.size() * 8};
  }
  static bool Store(Context& context, const RemoteAperture& to, uint64_t index,
                    uint64_t value) {
    return context
        .Write(to, 8 * index, {reinterpret_cast<const uint8_t*>(&value), 8})
        .ok();
  }

  std::vector<uint64_t> left_words = std::vector<uint64_t>(64);
  std::vector<uint64_t> right_words = std::vector<uint64_t>(64);
  Aperture left_aperture, right_aperture;
  RemoteAperture to_right, to_left;
};

// Word 0 of the right goes to word 1 of the left with each firing, by itself.
TEST(NicSim, ChainedWritesArriveOnceForEachFiring) {
  ForPairs<Words>(100, Faults, [](Words& pair) {
    SimNetwork& net = pair.net;
    pair.Export();
    TripwireOptions mirror;
    mirror.events = false;
    mirror.condition = {Compare::kMasked, 0, 1};  // even values
    mirror.write.emplace();
    mirror.write->to = pair.to_left;
    mirror.write->offset = 8;
    mirror.write->sends_word = true;
    auto wire = pair.right->Watch(pair.right_aperture, 0, 8, mirror);
    ASSERT_TRUE(wire.ok()) << wire.status();
    wire->Arm();
    Tripwire seen = pair.left->Watch(pair.left_aperture, 8, 8, Access::kWrite,
                                     TripwireMode::kPersistent);
    seen.Arm();
    constexpr uint64_t kWrites = 200;
    uint64_t written = 0, last = 0;
    ASSERT_TRUE(net.RunUntil(
        [&] {
          if (written < kWrites && net.random().Chance(0.5)) {
            EXPECT_TRUE(
                Words::Store(*pair.left, pair.to_right, 0, ++written));
          }
          EXPECT_GE(pair.left_words[1], last) << "in the order of the firings";
          EXPECT_EQ(pair.left_words[1] % 2, 0u);
          last = pair.left_words[1];
          return last == kWrites;
        },
        300 * kSecond));
    EXPECT_EQ(seen.count(), kWrites / 2);
    EXPECT_EQ(wire->count(), kWrites / 2);
    EXPECT_EQ(pair.right_nic.counters().chained_writes, kWrites / 2);
    wire->Remove();
    seen.Remove();
  });
}

// Each side's firing writes to the other's watched word: for ever, but for the
// guard.
TEST(NicSim, ALoopOfChainedWritesEnds) {
  ForPairs<Words>(50, Faults, [](Words& pair) {
    SimNetwork& net = pair.net;
    pair.Export();
    const uint8_t token[8] = {1};
    TripwireOptions bounce;
    bounce.events = false;
    bounce.write.emplace();
    bounce.write->data = token;
    bounce.write->to = pair.to_left;
    auto on_right = pair.right->Watch(pair.right_aperture, 0, 8, bounce);
    bounce.write->to = pair.to_right;
    auto on_left = pair.left->Watch(pair.left_aperture, 0, 8, bounce);
    ASSERT_TRUE(on_right.ok() && on_left.ok());
    on_right->Arm();
    on_left->Arm();
    ASSERT_TRUE(Words::Store(*pair.left, pair.to_right, 0, 5));
    net.RunFor(5 * kSecond);
    const NicCounters left = pair.left_nic.counters();
    const NicCounters right = pair.right_nic.counters();
    // The program's write has 0 hops; those with 1 to 15 follow.
    EXPECT_EQ(left.chained_writes + right.chained_writes, 15u);
    EXPECT_EQ(on_right->count(), 8u);
    EXPECT_EQ(on_left->count(), 8u);
    EXPECT_EQ(left.chains_stopped + right.chains_stopped, 1u);
    on_right->Remove();
    on_left->Remove();
  });
}

TEST(NicSim, WaitAnyFindsTheOneThatFired) {
  SimNetwork net(3);
  Words pair(net);
  pair.Connect();
  if (::testing::Test::HasFatalFailure()) return;
  pair.Export();
  std::vector<Tripwire> tripwires;
  for (uint64_t i = 0; i < 8; ++i) {
    tripwires.push_back(pair.right->Watch(pair.right_aperture, 8 * i, 8,
                                          Access::kWrite,
                                          TripwireMode::kPersistent));
    tripwires.back().Arm();
  }
  tripwires.push_back(pair.right->Watch(pair.to_left, 0, 8, Access::kWrite,
                                        TripwireMode::kPersistent));
  std::vector<const Tripwire*> set;
  for (const Tripwire& tripwire : tripwires) set.push_back(&tripwire);
  std::vector<uint64_t> seen(set.size());
  const auto look = [&] {
    net.RunFor(kMillisecond);
    return pair.right->WaitAny(set, seen, 0);
  };
  EXPECT_EQ(look(), std::nullopt);
  for (const uint64_t i : {5, 0, 7, 5}) {
    ASSERT_TRUE(Words::Store(*pair.left, pair.to_right, i, 1));
    EXPECT_EQ(look(), std::optional<size_t>(i));
    EXPECT_EQ(look(), std::optional<size_t>(i)) << "until it was seen";
    ++seen[i];
    EXPECT_EQ(look(), std::nullopt);
  }
  ASSERT_TRUE(Words::Store(*pair.left, pair.to_right, 4, 1));
  ASSERT_TRUE(Words::Store(*pair.left, pair.to_right, 2, 1));
  EXPECT_EQ(look(), std::optional<size_t>(2)) << "the first of them";
  seen[2] = seen[4] = 1;
  pair.left->Close(pair.left_link);
  EXPECT_EQ(look(), std::optional<size_t>(8)) << "its link is lost";
  tripwires.clear();
}

TEST(NicSim, TripwiresThatMakeNoSenseAreRefused) {
  SimNetwork net(4);
  Words pair(net);
  pair.Connect();
  if (::testing::Test::HasFatalFailure()) return;
  pair.Export();
  using absl::StatusCode;
  const auto in = [&](uint64_t offset, uint64_t length,
                      const TripwireOptions& options) {
    return pair.right->Watch(pair.right_aperture, offset, length, options)
        .status()
        .code();
  };
  const TripwireOptions plain;
  EXPECT_EQ(in(0, 512, plain), StatusCode::kOk);
  EXPECT_EQ(in(0, 513, plain), StatusCode::kOutOfRange);
  EXPECT_EQ(in(512, 1, plain), StatusCode::kOutOfRange);
  EXPECT_EQ(in(0, 0, plain), StatusCode::kOutOfRange);
  EXPECT_EQ(in(UINT64_MAX, 2, plain), StatusCode::kOutOfRange);
  TripwireOptions bad = plain;
  bad.access = Access::kNone;
  EXPECT_EQ(in(0, 8, bad), StatusCode::kInvalidArgument);
  bad = plain;
  bad.every = 0;
  EXPECT_EQ(in(0, 8, bad), StatusCode::kInvalidArgument);
  TripwireOptions equal = plain;
  equal.condition.compare = Compare::kEqual;
  EXPECT_EQ(in(8, 8, equal), StatusCode::kOk);
  EXPECT_EQ(in(4, 8, equal), StatusCode::kInvalidArgument);
  EXPECT_EQ(in(8, 7, equal), StatusCode::kInvalidArgument);
  EXPECT_EQ(pair.left->Watch(pair.to_right, 0, 8, equal).status().code(),
            StatusCode::kInvalidArgument)
      << "their memory is not here to be looked at";
  const std::vector<uint8_t> bytes(kMaxChainedBytes + 1);
  TripwireOptions chain = plain;
  chain.write.emplace();
  chain.write->to = pair.to_left;
  chain.write->data = std::span(bytes).first(8);
  EXPECT_EQ(in(0, 1, chain), StatusCode::kOk);
  chain.write->offset = 505;
  EXPECT_EQ(in(0, 1, chain), StatusCode::kOutOfRange);
  chain.write->offset = 0;
  chain.write->sends_word = true;
  EXPECT_EQ(in(0, 1, chain), StatusCode::kInvalidArgument);
  EXPECT_EQ(in(0, 8, chain), StatusCode::kOk);
  chain.write->sends_word = false;
  chain.write->data = bytes;
  EXPECT_EQ(in(0, 8, chain), StatusCode::kInvalidArgument);
  chain.write->data = {};
  chain.write->to.link = LinkId{4711};
  EXPECT_EQ(in(0, 8, chain), StatusCode::kUnavailable);
  // What was never made does nothing.
  Tripwire none;
  none.Arm();
  EXPECT_FALSE(none.Arm(0));
  EXPECT_FALSE(none.Disarm());
  EXPECT_EQ(none.count(), 0u);
}

}  // namespace
}  // namespace tripwire
