// SPDX-License-Identifier: BSD-3-Clause
// tw-periph stat: how a device's streams do. Of one device it takes a stream itself, and
// measures how long frames are on their way.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nic/api/stats/stats.h"
#include "periph/proto/messages.h"
#include "periph/tools/commands.h"
#include "periph/tools/histogram.h"
#include "periph/tools/session.h"

namespace tripwire::periph::tools {
namespace {

struct StatOptions {
  Where where;
  StreamFlags flags;
  std::string device;
  uint64_t count = 0;
  double interval_seconds = 1;
  double late_ms = 0;
  bool others_only = false;
  bool json = false;
};

// What was seen since the last report.
struct Interval {
  Histogram latency, jitter;
  uint64_t last_latency_ns = kNoTime;
  RingCounters before;

  void Add(const FrameView& view, const ClockOffset& clock) {
    const uint64_t captured_ns = clock.ToOurs(view.frame().capture_ns);
    const uint64_t arrived_ns = view.arrival_ns();
    // Clocks are known to some error: what seems to come before it was sent took no time.
    const uint64_t latency_ns = arrived_ns > captured_ns ? arrived_ns - captured_ns : 0;
    latency.Add(latency_ns);
    if (last_latency_ns != kNoTime) {
      jitter.Add(latency_ns > last_latency_ns ? latency_ns - last_latency_ns
                                              : last_latency_ns - latency_ns);
    }
    last_latency_ns = latency_ns;
  }
};

std::string JsonTimes(const Histogram& times) {
  return absl::StrCat("{\"p50_ns\":", times.Percentile(50), ",\"p99_ns\":", times.Percentile(99),
                      ",\"max_ns\":", times.max_ns(), "}");
}

std::string TextTimes(const Histogram& times) {
  return absl::StrFormat("%9.1f %9.1f %9.1f", static_cast<double>(times.Percentile(50)) / 1e3,
                         static_cast<double>(times.Percentile(99)) / 1e3,
                         static_cast<double>(times.max_ns()) / 1e3);
}

std::string JsonOf(const proto::StreamStat& stat) {
  using stats::JsonQuote;
  return absl::StrCat(
      "{\"device\":", JsonQuote(stat.device()), ",\"node\":", JsonQuote(stat.user().node()),
      ",\"program\":", JsonQuote(stat.user().program()),
      ",\"what\":", JsonQuote(stat.user().what()), ",\"format\":", JsonQuote(stat.format()),
      ",\"policy\":", JsonQuote(stat.policy()), ",\"offered\":", stat.offered(),
      ",\"sent\":", stat.sent(), ",\"bytes\":", stat.bytes(), ",\"dropped\":", stat.dropped(),
      ",\"overrun\":", stat.overrun(), ",\"waits\":", stat.waits(), ",\"queued\":", stat.queued(),
      "}");
}

std::string LineOf(const proto::StreamStat& stat) {
  return absl::StrFormat(
      "  %-12s %-24s %-7s %-12s sent %d (%d bytes), dropped %d, overrun %d, "
      "waits %d, queued %d",
      Printable(stat.device()),
      absl::StrCat(Printable(stat.user().node()), " ", Printable(stat.user().program())),
      Printable(stat.user().what()), Printable(stat.policy()), stat.sent(), stat.bytes(),
      stat.dropped(), stat.overrun(), stat.waits(), stat.queued());
}

// What the device's side counts, of all its streams. False: nobody reads it any more.
bool PrintOthers(const proto::StatReply& reply, bool json) {
  for (const proto::StreamStat& stat : reply.streams()) {
    std::printf("%s\n", (json ? JsonOf(stat) : LineOf(stat)).c_str());
  }
  if (reply.streams().empty() && !json) std::printf("  no streams are open\n");
  return std::fflush(stdout) == 0;
}

bool PrintOwn(const Interval& seen, const RingCounters& now, const ClockOffset& clock,
              double seconds, bool json) {
  const RingCounters& was = seen.before;
  const double rate = static_cast<double>(now.received - was.received) / seconds;
  const double megabytes = static_cast<double>(now.bytes - was.bytes) / seconds / 1e6;
  if (json) {
    std::printf(
        "{\"frames\":%s,\"frames_per_second\":%.1f,\"megabytes_per_second\":%.3f,"
        "\"latency\":%s,\"jitter\":%s,\"clock_error_ns\":%s,\"dropped\":%s,"
        "\"overrun\":%s,\"lost\":%s,\"late\":%s}\n",
        absl::StrCat(now.received).c_str(), rate, megabytes, JsonTimes(seen.latency).c_str(),
        JsonTimes(seen.jitter).c_str(), absl::StrCat(clock.known() ? clock.error_ns() : 0).c_str(),
        absl::StrCat(now.dropped).c_str(), absl::StrCat(now.overrun).c_str(),
        absl::StrCat(now.lost).c_str(), absl::StrCat(now.late).c_str());
  } else {
    std::printf("%9.1f %9.1f  %s  %s  %7s %7s %7s %7s\n", rate, megabytes,
                TextTimes(seen.latency).c_str(), TextTimes(seen.jitter).c_str(),
                absl::StrCat(now.dropped).c_str(), absl::StrCat(now.overrun).c_str(),
                absl::StrCat(now.lost).c_str(), absl::StrCat(now.late).c_str());
  }
  return std::fflush(stdout) == 0;
}

absl::Status Measure(Session& session, const StatOptions& options, Stopper& stopper) {
  StreamOptions wish = options.flags.ToOptions();
  if (options.late_ms > 0) wish.late_ns = static_cast<uint64_t>(options.late_ms * 1e6);
  auto opened = session.peripherals->OpenSource(session.name.device, wish);
  if (!opened.ok()) return opened.status();
  FrameStream& stream = **opened;
  stopper.Set([&stream] { stream.Cancel(); });
  if (!options.json) {
    std::printf("%9s %9s  %-29s  %-29s  %7s %7s %7s %7s\n%9s %9s  %9s %9s %9s  %9s %9s %9s\n",
                "frames/s", "MB/s", "latency us", "jitter us", "dropped", "overrun", "lost", "late",
                "", "", "p50", "p99", "max", "p50", "p99", "max");
  }
  Clock& clock = session.nic->clock();
  const auto interval_ns = static_cast<uint64_t>(options.interval_seconds * 1e9);
  Interval seen;
  uint64_t reports = 0, begin_ns = clock.NowNs();
  absl::Status status;
  for (;;) {
    auto view = stream.Next(begin_ns + interval_ns);
    if (view.ok() && stream.clock().known()) seen.Add(*view, stream.clock());
    if (!view.ok() && !absl::IsDeadlineExceeded(view.status())) {
      status = view.status();
      break;
    }
    view = absl::NotFoundError("its slot is free again");
    const uint64_t now_ns = clock.NowNs();
    if (now_ns - begin_ns < interval_ns) continue;
    const RingCounters now = stream.counters();
    if (!PrintOwn(seen, now, stream.clock(), static_cast<double>(now_ns - begin_ns) / 1e9,
                  options.json) ||
        ++reports == options.count) {
      break;
    }
    seen = Interval{.before = now};
    begin_ns = now_ns;
  }
  stopper.Set({});
  return absl::IsCancelled(status) || absl::IsOutOfRange(status) ? absl::OkStatus() : status;
}

absl::Status Others(Session& session, const StatOptions& options, Stopper& stopper) {
  std::mutex mutex;
  std::condition_variable stopped;
  bool stop = false;
  stopper.Set([&] {
    std::lock_guard lock(mutex);
    stop = true;
    stopped.notify_all();
  });
  absl::Status status;
  for (uint64_t reports = 0;;) {
    auto stat = session.peripherals->Stat(session.name.device);
    if (!stat.ok()) status = stat.status();
    if (!stat.ok() || !PrintOthers(*stat, options.json) || ++reports == options.count) break;
    std::unique_lock lock(mutex);
    stopped.wait_for(lock, std::chrono::duration<double>(options.interval_seconds),
                     [&] { return stop; });
    if (stop) break;
  }
  stopper.Set({});
  return status;
}

absl::Status Run(StatOptions options) {
  Stopper stopper;
  // NODE: is a node, and all its devices.
  const bool whole_node = !options.device.empty() && options.device.back() == ':';
  auto session = OpenSession(options.where, whole_node ? options.device + "-" : options.device,
                             "tw-periph stat");
  if (!session.ok()) return session.status();
  if (whole_node) session->name.device.clear();
  return whole_node || options.others_only ? Others(*session, options, stopper)
                                           : Measure(*session, options, stopper);
}

const RegisterCommand kStat("stat", [](CLI::App& app, Runner& run) {
  auto options = std::make_shared<StatOptions>();
  CLI::App* command = app.add_subcommand(
      "stat",
      "Takes a device's stream and measures latency and jitter; of NODE:, or with "
      "--streams, the counters of the streams others have");
  options->where.AddTo(*command);
  options->flags.AddTo(*command);
  command->add_option("--count,-n", options->count, "end after so many reports (0: never)");
  command->add_option("--interval,-i", options->interval_seconds, "seconds between reports")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  command->add_option("--late", options->late_ms, "frames this many ms old count as late");
  command->add_flag("--streams", options->others_only,
                    "what the device's side counts of all its streams; takes none itself");
  command->add_flag("--json", options->json, "one JSON object per report and line");
  command->add_option("DEVICE", options->device, "NODE:NAME, or NODE:")->required();
  command->callback([options, &run] { run = [options] { return Run(*options); }; });
});

}  // namespace
}  // namespace tripwire::periph::tools
