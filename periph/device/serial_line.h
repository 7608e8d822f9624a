// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_SERIAL_LINE_H_
#define TRIPWIRE_PERIPH_DEVICE_SERIAL_LINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "periph/device/line_settings.h"

namespace tripwire::periph {

// The wires beside the data, as TIOCMGET has them.
struct ModemLine {
  const char* name;
  int bit;
  bool writable;
  const char* help;
};
const std::vector<ModemLine>& ModemLines();

// Whether the file is the slave end of a pty, by its number.
bool IsPty(const std::string& path);

// A terminal that is open, raw, and ours alone: locked against other programs
// with flock and TIOCEXCL. Destroying it puts its settings back.
//
// Thread safety: reading, writing and each method may be done by several
// threads.
class SerialLine {
 public:
  // UNAVAILABLE if it is not there, FAILED_PRECONDITION if it is another
  // program's now.
  static absl::StatusOr<std::unique_ptr<SerialLine>> Open(
      const std::string& path, const LineSettings& settings);
  ~SerialLine();
  SerialLine(const SerialLine&) = delete;

  int fd() const { return fd_.get(); }  // does not block
  const std::string& path() const { return path_; }

  // INVALID_ARGUMENT if the line cannot do that; then nothing was changed.
  absl::Status Set(const LineSettings& settings);

  // TIOCM bits; nothing if the line has no such wires (a pty).
  std::optional<int> modem_bits() const;
  absl::Status SetModemBit(int bit, bool is_on);
  // Sends a break. Takes that long.
  absl::Status Break(int milliseconds);
  // Characters lost for want of room since it was opened, by the hardware and
  // by the driver; 0 where nobody counts.
  uint64_t overrun() const;
  // The driver's own counters, since it was loaded; none for a pty.
  std::vector<Control> Counters() const;
  // All that was written has left.
  absl::StatusOr<bool> Drained() const;

  // It hung up: others (we, again) may open it anew.
  void Abandon();

 private:
  SerialLine(std::string path, UniqueFd fd)
      : path_(std::move(path)), fd_(std::move(fd)) {}
  absl::Status Lock();

  const std::string path_;
  const UniqueFd fd_;
  std::optional<LineMode> before_;  // what it was when opened
  bool is_locked_ = false;
  bool is_counted_ = false;
  uint64_t overrun_before_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_SERIAL_LINE_H_
