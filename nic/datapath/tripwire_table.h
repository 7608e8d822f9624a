// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_TRIPWIRE_TABLE_H_
#define TRIPWIRE_NIC_DATAPATH_TRIPWIRE_TABLE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "nic/datapath/short_watches.h"
#include "nic/datapath/types.h"

namespace tripwire {

// Which tripwires watch which offsets of one aperture.
//
// Short ones have a table of their own (ShortWatches). A longer one, of length L,
// lies in the level whose granules are the smallest not shorter than L (4 KiB,
// 256 KiB, ... each 64 times the last), hence in at most two granules. A level keeps one bit
// a granule, so an access looks at one bit for each granule it covers on each level
// in use, and at a hash bucket only where a bit is set. An access to an unwatched
// address costs a few loads however many tripwires are set elsewhere. The first few
// watches of an aperture are in a list besides, and as long as there are no more, only
// that is looked at.
//
// Thread safety: none (the engine's lock).
// Invariant: Visit calls back for exactly the ids whose range overlaps the
// access, each once.
class TripwireIndex {
 public:
  void Insert(uint32_t id, uint64_t offset, uint64_t length);
  void Erase(uint32_t id, uint64_t offset, uint64_t length);
  bool empty() const { return size_ == 0; }

  // Calls found(id). REQUIRES: offset + length does not wrap.
  template <typename Found>
  void Visit(uint64_t offset, uint64_t length, Found&& found) const {
    if (length == 0) return;
    if (has_many_) {
      const uint64_t end = offset + length;
      if (!short_.empty()) short_.Visit(offset, end, found);
      if (long_size_ > 0) VisitLevels(offset, end, found);
      return;
    }
    for (const Watch& watch : few_) {
      if (watch.offset < offset + length && offset < watch.offset + watch.length) {
        found(watch.id);
      }
    }
  }

  // Ahead of a Visit of the access that ends with the byte at `last`: see
  // ShortWatches.
  const ShortWatches::Watch* SlotAt(uint64_t last) const {
    return has_many_ ? short_.SlotAt(last) : nullptr;
  }
  // Whether there is nothing but what such slots tell of.
  bool HasOnlyShort() const { return long_size_ == 0; }

 private:
  static constexpr int kLevels = 9;
  static constexpr int kFirstShift = 12;
  static constexpr int kLevelShift = 6;
  static constexpr size_t kFew = 4;
  struct Watch {
    uint32_t id;
    uint64_t offset;
    uint64_t length;
  };
  using Bucket = absl::InlinedVector<Watch, 1>;
  struct Level {
    uint64_t size = 0;             // buckets in use
    std::vector<uint64_t> bits;    // one a granule, up to the last watched one
    absl::flat_hash_map<uint64_t, Bucket> buckets;
  };

  static int ShiftOf(int level) { return kFirstShift + level * kLevelShift; }
  static int LevelFor(uint64_t length);
  void InsertLong(uint32_t id, uint64_t offset, uint64_t length);
  void EraseLong(uint32_t id, uint64_t offset, uint64_t length);

  void VisitLevels(uint64_t offset, uint64_t end,
                   absl::FunctionRef<void(uint32_t id)> found) const;

  uint64_t size_ = 0;
  uint64_t long_size_ = 0;
  ShortWatches short_;
  // All watches, unless there were more than kFew since there were none.
  absl::InlinedVector<Watch, kFew> few_;
  bool has_many_ = false;
  std::array<Level, kLevels> levels_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_TRIPWIRE_TABLE_H_
