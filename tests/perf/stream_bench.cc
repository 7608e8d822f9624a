// SPDX-License-Identifier: BSD-3-Clause
// tw-stream-bench: streams of frames between two processes, beside the bare
// port.
//
// The floor is measured in the same run on the same ports: frames as long as
// those a stream's frames go in, both ends polling, the receiver copying them
// out. Memory allocations are counted by wrapping malloc, sleeps, doorbells and
// wake-ups by the NIC; system calls by `strace -c -f tw-stream-bench ...`.
#include "tests/perf/stream_bench.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "nic/base/clock.h"
#include "nic/wire/layout.h"
#include "periph/stream/layout.h"

namespace tripwire {
namespace {

using tools::BenchEnds;
using tools::Goodput;

struct Settings {
  std::vector<uint64_t> sizes{64, 1'382'400, 3'110'400};
  double seconds = 2;
  uint32_t slots = 0;
  uint32_t source_frames = 0;
  double rate = 0;
  bool block = false;
};

void PrintEnd(const char* name, const StreamEnd& end) {
  const double n = static_cast<double>(std::max<uint64_t>(end.frames, 1));
  std::printf(
      "  %-8s for each frame: %10.0f ns of a processor, %.4f allocations, %.4f "
      "sleeps, "
      "%.4f doorbells, %.4f wake-ups",
      name, static_cast<double>(end.cpu_ns) / n,
      static_cast<double>(end.allocations) / n,
      static_cast<double>(end.sleeps) / n,
      static_cast<double>(end.doorbells) / n,
      static_cast<double>(end.wakeups) / n);
  if (end.reports > 0)
    std::printf(", %.4f reports", static_cast<double>(end.reports) / n);
  std::printf("\n");
}

// The Ethernet frame that one short frame goes in; 0: it takes several.
uint32_t WireBytes(uint64_t frame_bytes) {
  const uint64_t bytes = wire::kHeaderBytes + sizeof(wire::WritePayload) +
                         periph::PaddedBytes(frame_bytes) +
                         sizeof(periph::SlotTail);
  return bytes <= 1514 ? static_cast<uint32_t>(bytes) : 0;
}

StreamLoad LoadOf(const Settings& settings, uint64_t bytes) {
  const bool is_short = WireBytes(bytes) != 0;
  StreamLoad load;
  load.frame_bytes = bytes;
  load.duration_ns = static_cast<uint64_t>(settings.seconds * 1e9);
  load.slots = settings.slots != 0 ? settings.slots : is_short ? 256 : 4;
  load.source_frames = settings.source_frames != 0 ? settings.source_frames
                       : is_short                  ? 64
                                                   : 4;
  load.spin = !settings.block;
  if (settings.rate > 0)
    load.interval_ns = static_cast<uint64_t>(1e9 / settings.rate);
  return load;
}

// The rate, beside the bare port's.
absl::Status PrintRate(const BenchEnds& ends, const StreamLoad& load,
                       const StreamEnd& consumer) {
  const double seconds =
      static_cast<double>(std::max<uint64_t>(consumer.ns, 1)) * 1e-9;
  const double frames = static_cast<double>(consumer.frames) / seconds;
  const double goodput = frames * static_cast<double>(load.frame_bytes);
  const uint32_t wire_bytes = WireBytes(load.frame_bytes);
  auto raw = tools::Isolated<Goodput>(
      [&] { return tools::RawGoodput(ends, load.duration_ns, wire_bytes); });
  if (!raw.ok()) return raw.status();
  if (wire_bytes != 0) {
    std::printf("  stream: %.0f frames/s\n", frames);
    std::printf(
        "  bare port, frames of %u bytes, 32 at once: %.0f frames/s; stream "
        "%.2f of it\n",
        wire_bytes, raw->FramesPerSecond(), frames / raw->FramesPerSecond());
    return absl::OkStatus();
  }
  auto memory = tools::Isolated<Goodput>([&] {
    return tools::RawGoodput(ends, load.duration_ns, 0,
                             load.frame_bytes * load.slots);
  });
  if (!memory.ok()) return memory.status();
  std::printf("  stream: %.1f frames/s, %.1f MB/s\n", frames, goodput * 1e-6);
  std::printf(
      "  bare port, data that stays in its caches: %.1f MB/s; stream %.2f of "
      "it\n",
      raw->BytesPerSecond() * 1e-6, goodput / raw->BytesPerSecond());
  std::printf(
      "  bare port, out of and into as much memory: %.1f MB/s; stream %.2f of "
      "it\n",
      memory->BytesPerSecond() * 1e-6, goodput / memory->BytesPerSecond());
  return absl::OkStatus();
}

absl::Status Measure(const BenchEnds& ends, const Settings& settings,
                     uint64_t bytes) {
  const StreamLoad load = LoadOf(settings, bytes);
  auto result =
      tools::Isolated<StreamResult>([&] { return RunStream(ends, load); });
  if (!result.ok()) return result.status();
  const StreamEnd& consumer = result->consumer;
  std::printf("frames of %llu bytes, %u slots, %s\n",
              static_cast<unsigned long long>(bytes), load.slots,
              load.spin ? "spinning" : "blocking");
  if (load.interval_ns == 0) {
    const absl::Status printed = PrintRate(ends, load, consumer);
    if (!printed.ok()) return printed;
  }
  std::printf("  from Offer to Take: %.2f us median, %.2f us p99\n",
              static_cast<double>(result->latency_p50_ns) * 1e-3,
              static_cast<double>(result->latency_p99_ns) * 1e-3);
  PrintEnd("feeder", result->feeder);
  PrintEnd("consumer", consumer);
  std::fflush(stdout);
  if (consumer.lost != 0)
    return absl::DataLossError("frames were lost or torn");
  return absl::OkStatus();
}

}  // namespace
}  // namespace tripwire

int main(int argc, char** argv) {
  tripwire::Settings settings;
  CLI::App app("Streams of frames over memif, beside the bare port");
  app.add_option("--sizes", settings.sizes, "Sizes of frames in bytes")
      ->check(CLI::Range(16, 1 << 28))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--seconds", settings.seconds, "How long for each")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  app.add_option(
      "--slots", settings.slots,
      "Slots of the ring (otherwise 256 for short frames, 4 for long ones)");
  app.add_option("--source-frames", settings.source_frames,
                 "Frames of the source's memory (otherwise 64 and 4)")
      ->check(CLI::Range(2, 1 << 20));
  app.add_option("--rate", settings.rate,
                 "Frames a second (otherwise as many as go)");
  app.add_flag("--block", settings.block, "Wait by blocking, not by spinning");
  CLI11_PARSE(app, argc, argv);
  char directory[] = "/tmp/tw-stream-bench-XXXXXX";
  if (mkdtemp(directory) == nullptr) {
    std::perror("tw-stream-bench: no directory");
    return 1;
  }
  tripwire::tools::BenchEnds ends;
  ends.near_port = std::string("memif:") + directory + "/nic.sock";
  ends.far_port = ends.near_port + ",listen";
  int result = 0;
  for (const uint64_t bytes : settings.sizes) {
    const absl::Status status = tripwire::Measure(ends, settings, bytes);
    if (status.ok()) continue;
    std::fprintf(stderr, "tw-stream-bench: %s\n",
                 std::string(status.message()).c_str());
    result = 1;
    break;
  }
  std::filesystem::remove_all(directory);
  return result;
}
