// SPDX-License-Identifier: BSD-3-Clause
// tw-fsd: serves directories over a Tripwire NIC.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "fs-server/config.h"
#include "fs-server/file_server.h"
#include "nic/api/open_nic.h"
#include "nic/api/stats/stats.h"
#include "nic/base/process.h"
#include "nic/comm/rpc.h"
#include "nic/control/unreadable.h"
#include "nic/port/port_spec.h"

namespace tripwire::fs {
namespace {

constexpr int kBadUse = 2;
constexpr int kCannotServe = 1;

struct Options {
  std::vector<std::string> exports;
  std::vector<std::string> ports;
  std::string node;
  std::string state;
  uint32_t lease_ms = 1000;
  uint32_t workers = 4;
  // As long as a client takes to come with its next megabyte.
  uint32_t spin_us = 1000;
  bool watch = false;
  std::string log_level = "info";
};

int Fail(const absl::Status& status, int code) {
  const std::string line =
      absl::StrReplaceAll(std::string(status.message()), {{"\n", "; "}});
  std::fprintf(stderr, "tw-fsd: %s\n", line.c_str());
  return code;
}

// Also without --state, two servers on one host do not meet unless they have one name.
std::string StateDir(const Options& options) {
  if (!options.state.empty()) return options.state;
  const char* set = std::getenv("TRIPWIRE_STATE_DIR");
  const std::string base = set != nullptr && *set != '\0' ? set : DefaultStateDir();
  return absl::StrCat(base, "/fsd-", absl::StrReplaceAll(options.node, {{"/", "_"}}));
}

absl::StatusOr<ServerConfig> ToConfig(const Options& options) {
  ServerConfig config;
  for (const std::string& spec : options.exports) {
    auto parsed = ParseExport(spec);
    if (!parsed.ok()) return parsed.status();
    struct stat st;
    const std::string& directory = parsed->directory;
    const std::string about = absl::StrCat("cannot export ", directory, ": ");
    if (stat(directory.c_str(), &st) != 0) {
      return absl::NotFoundError(absl::StrCat(about, std::strerror(errno)));
    }
    if (!S_ISDIR(st.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat(about, "it is not a directory"));
    }
    for (const ExportConfig& other : config.exports) {
      if (other.name != parsed->name) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("two exports are named '", parsed->name, "'"));
    }
    config.exports.push_back(*std::move(parsed));
  }
  config.state_dir = StateDir(options);
  config.server_name = options.node;
  config.lease_ms = options.lease_ms;
  config.watch = options.watch;
  return config;
}

// What surprises who expects each user to be himself.
std::string WhoActs(const FileServer& files) {
  if (!files.acts_as_caller()) return ", as this user for everybody";
  std::vector<std::string> squashed;
  for (const auto& exported : files.exports()) {
    if (exported->config.squash == Squash::kRoot) squashed.push_back(exported->config.name);
  }
  if (squashed.empty()) return "";
  return absl::StrCat("; root is nobody in ", absl::StrJoin(squashed, ", "), " (squash=root)");
}

std::vector<stats::Group> FileCounters(FileServer& files) {
  stats::Group calls{"calls", {}};
  for (auto& [operation, count] : files.calls_by_operation()) {
    calls.counters.push_back({std::move(operation), count});
  }
  return {{"files",
           {{"calls", files.calls()},
            {"sessions", files.session_count()},
            {"open_files", files.opens().size()},
            {"leases", files.leases().size()},
            {"recalls", files.recalls()},
            {"waiting_locks", files.locks().waiting()}}},
          std::move(calls)};
}

int Serve(const Options& options) {
  auto config = ToConfig(options);
  if (!config.ok()) return Fail(config.status(), kBadUse);
  if (auto status = CheckPortSpecs(options.ports); !status.ok()) return Fail(status, kBadUse);
  RaiseDescriptorLimit();
  const sigset_t signals = BlockServiceSignals();
  std::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit is EFBIG, no end
  NicOptions nic_options;
  nic_options.max_spin_ns = options.spin_us * kMicrosecond;
  nic_options.node = options.node;
  auto nic = OpenNic(options.ports, PortRole::kServer, absl::StrCat(options.node, "-tw-fsd"),
                     std::move(nic_options));
  if (!nic.ok()) return Fail(nic.status(), kCannotServe);
  auto files = FileServer::Create(*config);
  if (!files.ok()) return Fail(files.status(), kCannotServe);
  rpc::ServerOptions rpc_options = FileServer::RpcOptions();
  rpc_options.workers = options.workers;
  auto server = rpc::Server::Start(**nic, rpc_options, (*files)->Callbacks());
  if (!server.ok()) return Fail(server.status(), kCannotServe);
  const std::string names =
      absl::StrJoin((*files)->exports(), ", ", [](std::string* out, const auto& exported) {
        absl::StrAppend(out, exported->config.name, "=", exported->config.directory);
      });
  auto stats = stats::Server::Start(
      **nic, {.program = "tw-fsd", .detail = names, .extra = [&files = **files] {
                return FileCounters(files);
              }});
  if (!stats.ok()) spdlog::debug("no statistics: {}", std::string(stats.status().message()));
  spdlog::info("ready: {} serves {}{}", (*nic)->node(), names, WhoActs(**files));
  int signal = 0;
  while (sigwait(&signals, &signal) != 0 || signal == SIGHUP) {
  }
  spdlog::info("ending: {}", signal == SIGINT ? "interrupted" : "terminated");
  (*files)->Shutdown();
  server->reset();
  return 0;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Serves directories to tw-mount over a Tripwire NIC.", "tw-fsd");
  app.set_version_flag("--version", std::string("tw-fsd " TRIPWIRE_VERSION));
  app.add_option("--export", options.exports,
                 "NAME=DIR[,ro][,squash=root|all|none][,anonuid=N][,anongid=N]: a directory to "
                 "serve and under what name (may be repeated). Root's calls are made as the "
                 "anonymous user unless squash=none")
      ->required()
      ->type_name("NAME=DIR[,OPTION]...")
      ->allow_extra_args(false);
  app.add_option("--port", options.ports, kPortHelp)->type_name("PORT")->allow_extra_args(false);
  app.add_option("--node", options.node, "this node's name for others (default: the host name)")
      ->type_name("NAME");
  app.add_option("--state,--state-dir", options.state,
                 "where what must outlive a restart is kept (default: $TRIPWIRE_STATE_DIR, "
                 "/var/lib/tripwire for root, else $XDG_STATE_HOME/tripwire)")
      ->type_name("DIR");
  app.add_option("--lease", options.lease_ms,
                 "how long clients may cache without asking, in ms; what clients change is "
                 "recalled at once, this bounds changes made on the server itself")
      ->check(CLI::Range(0u, 3'600'000u))
      ->capture_default_str();
  app.add_flag("--watch", options.watch,
               "notice what other processes on this host change in the exports and recall it at "
               "once (fanotify; needs root)");
  app.add_option("--workers", options.workers, "calls served at once")
      ->check(CLI::Range(1u, 256u))
      ->capture_default_str();
  app.add_option("--spin", options.spin_us,
                 "wait so many microseconds for calls before sleeping (less by itself while "
                 "none come; 0: never)")
      ->check(CLI::Range(0, 100'000))
      ->type_name("US")
      ->capture_default_str();
  app.add_option("--log-level", options.log_level, "debug, info, warn or error, to stderr")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return Fail(absl::InvalidArgumentError(absl::StrCat(error.what(), "; see tw-fsd --help")),
                kBadUse);
  }
  spdlog::set_default_logger(spdlog::stderr_color_mt("tw-fsd"));
  spdlog::set_level(spdlog::level::from_str(options.log_level));
  KeepQuietAboutUnreadable();
  if (options.node.empty()) options.node = HostName();
  return Serve(options);
}

}  // namespace
}  // namespace tripwire::fs

int main(int argc, char** argv) { return tripwire::fs::Main(argc, argv); }
