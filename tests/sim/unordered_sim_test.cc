// SPDX-License-Identifier: BSD-3-Clause
// Unordered writes against a reference model: their bytes may come in any order,
// everything else about them may not.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

constexpr uint64_t kSlots = 24, kSlotBytes = 5000;
constexpr uint64_t kDoorbell = kSlots * kSlotBytes;  // a word after the slots
constexpr uint64_t kSize = kDoorbell + 8;

FaultOptions RandomFaults(uint64_t seed) {
  Random random(seed * 19);
  FaultOptions faults;
  faults.loss = random.Chance(0.3) ? 0 : 0.04;
  faults.duplicate = random.Chance(0.5) ? 0 : 0.1;
  faults.reorder = random.Chance(0.3) ? 0 : 0.3;
  faults.corrupt = random.Chance(0.7) ? 0 : 0.02;
  return faults;
}

// Rounds of bulk: each slot is written at most once between two fences, then a word
// is, in order. When the word's tripwire has fired, the whole round is there.
void BulkRounds(uint64_t seed, bool lends, uint64_t* placed_early) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  FaultOptions faults = RandomFaults(seed);
  if (lends) faults.corrupt = 0;  // such ports use no checksums
  SimNetwork net(seed, faults, {}, lends);
  Random& random = net.random();
  Pair pair(net, random.Chance(0.3) ? 9018 : 1514);
  pair.Connect();
  if (::testing::Test::HasFatalFailure()) return;
  alignas(8) std::vector<uint8_t> memory(kSize), model(kSize);
  Aperture aperture = pair.right->Export(memory, Access::kAny);
  const RemoteAperture remote =
      pair.left->Import(pair.left_link, aperture.name());
  std::vector<uint64_t> expected(kSlots);
  std::deque<Tripwire> of_slots;
  for (uint64_t slot = 0; slot < kSlots; ++slot) {
    of_slots.push_back(pair.right->Watch(aperture, slot * kSlotBytes, kSlotBytes,
                                         Access::kWrite,
                                         TripwireMode::kPersistent));
    of_slots.back().Arm();
  }
  Tripwire bell = pair.right->Watch(aperture, kDoorbell, 8, Access::kWrite,
                                    TripwireMode::kPersistent);
  bell.Arm();
  std::deque<std::vector<uint8_t>> data;
  std::deque<Completion> done;
  const auto write_slot = [&](uint64_t slot) {
    const uint64_t length = random.Below(kSlotBytes + 1);
    const uint64_t at =
        slot * kSlotBytes + random.Below(kSlotBytes - length + 1);
    data.push_back(RandomBytes(random, length));
    const bool by_reference = random.Chance(0.6);
    if (by_reference) done.emplace_back();
    ASSERT_TRUE(pair.left
                    ->Write(remote, at, data.back(),
                            by_reference ? &done.back() : nullptr,
                            WriteOrder::kUnordered)
                    .ok());
    std::copy(data.back().begin(), data.back().end(),
              model.begin() + static_cast<ptrdiff_t>(at));
    if (length > 0) ++expected[slot];
  };
  for (uint64_t round = 1; round <= 6; ++round) {
    // Several generations of the same slots, with nothing but fences between.
    const uint64_t generations = 1 + random.Below(3);
    for (uint64_t generation = 0; generation < generations; ++generation) {
      for (uint64_t slot = 0; slot < kSlots; ++slot) {
        if (random.Chance(0.7)) write_slot(slot);
        if (random.Chance(0.05)) net.RunFor(random.Below(kMillisecond));
      }
      ASSERT_TRUE(pair.left->Fence(pair.left_link).ok());
    }
    std::copy_n(reinterpret_cast<const uint8_t*>(&round), 8,
                model.begin() + kDoorbell);
    ASSERT_TRUE(pair.left
                    ->Write(remote, kDoorbell,
                            {reinterpret_cast<const uint8_t*>(&round), 8})
                    .ok());
    ASSERT_TRUE(net.RunUntil([&] { return bell.count() == round; },
                             120 * kSecond));
    ASSERT_EQ(memory, model) << "round " << round;
    for (uint64_t slot = 0; slot < kSlots; ++slot) {
      EXPECT_EQ(of_slots[slot].count(), expected[slot]) << slot;
    }
  }
  ASSERT_TRUE(net.RunUntil(
      [&] {
        return std::all_of(done.begin(), done.end(),
                           [](Completion& c) { return c.done(); });
      },
      120 * kSecond));
  for (Completion& c : done) EXPECT_EQ(c.status.load(), OpStatus::kOk);
  *placed_early += pair.right_nic.counters().placed_early;
  of_slots.clear();
  bell.Remove();
}

TEST(NicSim, UnorderedBulkIsWholeWhenToldOf) {
  uint64_t placed_early = 0;
  ForSeeds(150, [&](uint64_t seed) {
    BulkRounds(seed, /*lends=*/seed % 4 == 0, &placed_early);
  });
  EXPECT_GT(placed_early, 0u) << "nothing came early: nothing was tried";
}

// Whatever is on its way when the aperture is revoked, nothing touches it then.
TEST(NicSim, RevokeIsExactForUnorderedWrites) {
  constexpr FaultOptions kFaults{
      .loss = 0.05, .duplicate = 0.2, .reorder = 0.3};
  ForPairs(200, kFaults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    std::vector<uint8_t> memory(60000, 0x11);
    Aperture aperture = pair.right->Export(memory, Access::kWrite);
    const RemoteAperture remote =
        pair.left->Import(pair.left_link, aperture.name());
    const std::vector<uint8_t> data(60000, 0x22);
    std::deque<Completion> done(10);
    for (uint64_t i = 0; i < 10; ++i) {
      ASSERT_TRUE(pair.left
                      ->Write(remote, 6000 * i,
                              std::span(data).subspan(6000 * i, 6000), &done[i],
                              WriteOrder::kUnordered)
                      .ok());
    }
    net.RunFor(net.random().Below(300 * kMicrosecond));
    aperture.Revoke();
    std::fill(memory.begin(), memory.end(), 0x33);
    ASSERT_TRUE(net.RunUntil(
        [&] {
          return std::all_of(done.begin(), done.end(),
                             [](Completion& c) { return c.done(); });
        },
        120 * kSecond));
    EXPECT_TRUE(std::all_of(memory.begin(), memory.end(),
                            [](uint8_t b) { return b == 0x33; }));
    for (Completion& c : done) {
      const OpStatus status = c.status.load();
      EXPECT_TRUE(status == OpStatus::kOk ||
                  status == OpStatus::kStaleGeneration);
    }
    EXPECT_TRUE(pair.left->IsUp(pair.left_link));
  });
}

}  // namespace
}  // namespace tripwire
