// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_TOOLS_PRINTABLE_H_
#define TRIPWIRE_NIC_TOOLS_PRINTABLE_H_

#include <cstdint>
#include <string>

namespace tripwire::tools {

// A peer chooses its names, and terminals obey control characters.
inline std::string Printable(std::string text) {
  for (char& c : text) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

}  // namespace tripwire::tools

#endif  // TRIPWIRE_NIC_TOOLS_PRINTABLE_H_
