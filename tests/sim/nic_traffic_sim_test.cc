// SPDX-License-Identifier: BSD-3-Clause
// Whole networks from seeds against a reference model: every byte, every count,
// every order, under loss, duplication, reordering and corruption. A failing
// run's seed is in its trace.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <span>
#include <vector>

#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

struct Watched {
  uint64_t offset, length;
  Access access;
  Tripwire tripwire;
  uint64_t expected = 0;   // firings the model saw
  ValueCondition condition;
  uint64_t every = 1, accesses = 0;
  std::atomic<uint64_t> counter{0};
  uint64_t from_events = 0;
};

bool Overlaps(const Watched& w, uint64_t offset, uint64_t length) {
  return length > 0 && offset < w.offset + w.length && w.offset < offset + length;
}

// The same memory in pieces, some of them empty.
template <typename T>
std::vector<std::span<T>> Split(Random& random, std::span<T> memory) {
  std::vector<std::span<T>> parts;
  while (!memory.empty()) {
    const size_t most = random.Chance(0.5) ? 20 : memory.size();
    const size_t bytes = std::min(memory.size(), random.Below(most + 1));
    parts.push_back(memory.first(bytes));
    memory = memory.subspan(bytes);
  }
  return parts;
}

// One run: random traffic left -> right, model on the side.
void RandomTraffic(uint64_t seed, FaultOptions faults, bool go_back_n,
                   bool lends = false) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SimNetwork net(seed, faults, {}, lends);
  Random& random = net.random();
  NicOptions options;
  options.go_back_n = go_back_n;
  NicOptions same;
  same.go_back_n = go_back_n;
  Pair pair(net, random.Chance(0.3) ? 9018 : 1514, std::move(options),
            std::move(same));
  pair.Connect();
  if (::testing::Test::HasFatalFailure()) return;

  constexpr uint64_t kSize = 64 * 1024;
  std::vector<uint8_t> memory(kSize), model(kSize);
  Aperture aperture =
      pair.right->Export(memory, Access::kAny);
  const RemoteAperture remote =
      pair.left->Import(pair.left_link, aperture.name());

  std::deque<Watched> inbound, outbound;
  const auto random_watch = [&](std::deque<Watched>& list, bool out) {
    Watched& w = list.emplace_back();
    w.length = 1 + (random.Chance(0.5) ? random.Below(16)
                                       : random.Below(kSize / 2));
    w.offset = random.Below(kSize - w.length + 1);
    w.access = random.Chance(0.5)   ? Access::kWrite
               : random.Chance(0.3) ? Access::kRead
               : random.Chance(0.4) ? Access::kAtomic
                                    : Access::kAny;
    if (random.Chance(0.3)) w.every = 1 + random.Below(4);
    if (!out && random.Chance(0.4)) {  // on what the word holds, too
      w.offset &= ~uint64_t{7};
      w.length = std::max<uint64_t>(w.length, 8);
      w.offset = std::min(w.offset, (kSize - w.length) & ~uint64_t{7});
      w.condition.compare = static_cast<Compare>(1 + random.Below(4));
      w.condition.mask = random.Below(4);
      w.condition.value = w.condition.compare == Compare::kMasked
                              ? random.Below(4) & w.condition.mask
                          : random.Chance(0.3) ? 0
                                               : random.Next();
    }
    TripwireOptions wanted;
    wanted.access = w.access;
    wanted.cookie = list.size() - 1;
    wanted.condition = w.condition;
    wanted.every = w.every;
    wanted.counter = &w.counter;
    auto tripwire =
        out ? pair.left->Watch(remote, w.offset, w.length, wanted)
            : pair.right->Watch(aperture, w.offset, w.length, wanted);
    ASSERT_TRUE(tripwire.ok()) << tripwire.status();
    w.tripwire = *std::move(tripwire);
    w.tripwire.Arm();
  };
  for (int i = 0; i < 20; ++i) random_watch(inbound, false);
  for (int i = 0; i < 10; ++i) random_watch(outbound, true);

  const auto touch_model = [&](uint64_t offset, uint64_t length, Access access) {
    for (auto* list : {&inbound, &outbound}) {
      for (Watched& w : *list) {
        if (!Includes(w.access, access) || !Overlaps(w, offset, length)) {
          continue;
        }
        uint64_t word = 0;
        if (w.condition.compare != Compare::kAlways) {
          std::memcpy(&word, &model[w.offset], 8);
        }
        if (!w.condition.Holds(word) || ++w.accesses < w.every) continue;
        w.accesses = 0;
        ++w.expected;
      }
    }
  };

  struct PendingRead {
    std::vector<uint8_t> into, expected;
    Completion completion;
  };
  struct PendingWrite {
    std::vector<uint8_t> data;
    Completion completion;
  };
  struct PendingAtomic {
    uint64_t result = 0, expected = 0;
    Completion completion;
  };
  std::deque<PendingAtomic> atomics;
  std::deque<PendingRead> reads;
  std::deque<PendingWrite> writes;
  std::deque<Completion> flushes;
  std::deque<std::vector<uint8_t>> sent_messages, got_messages;

  const int operations = 60 + static_cast<int>(random.Below(60));
  for (int i = 0; i < operations; ++i) {
    const uint64_t kind = random.Below(12);
    uint64_t length = random.Chance(0.4)   ? random.Below(17)
                      : random.Chance(0.7) ? random.Below(4000)
                                           : random.Below(kSize);
    const uint64_t offset = random.Below(kSize - length + 1);
    if (kind < 5) {
      writes.emplace_back();
      PendingWrite& write = writes.back();
      write.data = RandomBytes(random, length);
      std::copy(write.data.begin(), write.data.end(), model.begin() + offset);
      const bool by_reference = random.Chance(0.5);
      Completion* completion = by_reference ? &write.completion : nullptr;
      if (random.Chance(0.3)) {
        ASSERT_TRUE(pair.left
                        ->WriteGather(remote, offset,
                                      Split<const uint8_t>(random, write.data),
                                      completion)
                        .ok());
      } else {
        ASSERT_TRUE(
            pair.left->Write(remote, offset, write.data, completion).ok());
      }
      if (!by_reference) {
        write.completion.Finish(OpStatus::kOk);
        std::fill(write.data.begin(), write.data.end(), 0xEE);  // ours again
      }
      touch_model(offset, length, Access::kWrite);
    } else if (kind < 7) {
      reads.emplace_back();
      PendingRead& read = reads.back();
      read.into.resize(length);
      read.expected.assign(model.begin() + static_cast<ptrdiff_t>(offset),
                           model.begin() + static_cast<ptrdiff_t>(offset + length));
      if (random.Chance(0.4)) {
        ASSERT_TRUE(pair.left
                        ->ReadScatter(remote, offset,
                                      Split<uint8_t>(random, read.into),
                                      &read.completion)
                        .ok());
      } else {
        ASSERT_TRUE(
            pair.left->Read(remote, offset, read.into, &read.completion).ok());
      }
      touch_model(offset, length, Access::kRead);
      // The answer is taken from memory when it is sent, so later writes could
      // overtake it; the model wants to know exactly.
      ASSERT_TRUE(net.RunUntil([&] { return read.completion.done(); },
                               120 * kSecond));
    } else if (kind == 7) {
      flushes.emplace_back();
      ASSERT_TRUE(pair.left->Flush(pair.left_link, &flushes.back()).ok());
      if (random.Chance(0.5)) {
        ASSERT_TRUE(net.RunUntil([&] { return flushes.back().done(); },
                                 120 * kSecond));
        EXPECT_EQ(memory, model) << "after a flush";
      }
    } else if (kind == 8) {
      sent_messages.push_back(RandomBytes(random, random.Below(5000)));
      ASSERT_TRUE(
          pair.left->SendMessage(pair.left_link, sent_messages.back()).ok());
    } else if (kind == 9) {
      net.RunFor(random.Below(3 * kMillisecond));
    } else {
      atomics.emplace_back();
      PendingAtomic& atomic = atomics.back();
      const uint64_t at = random.Below(kSize / 8) * 8;
      std::memcpy(&atomic.expected, &model[at], 8);
      const uint64_t operand = random.Next();
      uint64_t after = operand;
      if (random.Chance(0.5)) {
        after += atomic.expected;
        ASSERT_TRUE(pair.left
                        ->FetchAdd(remote, at, operand, &atomic.result,
                                   &atomic.completion)
                        .ok());
      } else {
        const bool hits = random.Chance(0.7);
        if (!hits) after = atomic.expected;
        ASSERT_TRUE(pair.left
                        ->CompareAndSwap(remote, at, atomic.expected + !hits,
                                         operand, &atomic.result,
                                         &atomic.completion)
                        .ok());
      }
      std::memcpy(&model[at], &after, 8);
      touch_model(at, 8, Access::kAtomic);
    }
  }

  Completion last;
  ASSERT_TRUE(pair.left->Flush(pair.left_link, &last).ok());
  const auto drain = [&] {
    Event event;
    while (pair.right->Poll({&event, 1}) > 0) {
      if (event.kind == EventKind::kTripwire) {
        inbound[event.cookie].from_events += event.count;
      } else if (event.kind == EventKind::kMessage) {
        while (auto message = pair.right->TakeMessage(event.link)) {
          got_messages.push_back(std::move(*message));
        }
      } else {
        ADD_FAILURE() << "unexpected event " << static_cast<int>(event.kind);
      }
    }
    while (pair.left->Poll({&event, 1}) > 0) {
      if (event.kind == EventKind::kTripwire) {
        outbound[event.cookie].from_events += event.count;
      } else {
        ADD_FAILURE() << "unexpected event " << static_cast<int>(event.kind);
      }
    }
  };
  ASSERT_TRUE(net.RunUntil(
      [&] {
        drain();
        return last.done() &&
               std::all_of(writes.begin(), writes.end(), [](PendingWrite& w) {
                 return w.completion.done();
               });
      },
      120 * kSecond));
  drain();
  EXPECT_EQ(last.status.load(), OpStatus::kOk);
  EXPECT_EQ(memory, model);
  EXPECT_EQ(got_messages, sent_messages);
  for (PendingRead& read : reads) {
    EXPECT_EQ(read.completion.status.load(), OpStatus::kOk);
    EXPECT_EQ(read.into, read.expected);
  }
  for (PendingAtomic& atomic : atomics) {
    EXPECT_EQ(atomic.completion.status.load(), OpStatus::kOk);
    EXPECT_EQ(atomic.result, atomic.expected);
  }
  for (PendingWrite& write : writes) {
    EXPECT_EQ(write.completion.status.load(), OpStatus::kOk);
  }
  // Out-bound completion may still wait for an acknowledgement of small writes.
  net.RunFor(kSecond);
  drain();
  for (auto* list : {&inbound, &outbound}) {
    for (Watched& w : *list) {
      EXPECT_EQ(w.tripwire.count(), w.expected)
          << (list == &inbound ? "in" : "out") << " [" << w.offset << ", +"
          << w.length << ")";
      EXPECT_EQ(w.from_events, w.expected);
      EXPECT_EQ(w.counter.load(), w.expected);
    }
  }
  inbound.clear();
  outbound.clear();
}

TEST(NicSim, PerfectNetwork) {
  ForSeeds(200, [](uint64_t seed) { RandomTraffic(seed, {}, false); });
}

TEST(NicSim, EveryFault) {
  ForSeeds(600, [](uint64_t seed) {
    Random random(seed * 77);
    FaultOptions faults;
    faults.loss = random.Chance(0.5) ? 0.01 : 0.05;
    faults.duplicate = random.Chance(0.5) ? 0.01 : 0.1;
    faults.reorder = random.Chance(0.5) ? 0.01 : 0.2;
    faults.corrupt = random.Chance(0.5) ? 0.0 : 0.02;
    faults.stall = random.Chance(0.8) ? 0.0 : 0.002;
    RandomTraffic(seed, faults, false);
  });
}

TEST(NicSim, GoBackN) {
  ForSeeds(100, [](uint64_t seed) {
    FaultOptions faults;
    faults.loss = 0.02;
    faults.duplicate = 0.02;
    faults.reorder = 0.02;
    RandomTraffic(seed, faults, true);
  });
}

// Ports that lend frames in place and gather what they send, as memif does: no
// checksums, nothing held in place, nothing looked at after it was given back.
TEST(NicSim, FramesLentInPlace) {
  ForSeeds(300, [](uint64_t seed) {
    Random random(seed * 31);
    FaultOptions faults;
    faults.loss = random.Chance(0.5) ? 0 : 0.03;
    faults.duplicate = random.Chance(0.5) ? 0 : 0.05;
    faults.reorder = random.Chance(0.5) ? 0 : 0.1;
    RandomTraffic(seed, faults, false, /*lends=*/true);
  });
}

}  // namespace
}  // namespace tripwire
