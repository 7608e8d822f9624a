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
#include "nic/datapath/types.h"

namespace tripwire {

// Which tripwires watch which offsets of one aperture.
//
// A watch of length L lies in the level whose granules are the smallest not
// shorter than L (64 bytes, 4 KiB, 256 KiB, ... each 64 times the last), hence in
// at most two granules. A level keeps one bit a granule, so an access looks at
// one bit for each granule it covers on each level in use, and at a hash bucket
// only where a bit is set. An access to an unwatched address costs a few
// loads however many tripwires are set elsewhere. The first few watches of an
// aperture are in a list besides, and as long as there are no more, only that is
// looked at.
//
// Thread safety: none (the engine's lock).
// Invariant: Visit calls back for exactly the ids whose range overlaps the
// access, each once.
class TripwireIndex {
 public:
  void Insert(uint32_t id, uint64_t offset, uint64_t length);
  void Erase(uint32_t id, uint64_t offset, uint64_t length);
  bool empty() const { return size_ == 0; }

  // REQUIRES: offset + length does not wrap.
  void Visit(uint64_t offset, uint64_t length,
             absl::FunctionRef<void(uint32_t id)> found) const;

 private:
  static constexpr int kLevels = 10;
  static constexpr int kFirstShift = 6;
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

  void VisitLevels(uint64_t offset, uint64_t length,
                   absl::FunctionRef<void(uint32_t id)> found) const;

  uint64_t size_ = 0;
  // All watches, unless there were more than kFew since there were none.
  absl::InlinedVector<Watch, kFew> few_;
  bool has_many_ = false;
  std::array<Level, kLevels> levels_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_TRIPWIRE_TABLE_H_
