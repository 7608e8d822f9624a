// SPDX-License-Identifier: BSD-3-Clause
// tw-periphd: offers devices over a Tripwire NIC.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nic/api/open_nic.h"
#include "nic/api/stats/stats.h"
#include "nic/base/process.h"
#include "nic/control/unreadable.h"
#include "nic/port/port_spec.h"
#include "periph/device/device.h"
#include "periph/service/access.h"
#include "periph/service/periph_service.h"

namespace tripwire::periph {
namespace {

constexpr int kBadUse = 2;
constexpr int kCannotServe = 1;

struct Options {
  std::vector<std::string> devices;
  std::vector<std::string> access;
  std::vector<std::string> ports;
  std::string node;
  uint32_t spin_us = 50;
  bool list_kinds = false;
  std::string log_level = "info";
};

int Fail(const absl::Status& status, int code) {
  const std::string line = absl::StrReplaceAll(std::string(status.message()), {{"\n", "; "}});
  std::fprintf(stderr, "tw-periphd: %s\n", line.c_str());
  return code;
}

std::string KindsText() {
  std::string text = "Kinds of devices, for --device NAME=SPEC:\n";
  for (const DeviceKind& kind : AllKinds()) {
    absl::StrAppend(&text, "  ", kind.grammar, "\n      ", kind.help, "\n");
  }
  return text;
}

// All that needs no device, so that mistakes are told before anything is opened.
absl::StatusOr<std::vector<DeviceConfig>> ToConfigs(const Options& options, Clock& clock) {
  std::vector<DeviceConfig> configs;
  for (const std::string& text : options.devices) {
    auto named = ParseNamed(text);
    if (!named.ok()) return named.status();
    for (const DeviceConfig& other : configs) {
      if (other.name != named->name) continue;
      return absl::InvalidArgumentError(absl::StrCat("two devices are named '", named->name, "'"));
    }
    auto device = MakeDevice(named->text, clock);
    if (!device.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("device '", named->name, "': ", std::string(device.status().message())));
    }
    configs.push_back({named->name, named->text, *std::move(device), {}});
  }
  for (const std::string& text : options.access) {
    auto named = ParseNamed(text);
    if (!named.ok()) return named.status();
    const auto config = std::find_if(configs.begin(), configs.end(),
                                     [&](const auto& each) { return each.name == named->name; });
    if (config == configs.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--access ", text, ": no device is named '", named->name, "'"));
    }
    if (auto status = ParseRules(named->text, &config->access); !status.ok()) return status;
  }
  return configs;
}

int Serve(const Options& options) {
  const sigset_t signals = BlockServiceSignals();  // before any thread is made
  SystemClock clock;                               // the NIC's own
  auto configs = ToConfigs(options, clock);
  if (!configs.ok()) return Fail(configs.status(), kBadUse);
  if (auto status = CheckPortSpecs(options.ports); !status.ok()) return Fail(status, kBadUse);
  RaiseDescriptorLimit();
  NicOptions nic_options;
  nic_options.max_spin_ns = options.spin_us * kMicrosecond;
  nic_options.node = options.node;
  auto nic = OpenNic(options.ports, PortRole::kServer, absl::StrCat(options.node, "-tw-periphd"),
                     std::move(nic_options));
  if (!nic.ok()) return Fail(nic.status(), kCannotServe);
  const std::string names = absl::StrJoin(
      *configs, ", ", [](std::string* out, const auto& each) { out->append(each.name); });
  auto service = PeriphService::Start(**nic, *std::move(configs));
  if (!service.ok()) return Fail(service.status(), kCannotServe);
  auto stats = stats::Server::Start(
      **nic, {.program = "tw-periphd", .detail = names, .extra = [&service = **service] {
                return service.Counters();
              }});
  if (!stats.ok()) spdlog::debug("no statistics: {}", std::string(stats.status().message()));
  spdlog::info("ready: {} offers {}", (*nic)->node(), names);
  int signal = 0;
  while (sigwait(&signals, &signal) != 0 || signal == SIGHUP) {
  }
  spdlog::info("ending: {}", signal == SIGINT ? "interrupted" : "terminated");
  if (stats.ok()) stats->reset();
  service->reset();
  return 0;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Offers devices to tw-periph and GStreamer over a Tripwire NIC.", "tw-periphd");
  app.set_version_flag("--version", std::string("tw-periphd " TRIPWIRE_VERSION));
  app.footer(KindsText());
  app.add_option("--device", options.devices,
                 "NAME=SPEC: a device to offer, and under what name (may be repeated)")
      ->type_name("NAME=SPEC")
      ->allow_extra_args(false);
  app.add_option("--access", options.access,
                 "NAME=RULE[,RULE]...: who may do what with a device; ro: nothing that changes it; "
                 "exclusive: one user at a time; node=NAME: only users on that node (may be "
                 "repeated; node names are not authenticated)")
      ->type_name("NAME=RULE[,RULE]...")
      ->allow_extra_args(false);
  app.add_option("--port", options.ports, kPortHelp)->type_name("PORT")->allow_extra_args(false);
  app.add_option("--node", options.node, "this node's name for others (default: the host name)")
      ->type_name("NAME");
  app.add_option("--spin", options.spin_us,
                 "wait so many microseconds for news before sleeping (0: never)")
      ->check(CLI::Range(0, 100'000))
      ->type_name("US")
      ->capture_default_str();
  app.add_flag("--list-kinds", options.list_kinds, "print the kinds of devices and end");
  app.add_option("--log-level", options.log_level, "debug, info, warn or error, to stderr")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
    if (!options.list_kinds && options.devices.empty()) {
      throw CLI::RequiredError("--device");
    }
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return Fail(absl::InvalidArgumentError(absl::StrCat(error.what(), "; see tw-periphd --help")),
                kBadUse);
  }
  if (options.list_kinds) {
    std::fputs(KindsText().c_str(), stdout);
    return 0;
  }
  spdlog::set_default_logger(spdlog::stderr_color_mt("tw-periphd"));
  spdlog::set_level(spdlog::level::from_str(options.log_level));
  KeepQuietAboutUnreadable();
  if (options.node.empty()) options.node = HostName();
  return Serve(options);
}

}  // namespace
}  // namespace tripwire::periph

int main(int argc, char** argv) { return tripwire::periph::Main(argc, argv); }
