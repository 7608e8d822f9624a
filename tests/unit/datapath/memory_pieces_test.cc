// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/memory_pieces.h"

#include <gtest/gtest.h>

#include <vector>

#include "nic/base/random.h"

namespace tripwire {
namespace {

TEST(MemoryPieces, GiveEachRangeInOrderWhateverThePieces) {
  Random random(3);
  CopyPool pool;
  for (int run = 0; run < 500; ++run) {
    std::vector<uint8_t> memory(1 + random.Below(300));
    for (size_t i = 0; i < memory.size(); ++i) {
      memory[i] = static_cast<uint8_t>(i);
    }
    std::vector<std::span<const uint8_t>> parts;
    for (std::span<const uint8_t> left = memory; !left.empty();) {
      const size_t bytes = random.Below(std::min<size_t>(left.size(), 40) + 1);
      parts.push_back(left.first(bytes));
      left = left.subspan(bytes);
    }
    parts.push_back({});
    const PieceList list =
        MakePieceList<const uint8_t>(std::span(parts), pool);
    for (int look = 0; look < 20; ++look) {
      const uint64_t length = random.Below(memory.size() + 1);
      const uint64_t offset = random.Below(memory.size() - length + 1);
      std::vector<uint8_t> seen;
      ForMemory(list.pieces(), offset, length,
                [&](const uint8_t* data, size_t bytes) {
                  ASSERT_GT(bytes, 0u);
                  seen.insert(seen.end(), data, data + bytes);
                });
      ASSERT_EQ(seen, std::vector<uint8_t>(
                          memory.begin() + static_cast<ptrdiff_t>(offset),
                          memory.begin() +
                              static_cast<ptrdiff_t>(offset + length)));
    }
    pool.Give(list.block);
  }
}

TEST(MemoryPieces, NoneAreAnEmptyList) {
  CopyPool pool;
  const PieceList list =
      MakePieceList(std::span<const std::span<const uint8_t>>(), pool);
  EXPECT_TRUE(list.pieces().empty());
  ForMemory(list.pieces(), 0, 0, [](const uint8_t*, size_t) { FAIL(); });
  pool.Give(list.block);
}

}  // namespace
}  // namespace tripwire
