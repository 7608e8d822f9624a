// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_PROGRAM_H_
#define TRIPWIRE_PERIPH_DEVICE_PROGRAM_H_

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "periph/device/bytes.h"

namespace tripwire::periph {

// A shell command that runs in a process group of its own. What it says on its
// standard error goes to the log, line by line. Thread-safe but for the
// destructor.
class Program {
 public:
  static absl::StatusOr<std::unique_ptr<Program>> Start(
      const std::string& command);
  // Ends the whole group: SIGTERM, and two seconds later SIGKILL. Waits for
  // that.
  ~Program();
  Program(const Program&) = delete;

  const std::string& command() const { return command_; }
  int output_fd() const {
    return output_.get();
  }  // its standard output; does not block
  int input_fd() const {
    return input_.get();
  }  // its standard input; does not block
  // Its input ends. REQUIRES: nobody uses input_fd.
  void CloseInput();
  bool input_is_open() const {
    return input_open_.load(std::memory_order_acquire);
  }

  // While nobody reads its output it is thrown away, lest the program waits.
  // REQUIRES: when set, nobody uses output_fd.
  void DiscardOutput(bool discards);

  // How it ended: OK for exit status 0; ABORTED, with the reason, for others.
  // Nothing while it runs.
  std::optional<absl::Status> ended() const;

 private:
  Program(std::string command, pid_t pid)
      : command_(std::move(command)), pid_(pid) {}
  void Pump();
  bool PumpErrors(std::string& line);
  bool PumpOutput();

  const std::string command_;
  // Not reaped before the destructor, so that the number stays the group's.
  const pid_t pid_;
  UniqueFd process_;  // readable when it ended
  UniqueFd input_, output_, errors_;
  std::atomic<bool> input_open_{true};  // set (release) after input_ was closed
  WakeFd wake_;                         // the pump is to look at these:
  std::atomic<bool> discards_{false};
  std::atomic<bool> stop_{false};
  WakeFd silent_;  // both outputs ended
  std::thread pump_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_PROGRAM_H_
