// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_RANDOM_H_
#define TRIPWIRE_NIC_BASE_RANDOM_H_

#include <cstdint>
#include <random>

namespace tripwire {

// The one source of randomness protocol code may use: seeded in simulations,
// from the kernel in programs. Not thread-safe; not for keys.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  static Random FromSystem() {
    std::random_device device;
    return Random((static_cast<uint64_t>(device()) << 32) | device());
  }
  uint64_t Next() { return engine_(); }
  uint32_t Next32() { return static_cast<uint32_t>(engine_() >> 32); }
  // Uniform in [0, bound). REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound) {
    return std::uniform_int_distribution<uint64_t>(0, bound - 1)(engine_);
  }
  bool Chance(double probability) {
    return std::uniform_real_distribution<double>(0, 1)(engine_) < probability;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_RANDOM_H_
