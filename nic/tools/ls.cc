// SPDX-License-Identifier: BSD-3-Clause
// tw ls: who is there and what they offer.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nic/api/open_nic.h"
#include "nic/api/stats/stats.h"
#include "nic/port/port_spec.h"
#include "nic/tools/commands.h"
#include "nic/tools/printable.h"

namespace tripwire::tools {
namespace {

struct LsOptions {
  std::vector<std::string> ports;
  double wait_seconds = 0.5;
  bool json = false;
};

void PrintJson(const NodeInfo& node) {
  const std::string services = absl::StrJoin(
      node.services, ",", [](std::string* out, const std::string& service) {
        absl::StrAppend(out, stats::JsonQuote(service));
      });
  std::printf("{\"node\":%s,\"mac\":\"%s\",\"port\":%s,\"services\":[%s]}\n",
              stats::JsonQuote(node.node).c_str(), node.mac.ToString().c_str(),
              stats::JsonQuote(node.port).c_str(), services.c_str());
}

absl::Status Run(const LsOptions& options) {
  auto nic = OpenNic(options.ports, PortRole::kClient, "tw");
  if (!nic.ok()) return nic.status();
  auto nodes =
      (*nic)->Discover(static_cast<uint64_t>(options.wait_seconds * 1e9));
  std::sort(nodes.begin(), nodes.end(),
            [](const NodeInfo& a, const NodeInfo& b) {
              return std::tie(a.node, a.mac) < std::tie(b.node, b.mac);
            });
  for (const NodeInfo& node : nodes) {
    if (options.json) {
      PrintJson(node);
    } else {
      std::printf("%-20s %s  %-20s %s\n", Printable(node.node).c_str(),
                  node.mac.ToString().c_str(),
                  Printable(absl::StrJoin(node.services, " ")).c_str(),
                  node.port.c_str());
    }
  }
  if (nodes.empty() && !options.json)
    return absl::NotFoundError("no node answered");
  return absl::OkStatus();
}

}  // namespace

void AddLs(CLI::App& app, Runner& run) {
  auto options = std::make_shared<LsOptions>();
  CLI::App* command =
      app.add_subcommand("ls", "Nodes on the segment and their services");
  command->add_option("--port", options->ports, kPortHelp);
  command
      ->add_option("--wait", options->wait_seconds,
                   "Seconds to collect answers")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  command->add_flag("--json", options->json,
                    "One JSON object per node and line");
  command->callback(
      [options, &run] { run = [options] { return Run(*options); }; });
}

}  // namespace tripwire::tools
