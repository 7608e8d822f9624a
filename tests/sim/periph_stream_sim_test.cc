// SPDX-License-Identifier: BSD-3-Clause
// Streams of frames from one source to many consumers, from seeds: over
// networks that lose, repeat, reorder, corrupt and stall, with consumers that
// are slow, stop, change their format or vanish. Whatever happens, a frame is
// whole and in its place, and those missing are accounted for.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/sim/sim_streams.h"

namespace tripwire::periph {
namespace {

constexpr size_t kLengths[] = {64, 1000, 1025, 4000, 20'000};

Habits SomeHabits(Random& random, Policy policy) {
  Habits habits;
  habits.policy = policy;
  habits.queue_frames = static_cast<uint32_t>(random.Below(6));
  habits.slots =
      static_cast<uint32_t>(1 + random.Below(random.Chance(0.2) ? 40 : 6));
  habits.takes = random.Chance(0.3)
                     ? 1.0
                     : 0.2 + 0.1 * static_cast<double>(random.Below(8));
  habits.releases = random.Chance(0.3)
                        ? 1.0
                        : 0.1 + 0.1 * static_cast<double>(random.Below(8));
  return habits;
}

// Dropped frames that nothing was sent after are told of by one more frame.
void ExpectAccounts(World& world, Stream& stream) {
  const RingCounters ring = stream.counters();
  const FeederCounters feeder = stream.feeder().counters();
  EXPECT_EQ(ring.lost, 0u);
  EXPECT_EQ(ring.received, feeder.sent);
  EXPECT_EQ(ring.dropped, feeder.dropped);
  EXPECT_EQ(stream.missed(), feeder.dropped);
  EXPECT_EQ(feeder.offered, feeder.sent + feeder.dropped);
  EXPECT_LE(ring.overrun, world.overrun());
  if (stream.habits().policy == Policy::kBlock) {
    EXPECT_EQ(feeder.dropped, 0u);
  }
}

void Finish(World& world) {
  for (auto& stream : world.streams()) stream->Hurry();
  const auto all_done = [&] {
    return std::all_of(world.streams().begin(), world.streams().end(),
                       [](auto& stream) { return stream->done(); });
  };
  ASSERT_TRUE(world.StepsUntil(all_done, 100'000))
      << "somebody sleeps for ever" << world.Where();
  world.Make(10);
  ASSERT_TRUE(world.StepsUntil(all_done, 100'000))
      << "somebody sleeps for ever" << world.Where();
  for (auto& stream : world.streams()) {
    EXPECT_TRUE(stream->feeder().status().ok()) << stream->feeder().status();
    ExpectAccounts(world, *stream);
  }
  EXPECT_EQ(world.held(), 0);
}

void RandomRun(uint64_t seed, Policy policy) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  World world(seed);
  Random& random = world.random();
  const size_t consumers = 1 + random.Below(3);
  for (size_t i = 0; i < consumers; ++i) {
    world.AddStream(SomeHabits(random, policy), 20'000);
  }
  world.AllAccepted();
  world.net().SetFaults(SomeFaults(random));
  const size_t most = kLengths[random.Below(std::size(kLengths))];
  for (int i = 0; i < 150; ++i) {
    world.Make(random.Chance(0.3) ? most : random.Below(most + 1));
    if (random.Chance(0.02)) {
      for (auto& stream : world.streams())
        stream->ChangeFormat(20'000 + random.Below(1000));
    }
    for (uint64_t steps = random.Below(3); steps > 0; --steps) world.Step();
    if (::testing::Test::HasFailure()) return;
  }
  Finish(world);
}

class StreamSim : public ::testing::TestWithParam<Policy> {};

TEST_P(StreamSim, EveryFrameIsWholeAndEveryMissingOneAccountedFor) {
  ForSeeds(300, [](uint64_t seed) { RandomRun(seed, GetParam()); });
}

std::string PolicyName(const ::testing::TestParamInfo<Policy>& info) {
  switch (info.param) {
    case Policy::kBlock:
      return "Block";
    case Policy::kDropOldest:
      return "DropOldest";
    case Policy::kDropNewest:
      return "DropNewest";
    case Policy::kLatest:
      return "Latest";
  }
  return "";
}
INSTANTIATE_TEST_SUITE_P(Policies, StreamSim,
                         ::testing::Values(Policy::kBlock, Policy::kDropOldest,
                                           Policy::kDropNewest,
                                           Policy::kLatest),
                         PolicyName);

// One stops, one vanishes; the others get everything.
TEST(StreamSimTest, OneThatStopsOrVanishesHurtsNobody) {
  ForSeeds(60, [](uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    World world(seed);
    Random& random = world.random();
    Habits good{.policy = Policy::kDropOldest, .queue_frames = 300, .slots = 4};
    Habits stopped = SomeHabits(random, Policy::kDropOldest);
    stopped.stopped = true;
    world.AddStream(good, 4000);
    world.AddStream(stopped, 4000);
    world.AddStream(good, 4000);
    world.AddStream(SomeHabits(random, Policy::kDropNewest), 4000);
    world.AllAccepted();
    world.net().SetFaults(SomeFaults(random));
    auto& streams = world.streams();
    const int vanishes_at = static_cast<int>(random.Below(100));
    for (int i = 0; i < 150; ++i) {
      if (i == vanishes_at) world.net().port(4).SetStalled(true);
      world.Make(random.Below(4001));
      world.Step();
    }
    for (const size_t which : {0u, 2u}) {
      ASSERT_TRUE(
          world.StepsUntil([&] { return streams[which]->done(); }, 100'000));
      ExpectAccounts(world, *streams[which]);
      EXPECT_EQ(streams[which]->feeder().counters().dropped, 0u);
    }
    EXPECT_LE(streams[1]->feeder().counters().sent, stopped.slots);
    // Who has vanished is given up, and the memory with him.
    ASSERT_TRUE(world.StepsUntil(
        [&] {
          world.net().RunFor(kSecond);
          streams[3]->feeder().Pump();
          return absl::IsUnavailable(streams[3]->feeder().status());
        },
        120));
    for (auto& stream : streams) stream->feeder().Pump();
    EXPECT_EQ(streams[3]->feeder().in_flight(), 0u);
    for (auto& stream : streams) stream->DropFeeder();
    EXPECT_EQ(world.held(), 0);
  });
}

}  // namespace
}  // namespace tripwire::periph
