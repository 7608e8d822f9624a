// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_TOOLS_PRINTABLE_H_
#define TRIPWIRE_NIC_TOOLS_PRINTABLE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "nic/base/printable.h"

namespace tripwire::tools {

// A peer chooses its names, and terminals obey control characters.
inline std::string Printable(std::string_view text) {
  return MakePrintable(text, SIZE_MAX, '?');
}

}  // namespace tripwire::tools

#endif  // TRIPWIRE_NIC_TOOLS_PRINTABLE_H_
