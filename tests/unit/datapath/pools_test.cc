// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <set>

#include "nic/base/random.h"
#include "nic/base/ring_queue.h"
#include "nic/datapath/copy_pool.h"
#include "nic/datapath/link.h"

namespace tripwire {
namespace {

TEST(RingQueue, AgreesWithADeque) {
  Random random(3);
  RingQueue<std::shared_ptr<int>> queue;
  std::deque<int> model;
  int next = 0;
  for (int i = 0; i < 100000; ++i) {
    if (random.Chance(model.size() > 200 ? 0.4 : 0.55)) {
      queue.push_back(std::make_shared<int>(next));
      model.push_back(next++);
    } else if (!model.empty()) {
      const std::weak_ptr<int> front = queue.front();
      EXPECT_EQ(*front.lock(), model.front());
      queue.pop_front();
      model.pop_front();
      EXPECT_TRUE(front.expired()) << "popped elements are reset";
    }
    ASSERT_EQ(queue.size(), model.size());
    if (!model.empty()) {
      const size_t at = random.Below(model.size());
      EXPECT_EQ(*queue[at], model[at]);
      EXPECT_EQ(*queue.back(), model.back());
    }
  }
  queue.clear();
  EXPECT_TRUE(queue.empty());
}

TEST(CopyPool, BlocksHoldWhatWasAskedForAndAreUsedAgain) {
  CopyPool pool;
  std::set<uint8_t*> seen;
  for (const size_t bytes :
       {0, 1, 256, 257, 2048, 2049, 16384, 16385, 1 << 20}) {
    CopyPool::Block block = pool.Take(bytes);
    ASSERT_GE(block.capacity, bytes);
    std::memset(block.data, 0xaa, block.capacity);
    uint8_t* first = block.data;
    const bool kept = block.capacity <= 16384;
    pool.Give(block);
    block = pool.Take(bytes);
    if (kept) {
      EXPECT_EQ(block.data, first);
    }
    pool.Give(block);
  }
  pool.Give({});  // nothing was taken: nothing happens
}

TEST(CopyPool, KeepsABoundedNumberOfBlocks) {
  CopyPool pool;
  std::vector<CopyPool::Block> blocks;
  for (int i = 0; i < 3000; ++i) blocks.push_back(pool.Take(100));
  std::set<uint8_t*> distinct;
  for (const auto& block : blocks) distinct.insert(block.data);
  EXPECT_EQ(distinct.size(), blocks.size());
  for (const auto& block : blocks) pool.Give(block);
}

TEST(ExpandSequence, FindsTheNearest) {
  for (const uint64_t near :
       {uint64_t{1}, uint64_t{5}, (uint64_t{1} << 32) - 3, uint64_t{1} << 32,
        (uint64_t{1} << 33) + 17, (uint64_t{7} << 40) + 99}) {
    for (int64_t distance = -5; distance <= 300; ++distance) {
      const uint64_t sequence = near + static_cast<uint64_t>(distance);
      EXPECT_EQ(ExpandSequence(static_cast<uint32_t>(sequence), near),
                sequence);
    }
  }
}

}  // namespace
}  // namespace tripwire
