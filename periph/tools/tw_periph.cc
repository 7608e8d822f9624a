// SPDX-License-Identifier: BSD-3-Clause
// tw-periph: uses other machines' devices.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nic/base/interrupt.h"
#include "periph/tools/commands.h"

namespace tripwire::periph::tools {
namespace {

// Made at first use, so that commands may register before main in any order.
std::map<std::string, AddCommand>& Commands() {
  static std::map<std::string, AddCommand> commands;
  return commands;
}

constexpr char kBadUseUrl[] = "tripwire/bad-use";

int Fail(const std::string& message, int code) {
  std::fprintf(stderr, "tw-periph: %s\n", absl::StrReplaceAll(message, {{"\n", "; "}}).c_str());
  return code;
}

std::string Names() {
  return absl::StrJoin(Commands(), ", ",
                       [](std::string* out, const auto& command) { out->append(command.first); });
}

}  // namespace

RegisterCommand::RegisterCommand(std::string name, AddCommand add) {
  Commands().emplace(std::move(name), std::move(add));
}

absl::Status BadUse(const std::string& what) {
  absl::Status status = absl::InvalidArgumentError(what);
  status.SetPayload(kBadUseUrl, absl::Cord());
  return status;
}

bool IsBadUse(const absl::Status& status) { return status.GetPayload(kBadUseUrl).has_value(); }

int Main(int argc, char** argv) {
  CLI::App app("Uses the devices that other machines offer.", "tw-periph");
  app.set_version_flag("--version", std::string("tw-periph " TRIPWIRE_VERSION));
  app.footer("A device is NODE:NAME, or :NAME if only one node offers devices.");
  std::string log_level = "warn";
  app.add_option("--log-level", log_level, "debug, info, warn or error, to stderr")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  app.require_subcommand(0, 1);
  app.fallthrough();
  Runner run;
  for (const auto& [name, add] : Commands()) add(app, run);
  try {
    app.parse(argc, argv);
    if (!run) throw CLI::RequiredError("a subcommand: " + Names());
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return Fail(std::string(error.what()) + "; see tw-periph --help", 2);
  }
  spdlog::set_default_logger(spdlog::stderr_color_mt("tw-periph"));
  spdlog::set_level(spdlog::level::from_str(log_level));
  BlockInterrupts();  // before any thread is made
  std::signal(SIGPIPE, SIG_IGN);
  const absl::Status status = run();
  if (!status.ok()) return Fail(std::string(status.message()), IsBadUse(status) ? 2 : 1);
  return 0;
}

}  // namespace tripwire::periph::tools

int main(int argc, char** argv) { return tripwire::periph::tools::Main(argc, argv); }
