// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_TOOLS_COMMANDS_H_
#define TRIPWIRE_NIC_TOOLS_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/status.h"

namespace tripwire::tools {

// Each adds its subcommand to `app`; when chosen, `run` is set to what does the
// work. Its error is what the user gets to read.
using Runner = std::function<absl::Status()>;
void AddLs(CLI::App& app, Runner& run);
void AddPing(CLI::App& app, Runner& run);
void AddStat(CLI::App& app, Runner& run);
void AddBench(CLI::App& app, Runner& run);

}  // namespace tripwire::tools

#endif  // TRIPWIRE_NIC_TOOLS_COMMANDS_H_
