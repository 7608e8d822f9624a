// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_LOCAL_PTY_H_
#define TRIPWIRE_PERIPH_TOOLS_LOCAL_PTY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "periph/device/line_settings.h"

namespace tripwire::periph::tools {

// A pseudo-terminal that local programs open as if it were a serial line, and
// which tells how they set it. Destroying it hangs up on whoever has it open.
//
// Thread safety: one thread reads and follows, another writes.
class LocalPty {
 public:
  // Raw, with these settings. With `link` not empty, a symbolic link by that
  // name leads to it while it lives; ALREADY_EXISTS if something else is there
  // (but for a link that leads nowhere).
  static absl::StatusOr<std::unique_ptr<LocalPty>> Make(
      const std::string& link, const LineSettings& settings);
  ~LocalPty();
  LocalPty(const LocalPty&) = delete;

  const std::string& path() const { return path_; }  // the terminal's own name
  // To poll while a program has it open (else it is at its end all the time).
  // Does not block.
  int fd() const { return master_.get(); }
  // Whether some program has it open.
  bool IsOpen() const;
  // To poll for reading while none has; -1 if the system has no more watches to
  // give.
  int opens_fd() const { return opens_.get(); }
  void ClearOpens();

  // What a program wrote; empty: nothing is there. Also takes note of news that
  // the settings changed: Look afterwards.
  absl::StatusOr<std::span<const uint8_t>> Read();
  // Waits until programs have read all that was written, at most so long: what
  // they have not read when the terminal goes is lost.
  void AwaitRead(int timeout_ms) const;
  // Writes what there is room for.
  absl::StatusOr<size_t> Write(std::span<const uint8_t> bytes);

  // How the programs have it set now. Two things the kernel does not keep for a
  // pty: the size of a character, and whether there is parity at all. `parity`
  // tells what can be told: odd, mark, space, or nothing.
  struct Seen {
    LineSettings settings;  // its bits and parity mean nothing
    std::optional<LineSettings::Parity> parity;
    bool operator==(const Seen&) const = default;
  };
  absl::StatusOr<Seen> Look();
  // Whether a change of settings makes fd() readable. If not, Look now and
  // then.
  bool tells_changes() const { return tells_changes_; }

 private:
  LocalPty(UniqueFd master, std::string path)
      : master_(std::move(master)), path_(std::move(path)) {}
  absl::Status MakeLink(const std::string& link);

  const UniqueFd master_;
  const std::string path_;
  std::string link_;  // if it was made
  UniqueFd opens_;    // tells that somebody opened it
  bool tells_changes_ = false;
  uint8_t buffer_[4096 + 1];
};

}  // namespace tripwire::periph::tools

#endif  // TRIPWIRE_PERIPH_TOOLS_LOCAL_PTY_H_
