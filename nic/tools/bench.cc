// SPDX-License-Identifier: BSD-3-Clause
// tw bench: latency and goodput, each beside the raw port's in the same run,
// and the kernel's means beside them.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nic/api/stats/stats.h"
#include "nic/base/clock.h"
#include "nic/tools/bench_pair.h"
#include "nic/tools/commands.h"
#include "nic/wire/layout.h"

namespace tripwire::tools {
namespace {

// No list of writes is longer.
constexpr size_t kListBytes = 128u << 10;
// Shorter frames the raw port does not count.
constexpr uint32_t kLeastRawBytes = 65;

struct BenchOptions {
  BenchEnds ends;
  int rounds = 20000;
  double seconds = 1;
  std::vector<uint32_t> sizes = {64, 256, 1024, 4096, 16384, 65536, 1u << 20};
  size_t list = 32;
  bool json = false;
};

// A directory for a memif socket of our own; removed at the end.
class PrivateDirectory {
 public:
  absl::Status Make() {
    std::string pattern = "/tmp/tw-bench-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr)
      return absl::ErrnoToStatus(errno, "cannot make a directory in /tmp");
    path_ = pattern;
    return absl::OkStatus();
  }
  ~PrivateDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// They take a hundred times as long.
int BlockingRounds(const BenchOptions& options) {
  return options.rounds / 4 + 10;
}

double Ratio(double a, double b) { return b == 0 ? 0 : a / b; }

double Ratio(const RoundTrip& a, const RoundTrip& b) {
  return Ratio(static_cast<double>(a.median_ns),
               static_cast<double>(b.median_ns));
}

void PrintRoundTrip(const BenchOptions& options, const char* mode,
                    const RoundTrip& nic, const RoundTrip& raw) {
  const double ratio = Ratio(nic, raw);
  if (options.json) {
    std::printf(
        "{\"test\":\"round_trip\",\"port\":%s,\"mode\":\"%s\",\"median_ns\":%"
        "llu,\"p99_ns\":%llu,"
        "\"raw_median_ns\":%llu,\"raw_p99_ns\":%llu,\"ratio\":%.3f}\n",
        stats::JsonQuote(options.ends.near_port).c_str(), mode,
        static_cast<unsigned long long>(nic.median_ns),
        static_cast<unsigned long long>(nic.p99_ns),
        static_cast<unsigned long long>(raw.median_ns),
        static_cast<unsigned long long>(raw.p99_ns), ratio);
  } else {
    std::printf("%-28s %9.2f us median %9.2f us p99   %6.2f x raw port\n", mode,
                static_cast<double>(nic.median_ns) * 1e-3,
                static_cast<double>(nic.p99_ns) * 1e-3, ratio);
  }
  std::fflush(stdout);
}

// The raw port's: with its largest frames, and with frames as long as those of
// the writes beside it.
struct Floors {
  Goodput largest, same;
};

// The length of a frame of the raw port's, whose header it does not count.
uint32_t FrameBytes(const Goodput& raw) {
  return raw.frames == 0 ? 0
                         : static_cast<uint32_t>(raw.bytes / raw.frames +
                                                 sizeof(wire::EthernetHeader));
}

constexpr uint32_t kAroundData =
    wire::kHeaderBytes + sizeof(wire::WritePayload);

// What the writes come to, of what they would if its frames carried them.
double RatioToFrames(const Goodput& nic, const Goodput& raw) {
  const double data = FrameBytes(raw) - double{kAroundData};
  return Ratio(nic.BytesPerSecond(), raw.FramesPerSecond() * data);
}

void PrintGoodput(const BenchOptions& options, uint32_t size, size_t list,
                  const Goodput& nic, const Floors& raw) {
  const double ratio =
      Ratio(nic.BytesPerSecond(), raw.largest.BytesPerSecond());
  const double same_ratio = RatioToFrames(nic, raw.same);
  if (options.json) {
    std::printf(
        "{\"test\":\"goodput\",\"port\":%s,\"write_bytes\":%u,\"list\":%zu,"
        "\"bytes_per_s\":%.0f,\"frames_per_s\":%.0f,"
        "\"raw_bytes_per_s\":%.0f,\"raw_frames_per_s\":%.0f,"
        "\"raw_same_frame_bytes\":%u,\"raw_same_frames_per_s\":%.0f,"
        "\"same_frames_ratio\":%.3f,\"ratio\":%.3f}\n",
        stats::JsonQuote(options.ends.near_port).c_str(), size, list,
        nic.BytesPerSecond(), nic.FramesPerSecond(),
        raw.largest.BytesPerSecond(), raw.largest.FramesPerSecond(),
        FrameBytes(raw.same), raw.same.FramesPerSecond(), same_ratio, ratio);
  } else {
    std::printf("%8u x %-2zu %9.1f MB/s %10.0f frames/s %13.2f %13.2f\n", size,
                list, nic.BytesPerSecond() * 1e-6, nic.FramesPerSecond(), ratio,
                same_ratio);
  }
  std::fflush(stdout);
}

// `nic`: the round trip of ours to compare with.
void PrintPeer(const BenchOptions& options, const char* name, const char* mode,
               const RoundTrip& peer, const RoundTrip& nic) {
  if (options.json) {
    std::printf(
        "{\"test\":\"peer\",\"peer\":\"%s\",\"mode\":\"%s\",\"median_ns\":%llu,"
        "\"p99_ns\":%llu,\"nic_median_ns\":%llu,\"ratio\":%.3f}\n",
        name, mode, static_cast<unsigned long long>(peer.median_ns),
        static_cast<unsigned long long>(peer.p99_ns),
        static_cast<unsigned long long>(nic.median_ns), Ratio(nic, peer));
  } else {
    std::printf("%-28s %9.2f us median %9.2f us p99   ours is %5.2f x that\n",
                absl::StrCat(name, ", ", mode).c_str(),
                static_cast<double>(peer.median_ns) * 1e-3,
                static_cast<double>(peer.p99_ns) * 1e-3, Ratio(nic, peer));
  }
  std::fflush(stdout);
}

// The kernel's means on this machine, whatever port was measured.
void RunPeers(const BenchOptions& options, const RoundTrip& spinning,
              const RoundTrip& blocking) {
  const struct {
    Peer peer;
    const char* name;
    bool spin;
  } peers[] = {{Peer::kUdp, "UDP socket", true},
               {Peer::kUdp, "UDP socket", false},
               {Peer::kTcp, "TCP socket", true},
               {Peer::kTcp, "TCP socket", false}};
  for (const auto& [peer, name, spin] : peers) {
    const Peer which = peer;
    const bool spins = spin;
    const int rounds = spin ? options.rounds : BlockingRounds(options);
    auto times = Isolated<RoundTrip>(options.ends, [&] {
      return PeerRoundTrip(options.ends, which, spins, rounds);
    });
    if (!times.ok()) {  // a network namespace may have no loopback
      std::fprintf(stderr, "tw: %s, %s: %s\n", name,
                   spin ? "spinning" : "blocking",
                   std::string(times.status().message()).c_str());
      continue;
    }
    PrintPeer(options, name, spin ? "spinning" : "blocking", *times,
              spin ? spinning : blocking);
  }
}

absl::Status RunRoundTrips(const BenchOptions& options) {
  auto raw = Isolated<RoundTrip>(
      options.ends, [&] { return RawRoundTrip(options.ends, options.rounds); });
  if (!raw.ok()) return raw.status();
  if (!options.json) {
    std::printf("8-byte write, tripwire, 8-byte answer\n");
    std::printf("%-28s %9.2f us median %9.2f us p99\n", "raw port, polling",
                static_cast<double>(raw->median_ns) * 1e-3,
                static_cast<double>(raw->p99_ns) * 1e-3);
    std::fflush(stdout);
  }
  auto spinning = Isolated<RoundTrip>(
      options.ends, [&] { return NicRoundTrip(options.ends, options.rounds); });
  if (!spinning.ok()) return spinning.status();
  PrintRoundTrip(options, "spinning", *spinning, *raw);
  auto blocking = Isolated<BlockingRoundTrip>(options.ends, [&] {
    return NicBlockingRoundTrip(options.ends, BlockingRounds(options));
  });
  if (!blocking.ok()) return blocking.status();
  PrintRoundTrip(options, "blocking", blocking->nic, *raw);
  if (!options.json) std::printf("8 bytes there and back, by other means\n");
  PrintPeer(options, "eventfd", "blocking", blocking->wake_up, blocking->nic);
  RunPeers(options, *spinning, blocking->nic);
  return absl::OkStatus();
}

// How many writes of a size a list has: what is worth posting together.
size_t ListOf(const BenchOptions& options, uint32_t size) {
  return std::clamp<size_t>(kListBytes / size, 1, options.list);
}

absl::Status RunGoodput(const BenchOptions& options) {
  const auto duration_ns = static_cast<uint64_t>(options.seconds * 1e9);
  const auto measure_raw = [&](uint32_t frame_bytes) {
    return Isolated<Goodput>(options.ends, [&] {
      return RawGoodput(options.ends, duration_ns, frame_bytes);
    });
  };
  auto raw = measure_raw(0);
  if (!raw.ok()) return raw.status();
  if (!options.json) {
    std::printf(
        "writes (and how many in a list), to the raw port's largest frames, "
        "and "
        "to its frames of that size\n%-13s %9.1f MB/s %10.0f frames/s\n",
        "largest", raw->BytesPerSecond() * 1e-6, raw->FramesPerSecond());
    std::fflush(stdout);
  }
  for (uint32_t size : options.sizes) {
    Floors floors{*raw, *raw};
    if (kAroundData + size < FrameBytes(*raw)) {
      auto same = measure_raw(std::max(kAroundData + size, kLeastRawBytes));
      if (!same.ok()) return same.status();
      floors.same = *same;
    }
    for (const size_t list : {size_t{1}, ListOf(options, size)}) {
      auto nic = Isolated<Goodput>(options.ends, [&] {
        return NicGoodput(options.ends, size, list, duration_ns);
      });
      if (!nic.ok()) return nic.status();
      PrintGoodput(options, size, list, *nic, floors);
      if (ListOf(options, size) == 1) break;
    }
  }
  return absl::OkStatus();
}

absl::Status Run(BenchOptions options) {
  PlaceApart(&options.ends);
  PrivateDirectory directory;
  if (options.ends.near_port.empty() != options.ends.far_port.empty()) {
    return absl::InvalidArgumentError("--port and --far-port go together");
  }
  if (options.ends.near_port.empty()) {
    if (auto status = directory.Make(); !status.ok()) return status;
    options.ends.near_port =
        absl::StrCat("memif:", directory.path(), "/nic.sock");
    options.ends.far_port = options.ends.near_port + ",listen";
  }
  if (auto status = RunRoundTrips(options); !status.ok()) return status;
  return RunGoodput(options);
}

}  // namespace

void AddBench(CLI::App& app, Runner& run) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand(
      "bench",
      "Round trips and goodput between two processes, beside the raw port's, "
      "and what an eventfd and sockets take; over memif unless told otherwise");
  command->add_option("--port", options->ends.near_port,
                      "Port of the near end");
  command->add_option("--far-port", options->ends.far_port,
                      "Port of the far end, which this command starts");
  command->add_option(
      "--far-netns", options->ends.far_netns,
      "Network namespace for the far end, as a path (/run/netns/NAME)");
  command->add_option("--rounds", options->rounds, "Round trips to time")
      ->check(CLI::Range(100, 100000000))
      ->capture_default_str();
  command
      ->add_option("--seconds", options->seconds,
                   "How long to write for each size")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  command
      ->add_option("--sizes", options->sizes, "Sizes of bulk writes in bytes")
      ->check(CLI::Range(1, 1 << 22))
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--list", options->list,
                   "Each size is also written in lists of so many, or as many "
                   "as are 128 KiB; 1: only one by one")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_flag("--json", options->json,
                    "One JSON object per result and line");
  command->callback(
      [options, &run] { run = [options] { return Run(*options); }; });
}

}  // namespace tripwire::tools
