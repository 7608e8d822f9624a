// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_MAC_ADDRESS_H_
#define TRIPWIRE_NIC_BASE_MAC_ADDRESS_H_

#include <array>
#include <compare>
#include <cstdint>
#include <string>

namespace tripwire {

// An IEEE 802 MAC address, in transmission order.
struct MacAddress {
  std::array<uint8_t, 6> bytes{};

  auto operator<=>(const MacAddress&) const = default;
  bool is_broadcast() const { return *this == Broadcast(); }
  static MacAddress Broadcast() {
    return {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
  }
  // "02:00:5e:00:53:01"
  std::string ToString() const {
    static constexpr char kHex[] = "0123456789abcdef";
    std::string text;
    for (uint8_t byte : bytes) {
      if (!text.empty()) text += ':';
      text += kHex[byte >> 4];
      text += kHex[byte & 15];
    }
    return text;
  }
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_MAC_ADDRESS_H_
