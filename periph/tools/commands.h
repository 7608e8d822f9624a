// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_COMMANDS_H_
#define TRIPWIRE_PERIPH_TOOLS_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace tripwire::periph::tools {

// Each subcommand of tw-periph is a file that registers how it adds itself to the
// command line; when it was chosen it sets `run` to what does the work, whose error is
// what the user gets to read. Its file is an object, linked though nobody names it.
//
//   const RegisterCommand kLs("ls", [](CLI::App& app, Runner& run) { ... });
using Runner = std::function<absl::Status()>;
using AddCommand = std::function<void(CLI::App& app, Runner& run)>;

class RegisterCommand {
 public:
  RegisterCommand(std::string name, AddCommand add);
};

// A mistake of the user's that only the command itself can see: exit code 2, not 1.
absl::Status BadUse(const std::string& what);
bool IsBadUse(const absl::Status& status);

}  // namespace tripwire::periph::tools

#endif  // TRIPWIRE_PERIPH_TOOLS_COMMANDS_H_
