// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/directory_names.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace tripwire::fuse {
namespace {

TEST(DirectoryNames, HasWhatWasAddedAndIsCounted) {
  std::atomic<size_t> total{0};
  {
    DirectoryNames a(&total), b(&total);
    for (int i = 0; i < 1000; ++i) a.Add("name" + std::to_string(i));
    a.Add("name7");
    b.Add("x");
    EXPECT_TRUE(a.MayHave("name999"));
    EXPECT_FALSE(a.MayHave("x"));
    EXPECT_FALSE(a.MayHave(""));
    EXPECT_EQ(total.load(), 1001u);
  }
  EXPECT_EQ(total.load(), 0u);
}

TEST(DirectoryNames, FollowsOurChangesInWhateverOrderTheirRepliesCome) {
  std::atomic<size_t> total{0};
  std::vector<std::pair<uint64_t, uint64_t>> changes;
  for (uint64_t i = 0; i < 20; ++i) changes.emplace_back(100 + i, 101 + i);
  std::mt19937 random(1);
  for (int round = 0; round < 100; ++round) {
    std::shuffle(changes.begin(), changes.end(), random);
    DirectoryNames names(&total);
    names.StartFrom(100);
    for (size_t i = 0; i < changes.size(); ++i) {
      EXPECT_FALSE(names.AreAllAsOf(120));
      names.Follow(changes[i].first, changes[i].second);
    }
    EXPECT_TRUE(names.AreAllAsOf(120)) << "round " << round;
  }
}

TEST(DirectoryNames, AChangeOfSomebodyElseIsNeverFollowed) {
  std::atomic<size_t> total{0};
  DirectoryNames names(&total);
  names.StartFrom(100);
  names.Follow(100, 101);
  EXPECT_TRUE(names.AreAllAsOf(101));
  // Another's led from 101 to 102.
  for (uint64_t i = 102; i < 1000; ++i) {
    names.Follow(i, i + 1);
    EXPECT_FALSE(names.AreAllAsOf(i + 1));
  }
  EXPECT_FALSE(names.AreAllAsOf(101));
}

TEST(DirectoryNames, ATickWithinWhichNothingSeemsToChange) {
  std::atomic<size_t> total{0};
  DirectoryNames names(&total);
  names.StartFrom(100);
  names.Follow(100, 100);
  names.Follow(101, 101);
  names.Follow(100, 101);
  EXPECT_TRUE(names.AreAllAsOf(101));
}

TEST(DirectoryNames, KnowsWhoMaySearch) {
  std::atomic<size_t> total{0};
  DirectoryNames names(&total), newer(&total);
  names.MaySearch(1, 2);
  EXPECT_TRUE(names.IsSearchedBy(1, 2));
  EXPECT_FALSE(names.IsSearchedBy(1, 3));
  EXPECT_FALSE(names.IsSearchedBy(2, 2));
  newer.SearchedAs(names);
  EXPECT_TRUE(newer.IsSearchedBy(1, 2));
}

}  // namespace
}  // namespace tripwire::fuse
