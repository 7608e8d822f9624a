// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONTROL_BODY_H_
#define TRIPWIRE_NIC_CONTROL_BODY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "nic/wire/layout.h"

namespace tripwire {

// Limits of what frames outside links carry. A CONNECT with the longest of
// everything fits a frame of usual Ethernet, 1514 bytes: two names, the private
// data, and at most 31 bytes of protobuf around them.
inline constexpr size_t kMaxNameBytes = 200;  // of nodes and services
inline constexpr size_t kMaxPrivateBytes = 1024;
static_assert(wire::kHeaderBytes + 2 * kMaxNameBytes + kMaxPrivateBytes + 31 +
                  wire::kChecksumBytes <=
              1514);

inline std::span<const uint8_t> AsBytes(const std::string& s) {
  return {reinterpret_cast<const uint8_t*>(s.data()), s.size()};
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_CONTROL_BODY_H_
