// SPDX-License-Identifier: BSD-3-Clause
// How many frames a second one core takes: the bare port against the whole receive
// path (validate, order, place, match, notify), by frame size, tripwires armed and
// how many of the frames hit one. The port plays frames back from memory, so that
// nothing but the receiver is timed; every run checks that no frame was lost and that
// each hit was counted, once.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nic/base/clock.h"
#include "nic/port/port.h"
#include "nic/wire/layout.h"
#include "tests/perf/rate_receiver.h"

namespace tripwire {
namespace {

constexpr size_t kBurst = 64;
constexpr size_t kFrames = 4096;  // played over and over

struct Settings {
  std::vector<uint32_t> sizes = {64, 128, 256, 512, 1024, 1518, 4096, 9018};
  std::vector<uint32_t> tripwires = {0, 1, 1000, 1000000};
  std::vector<uint32_t> hits = {0, 50, 100};
  uint32_t stride = 64;
  double seconds = 0.5;
  bool checksum = false;
  bool json = false;
};

// Plays frames of one link, numbering and aiming them as it hands them out.
class ReplayPort final : public Port {
 public:
  ReplayPort(uint32_t frame_bytes, bool checksum)
      : frame_bytes_(frame_bytes), stride_((frame_bytes + 127) / 64 * 64),
        memory_(kFrames * stride_ + 64) {
    info_.name = "replay";
    info_.mac = {{2, 0, 0, 0, 0, 1}};
    info_.max_frame_bytes = std::max(frame_bytes, 1514u);
    info_.is_reliable = !checksum;
    base_ = memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64);
    tx_.resize(kBurst * info_.max_frame_bytes);
  }

  uint8_t* frame(size_t i) { return base_ + i * stride_; }
  void Begin(const RateTarget& target) {
    target_ = target;
    for (size_t i = 0; i < kFrames; ++i) target_.Build(frame(i));
    for (size_t i = 0; i < kAhead; ++i) Number(1 + i);
  }

  const PortInfo& info() const override { return info_; }
  size_t Receive(std::span<Frame> frames) override {
    const size_t n = std::min(frames.size(), kBurst);
    for (size_t i = 0; i < n; ++i) {
      uint8_t* data = frame(next_);
      next_ = (next_ + 1) % kFrames;
      Number(sequence_++ + kAhead);
      frames[i] = Frame{};
      frames[i].data = data;
      frames[i].length_bytes = frame_bytes_;
      frames[i].capacity_bytes = frame_bytes_;
    }
    return n;
  }
  size_t Allocate(std::span<Frame> frames) override {
    const size_t n = std::min(frames.size(), kBurst);
    for (size_t i = 0; i < n; ++i) {
      frames[i] = Frame{};
      frames[i].data = tx_.data() + i * info_.max_frame_bytes;
      frames[i].capacity_bytes = info_.max_frame_bytes;
    }
    return n;
  }
  size_t Transmit(PathId, std::span<const Frame> frames, Ring) override {
    sent_ += frames.size();
    return frames.size();
  }
  void Release(std::span<const Frame>) override {}
  bool ArmWakeup() override { return false; }
  void DisarmWakeup() override {}
  int wake_fd() const override { return -1; }
  uint64_t Service(uint64_t) override { return kNever; }
  PortCounters counters() const override { return {}; }

  uint64_t played() const { return sequence_ - 1; }
  uint64_t sent() const { return sent_; }

 private:
  // Frames are numbered some bursts ahead, as a NIC would have written them: a
  // processor that just stored a word is slow to load the line it is in.
  static constexpr size_t kAhead = 8 * kBurst;
  void Number(uint64_t sequence) {
    target_.Number(sequence, frame((sequence - 1) % kFrames));
  }

  const uint32_t frame_bytes_;
  const size_t stride_;
  RateTarget target_;
  PortInfo info_;
  std::vector<uint8_t> memory_, tx_;
  uint8_t* base_;
  size_t next_ = 0;
  uint64_t sequence_ = 1, sent_ = 0;
};

// One receiver with one link, and the frames for it.
class Bench {
 public:
  Bench(const Settings& settings, uint32_t size_bytes, uint32_t tripwires,
        uint32_t hits)
      : seconds_(settings.seconds) {
    const uint32_t frame_bytes = RateFrameBytes(
        RateDataBytes(size_bytes, settings.checksum), settings.checksum);
    auto port = std::make_unique<ReplayPort>(frame_bytes, settings.checksum);
    port_ = port.get();
    receiver_ = std::make_unique<RateReceiver>(
        std::move(port), MacAddress{{2, 0, 0, 0, 0, 2}},
        RateLoad{tripwires, hits, settings.stride}, size_bytes,
        settings.checksum);
    port_->Begin(receiver_->target());
  }

  // The floor: frames from the port, their headers looked at, their data taken.
  double Raw() {
    const uint32_t frame_bytes = receiver_->target().frame_bytes;
    std::vector<Frame> frames(kBurst);
    std::vector<uint8_t> kept(kBurst * (frame_bytes + 64));
    uint64_t count = 0;
    const uint64_t start = clock_.NowNs();
    uint64_t now = start;
    const uint64_t end = start + Ns();
    while (now < end) {
      for (int turn = 0; turn < 64; ++turn) {
        const size_t n = port_->Receive(frames);
        for (size_t i = 0; i < n; ++i) {
          if (frames[i].data[12] != wire::kEtherType[0]) Fail("not our frame");
          std::memcpy(kept.data() + i * (frame_bytes + 64), frames[i].data,
                      frames[i].length_bytes);
        }
        port_->Release({frames.data(), n});
        count += n;
      }
      now = clock_.NowNs();
    }
    return static_cast<double>(count) / (static_cast<double>(now - start) / 1e9);
  }

  double Full() {
    // What the raw floor took is not for this link.
    receiver_->Expect(port_->played() + 1);
    const uint64_t start = clock_.NowNs();
    uint64_t now = start;
    const uint64_t end = start + Ns();
    while (now < end) {
      for (int turn = 0; turn < 16; ++turn) receiver_->Turn(now);
      now = clock_.NowNs();
    }
    return static_cast<double>(receiver_->Check()) /
           (static_cast<double>(now - start) / 1e9);
  }

  uint32_t wire_bytes() const { return receiver_->target().wire_bytes(); }
  uint32_t frame_bytes() const {
    return receiver_->target().frame_bytes + kFcsBytes;
  }

 private:
  uint64_t Ns() const { return static_cast<uint64_t>(seconds_ * 1e9); }

  const double seconds_;
  SystemClock clock_;
  ReplayPort* port_ = nullptr;
  std::unique_ptr<RateReceiver> receiver_;
};

void Print(const Settings& settings, const Bench& bench, uint32_t tripwires, uint32_t hits,
           double raw, double full) {
  const double line_10g = 10e9 / 8 / bench.wire_bytes();
  if (settings.json) {
    std::printf("{\"frame_bytes\":%u,\"tripwires\":%u,\"hit_percent\":%u,"
                "\"raw_mpps\":%.2f,\"mpps\":%.2f,\"ns_per_frame\":%.1f,"
                "\"of_raw\":%.3f,\"of_10gbe_line_rate\":%.2f}\n",
                bench.frame_bytes(), tripwires, hits, raw / 1e6, full / 1e6, 1e9 / full,
                full / raw, full / line_10g);
  } else {
    std::printf("%8u %10u %6u %10.2f %10.2f %9.1f %8.2f %8.2f %8.2f %8.2f\n",
                bench.frame_bytes(), tripwires, hits, raw / 1e6, full / 1e6, 1e9 / full,
                full / raw, full / line_10g, full / line_10g / 2.5, full / line_10g / 10);
  }
  std::fflush(stdout);
}

}  // namespace
}  // namespace tripwire

int main(int argc, char** argv) {
  tripwire::Settings settings;
  CLI::App app("Frames a second that one core receives, against the bare port");
  app.add_option("--size", settings.sizes, "Frame sizes in bytes, with the 4 of the FCS")
      ->delimiter(',')->check(CLI::Range(64, 9018));
  app.add_option("--tripwires", settings.tripwires, "How many are armed")->delimiter(',');
  app.add_option("--hits", settings.hits, "Percent of the frames that hit one")
      ->delimiter(',')->check(CLI::Range(0, 100));
  app.add_option("--stride", settings.stride, "Bytes from place to place, a multiple of 8")
      ->check(CLI::Range(8, 4096));
  app.add_option("--seconds", settings.seconds, "For each figure");
  app.add_flag("--checksum", settings.checksum, "Frames carry a CRC32C, as on Ethernet");
  app.add_flag("--json", settings.json, "One JSON object a line");
  CLI11_PARSE(app, argc, argv);
  settings.stride = settings.stride / 8 * 8;
  if (!settings.json) {
    std::printf("%8s %10s %6s %10s %10s %9s %8s %8s %8s %8s\n", "bytes", "tripwires",
                "hit %", "raw Mpps", "Mpps", "ns/frame", "of raw", "of 10G", "of 25G",
                "of 100G");
  }
  for (const uint32_t size : settings.sizes) {
    for (const uint32_t tripwires : settings.tripwires) {
      for (const uint32_t hits : settings.hits) {
        if (tripwires == 0 && hits != settings.hits.front()) continue;
        tripwire::Bench bench(settings, size, tripwires, hits);
        double raw = 0, full = 0;
        for (int repeat = 0; repeat < 3; ++repeat) {
          raw = std::max(raw, bench.Raw());
          full = std::max(full, bench.Full());
        }
        tripwire::Print(settings, bench, tripwires, tripwires == 0 ? 0 : hits, raw, full);
      }
    }
  }
}
