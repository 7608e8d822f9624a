// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/tripwire_table.h"

#include <algorithm>
#include <bit>

namespace tripwire {

int TripwireIndex::LevelFor(uint64_t length) {
  int level = 0;
  while (level + 1 < kLevels && (uint64_t{1} << ShiftOf(level)) < length) {
    ++level;
  }
  return level;
}

void TripwireIndex::Insert(uint32_t id, uint64_t offset, uint64_t length) {
  if (length <= ShortWatches::kMaxLength) {
    short_.Insert(id, offset, length);
  } else {
    InsertLong(id, offset, length);
  }
  ++size_;
  if (!has_many_ && few_.size() < kFew) {
    few_.push_back({id, offset, length});
  } else {
    has_many_ = true;
    few_.clear();
  }
}

void TripwireIndex::InsertLong(uint32_t id, uint64_t offset, uint64_t length) {
  const int number = LevelFor(length);
  const int shift = ShiftOf(number);
  Level& level = levels_[number];
  const uint64_t last = (offset + length - 1) >> shift;
  if (level.bits.size() <= last / 64) level.bits.resize(last / 64 + 1);
  for (uint64_t granule = offset >> shift; granule <= last; ++granule) {
    level.buckets[granule].push_back({id, offset, length});
    level.bits[granule / 64] |= uint64_t{1} << (granule % 64);
  }
  ++level.size;
  ++long_size_;
}

void TripwireIndex::Erase(uint32_t id, uint64_t offset, uint64_t length) {
  if (length <= ShortWatches::kMaxLength) {
    short_.Erase(id, offset, length);
  } else {
    EraseLong(id, offset, length);
  }
  --size_;
  few_.erase(std::remove_if(few_.begin(), few_.end(),
                            [&](const Watch& w) { return w.id == id; }),
             few_.end());
  if (size_ == 0) has_many_ = false;
}

void TripwireIndex::EraseLong(uint32_t id, uint64_t offset, uint64_t length) {
  const int number = LevelFor(length);
  const int shift = ShiftOf(number);
  Level& level = levels_[number];
  const uint64_t last = (offset + length - 1) >> shift;
  for (uint64_t granule = offset >> shift; granule <= last; ++granule) {
    auto it = level.buckets.find(granule);
    if (it == level.buckets.end()) continue;
    Bucket& bucket = it->second;
    bucket.erase(std::remove_if(bucket.begin(), bucket.end(),
                                [&](const Watch& w) { return w.id == id; }),
                 bucket.end());
    if (bucket.empty()) {
      level.buckets.erase(it);
      level.bits[granule / 64] &= ~(uint64_t{1} << (granule % 64));
    }
  }
  --level.size;
  --long_size_;
}

void TripwireIndex::VisitLevels(
    uint64_t offset, uint64_t end,
    absl::FunctionRef<void(uint32_t)> found) const {
  for (int number = 0; number < kLevels; ++number) {
    const Level& level = levels_[number];
    if (level.size == 0) continue;
    const int shift = ShiftOf(number);
    const uint64_t first = offset >> shift;
    const uint64_t last = (end - 1) >> shift;
    const uint64_t words = std::min(last / 64 + 1, level.bits.size());
    for (uint64_t word = first / 64; word < words; ++word) {
      uint64_t bits = level.bits[word];
      if (word == first / 64) bits &= ~uint64_t{0} << (first % 64);
      if (word == last / 64) bits &= ~uint64_t{0} >> (63 - last % 64);
      for (; bits != 0; bits &= bits - 1) {
        const uint64_t granule = word * 64 + std::countr_zero(bits);
        auto it = level.buckets.find(granule);
        if (it == level.buckets.end()) continue;
        for (const Watch& watch : it->second) {
          if (watch.offset >= end || offset >= watch.offset + watch.length) {
            continue;
          }
          // A watch in two granules is reported in the first the access covers.
          if (granule != first && (watch.offset >> shift) != granule) continue;
          found(watch.id);
        }
      }
    }
  }
}

}  // namespace tripwire
