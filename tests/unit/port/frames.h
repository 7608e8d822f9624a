// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PORT_FRAMES_H_
#define TRIPWIRE_TESTS_UNIT_PORT_FRAMES_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "nic/port/port.h"

namespace tripwire::testing {

inline constexpr uint32_t kHeaderBytes = 14;

// One frame with a text as its payload; false when the port took none.
inline bool SendText(Port& port, const MacAddress& to, const std::string& text,
                     PathId path = kAllPaths) {
  Frame frame;
  if (port.Allocate({&frame, 1}) != 1) return false;
  std::memcpy(frame.data, to.bytes.data(), 6);
  std::memcpy(frame.data + 6, port.info().mac.bytes.data(), 6);
  frame.data[12] = 0x88;
  frame.data[13] = 0xb5;
  std::memcpy(frame.data + kHeaderBytes, text.data(), text.size());
  frame.length_bytes = kHeaderBytes + static_cast<uint32_t>(text.size());
  if (port.Transmit(path, {&frame, 1}) == 1) return true;
  port.Release({&frame, 1});
  return false;
}

inline std::string TextOf(const Frame& frame) {
  return std::string(reinterpret_cast<const char*>(frame.data) + kHeaderBytes,
                     frame.length_bytes - kHeaderBytes);
}

// All that is there now, in order.
inline std::vector<std::string> ReceiveTexts(Port& port) {
  std::vector<std::string> texts;
  std::array<Frame, 32> frames;
  while (size_t count = port.Receive(frames)) {
    for (size_t i = 0; i < count; ++i) texts.push_back(TextOf(frames[i]));
    port.Release(std::span(frames).first(count));
  }
  return texts;
}

}  // namespace tripwire::testing

#endif  // TRIPWIRE_TESTS_UNIT_PORT_FRAMES_H_
