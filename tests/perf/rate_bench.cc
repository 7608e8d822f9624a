// SPDX-License-Identifier: BSD-3-Clause
// How many frames a second one core takes: the bare port against the whole receive
// path (validate, order, place, match, notify), by frame size, tripwires armed and
// how many of the frames hit one. The port plays frames back from memory, or they
// come through DPDK's ring driver, and only the receiver is timed; every run checks
// that no frame was lost and that each hit was counted, once.
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
#include "tests/perf/ring_pair.h"

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
  bool ring = false;
  bool json = false;
};

// What the bare port's user does: looks at frames, and takes their bytes into
// memory used over and over.
class RawReceiver {
 public:
  RawReceiver(Port& port, uint32_t frame_bytes)
      : port_(port), room_(frame_bytes + 64), frames_(kBurst),
        kept_(kBurst * room_) {}
  size_t Turn() {
    const size_t n = port_.Receive(frames_);
    for (size_t i = 0; i < n; ++i) {
      if (frames_[i].data[12] != wire::kEtherType[0]) Fail("not our frame");
      std::memcpy(kept_.data() + i * room_, frames_[i].data,
                  frames_[i].length_bytes);
    }
    port_.Release({frames_.data(), n});
    return n;
  }

 private:
  Port& port_;
  const size_t room_;
  std::vector<Frame> frames_;
  std::vector<uint8_t> kept_;
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

// One receiver with one link, and the frames for it. Frames a second.
class Bench {
 public:
  virtual ~Bench() = default;
  // The floor: frames from the port, their headers looked at, their data taken.
  virtual double Raw() = 0;
  virtual double Full() = 0;

  uint32_t wire_bytes() const { return receiver_->target().wire_bytes(); }
  uint32_t frame_bytes() const {
    return receiver_->target().frame_bytes + kFcsBytes;
  }

 protected:
  explicit Bench(const Settings& settings)
      : settings_(settings), ns_(static_cast<uint64_t>(settings.seconds * 1e9)) {}
  uint32_t FrameBytes(uint32_t size_bytes) const {
    return RateFrameBytes(RateDataBytes(size_bytes, settings_.checksum),
                          settings_.checksum);
  }
  void Attach(std::unique_ptr<Port> port, const MacAddress& peer,
              uint32_t size_bytes, uint32_t tripwires, uint32_t hits) {
    receiver_ = std::make_unique<RateReceiver>(
        std::move(port), peer, RateLoad{tripwires, hits, settings_.stride},
        size_bytes, settings_.checksum);
  }

  const Settings& settings_;
  const uint64_t ns_;
  SystemClock clock_;
  std::unique_ptr<RateReceiver> receiver_;
};

class ReplayBench final : public Bench {
 public:
  ReplayBench(const Settings& settings, uint32_t size_bytes, uint32_t tripwires,
              uint32_t hits)
      : Bench(settings) {
    auto port =
        std::make_unique<ReplayPort>(FrameBytes(size_bytes), settings.checksum);
    port_ = port.get();
    Attach(std::move(port), MacAddress{{2, 0, 0, 0, 0, 2}}, size_bytes,
           tripwires, hits);
    port_->Begin(receiver_->target());
  }

  double Raw() override {
    RawReceiver raw(*port_, receiver_->target().frame_bytes);
    uint64_t count = 0;
    const uint64_t start = clock_.NowNs();
    uint64_t now = start;
    while (now < start + ns_) {
      for (int turn = 0; turn < 64; ++turn) count += raw.Turn();
      now = clock_.NowNs();
    }
    return static_cast<double>(count) / (static_cast<double>(now - start) / 1e9);
  }

  double Full() override {
    // What the raw floor took is not for this link.
    receiver_->Expect(port_->played() + 1);
    const uint64_t start = clock_.NowNs();
    uint64_t now = start;
    while (now < start + ns_) {
      for (int turn = 0; turn < 16; ++turn) receiver_->Turn(now);
      now = clock_.NowNs();
    }
    return static_cast<double>(receiver_->Check()) /
           (static_cast<double>(now - start) / 1e9);
  }

 private:
  ReplayPort* port_ = nullptr;
};

// The sender fills the ring with as much as a window allows, then the receiver
// empties it: only that is timed.
class RingBench final : public Bench {
 public:
  RingBench(const Settings& settings, uint32_t size_bytes, uint32_t tripwires,
            uint32_t hits)
      : Bench(settings) {
    auto pair = OpenRingPair(std::max(FrameBytes(size_bytes), 1514u));
    if (!pair.ok()) Fail(std::string(pair.status().message()).c_str());
    rings_ = std::move(pair->rings);
    sender_ = std::move(pair->sender);
    port_ = pair->receiver.get();
    Attach(std::move(pair->receiver), sender_->info().mac, size_bytes,
           tripwires, hits);
    blank_.resize(receiver_->target().frame_bytes);
    receiver_->target().Build(blank_.data());
  }
  ~RingBench() override { receiver_.reset(); }

  double Raw() override {
    RawReceiver raw(*port_, receiver_->target().frame_bytes);
    return Rate([&](uint64_t) { return raw.Turn(); });
  }
  double Full() override {
    receiver_->Expect(next_);
    const double rate = Rate([&](uint64_t now) {
      const uint64_t before = receiver_->Count();
      receiver_->Turn(now);
      return receiver_->Count() - before;
    });
    receiver_->Check();
    return rate;
  }

 private:
  static constexpr size_t kWindow = kWindowFrames - kReservedFrames;

  // Turns until all has come, again and again.
  template <typename Turn>
  double Rate(Turn turn) {
    uint64_t frames = 0, spent = 0;
    for (const uint64_t begin = clock_.NowNs(); clock_.NowNs() < begin + ns_;) {
      const size_t sent = SendWindow();
      const uint64_t start = clock_.NowNs();
      for (size_t come = 0, idle = 0; come < sent;) {
        const size_t n = turn(start);
        come += n;
        idle = n > 0 ? 0 : idle + 1;
        if (idle > 1000) Fail("frames were lost");
      }
      spent += clock_.NowNs() - start;
      frames += sent;
    }
    return static_cast<double>(frames) * 1e9 / static_cast<double>(spent);
  }

  size_t SendWindow() {
    for (size_t n = 1; n > 0;) {  // acknowledgements
      n = sender_->Receive(frames_);
      sender_->Release({frames_.data(), n});
    }
    size_t sent = 0;
    while (sent < kWindow) {
      const size_t have = sender_->Allocate(
          {frames_.data(), std::min(frames_.size(), kWindow - sent)});
      for (size_t i = 0; i < have; ++i) {
        std::memcpy(frames_[i].data, blank_.data(), blank_.size());
        receiver_->target().Number(next_++, frames_[i].data);
        frames_[i].length_bytes = static_cast<uint32_t>(blank_.size());
      }
      if (have == 0 || sender_->Transmit(0, {frames_.data(), have}) != have)
        Fail("the ring takes no window");
      sent += have;
    }
    return sent;
  }

  std::shared_ptr<void> rings_;
  std::unique_ptr<Port> sender_;
  Port* port_ = nullptr;
  std::vector<uint8_t> blank_;
  std::vector<Frame> frames_ = std::vector<Frame>(kBurst);
  uint64_t next_ = 1;
};

std::unique_ptr<Bench> MakeBench(const Settings& settings, uint32_t size_bytes,
                                 uint32_t tripwires, uint32_t hits) {
  if (settings.ring) {
    return std::make_unique<RingBench>(settings, size_bytes, tripwires, hits);
  }
  return std::make_unique<ReplayBench>(settings, size_bytes, tripwires, hits);
}

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
  app.add_flag("--ring", settings.ring,
               "Through two ports of DPDK's ring driver, not played from memory");
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
        auto bench = tripwire::MakeBench(settings, size, tripwires, hits);
        double raw = 0, full = 0;
        for (int repeat = 0; repeat < 3; ++repeat) {
          raw = std::max(raw, bench->Raw());
          full = std::max(full, bench->Full());
        }
        tripwire::Print(settings, *bench, tripwires, tripwires == 0 ? 0 : hits, raw, full);
      }
    }
  }
}
