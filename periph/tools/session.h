// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_SESSION_H_
#define TRIPWIRE_PERIPH_TOOLS_SESSION_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/api/nic.h"
#include "nic/base/interrupt.h"
#include "periph/client/peripherals.h"

// What the subcommands of tw-periph have in common.
namespace tripwire::periph::tools {

// Options of the command line that all commands take.
struct Where {
  std::vector<std::string> ports;
  void AddTo(CLI::App& command);
};

// tripwire::OpenNic for these commands: what is no port is bad use.
absl::StatusOr<std::unique_ptr<Nic>> OpenNic(const Where& where);

// A NIC, the node that was named, and the device if one was.
struct Session {
  std::unique_ptr<Nic> nic;
  std::unique_ptr<Peripherals> peripherals;
  DeviceName name;
};
// `device` is NODE:NAME; `program` is told to the other end.
absl::StatusOr<Session> OpenSession(const Where& where, const std::string& device,
                                    const std::string& program);

// How a stream is to be opened, as options of a command line.
struct StreamFlags {
  std::string format;
  std::string policy;  // empty: as the command thinks best
  uint32_t queue = 4;
  uint32_t slots = 8;
  bool exclusive = false;
  void AddTo(CLI::App& command);
  StreamOptions ToOptions() const;
};

// What SIGINT and SIGTERM do: end the program at once while nothing was begun, and then
// what was set, on another thread. REQUIRES: BlockInterrupts() was called.
class Stopper {
 public:
  Stopper();
  void Set(std::function<void()> stop);  // empty: as before
  bool came() const { return interrupt_.came(); }

 private:
  std::mutex mutex_;
  std::function<void()> stop_;
  Interrupt interrupt_;  // last: its thread uses the rest
};

// Writes it all. False: whoever read it has gone (EPIPE), which ends a program in silence.
absl::StatusOr<bool> WriteAll(int fd, std::span<const uint8_t> bytes);

}  // namespace tripwire::periph::tools

#endif  // TRIPWIRE_PERIPH_TOOLS_SESSION_H_
