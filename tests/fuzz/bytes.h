// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_FUZZ_BYTES_H_
#define TRIPWIRE_TESTS_FUZZ_BYTES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

namespace tripwire::fuzz {

// Cuts a fuzzer's input into decisions, first to last; past the end all is 0.
class Script {
 public:
  Script(const uint8_t* data, size_t size) : rest_(data, size) {}
  bool ended() const { return rest_.empty(); }
  template <typename T = uint8_t>
  T Take() {
    T value{};
    const size_t n = std::min(sizeof value, rest_.size());
    if (n > 0) std::memcpy(&value, rest_.data(), n);
    rest_ = rest_.subspan(n);
    return value;
  }
  std::vector<uint8_t> TakeBytes(size_t n) {
    n = std::min(n, rest_.size());
    std::vector<uint8_t> bytes(rest_.begin(), rest_.begin() + static_cast<ptrdiff_t>(n));
    rest_ = rest_.subspan(n);
    return bytes;
  }

 private:
  std::span<const uint8_t> rest_;
};

// An invariant; fails in every build.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

}  // namespace tripwire::fuzz

#endif  // TRIPWIRE_TESTS_FUZZ_BYTES_H_
