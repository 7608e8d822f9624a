// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_HISTOGRAM_H_
#define TRIPWIRE_PERIPH_TOOLS_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace tripwire::periph::tools {

// Times in nanoseconds, kept to 1/32 of their size: a fixed table however many they are
// and however long.
class Histogram {
 public:
  void Add(uint64_t ns) {
    ++counts_[Index(ns)];
    ++count_;
    max_ns_ = std::max(max_ns_, ns);
  }
  uint64_t count() const { return count_; }
  uint64_t max_ns() const { return max_ns_; }
  // What `percent` of all do not exceed, or up to 1/32 more; 0 without any.
  uint64_t Percentile(double percent) const {
    const auto wanted = static_cast<uint64_t>(static_cast<double>(count_) * percent / 100);
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > wanted) return std::min(UpperEnd(i), max_ns_);
    }
    return max_ns_;
  }
  void Clear() { *this = Histogram(); }

 private:
  // Below 32 each number has a place of its own; above, each doubling has 32 places.
  static constexpr int kBits = 5;
  static constexpr uint64_t kPlaces = uint64_t{1} << kBits;

  static size_t Index(uint64_t ns) {
    if (ns < kPlaces) return ns;
    const int shift = std::bit_width(ns) - 1 - kBits;
    return (static_cast<size_t>(shift) + 1) * kPlaces + ((ns >> shift) - kPlaces);
  }
  static uint64_t UpperEnd(size_t index) {
    if (index < kPlaces) return index;
    const size_t shift = index / kPlaces - 1;
    return ((index % kPlaces + kPlaces + 1) << shift) - 1;
  }

  std::array<uint64_t, (64 - kBits + 1) * kPlaces> counts_{};
  uint64_t count_ = 0, max_ns_ = 0;
};

}  // namespace tripwire::periph::tools

#endif  // TRIPWIRE_PERIPH_TOOLS_HISTOGRAM_H_
