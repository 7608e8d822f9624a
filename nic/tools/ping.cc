// SPDX-License-Identifier: BSD-3-Clause
// tw ping NODE: is it there, and how far away? Asks the node for a service that
// nobody offers; any NIC that speaks the protocol answers that, with no
// program's help.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/api/nic.h"
#include "nic/api/stats/stats.h"
#include "nic/port/port_spec.h"
#include "nic/tools/commands.h"
#include "nic/tools/open_nic.h"

namespace tripwire::tools {
namespace {

struct PingOptions {
  std::string node;
  std::vector<std::string> ports;
  int count = 4;
  double interval_seconds = 0.2;
  double timeout_seconds = 3;
  bool json = false;
};

// The round trip in ns, or why there was none.
absl::StatusOr<uint64_t> PingOnce(Nic& nic, const PingOptions& options) {
  const uint64_t begin_ns = nic.clock().NowNs();
  bool found = false;
  nic.Discover(static_cast<uint64_t>(options.timeout_seconds * 1e9),
               [&](const std::vector<NodeInfo>& nodes) {
                 for (const NodeInfo& node : nodes) {
                   found |= node.node == options.node;
                 }
                 return found;
               });
  if (found) return nic.clock().NowNs() - begin_ns;
  return absl::NotFoundError(
      absl::StrFormat("no answer from %s in %g s; tw ls shows who is there",
                      options.node, options.timeout_seconds));
}

absl::Status Run(const PingOptions& options) {
  auto nic = OpenNic(options.ports);
  if (!nic.ok()) return nic.status();
  std::vector<uint64_t> times_ns;
  for (int i = 0; i < options.count; ++i) {
    if (i > 0) {
      const uint64_t until =
          (*nic)->clock().NowNs() +
          static_cast<uint64_t>(options.interval_seconds * 1e9);
      (*nic)->WaitUntil([] { return false; }, until);
    }
    auto time_ns = PingOnce(**nic, options);
    if (!time_ns.ok()) return time_ns.status();
    times_ns.push_back(*time_ns);
    if (!options.json) {
      std::printf("%s answered in %.1f us\n", options.node.c_str(),
                  static_cast<double>(*time_ns) * 1e-3);
      std::fflush(stdout);
    }
  }
  if (options.json) {
    std::printf("{\"node\":%s,\"round_trips_ns\":[",
                stats::JsonQuote(options.node).c_str());
    for (size_t i = 0; i < times_ns.size(); ++i) {
      std::printf("%s%llu", i == 0 ? "" : ",",
                  static_cast<unsigned long long>(times_ns[i]));
    }
    std::printf("]}\n");
  }
  return absl::OkStatus();
}

}  // namespace

void AddPing(CLI::App& app, Runner& run) {
  auto options = std::make_shared<PingOptions>();
  CLI::App* command = app.add_subcommand("ping", "Round trips to a node's NIC");
  command->add_option("NODE", options->node, "The node's name")->required();
  command->add_option("--port", options->ports, kPortHelp);
  command->add_option("-c,--count", options->count, "How many")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command
      ->add_option("-i,--interval", options->interval_seconds,
                   "Seconds between")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  command
      ->add_option("-W,--timeout", options->timeout_seconds,
                   "Seconds to wait for an answer")
      ->check(CLI::Range(0.001, 3600.0))
      ->capture_default_str();
  command->add_flag("--json", options->json, "One JSON object");
  command->callback(
      [options, &run] { run = [options] { return Run(*options); }; });
}

}  // namespace tripwire::tools
