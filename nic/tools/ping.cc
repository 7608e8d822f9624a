// SPDX-License-Identifier: BSD-3-Clause
// tw ping NODE: is it there, and how far away? Asks the node for a service that
// nobody offers; any NIC that speaks the protocol answers that, with no
// program's help.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nic/api/open_nic.h"
#include "nic/api/stats/stats.h"
#include "nic/base/interrupt.h"
#include "nic/port/port_spec.h"
#include "nic/tools/commands.h"

namespace tripwire::tools {
namespace {

struct PingOptions {
  std::string node;
  std::vector<std::string> ports;
  uint64_t count = 4;
  double interval_seconds = 0.2;
  double timeout_seconds = 3;
  bool json = false;
};

// The round trip in ns; nothing when no answer came in time.
std::optional<uint64_t> PingOnce(Nic& nic, const PingOptions& options,
                                 const Interrupt& interrupt) {
  const uint64_t begin_ns = nic.clock().NowNs();
  bool found = false;
  nic.Discover(static_cast<uint64_t>(options.timeout_seconds * 1e9),
               [&](const std::vector<NodeInfo>& nodes) {
                 for (const NodeInfo& node : nodes) {
                   found |= node.node == options.node;
                 }
                 return found || interrupt.came();
               });
  if (!found) return std::nullopt;
  return nic.clock().NowNs() - begin_ns;
}

// What ping(8) tells at its end. `mdev` is the standard deviation.
struct Summary {
  uint64_t asked = 0;
  std::vector<uint64_t> times_ns;
  double min_ns = 0, avg_ns = 0, max_ns = 0, mdev_ns = 0;

  void Compute() {
    if (times_ns.empty()) return;
    const auto [least, most] =
        std::minmax_element(times_ns.begin(), times_ns.end());
    min_ns = static_cast<double>(*least);
    max_ns = static_cast<double>(*most);
    const auto count = static_cast<double>(times_ns.size());
    for (const uint64_t time : times_ns) {
      avg_ns += static_cast<double>(time) / count;
    }
    double variance = 0;
    for (const uint64_t time : times_ns) {
      const double difference = static_cast<double>(time) - avg_ns;
      variance += difference * difference / count;
    }
    mdev_ns = std::sqrt(variance);
  }
  double LossPercent() const {
    return asked == 0 ? 0
                      : 100.0 * static_cast<double>(asked - times_ns.size()) /
                            static_cast<double>(asked);
  }
};

std::string Json(const PingOptions& options, const Summary& summary) {
  std::string text = absl::StrCat("{\"node\":", stats::JsonQuote(options.node),
                                  ",\"asked\":", summary.asked,
                                  ",\"answered\":", summary.times_ns.size(),
                                  ",\"loss_percent\":", summary.LossPercent());
  if (!summary.times_ns.empty()) {
    absl::StrAppendFormat(
        &text,
        ",\"min_ns\":%.0f,\"avg_ns\":%.0f,\"max_ns\":%.0f,\"mdev_ns\":%.0f",
        summary.min_ns, summary.avg_ns, summary.max_ns, summary.mdev_ns);
  }
  absl::StrAppend(&text, ",\"round_trips_ns\":[",
                  absl::StrJoin(summary.times_ns, ","), "]}\n");
  return text;
}

std::string Text(const Summary& summary) {
  std::string text =
      absl::StrFormat("%d asked, %d answered, %.3g %% lost", summary.asked,
                      summary.times_ns.size(), summary.LossPercent());
  if (!summary.times_ns.empty()) {
    absl::StrAppendFormat(
        &text,
        "; round trip min %.1f us, avg %.1f us, max %.1f us, mdev %.1f us",
        summary.min_ns * 1e-3, summary.avg_ns * 1e-3, summary.max_ns * 1e-3,
        summary.mdev_ns * 1e-3);
  }
  return text + "\n";
}

// Asks until it is enough, or interrupted.
Summary Measure(Nic& nic, const PingOptions& options,
                const Interrupt& interrupt) {
  Summary summary;
  for (uint64_t i = 0; options.count == 0 || i < options.count; ++i) {
    if (i > 0) {
      const uint64_t until =
          nic.clock().NowNs() +
          static_cast<uint64_t>(options.interval_seconds * 1e9);
      nic.WaitUntil([&] { return interrupt.came(); }, until);
    }
    if (interrupt.came()) break;
    const auto time_ns = PingOnce(nic, options, interrupt);
    if (!time_ns && interrupt.came()) break;  // asked, but not waited for
    ++summary.asked;
    if (time_ns) summary.times_ns.push_back(*time_ns);
    // Nobody of that name: no use in asking again, unless until interrupted.
    if (i == 0 && !time_ns && options.count > 0) break;
    if (options.json) continue;
    if (time_ns) {
      std::printf("%s answered in %.1f us\n", options.node.c_str(),
                  static_cast<double>(*time_ns) * 1e-3);
    } else {
      std::printf("%s did not answer in %g s\n", options.node.c_str(),
                  options.timeout_seconds);
    }
    std::fflush(stdout);
  }
  summary.Compute();
  return summary;
}

absl::Status Run(const PingOptions& options) {
  BlockInterrupts();  // before the NIC makes threads
  auto nic = OpenNic(options.ports, PortRole::kClient, "tw");
  if (!nic.ok()) return nic.status();
  Interrupt interrupt([&] { (*nic)->Notify(); });
  const Summary summary = Measure(**nic, options, interrupt);
  const bool nobody = summary.times_ns.empty() && !interrupt.came();
  if (options.json) {
    std::printf("%s", Json(options, summary).c_str());
  } else if (!nobody) {
    std::printf("%s", Text(summary).c_str());
  }
  std::fflush(stdout);
  if (nobody) {
    return absl::NotFoundError(
        absl::StrFormat("no answer from %s in %g s; tw ls shows who is there",
                        options.node, options.timeout_seconds));
  }
  return absl::OkStatus();
}

}  // namespace

void AddPing(CLI::App& app, Runner& run) {
  auto options = std::make_shared<PingOptions>();
  CLI::App* command = app.add_subcommand("ping", "Round trips to a node's NIC");
  command->add_option("NODE", options->node, "The node's name")->required();
  command->add_option("--port", options->ports, kPortHelp);
  command
      ->add_option("-c,--count", options->count,
                   "How many; 0: until interrupted")
      ->check(CLI::Range(0, 1000000))
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
