// SPDX-License-Identifier: BSD-3-Clause
// The rate ladder over real wires: how many frames of each size a second one
// process receives from another, from the bare port and through the whole
// receive path, one after the other in the same run. The sender builds the same
// frames for both.
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "nic/port/port_spec.h"
#include "nic/tools/bench_pair.h"
#include "nic/wire/parse.h"
#include "tests/perf/rate_receiver.h"

namespace tripwire {
namespace {

using tools::BenchEnds;
using tools::FarEnd;

constexpr size_t kBurst = 32;
constexpr uint64_t kPatienceNs = 10 * kSecond;
// What a sender may have under way: a little less than what a receiver holds.
constexpr uint64_t kWindow = kWindowFrames - kReservedFrames;

struct Settings {
  BenchEnds ends;
  std::vector<uint32_t> sizes = {64, 128, 256, 512, 1024, 1518, 4096, 9018};
  std::vector<uint32_t> tripwires = {1};
  uint32_t hits = 100;
  double seconds = 0.3;
  int repeat = 3;
  bool json = false;
};

// What the two processes tell each other besides frames.
struct Shared {
  std::atomic<bool> has_sender{false}, has_target{false}, stop{false};
  MacAddress sender;
  RateTarget target;
};

struct Counted {
  uint64_t frames = 0, ns = 0;
  double PerSecond() const {
    return ns == 0
               ? 0
               : static_cast<double>(frames) * 1e9 / static_cast<double>(ns);
  }
};

// The port, with what it is to have served while nothing comes.
class Served {
 public:
  explicit Served(Port& port) : port_(port) {}
  void Idle() {
    if (++turns_ % 1024 == 0) port_.Service(clock_.NowNs());
  }
  uint64_t NowNs() { return clock_.NowNs(); }

 private:
  Port& port_;
  SystemClock clock_;
  uint64_t turns_ = 0;
};

absl::Status Wait(const std::atomic<bool>& flag, Port& port) {
  Served served(port);
  const uint64_t end = served.NowNs() + kPatienceNs;
  while (!flag.load(std::memory_order_acquire)) {
    served.Idle();
    if (served.NowNs() > end)
      return absl::DeadlineExceededError("the other end says nothing");
  }
  return absl::OkStatus();
}

// Frames are looked at, and their bytes taken into memory used over and over.
Counted CountRaw(Port& port, const Shared& shared) {
  Served served(port);
  std::array<Frame, kBurst> frames;
  const size_t room = shared.target.frame_bytes + 64;
  std::vector<uint8_t> kept(kBurst * room);
  Counted counted;
  uint64_t first_ns = 0, last_ns = 0;
  for (uint64_t idle_since = served.NowNs();;) {
    const size_t have = port.Receive(frames);
    uint64_t ours = 0;
    for (size_t i = 0; i < have; ++i) {
      const Frame& frame = frames[i];
      if (frame.length_bytes != shared.target.frame_bytes ||
          std::memcmp(frame.data + 12, wire::kEtherType, 2) != 0) {
        continue;
      }
      std::memcpy(kept.data() + i * room, frame.data, frame.length_bytes);
      ++ours;
    }
    port.Release({frames.data(), have});
    const uint64_t now_ns = served.NowNs();
    if (ours > 0) {
      if (first_ns == 0) {
        first_ns = now_ns;  // the first burst only starts the clock
      } else {
        counted.frames += ours;
      }
      last_ns = idle_since = now_ns;
    } else {
      served.Idle();
      if (shared.stop.load(std::memory_order_relaxed) &&
          now_ns - idle_since > 20 * kMillisecond) {
        break;
      }
    }
  }
  counted.ns = last_ns - first_ns;
  return counted;
}

Counted CountFull(RateReceiver& receiver, const Shared& shared) {
  SystemClock clock;
  uint64_t first_ns = 0, last_ns = 0, before = 0;
  for (uint64_t idle_since = clock.NowNs();;) {
    const uint64_t now_ns = clock.NowNs();
    if (receiver.Turn(now_ns)) {
      last_ns = idle_since = now_ns;
      if (first_ns == 0) {
        first_ns = now_ns;
        before = receiver.Count();
      }
    } else if (shared.stop.load(std::memory_order_relaxed) &&
               now_ns - idle_since > 20 * kMillisecond) {
      break;
    }
  }
  return {receiver.Check() - before, last_ns - first_ns};
}

absl::Status Receive(const Settings& settings, const RateLoad& load,
                     uint32_t size, bool full, Shared& shared,
                     const std::function<void()>& ready, int report_fd) {
  auto port = OpenPort(settings.ends.far_port);
  if (!port.ok()) return port.status();
  ready();
  if (auto status = Wait(shared.has_sender, **port); !status.ok())
    return status;
  const bool checksum = !(*port)->info().is_reliable;
  Counted counted;
  if (full) {
    RateReceiver receiver(*std::move(port), shared.sender, load, size,
                          checksum);
    shared.target = receiver.target();
    shared.has_target.store(true, std::memory_order_release);
    counted = CountFull(receiver, shared);
  } else {
    RateTarget& target = shared.target;
    target.to = (*port)->info().mac;
    target.from = shared.sender;
    target.checksum = checksum;
    target.data_bytes = RateDataBytes(size, checksum);
    target.frame_bytes = RateFrameBytes(target.data_bytes, checksum);
    shared.has_target.store(true, std::memory_order_release);
    counted = CountRaw(**port, shared);
  }
  if (::write(report_fd, &counted, sizeof counted) != sizeof counted)
    return absl::InternalError("cannot report");
  return absl::OkStatus();
}

// Sends as fast as the port takes frames and, to the whole receive path, as the
// window allows. Nothing is ever sent again: wires that lose frames within the
// window are no place for this.
class Sender {
 public:
  Sender(Port& port, const RateTarget& target, bool full)
      : port_(port), target_(target), full_(full), blank_(target.frame_bytes) {
    target_.Build(blank_.data());
  }
  void Turn() {
    const uint64_t room = full_ ? acked_ + kWindow - next_ : kBurst;
    const size_t want = std::min<uint64_t>(room, kBurst);
    size_t sent = 0;
    if (want > 0) {
      const size_t have = port_.Allocate({frames_.data(), want});
      for (size_t i = 0; i < have; ++i) {
        std::memcpy(frames_[i].data, blank_.data(), blank_.size());
        target_.Number(next_ + i, frames_[i].data);
        frames_[i].length_bytes = target_.frame_bytes;
      }
      sent = port_.Transmit(kAllPaths, {frames_.data(), have});
      port_.Release({frames_.data() + sent, have - sent});
      next_ += sent;
    }
    // Acknowledgements cost what frames do: each is looked for when it is time.
    if (full_ ? room < kWindow / 2 : sent == 0) Hear();
  }

 private:
  void Hear() {
    const size_t have = port_.Receive(heard_);
    for (size_t i = 0; i < have; ++i) {
      wire::FrameView view;
      if (wire::Parse({heard_[i].data, heard_[i].length_bytes}, &view) ==
              wire::ParseResult::kOk &&
          view.type() == wire::kAck) {
        acked_ = std::max(
            acked_, ExpandSequence(view.header->acknowledged.get(), acked_));
      }
    }
    port_.Release({heard_.data(), have});
  }

  Port& port_;
  const RateTarget target_;
  const bool full_;
  std::vector<uint8_t> blank_;
  std::array<Frame, kBurst> frames_, heard_;
  uint64_t next_ = 1, acked_ = 1;
};

absl::StatusOr<Counted> Measure(const Settings& settings, const RateLoad& load,
                                uint32_t size, bool full) {
  void* at = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap");
  Shared& shared = *new (at) Shared;
  auto far = FarEnd::Start(
      settings.ends, [&](const std::function<void()>& ready, int report_fd) {
        return Receive(settings, load, size, full, shared, ready, report_fd);
      });
  if (!far.ok()) return far.status();
  auto port = OpenPort(settings.ends.near_port);
  if (!port.ok()) return port.status();
  shared.sender = (*port)->info().mac;
  shared.has_sender.store(true, std::memory_order_release);
  if (auto status = Wait(shared.has_target, **port); !status.ok())
    return status;
  Counted counted;  // none: the port does not carry such frames
  if (shared.target.frame_bytes <= (*port)->info().max_frame_bytes) {
    SystemClock clock;
    Sender sender(**port, shared.target, full);
    const uint64_t end =
        clock.NowNs() + static_cast<uint64_t>(settings.seconds * 1e9);
    while (clock.NowNs() < end) {
      for (int i = 0; i < 16; ++i) sender.Turn();
    }
  }
  shared.stop.store(true, std::memory_order_release);
  auto report = far->Finish();
  if (!report.ok()) return report.status();
  if (report->size() != sizeof counted)
    return absl::InternalError("the report is short");
  std::memcpy(&counted, report->data(), sizeof counted);
  munmap(at, sizeof(Shared));
  return counted;
}

absl::StatusOr<double> BestOf(const Settings& settings, const RateLoad& load,
                              uint32_t size, bool full) {
  // In a process of its own: the packet library starts once in each.
  return tools::Isolated<double>(
      settings.ends, [&]() -> absl::StatusOr<double> {
        auto counted = Measure(settings, load, size, full);
        if (!counted.ok()) return counted.status();
        return counted->PerSecond();
      });
}

absl::Status Run(const Settings& settings) {
  if (!settings.json) {
    std::printf("%8s %10s %6s %10s %10s %9s %8s %8s\n", "bytes", "tripwires",
                "hit %", "raw Mpps", "Mpps", "ns/frame", "of raw", "of 10G");
  }
  for (const uint32_t size : settings.sizes) {
    for (const uint32_t tripwires : settings.tripwires) {
      const RateLoad load{tripwires, settings.hits};
      std::vector<double> raws, fulls, ratios;
      for (int i = 0; i < settings.repeat; ++i) {
        auto raw = BestOf(settings, load, size, false);
        if (!raw.ok()) return raw.status();
        if (*raw == 0) break;
        auto full = BestOf(settings, load, size, true);
        if (!full.ok()) return full.status();
        raws.push_back(*raw);
        fulls.push_back(*full);
        ratios.push_back(*full / *raw);
      }
      if (raws.empty()) continue;
      for (auto* all : {&raws, &fulls, &ratios})
        std::sort(all->begin(), all->end());
      const double raw = raws[raws.size() / 2], full = fulls[fulls.size() / 2],
                   ratio = ratios[ratios.size() / 2];
      const double line = 10e9 / 8 / (size + kPreambleAndGapBytes);
      std::printf(
          settings.json
              ? "{\"frame_bytes\":%u,\"tripwires\":%u,\"hit_percent\":%u,"
                "\"raw_mpps\":%.3f,\"mpps\":%.3f,\"ns_per_frame\":%.1f,"
                "\"of_raw\":%.3f,\"of_10gbe_line_rate\":%.2f}\n"
              : "%8u %10u %6u %10.2f %10.2f %9.1f %8.2f %8.2f\n",
          size, tripwires, tripwires == 0 ? 0 : settings.hits, raw / 1e6,
          full / 1e6, full == 0 ? 0 : 1e9 / full, ratio, full / line);
      std::fflush(stdout);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace tripwire

int main(int argc, char** argv) {
  tripwire::Settings settings;
  CLI::App app("Frames a second between two processes, beside the bare port's");
  app.add_option("--port", settings.ends.near_port, "Port of the sender");
  app.add_option("--far-port", settings.ends.far_port, "Port of the receiver");
  app.add_option("--far-netns", settings.ends.far_netns,
                 "Network namespace of the receiver, as a path");
  app.add_option("--size", settings.sizes, "Frame sizes in bytes, FCS included")
      ->delimiter(',')
      ->check(CLI::Range(64, 9018));
  app.add_option("--tripwires", settings.tripwires, "How many are armed")
      ->delimiter(',');
  app.add_option("--hits", settings.hits, "Percent of the frames that hit one")
      ->check(CLI::Range(0, 100));
  app.add_option("--seconds", settings.seconds, "For each figure");
  app.add_option("--repeat", settings.repeat, "Medians of so many")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--json", settings.json, "One JSON object a line");
  CLI11_PARSE(app, argc, argv);
  std::string directory;
  if (settings.ends.near_port.empty()) {
    directory = "/tmp/tw-rate-XXXXXX";
    if (::mkdtemp(directory.data()) == nullptr) tripwire::Fail("mkdtemp");
    settings.ends.near_port = "memif:" + directory + "/nic.sock";
    settings.ends.far_port = settings.ends.near_port + ",listen";
  }
  tripwire::tools::PlaceApart(&settings.ends);
  const absl::Status status = tripwire::Run(settings);
  if (!directory.empty()) {
    ::unlink((directory + "/nic.sock").c_str());
    ::rmdir(directory.c_str());
  }
  if (!status.ok()) tripwire::Fail(std::string(status.message()).c_str());
}
