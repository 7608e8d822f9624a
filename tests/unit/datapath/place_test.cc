// SPDX-License-Identifier: BSD-3-Clause
// Copies into and out of memory that others use at the same time.
#include "nic/datapath/place.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "nic/base/random.h"

namespace tripwire {
namespace {

using Copy = void (*)(uint8_t*, const uint8_t*, size_t);

void CheckEveryAlignmentAndLength(Copy copy) {
  Random random(5);
  std::vector<uint8_t> from(4000), to(4000);
  for (uint8_t& byte : from) byte = static_cast<uint8_t>(random.Next());
  const auto check = [&](size_t to_at, size_t from_at, size_t n) {
    std::fill(to.begin(), to.end(), 0xee);
    copy(to.data() + 64 + to_at, from.data() + 64 + from_at, n);
    for (size_t i = 0; i < to.size(); ++i) {
      const bool inside = i >= 64 + to_at && i < 64 + to_at + n;
      ASSERT_EQ(to[i], inside ? from[i - to_at + from_at] : 0xee)
          << to_at << " " << from_at << " " << n << " at " << i;
    }
  };
  for (size_t to_at = 0; to_at < 9; ++to_at) {
    for (size_t from_at = 0; from_at < 9; ++from_at) {
      for (size_t n = 0; n < 40; ++n) check(to_at, from_at, n);
      for (const size_t n : {511, 512, 513, 519, 520, 575, 576, 1000, 1448}) {
        check(to_at, from_at, n);
      }
    }
  }
}

TEST(Place, EveryAlignmentAndLength) {
  CheckEveryAlignmentAndLength(PlaceInShared);
}
TEST(Fetch, EveryAlignmentAndLength) {
  CheckEveryAlignmentAndLength(FetchFromShared);
}

// A word is torn when its halves are not of one store. Every store here writes
// words whose halves are equal.
bool IsTorn(uint64_t word) {
  return static_cast<uint32_t>(word) != static_cast<uint32_t>(word >> 32);
}
uint64_t Whole(uint32_t value) {
  return value | (static_cast<uint64_t>(value) << 32);
}

constexpr size_t kWords = 256;
constexpr int kRounds = 60000;

// The other side of a race: runs `step` over and over in a thread until
// destroyed, and at least once before the constructor returns.
class Meanwhile {
 public:
  template <typename Step>
  explicit Meanwhile(Step step)
      : thread_([this, step]() mutable {
          while (!stop_.load(std::memory_order_relaxed)) {
            step();
            started_.store(true, std::memory_order_relaxed);
          }
        }) {
    while (!started_.load(std::memory_order_relaxed)) std::this_thread::yield();
  }
  ~Meanwhile() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<bool> stop_{false}, started_{false};
  std::thread thread_;
};

TEST(Place, NeverTearsAnAlignedWord) {
  alignas(64) std::atomic<uint64_t> shared[kWords] = {};
  uint64_t torn = 0;
  Meanwhile reader([&] {
    for (auto& word : shared) {
      torn += IsTorn(word.load(std::memory_order_relaxed));
    }
  });
  // From a source at every alignment, as frames have it.
  std::vector<uint8_t> source(kWords * 8 + 8);
  for (int round = 0; round < kRounds; ++round) {
    const size_t shift = static_cast<size_t>(round) % 8;
    for (size_t i = 0; i < kWords; ++i) {
      const uint64_t word = Whole(static_cast<uint32_t>(round));
      std::memcpy(source.data() + shift + 8 * i, &word, 8);
    }
    const size_t words = round % 2 == 0 ? kWords : 1 + round % kWords;
    PlaceInShared(reinterpret_cast<uint8_t*>(shared), source.data() + shift,
                  words * 8);
  }
  reader.Stop();
  EXPECT_EQ(torn, 0u);
}

TEST(Fetch, NeverTearsAnAlignedWord) {
  alignas(64) std::atomic<uint64_t> shared[kWords] = {};
  Meanwhile writer([&shared, value = uint32_t{0}]() mutable {
    ++value;
    for (auto& word : shared) {
      word.store(Whole(value), std::memory_order_relaxed);
    }
  });
  uint64_t torn = 0;
  std::vector<uint8_t> out(kWords * 8 + 64);
  const auto* bytes = reinterpret_cast<const uint8_t*>(shared);
  for (int round = 0; round < kRounds; ++round) {
    // Beginning anywhere, into a buffer at any alignment.
    const size_t skip = static_cast<size_t>(round) % 8;
    const size_t shift = static_cast<size_t>(round / 8) % 16;
    const size_t n = kWords * 8 - skip - static_cast<size_t>(round % 3);
    FetchFromShared(out.data() + shift, bytes + skip, n);
    for (size_t at = (8 - skip) % 8; at + 8 <= n; at += 8) {
      uint64_t word;
      std::memcpy(&word, out.data() + shift + at, 8);
      torn += IsTorn(word);
    }
  }
  writer.Stop();
  EXPECT_EQ(torn, 0u);
}

// The word that ends a write is the last to be seen, so it can announce the rest.
TEST(Place, TheLastWordComesLast) {
  alignas(64) std::atomic<uint64_t> shared[kWords] = {};
  uint64_t early = 0;
  Meanwhile reader([&] {
    const uint64_t last = shared[kWords - 1].load(std::memory_order_acquire);
    for (size_t i = 0; i + 1 < kWords; i += 7) {
      early += shared[i].load(std::memory_order_relaxed) < last;
    }
  });
  std::vector<uint64_t> source(kWords);
  for (uint64_t round = 1; round <= kRounds; ++round) {
    std::fill(source.begin(), source.end(), round);
    PlaceInShared(reinterpret_cast<uint8_t*>(shared),
                  reinterpret_cast<const uint8_t*>(source.data()), kWords * 8);
  }
  reader.Stop();
  EXPECT_EQ(early, 0u);
}

}  // namespace
}  // namespace tripwire
