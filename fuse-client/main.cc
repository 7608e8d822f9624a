// SPDX-License-Identifier: BSD-3-Clause
// tw-mount and mount.tripwire: mounts what a tw-fsd exports.
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "fuse-client/daemon.h"
#include "fuse-client/mount_options.h"
#include "fuse-client/mount_runner.h"
#include "fuse-client/mount_table.h"
#include "nic/api/open_nic.h"
#include "nic/api/stats/stats.h"
#include "nic/base/daemon.h"
#include "nic/base/process.h"
#include "nic/control/unreadable.h"
#include "nic/port/port_spec.h"
#include "spdlog/sinks/basic_file_sink.h"
#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/sinks/syslog_sink.h"
#include "spdlog/spdlog.h"

namespace tripwire::fuse {
namespace {

// As mount(8) and its helpers exit.
constexpr int kBadUse = 1;
constexpr int kMountFailed = 32;

constexpr char kProgram[] = "tw-mount";

std::string OneLine(const absl::Status& status) {
  return absl::StrReplaceAll(std::string(status.message()), {{"\n", "; "}});
}

absl::Status StartLog(const MountOptions& options) {
  try {
    if (!options.log_file.empty()) {
      spdlog::set_default_logger(spdlog::basic_logger_mt(kProgram, options.log_file));
    } else if (options.foreground) {
      spdlog::set_default_logger(spdlog::stderr_color_mt(kProgram));
    } else {
      spdlog::set_default_logger(
          spdlog::syslog_logger_mt(kProgram, kProgram, LOG_PID, LOG_DAEMON));
    }
  } catch (const spdlog::spdlog_ex& error) {
    return absl::InvalidArgumentError(error.what());
  }
  spdlog::set_level(options.verbose ? spdlog::level::debug : spdlog::level::info);
  spdlog::flush_on(spdlog::level::info);
  return absl::OkStatus();
}

// From here on in the process that serves the mount.
int Serve(const MountOptions& options, const std::string& mountpoint,
          std::optional<Daemon> daemon) {
  MountGuard guard = MountGuard::Fork();
  BlockServiceSignals();
  const auto fail = [&](const absl::Status& status) {
    if (daemon) {
      daemon->Fail(OneLine(status), kMountFailed);
    } else {
      std::fprintf(stderr, "%s: %s\n", kProgram, OneLine(status).c_str());
    }
    return kMountFailed;
  };
  if (absl::Status status = StartLog(options); !status.ok()) return fail(status);
  NicOptions nic_options;
  nic_options.max_spin_ns = options.spin_us * kMicrosecond;
  nic_options.node = options.own_node;
  auto nic = OpenNic(options.ports, PortRole::kClient, kProgram, std::move(nic_options));
  if (!nic.ok()) return fail(nic.status());
  auto stats = stats::Server::Start(
      **nic, {.program = kProgram, .detail = options.source + " on " + mountpoint});
  if (!stats.ok()) spdlog::debug("no statistics: {}", OneLine(stats.status()));
  MountRunner runner(options, mountpoint);
  const absl::Status status = runner.Start([&](rpc::ClientOptions client_options) {
    client_options.service = "fs";
    return rpc::Client::Connect(**nic, std::move(client_options));
  });
  if (!status.ok()) return fail(status);
  guard.Mounted(mountpoint, runner.device());
  if (daemon) daemon->Ready();
  spdlog::info("{} is mounted on {}", options.source, mountpoint);
  runner.Run();
  guard.Ended();
  return 0;
}

int Main(int argc, char** argv) {
#ifdef NDEBUG
  // Debian's absl looks for deadlocks at every lock, which takes time, and a graph
  // of a million nodes' locks. Builds with assertions, and so tests, keep that.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  MountOptions options;
  absl::Status status = ParseCommandLine(argc, argv, geteuid() == 0, &options);
  if (status.ok() && options.show_help) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (status.ok() && options.show_version) {
    std::puts("tw-mount " TRIPWIRE_VERSION);
    return 0;
  }
  // What can go wrong without any device or thread is told before forking.
  if (status.ok()) status = CheckPortSpecs(options.ports);
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", kProgram, OneLine(status).c_str());
    return kBadUse;
  }
  auto mountpoint = CheckMountPoint(options.mountpoint);
  if (!mountpoint.ok()) {
    std::fprintf(stderr, "%s: %s\n", kProgram, OneLine(mountpoint.status()).c_str());
    return kMountFailed;
  }
  if (options.fake) return 0;
  KeepQuietAboutUnreadable();
  std::optional<Daemon> daemon;
  if (!options.foreground) daemon = Daemon::Fork(kProgram, kMountFailed);
  return Serve(options, *mountpoint, std::move(daemon));
}

}  // namespace
}  // namespace tripwire::fuse

int main(int argc, char** argv) { return tripwire::fuse::Main(argc, argv); }
