// SPDX-License-Identifier: BSD-3-Clause
#include "tests/system/picture/picture.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"

namespace tripwire::picture {
namespace {

constexpr uint32_t kSquare = 8;
constexpr uint32_t kBits = 160;
constexpr uint8_t kDark = 32, kBright = 208;
using Bits = std::array<bool, kBits>;

uint32_t CheckSum(const Stamp& stamp) {
  // FNV-1a.
  uint32_t sum = 2166136261u;
  for (const uint64_t word : {stamp.number, stamp.time_ns}) {
    for (int i = 0; i < 64; i += 8)
      sum = (sum ^ static_cast<uint8_t>(word >> i)) * 16777619u;
  }
  return sum;
}

Bits BitsOf(const Stamp& stamp) {
  Bits bits;
  for (uint32_t i = 0; i < 64; ++i) {
    bits[i] = (stamp.number >> i) & 1;
    bits[64 + i] = (stamp.time_ns >> i) & 1;
  }
  const uint32_t sum = CheckSum(stamp);
  for (uint32_t i = 0; i < 32; ++i) bits[128 + i] = (sum >> i) & 1;
  return bits;
}

bool StampOf(const Bits& bits, Stamp* stamp) {
  *stamp = {};
  uint32_t sum = 0;
  for (uint32_t i = 0; i < 64; ++i) {
    stamp->number |= uint64_t{bits[i]} << i;
    stamp->time_ns |= uint64_t{bits[64 + i]} << i;
  }
  for (uint32_t i = 0; i < 32; ++i) sum |= uint32_t{bits[128 + i]} << i;
  return sum == CheckSum(*stamp);
}

// Lines where the three stamps begin.
std::array<uint32_t, 3> Tops(uint32_t width, uint32_t height) {
  const uint32_t columns = width / kSquare;
  const uint32_t rows = (kBits + columns - 1) / columns * kSquare;
  return {0, (height - rows) / 2, height - rows};
}

}  // namespace

void Draw(const Stamp& stamp, uint32_t width, uint32_t height,
          std::span<uint8_t> pixels) {
  const Bits bits = BitsOf(stamp);
  const uint32_t columns = width / kSquare;
  for (const uint32_t top : Tops(width, height)) {
    for (uint32_t i = 0; i < kBits; ++i) {
      uint8_t* square = pixels.data() +
                        size_t{top + i / columns * kSquare} * width +
                        size_t{i % columns} * kSquare;
      for (uint32_t line = 0; line < kSquare; ++line) {
        std::fill_n(square + size_t{line} * width, kSquare,
                    bits[i] ? kBright : kDark);
      }
    }
  }
}

Seen Read(std::span<const uint8_t> pixels, uint32_t width, uint32_t height,
          Stamp* stamp) {
  if (width < 160 || height < 192 || pixels.size() < size_t{width} * height) {
    return Seen::kUnreadable;
  }
  const uint32_t columns = width / kSquare;
  bool any = false, all_same = true;
  for (const uint32_t top : Tops(width, height)) {
    Bits bits;
    for (uint32_t i = 0; i < kBits; ++i) {
      const size_t line = top + i / columns * kSquare + kSquare / 2;
      bits[i] = pixels[line * width + i % columns * kSquare + kSquare / 2] >
                (kDark + kBright) / 2;
    }
    Stamp here;
    // A stamp that is itself cut through is torn, too.
    if (!StampOf(bits, &here)) {
      all_same = false;
      continue;
    }
    if (any && here.number != stamp->number) all_same = false;
    if (!any) *stamp = here;
    any = true;
  }
  if (!any) return Seen::kUnreadable;
  return all_same ? Seen::kWhole : Seen::kTorn;
}

void Tally::Add(Seen seen, const Stamp& stamp, uint64_t now_ns) {
  if (seen == Seen::kUnreadable) {
    ++unreadable_;
    return;
  }
  if (seen == Seen::kTorn) ++torn_;
  if (frames_ == 0) {
    first_ = stamp.number;
  } else if (stamp.number <= last_) {
    ++backwards_;
  }
  last_ = stamp.number;
  if (++frames_ <= untimed_) return;
  latencies_ns_.push_back(now_ns > stamp.time_ns ? now_ns - stamp.time_ns : 0);
}

std::string Tally::Report() const {
  std::vector<uint64_t> sorted = latencies_ns_;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&sorted](double part) {
    if (sorted.empty()) return uint64_t{0};
    return sorted[static_cast<size_t>(part *
                                      static_cast<double>(sorted.size() - 1))] /
           1000;
  };
  const uint64_t span = frames_ == 0 ? 0 : last_ - first_ + 1;
  return absl::StrCat("frames=", frames_, "\ntorn=", torn_,
                      "\nunreadable=", unreadable_, "\nfirst=", first_,
                      "\nlast=", last_,
                      "\nmissing=", span > frames_ ? span - frames_ : 0,
                      "\nbackwards=", backwards_, "\np50_us=", at(0.5),
                      "\np99_us=", at(0.99), "\nmax_us=", at(1.0), "\n");
}

}  // namespace tripwire::picture
