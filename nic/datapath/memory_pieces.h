// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_MEMORY_PIECES_H_
#define TRIPWIRE_NIC_DATAPATH_MEMORY_PIECES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "nic/datapath/copy_pool.h"

namespace tripwire {

// Memory in several pieces that one operation sees as one: what a gathered write
// is taken from, a scattered read put into. `end` is where the piece ends in the
// operation, so that any place is found by bisection. Empty pieces are left out.
struct MemoryPiece {
  uint8_t* data;
  uint64_t end;
};

// A list of pieces in a block of a CopyPool, whose owner gives it back.
struct PieceList {
  CopyPool::Block block;
  uint32_t count = 0;

  std::span<const MemoryPiece> pieces() const {
    return {reinterpret_cast<const MemoryPiece*>(block.data), count};
  }
};

template <typename T>
PieceList MakePieceList(std::span<const std::span<T>> parts, CopyPool& pool) {
  PieceList list;
  list.block = pool.Take(std::max<size_t>(parts.size(), 1) * sizeof(MemoryPiece));
  auto* out = reinterpret_cast<MemoryPiece*>(list.block.data);
  uint64_t end = 0;
  for (const auto& part : parts) {
    if (part.empty()) continue;
    end += part.size();
    // A gathered write only reads them.
    out[list.count++] = {const_cast<uint8_t*>(part.data()), end};
  }
  return list;
}

// Calls f(data, bytes) for the memory of [offset, offset + length), in order.
// REQUIRES: the pieces hold as much.
template <typename F>
void ForMemory(std::span<const MemoryPiece> pieces, uint64_t offset,
               uint64_t length, F f) {
  auto it = std::upper_bound(
      pieces.begin(), pieces.end(), offset,
      [](uint64_t at, const MemoryPiece& piece) { return at < piece.end; });
  uint64_t begin = it == pieces.begin() ? 0 : std::prev(it)->end;
  while (length > 0) {
    const uint64_t bytes = std::min(length, it->end - offset);
    f(it->data + (offset - begin), static_cast<size_t>(bytes));
    offset += bytes;
    length -= bytes;
    begin = it->end;
    ++it;
  }
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_MEMORY_PIECES_H_
