// SPDX-License-Identifier: BSD-3-Clause
// tw-periph ls: the devices that are offered.
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nic/api/stats/stats.h"
#include "periph/proto/messages.h"
#include "periph/tools/commands.h"
#include "periph/tools/device_text.h"
#include "periph/tools/session.h"

namespace tripwire::periph::tools {
namespace {

struct LsOptions {
  Where where;
  std::string node;
  double wait_seconds = 0.5;
  bool json = false;
  bool watch = false;
};

std::vector<std::string> Nodes(Nic& nic, const LsOptions& options) {
  if (!options.node.empty()) return {options.node};
  std::set<std::string> names;
  for (const NodeInfo& node : nic.Discover(static_cast<uint64_t>(options.wait_seconds * 1e9))) {
    const auto& services = node.services;
    if (std::find(services.begin(), services.end(), kControlService) != services.end()) {
      names.insert(node.node);
    }
  }
  return {names.begin(), names.end()};
}

void Print(const std::string& node, const proto::DeviceInfo& info, bool json) {
  const std::string text = json ? JsonOf(node, info) : LineOf(node, info);
  std::printf("%s\n", text.c_str());
}

void PrintEvent(const std::string& node, const proto::DeviceEvent& event, bool json) {
  if (json) {
    std::printf("{\"node\":%s,\"device\":%s,\"present\":%s,\"why\":%s}\n",
                stats::JsonQuote(node).c_str(), stats::JsonQuote(event.device()).c_str(),
                event.present() ? "true" : "false", stats::JsonQuote(event.why()).c_str());
  } else {
    std::printf("%s:%s %s%s\n", Printable(node).c_str(), Printable(event.device()).c_str(),
                event.present() ? "is there" : "is not there: ", event.why().c_str());
  }
  std::fflush(stdout);
}

absl::StatusOr<std::unique_ptr<Peripherals>> Connect(
    Nic& nic, const std::string& node, std::function<void(const proto::DeviceEvent&)> on_device) {
  Peripherals::Options options;
  options.node = node;
  options.program = "tw-periph ls";
  options.on_device = std::move(on_device);
  return Peripherals::Connect(nic, std::move(options));
}

// Until interrupted, or nobody reads it any more.
absl::Status Watch(Nic& nic, const std::vector<std::string>& nodes, const LsOptions& options,
                   Stopper& stopper) {
  std::mutex mutex;
  std::condition_variable ended;
  bool end = false;
  std::vector<std::unique_ptr<Peripherals>> all;
  for (const std::string& node : nodes) {
    auto peripherals = Connect(nic, node, [&, node](const proto::DeviceEvent& event) {
      std::lock_guard lock(mutex);
      PrintEvent(node, event, options.json);
      if (std::ferror(stdout) != 0) end = true;
      ended.notify_all();
    });
    if (!peripherals.ok()) return peripherals.status();
    all.push_back(*std::move(peripherals));
  }
  stopper.Set([&] {
    std::lock_guard lock(mutex);
    end = true;
    ended.notify_all();
  });
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return end; });
  lock.unlock();
  all.clear();
  stopper.Set({});
  return absl::OkStatus();
}

absl::Status Run(const LsOptions& options) {
  Stopper stopper;
  auto nic = OpenNic(options.where);
  if (!nic.ok()) return nic.status();
  const std::vector<std::string> nodes = Nodes(**nic, options);
  if (nodes.empty() && !options.json) return absl::NotFoundError("no node offers devices");
  if (options.watch) return Watch(**nic, nodes, options, stopper);
  absl::Status status;
  bool has_head = options.json;
  for (const std::string& node : nodes) {
    auto peripherals = Connect(**nic, node, {});
    auto devices = peripherals.ok() ? (*peripherals)->List() : peripherals.status();
    if (!devices.ok()) {
      status = devices.status();
      continue;
    }
    if (!std::exchange(has_head, true)) std::printf("%s\n", HeadLine().c_str());
    for (const proto::DeviceInfo& info : *devices) Print(node, info, options.json);
  }
  return status;
}

const RegisterCommand kLs("ls", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<LsOptions>();
  CLI::App* command =
      app.add_subcommand("ls", "The devices that are offered: nodes, kinds, formats, users");
  options->where.AddTo(*command);
  command->add_option("--wait", options->wait_seconds, "seconds to collect nodes' answers")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  command->add_flag("--json", options->json, "one JSON object per device and line");
  command->add_flag("--watch", options->watch, "stay, and say when devices come and go");
  command->add_option("NODE", options->node, "only this node's");
  command->callback([options, &run] { run = [options] { return Run(*options); }; });
});

}  // namespace
}  // namespace tripwire::periph::tools
