// SPDX-License-Identifier: BSD-3-Clause
// How many frames a second one core takes: the bare port against the whole receive
// path (validate, order, place, match, notify), by frame size, tripwires armed and
// how many of the frames hit one. The port plays frames back from memory, so that
// nothing but the receiver is timed; every run checks that no frame was lost and that
// each hit was counted, once.
#include <sys/mman.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nic/base/clock.h"
#include "nic/base/random.h"
#include "nic/datapath/engine.h"
#include "nic/port/port.h"
#include "nic/wire/layout.h"
#include "nic/wire/parse.h"

namespace tripwire {
namespace {

constexpr size_t kBurst = 32;
constexpr size_t kFrames = 4096;  // played over and over
constexpr size_t kWordBytes = 8;
constexpr uint32_t kFcsBytes = 4, kPreambleAndGapBytes = 20;

struct Settings {
  std::vector<uint32_t> sizes = {64, 128, 256, 512, 1024, 1518, 4096, 9018};
  std::vector<uint32_t> tripwires = {0, 1, 1000, 1000000};
  std::vector<uint32_t> hits = {0, 50, 100};
  uint32_t stride = 64;
  double seconds = 0.5;
  bool checksum = false;
  bool json = false;
};

// Where each frame writes: never the same order of places twice.
struct Plan {
  uint64_t places = 1;
  uint64_t stride = 64;
  uint64_t hit_percent = 0;
  bool is_long = false;  // data that covers many places: at one of two offsets
  uint64_t long_hit = 0, long_miss = 0;

  static uint64_t Mix(uint64_t x) {  // splitmix64's
    x = (x + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
  bool Hits(uint64_t sequence) const {
    return (Mix(sequence) & 0xffff) * 100 < hit_percent * 0x10000;
  }
  uint64_t Offset(uint64_t sequence) const {
    if (is_long) return Hits(sequence) ? long_hit : long_miss;
    const uint64_t place = (Mix(sequence) >> 32) * places >> 32;
    return (2 * place + (Hits(sequence) ? 0 : 1)) * stride;
  }
};

// Plays frames of one link, numbering and aiming them as it hands them out.
class ReplayPort final : public Port {
 public:
  ReplayPort(uint32_t frame_bytes, bool checksum)
      : frame_bytes_(frame_bytes), stride_((frame_bytes + 127) / 64 * 64),
        checksum_(checksum), memory_(kFrames * stride_ + 64), out_(kBurst * stride_) {
    info_.name = "replay";
    info_.mac = {{2, 0, 0, 0, 0, 1}};
    info_.max_frame_bytes = std::max(frame_bytes, 1514u);
    info_.is_reliable = !checksum;
    base_ = memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64);
    tx_.resize(kBurst * info_.max_frame_bytes);
  }

  uint8_t* frame(size_t i) { return base_ + i * stride_; }
  void Begin(const Plan& plan) {  // once the frames are there
    plan_ = plan;
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
    uint8_t* data = frame((sequence - 1) % kFrames);
    auto* header = reinterpret_cast<wire::FrameHeader*>(data + sizeof(wire::EthernetHeader));
    header->sequence = static_cast<uint32_t>(sequence);
    auto* body = reinterpret_cast<wire::WritePayload*>(data + wire::kHeaderBytes);
    body->offset = plan_.Offset(sequence);
    if (checksum_) wire::Seal(data, header->length.get(), true);
  }

  const uint32_t frame_bytes_;
  const size_t stride_;
  const bool checksum_;
  Plan plan_;
  PortInfo info_;
  std::vector<uint8_t> memory_, out_, tx_;
  uint8_t* base_;
  size_t next_ = 0;
  uint64_t sequence_ = 1, sent_ = 0;
};

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "tw-rate-bench: %s\n", what);
  std::exit(1);
}

// Memory with one watched place and one that is not, for each tripwire.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) Fail("no memory");
    data_ = static_cast<uint8_t*>(at);
    madvise(data_, bytes, MADV_HUGEPAGE);  // a wish
    std::memset(data_, 0, bytes);
  }
  ~Memory() { munmap(data_, bytes_); }
  Memory(const Memory&) = delete;
  std::span<uint8_t> span() { return {data_, bytes_}; }

 private:
  size_t bytes_;
  uint8_t* data_;
};

struct Outcome {
  double frames_per_second = 0;
  double tripwire_bytes = 0;
};

// One receiver with one link, and the frames for it.
class Bench {
 public:
  Bench(const Settings& settings, uint32_t frame_bytes, uint32_t tripwires, uint32_t hits)
      : settings_(settings), frame_bytes_(frame_bytes - kFcsBytes), random_(1),
        memory_(std::max<size_t>(size_t{2} * std::max(tripwires, 1u) * settings.stride,
                                 1 << 20) + 16384) {
    const uint32_t overhead =
        wire::kHeaderBytes + sizeof(wire::WritePayload) +
        (settings.checksum ? wire::kChecksumBytes : 0);
    data_bytes_ = frame_bytes_ > overhead + kWordBytes ? frame_bytes_ - overhead : kWordBytes;
    frame_bytes_ = std::max<uint32_t>(overhead + data_bytes_, wire::kMinFrameBytes);
    auto port = std::make_unique<ReplayPort>(frame_bytes_, settings.checksum);
    port_ = port.get();
    std::vector<std::unique_ptr<Port>> ports;
    ports.push_back(std::move(port));
    engine_ = std::make_unique<Engine>(EngineOptions{}, clock_, random_, std::move(ports));
    context_ = engine_->CreateContext();
    name_ = engine_->Export(context_, memory_.span(), Access::kWrite, std::nullopt);
    Link& link = engine_->NewLink(context_);
    link.state = LinkState::kConnecting;
    link.port = 0;
    link.path = 0;
    link.remote_mac = {{2, 0, 0, 0, 0, 2}};
    link.remote_link = 7;
    link.remote_epoch = 7;
    link.max_frame_bytes = port_->info().max_frame_bytes;
    link.checksum = settings.checksum;
    engine_->OpenLink(link);
    link_ = link.id;
    epoch_ = link.epoch;
    Arm(tripwires);
    Fill(tripwires, hits);
  }

  // The floor: frames from the port, their headers looked at, their data taken.
  double Raw() {
    std::vector<Frame> frames(kBurst);
    std::vector<uint8_t> kept(kBurst * (frame_bytes_ + 64));
    uint64_t count = 0;
    const uint64_t start = clock_.NowNs();
    uint64_t now = start;
    const uint64_t end = start + Ns();
    while (now < end) {
      for (int turn = 0; turn < 64; ++turn) {
        const size_t n = port_->Receive(frames);
        for (size_t i = 0; i < n; ++i) {
          if (frames[i].data[12] != wire::kEtherType[0]) Fail("not our frame");
          std::memcpy(kept.data() + i * (frame_bytes_ + 64), frames[i].data,
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
    std::vector<Event> events(kBurst);
    const uint64_t before = port_->played();
    // What the raw floor took is not for this link.
    engine_->FindLink(link_)->expected = before + 1;
    const uint64_t start = clock_.NowNs();
    uint64_t now = start;
    const uint64_t end = start + Ns();
    while (now < end) {
      for (int turn = 0; turn < 16; ++turn) {
        engine_->Poll(now);
        while (true) {
          const size_t n = engine_->TakeEvents(context_, events);
          for (size_t i = 0; i < n; ++i) told_ += events[i].count;
          if (n < events.size()) break;
        }
      }
      now = clock_.NowNs();
    }
    const uint64_t after = port_->played();
    const NicCounters& counters = engine_->counters();
    if (engine_->FindLink(link_)->expected != after + 1 || counters.duplicate_frames > 0 ||
        counters.drop_window > 0 || counters.drop_malformed > 0 ||
        counters.drop_checksum > 0 || counters.drop_no_buffer > 0) {
      Fail("frames were lost");
    }
    if (told_ != HitsBetween(before, after)) Fail("firings were lost or made up");
    told_ = 0;
    return static_cast<double>(after - before) / (static_cast<double>(now - start) / 1e9);
  }

  uint32_t wire_bytes() const { return frame_bytes_ + kFcsBytes + kPreambleAndGapBytes; }
  uint32_t frame_bytes() const { return frame_bytes_ + kFcsBytes; }

 private:
  uint64_t Ns() const { return static_cast<uint64_t>(settings_.seconds * 1e9); }
  uint64_t HitsBetween(uint64_t before, uint64_t after) const {
    uint64_t hits = 0;
    for (uint64_t sequence = before + 1; sequence <= after; ++sequence) {
      hits += plan_.Hits(sequence) ? 1 : 0;
    }
    return hits;
  }

  void Arm(uint32_t tripwires) {
    for (uint32_t i = 0; i < tripwires; ++i) {
      TripwireSpec spec;
      spec.context = context_;
      spec.offset = uint64_t{2} * i * settings_.stride;
      spec.length = kWordBytes;
      spec.access = Access::kWrite;
      spec.handle = name_.handle;
      spec.generation = name_.generation;
      engine_->Arm(engine_->Watch(std::move(spec)));
    }
  }

  // Frames that hit end in a watched word, the others do not touch any.
  void Fill(uint32_t tripwires, uint32_t hits) {
    const uint64_t places = std::max(tripwires, 1u);
    plan_.places = places;
    plan_.stride = settings_.stride;
    plan_.hit_percent = tripwires > 0 ? hits : 0;
    plan_.is_long = data_bytes_ > settings_.stride;
    plan_.long_hit = 2 * (places - 1) * settings_.stride;
    plan_.long_miss = memory_.span().size() - data_bytes_ / 8 * 8 - 8;
    for (size_t i = 0; i < kFrames; ++i) {
      uint8_t* data = port_->frame(i);
      std::memset(data, 0, frame_bytes_);
      auto* ethernet = reinterpret_cast<wire::EthernetHeader*>(data);
      std::copy_n(port_->info().mac.bytes.begin(), 6, ethernet->destination);
      const uint8_t source[6] = {2, 0, 0, 0, 0, 2};
      std::copy_n(source, 6, ethernet->source);
      std::copy_n(wire::kEtherType, 2, ethernet->ether_type);
      auto* header = reinterpret_cast<wire::FrameHeader*>(data + sizeof(*ethernet));
      header->version = wire::kVersion;
      header->type = wire::kWrite;
      header->flags = wire::kLast;
      header->link = link_.value;
      header->epoch = epoch_;
      header->acknowledged = 1;
      header->credit = 256;
      auto* body = reinterpret_cast<wire::WritePayload*>(data + wire::kHeaderBytes);
      body->handle = name_.handle;
      body->generation = name_.generation;
      wire::Seal(data, sizeof *body + data_bytes_, settings_.checksum);
    }
    port_->Begin(plan_);
  }

  const Settings& settings_;
  uint32_t frame_bytes_;
  uint32_t data_bytes_ = 0;
  SystemClock clock_;
  Random random_;
  Memory memory_;
  ReplayPort* port_ = nullptr;
  std::unique_ptr<Engine> engine_;
  uint32_t context_ = 0;
  ApertureName name_;
  LinkId link_;
  uint32_t epoch_ = 0;
  Plan plan_;
  uint64_t told_ = 0;
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
