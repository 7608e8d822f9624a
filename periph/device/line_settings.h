// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_LINE_SETTINGS_H_
#define TRIPWIRE_PERIPH_DEVICE_LINE_SETTINGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "periph/device/device.h"

namespace tripwire::periph {

// How characters go over a serial line.
struct LineSettings {
  enum class Parity : uint8_t { kNone, kEven, kOdd, kMark, kSpace };
  enum class Flow : uint8_t { kNone, kRtsCts, kXonXoff };
  uint32_t speed = 9600;  // bits a second, both ways
  uint8_t bits = 8;       // 5 to 8
  Parity parity = Parity::kNone;
  uint8_t stop = 1;  // 1 or 2
  Flow flow = Flow::kNone;
  bool operator==(const LineSettings&) const = default;
};

// The settings as controls: "speed", "bits", "parity", "stop", "flow".
std::vector<Control> LineControls(const LineSettings& settings);
// Changes one. INVALID_ARGUMENT for a bad value, NOT_FOUND for another name.
absl::Status SetLineControl(LineSettings& settings, const std::string& name,
                            const std::string& value);

// A terminal's settings, as struct termios2 of the kernel has them
// (asm/termbits.h, which does not go together with <termios.h>).
struct LineMode {
  uint32_t input_flags = 0, output_flags = 0, control_flags = 0,
           local_flags = 0;
  uint8_t discipline = 0;
  uint8_t characters[19] = {};
  uint32_t input_speed = 0, output_speed = 0;
  bool operator==(const LineMode&) const = default;
};
// Of the terminal open at `fd`. On a pty's master end, those of its slave.
absl::StatusOr<LineMode> GetLineMode(int fd);
// At once. What a driver cannot do it leaves as it was, without an error.
absl::Status SetLineMode(int fd, const LineMode& mode);

LineSettings SettingsOf(const LineMode& mode);
void Apply(const LineSettings& settings, LineMode& mode);
// Every byte as it is, one is enough to wake a reader, modem lines do not
// matter.
void MakeRaw(LineMode& mode);
// Whether input reaches a reader just as it came, without echo, lines or
// signals.
bool IsRaw(const LineMode& mode);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_LINE_SETTINGS_H_
