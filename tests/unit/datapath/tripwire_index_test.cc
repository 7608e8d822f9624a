// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "nic/base/random.h"
#include "nic/datapath/tripwire_table.h"

namespace tripwire {
namespace {

struct Range {
  uint64_t offset, length;
};

// What the index must say, found the slow way.
class Model {
 public:
  void Insert(uint32_t id, Range range) { ranges_[id] = range; }
  void Erase(uint32_t id) { ranges_.erase(id); }
  std::vector<uint32_t> Visit(Range access) const {
    std::vector<uint32_t> ids;
    if (access.length == 0) return ids;
    for (const auto& [id, range] : ranges_) {
      if (range.offset < access.offset + access.length &&
          access.offset < range.offset + range.length) {
        ids.push_back(id);
      }
    }
    return ids;
  }
  const std::map<uint32_t, Range>& ranges() const { return ranges_; }

 private:
  std::map<uint32_t, Range> ranges_;
};

std::vector<uint32_t> Visit(const TripwireIndex& index, Range access) {
  std::vector<uint32_t> ids;
  index.Visit(access.offset, access.length,
              [&](uint32_t id) { ids.push_back(id); });
  std::sort(ids.begin(), ids.end());  // keeps what was reported twice
  return ids;
}

// Lengths and places that love the edges of granules.
Range RandomRange(Random& random, uint64_t size) {
  const uint64_t scale = uint64_t{1} << random.Below(34);
  uint64_t length = random.Chance(0.3) ? 1 + random.Below(16)
                                       : 1 + random.Below(scale);
  if (random.Chance(0.3)) length = scale;
  length = std::clamp<uint64_t>(length, 1, size);
  uint64_t offset = random.Below(size - length + 1);
  if (random.Chance(0.3)) offset = offset & ~(scale - 1);
  if (random.Chance(0.1)) offset = size - length;
  return {std::min(offset, size - length), length};
}

void CompareWithModel(uint64_t seed, uint64_t size, int operations) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed << " size " << size);
  Random random(seed);
  TripwireIndex index;
  Model model;
  uint32_t next_id = 0;
  for (int i = 0; i < operations; ++i) {
    const uint64_t kind = random.Below(10);
    if (kind < 3) {
      const Range range = RandomRange(random, size);
      index.Insert(next_id, range.offset, range.length);
      model.Insert(next_id++, range);
    } else if (kind < 5 && !model.ranges().empty()) {
      auto it = model.ranges().lower_bound(
          static_cast<uint32_t>(random.Below(next_id)));
      if (it == model.ranges().end()) it = model.ranges().begin();
      const auto [id, range] = *it;
      index.Erase(id, range.offset, range.length);
      model.Erase(id);
    } else {
      Range access = RandomRange(random, size);
      if (random.Chance(0.05)) access.length = 0;
      if (random.Chance(0.02)) access = {0, size};
      ASSERT_EQ(Visit(index, access), model.Visit(access))
          << "[" << access.offset << ", +" << access.length << ")";
    }
    ASSERT_EQ(index.empty(), model.ranges().empty());
  }
}

TEST(TripwireIndex, AgreesWithTheSlowModel) {
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    CompareWithModel(seed, 4096, 400);
    CompareWithModel(seed, 1 << 20, 400);
  }
}

TEST(TripwireIndex, AgreesInAnApertureBeyondFourGib) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CompareWithModel(seed, (uint64_t{5} << 30) + 4093, 300);
  }
}

TEST(TripwireIndex, WatchesTheLastByte) {
  const uint64_t size = (uint64_t{4} << 30) + 1;
  TripwireIndex index;
  index.Insert(1, size - 1, 1);
  index.Insert(2, size - 8, 8);
  EXPECT_EQ(Visit(index, {size - 1, 1}), (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(Visit(index, {size - 2, 1}), (std::vector<uint32_t>{2}));
  EXPECT_EQ(Visit(index, {0, size}), (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(Visit(index, {0, size - 8}), (std::vector<uint32_t>{}));
}

TEST(TripwireIndex, ReportsEachOfManyOnTheSameWordOnce) {
  TripwireIndex index;
  std::vector<uint32_t> all;
  for (uint32_t id = 0; id < 1000; ++id) {
    index.Insert(id, 60, 8);  // across the edge of two granules
    all.push_back(id);
  }
  EXPECT_EQ(Visit(index, {0, 1 << 20}), all);
  EXPECT_EQ(Visit(index, {64, 1}), all);
  EXPECT_EQ(Visit(index, {63, 1}), all);
  for (uint32_t id = 0; id < 1000; id += 2) index.Erase(id, 60, 8);
  std::erase_if(all, [](uint32_t id) { return id % 2 == 0; });
  EXPECT_EQ(Visit(index, {67, 1}), all);
}

}  // namespace
}  // namespace tripwire
