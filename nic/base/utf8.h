// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_UTF8_H_
#define TRIPWIRE_NIC_BASE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tripwire {

// Length of the well-formed UTF-8 sequence at the start of `text`, 0 if none
// (RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF).
// REQUIRES: text is not empty.
inline size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
      (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) {
    return 0;
  }
  return length;
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_UTF8_H_
