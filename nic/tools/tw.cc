// SPDX-License-Identifier: BSD-3-Clause
// tw: looks at the network and measures it.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "nic/control/unreadable.h"
#include "nic/tools/commands.h"

int main(int argc, char** argv) {
  CLI::App app(
      "Looks at a Tripwire network: who is there, how far, how fast, what "
      "happened.",
      "tw");
  app.set_version_flag("--version", std::string("tw " TRIPWIRE_VERSION));
  std::string log_level = "warn";
  app.add_option("--log-level", log_level,
                 "debug, info, warn or error, to stderr")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  app.require_subcommand(0, 1);
  app.fallthrough();
  tripwire::tools::Runner run;
  tripwire::tools::AddLs(app, run);
  tripwire::tools::AddPing(app, run);
  tripwire::tools::AddStat(app, run);
  tripwire::tools::AddBench(app, run);
  try {
    app.parse(argc, argv);
    if (!run) throw CLI::RequiredError("a subcommand: ls, ping, stat or bench");
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success))
      return app.exit(e);
    std::fprintf(stderr, "tw: %s; see tw --help\n", e.what());
    return 2;
  }
  spdlog::set_default_logger(spdlog::stderr_color_mt("tw"));
  spdlog::set_level(spdlog::level::from_str(log_level));
  tripwire::KeepQuietAboutUnreadable();
  const absl::Status status = run();
  if (!status.ok()) {
    std::fprintf(stderr, "tw: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
