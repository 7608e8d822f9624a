// SPDX-License-Identifier: BSD-3-Clause
// tw stat: the live counters of this host's programs.
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "nic/api/stats/stats.h"
#include "nic/tools/commands.h"
#include "nic/tools/stat_text.h"

namespace tripwire::tools {
namespace {

using stats::ProcessStats;

struct StatOptions {
  bool json = false;
  bool brief = false;
  bool all = false;
  uint64_t limit = stats::kUsualRows;
  double watch_seconds = 0;
  std::vector<std::string> only;
  std::vector<std::string> programs;
};

std::vector<ProcessStats> Look(const StatOptions& options) {
  const uint64_t rows = options.brief ? 0
                        : options.all ? stats::kMostRows
                                      : options.limit;
  std::vector<ProcessStats> processes =
      stats::Collect(stats::DefaultDirectories(), rows);
  if (!options.programs.empty()) {
    std::erase_if(processes, [&](const ProcessStats& process) {
      return std::find(options.programs.begin(), options.programs.end(),
                       process.program) == options.programs.end();
    });
  }
  for (ProcessStats& process : processes) KeepOnly(options.only, process);
  return processes;
}

const ProcessStats* Find(const std::vector<ProcessStats>& processes,
                         const ProcessStats& same) {
  for (const ProcessStats& process : processes) {
    // A program may have started anew, or the pid be another's.
    if (process.pid == same.pid && process.program == same.program &&
        process.uptime_ns <= same.uptime_ns) {
      return &process;
    }
  }
  return nullptr;
}

std::string Text(const StatOptions& options,
                 const std::vector<ProcessStats>& now,
                 const std::vector<ProcessStats>& before) {
  std::string text;
  for (const ProcessStats& process : now) {
    if (options.json) {
      text += stats::ToJson(process) + "\n";
    } else if (options.brief) {
      text += BriefStatText(process);
    } else {
      text += StatText(process, Find(before, process), {.zeros = options.all});
    }
  }
  return text;
}

absl::Status Nobody() {
  return absl::NotFoundError(
      "no program with a NIC answers here (as this user, in this runtime "
      "directory)");
}

absl::Status Watch(const StatOptions& options) {
  const auto whole = static_cast<time_t>(options.watch_seconds);
  const timespec pause{
      whole, static_cast<long>(
                 (options.watch_seconds - static_cast<double>(whole)) * 1e9)};
  const bool is_screen = !options.json && ::isatty(STDOUT_FILENO) == 1;
  std::vector<ProcessStats> before;
  for (;;) {
    std::vector<ProcessStats> now = Look(options);
    std::string text = Text(options, now, before);
    if (now.empty() && !options.json) {
      text = std::string(Nobody().message()) + "\n";
    }
    // Home, and clear what is below.
    if (is_screen) text = "\033[H\033[J" + text;
    if (!options.json && !is_screen) text += "\n";
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() ||
        std::fflush(stdout) != 0) {
      return absl::OkStatus();  // whoever read it is gone
    }
    before = std::move(now);
    ::nanosleep(&pause, nullptr);
  }
}

absl::Status Run(const StatOptions& options) {
  if (options.watch_seconds > 0) return Watch(options);
  const std::vector<ProcessStats> processes = Look(options);
  if (processes.empty() && !options.json) return Nobody();
  const std::string text = Text(options, processes, {});
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace

void AddStat(CLI::App& app, Runner& run) {
  auto options = std::make_shared<StatOptions>();
  CLI::App* command = app.add_subcommand(
      "stat",
      "Live counters, links, apertures and tripwires of this host's programs");
  command->add_flag("--json", options->json,
                    "One JSON object per program and line");
  command->add_flag("--brief", options->brief,
                    "Frames, bytes, tripwires, repairs and drops only");
  command->add_flag("--all", options->all,
                    "Counters and columns that are zero, too, and all rows");
  command
      ->add_option("--limit", options->limit,
                   "Rows of each table, the most active first")
      ->check(CLI::Range(uint64_t{0}, stats::kMostRows))
      ->capture_default_str();
  command
      ->add_option("--only", options->only,
                   "Only this part: nic, dropped, refused, links, "
                   "apertures, tripwires, ... (may be repeated)")
      ->allow_extra_args(false);
  command
      ->add_option("--watch,--interval,-i", options->watch_seconds,
                   "Again every so many seconds, with what changes per second")
      ->check(CLI::Range(0.1, 86400.0));
  command->add_option("PROGRAM", options->programs,
                      "Only programs of these names");
  command->callback(
      [options, &run] { run = [options] { return Run(*options); }; });
}

}  // namespace tripwire::tools
