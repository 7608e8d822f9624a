// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_WIRE_INT_H_
#define TRIPWIRE_NIC_BASE_WIRE_INT_H_

#include <bit>
#include <cstdint>
#include <cstring>

namespace tripwire {

// An unsigned integer as it lies on the wire: little-endian, any alignment.
// Every integer in every frame, and in memory that two hosts share, is one of
// these; nothing else in a layout header may hold an integer.
template <typename T>
class LittleEndian {
 public:
  LittleEndian() = default;
  LittleEndian(T value) { set(value); }  // NOLINT: implicit by intent

  T get() const {
    T value;
    std::memcpy(&value, bytes_, sizeof value);
    if constexpr (std::endian::native == std::endian::big) value = Swap(value);
    return value;
  }
  void set(T value) {
    if constexpr (std::endian::native == std::endian::big) value = Swap(value);
    std::memcpy(bytes_, &value, sizeof value);
  }

 private:
  static T Swap(T value) {
    if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
    if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
    if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
    return value;
  }
  uint8_t bytes_[sizeof(T)];
};

// A 48-bit offset: 256 TiB of aperture, and a word write that still fits the
// smallest Ethernet frame. REQUIRES: value < 2^48.
class Le48 {
 public:
  Le48() = default;
  Le48(uint64_t value) { set(value); }  // NOLINT: implicit by intent
  uint64_t get() const {
    return low_.get() | (static_cast<uint64_t>(high_.get()) << 32);
  }
  void set(uint64_t value) {
    low_.set(static_cast<uint32_t>(value));
    high_.set(static_cast<uint16_t>(value >> 32));
  }
  static constexpr uint64_t kMax = (uint64_t{1} << 48) - 1;

 private:
  LittleEndian<uint32_t> low_;
  LittleEndian<uint16_t> high_;
};

using Le16 = LittleEndian<uint16_t>;
using Le32 = LittleEndian<uint32_t>;
using Le64 = LittleEndian<uint64_t>;

static_assert(sizeof(Le16) == 2 && alignof(Le16) == 1);
static_assert(sizeof(Le32) == 4 && alignof(Le32) == 1);
static_assert(sizeof(Le48) == 6 && alignof(Le48) == 1);
static_assert(sizeof(Le64) == 8 && alignof(Le64) == 1);

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_WIRE_INT_H_
