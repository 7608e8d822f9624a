// SPDX-License-Identifier: BSD-3-Clause
// tw stat: the live counters of this host's programs.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/api/stats/stats.h"
#include "nic/tools/commands.h"

namespace tripwire::tools {
namespace {

using stats::ProcessStats;

struct StatOptions {
  bool json = false;
  bool brief = false;
  bool all = false;
  double watch_seconds = 0;
  std::vector<std::string> programs;
};

std::string Heading(const ProcessStats& process) {
  std::string text = absl::StrFormat("%s, process %d, node %s", process.program,
                                     process.pid, process.node);
  if (!process.detail.empty()) absl::StrAppend(&text, ", ", process.detail);
  absl::StrAppendFormat(&text, ", up %.0f s",
                        static_cast<double>(process.uptime_ns) * 1e-9);
  return text;
}

std::string Bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", value,
                         kUnits[unit]);
}

void PrintBrief(const ProcessStats& process) {
  const auto nic = [&](const char* name) { return process.Value("nic", name); };
  std::printf("%s\n", Heading(process).c_str());
  absl::PrintF("  received  %12d frames  %s\n", nic("rx_frames"),
               Bytes(nic("rx_bytes")));
  absl::PrintF("  sent      %12d frames  %s\n", nic("tx_frames"),
               Bytes(nic("tx_bytes")));
  absl::PrintF("  tripwires %12d fired   %d events\n", nic("tripwires_fired"),
               nic("events"));
  absl::PrintF(
      "  repaired  %12d retransmitted, %d duplicates dropped, %d early frames "
      "held\n",
      nic("retransmitted_frames"), nic("duplicate_frames"),
      nic("early_frames"));
}

void PrintAll(const ProcessStats& process, bool zeros) {
  std::printf("%s\n", Heading(process).c_str());
  for (const stats::Group& group : process.groups) {
    std::printf("  %s\n", group.name.c_str());
    for (const stats::Counter& counter : group.counters) {
      if (counter.value == 0 && !zeros) continue;
      std::printf("    %-24s %20llu\n", counter.name.c_str(),
                  static_cast<unsigned long long>(counter.value));
    }
  }
}

absl::Status Show(const StatOptions& options) {
  std::vector<ProcessStats> processes =
      stats::Collect(stats::DefaultDirectories());
  if (!options.programs.empty()) {
    processes.erase(std::remove_if(processes.begin(), processes.end(),
                                   [&](const ProcessStats& process) {
                                     return std::find(options.programs.begin(),
                                                      options.programs.end(),
                                                      process.program) ==
                                            options.programs.end();
                                   }),
                    processes.end());
  }
  for (const ProcessStats& process : processes) {
    if (options.json) {
      std::printf("%s\n", stats::ToJson(process).c_str());
    } else if (options.brief) {
      PrintBrief(process);
    } else {
      PrintAll(process, options.all);
    }
  }
  std::fflush(stdout);
  if (processes.empty() && !options.json) {
    return absl::NotFoundError(
        "no program with a NIC answers here (as this user, in this runtime "
        "directory)");
  }
  return absl::OkStatus();
}

absl::Status Run(const StatOptions& options) {
  if (options.watch_seconds <= 0) return Show(options);
  for (;;) {
    if (auto status = Show(options); !status.ok() && !absl::IsNotFound(status))
      return status;
    if (!options.json) std::printf("\n");
    const auto whole = static_cast<time_t>(options.watch_seconds);
    timespec pause{
        whole, static_cast<long>(
                   (options.watch_seconds - static_cast<double>(whole)) * 1e9)};
    ::nanosleep(&pause, nullptr);
  }
}

}  // namespace

void AddStat(CLI::App& app, Runner& run) {
  auto options = std::make_shared<StatOptions>();
  CLI::App* command =
      app.add_subcommand("stat", "Live counters of this host's programs");
  command->add_flag("--json", options->json,
                    "One JSON object per program and line");
  command->add_flag("--brief", options->brief,
                    "Frames, bytes, tripwires and repairs only");
  command->add_flag("--all", options->all, "Counters that are zero, too");
  command
      ->add_option("--watch", options->watch_seconds,
                   "Again every so many seconds")
      ->check(CLI::Range(0.1, 86400.0));
  command->add_option("PROGRAM", options->programs,
                      "Only programs of these names");
  command->callback(
      [options, &run] { run = [options] { return Run(*options); }; });
}

}  // namespace tripwire::tools
