// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_PRINTABLE_H_
#define TRIPWIRE_NIC_BASE_PRINTABLE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "nic/base/utf8.h"

namespace tripwire {

// What a peer chose to call itself, or says of itself, fit for logs and
// terminals: one line of UTF-8 of at most `limit` bytes. Control characters
// become `instead`, bytes that are no UTF-8 a question mark.
inline std::string MakePrintable(std::string_view text, size_t limit,
                                 char instead) {
  std::string line;
  while (!text.empty()) {
    const size_t known = Utf8Length(text), length = std::max<size_t>(known, 1);
    if (line.size() + length > limit) break;
    const auto first = static_cast<uint8_t>(text[0]);
    // C0, DEL, and C1, which terminals obey as they do ESC and a letter.
    const bool is_control =
        first < 0x20 || first == 0x7f ||
        (known == 2 && first == 0xc2 && static_cast<uint8_t>(text[1]) < 0xa0);
    if (known == 0) {
      line += '?';
    } else if (is_control) {
      line += instead;
    } else {
      line += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return line;
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_PRINTABLE_H_
