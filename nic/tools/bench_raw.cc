// SPDX-License-Identifier: BSD-3-Clause
// The floor of every benchmark: bare frames on the same ports, both ends
// polling.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nic/base/clock.h"
#include "nic/port/port.h"
#include "nic/port/port_spec.h"
#include "nic/tools/bench_pair.h"

namespace tripwire::tools {
namespace {

// The second IEEE local-experimental EtherType: not ours, so a Tripwire NIC
// that happens to listen takes no notice.
constexpr uint8_t kEtherType[2] = {0x88, 0xb6};
constexpr size_t kHeader = 14;
constexpr size_t kBurst = 32;
constexpr size_t kKeptBytes = 128;  // beyond a frame: room to align it
constexpr size_t kFilledFrom =
    64;  // no longer frames only open the way, or stop
constexpr uint8_t kData = 1, kStop = 2;
constexpr uint64_t kGiveUpNs = 10 * kSecond;

class RawPort {
 public:
  static absl::StatusOr<RawPort> Open(const std::string& spec,
                                      uint64_t memory_bytes = 0) {
    auto port = OpenPort(spec);
    if (!port.ok()) return port.status();
    return RawPort(*std::move(port), memory_bytes);
  }

  uint64_t NowNs() { return clock_.NowNs(); }
  uint64_t dropped() const { return port_->counters().tx_dropped; }
  uint32_t max_frame_bytes() const { return port_->info().max_frame_bytes; }

  // Sends up to `count` frames of `length` bytes; returns how many were taken.
  size_t Send(PathId path, uint8_t kind, uint32_t length, size_t count) {
    std::array<Frame, kBurst> frames;
    const size_t have =
        port_->Allocate({frames.data(), std::min(count, kBurst)});
    for (size_t i = 0; i < have; ++i) {
      uint8_t* data = frames[i].data;
      std::memset(data, 0xff, 6);
      std::memcpy(data + 6, port_->info().mac.bytes.data(), 6);
      std::memcpy(data + 12, kEtherType, 2);
      if (fills_ && length > kFilledFrom) {
        std::memcpy(data + kHeader, Next(), length - kHeader);
      }
      data[kHeader] = kind;
      frames[i].length_bytes = length;
    }
    const size_t sent = port_->Transmit(path, {frames.data(), have});
    port_->Release({frames.data() + sent, have - sent});
    return sent;
  }

  // Takes the frame's bytes, as whoever receives data for a purpose must: a
  // port may hand out frames that nobody has touched yet. Into memory that is
  // used over and over, hence as fast as can be.
  void Keep(const Frame& frame) {
    uint8_t* to = Next();
    // Where in a cache line the frame begins: a copy between lines that lie
    // alike is faster.
    to += (reinterpret_cast<uintptr_t>(frame.data) -
           reinterpret_cast<uintptr_t>(to)) %
          64;
    std::memcpy(to, frame.data,
                std::min(frame.length_bytes, max_frame_bytes()));
  }

  // Calls `take(frame)` for each of our frames that has come; returns how many.
  template <typename F>
  size_t Receive(F take) {
    std::array<Frame, kBurst> frames;
    const size_t have = port_->Receive(frames);
    size_t ours = 0;
    for (size_t i = 0; i < have; ++i) {
      const Frame& frame = frames[i];
      if (frame.length_bytes > kHeader &&
          std::memcmp(frame.data + 12, kEtherType, 2) == 0) {
        take(frame);
        ++ours;
      }
    }
    port_->Release({frames.data(), have});
    // Joins, departures: rarely, and never between two frames of a burst.
    if (have == 0 && ++idle_ % 1024 == 0) port_->Service(clock_.NowNs());
    return ours;
  }

 private:
  RawPort(std::unique_ptr<Port> port, uint64_t memory_bytes)
      : port_(std::move(port)),
        fills_(memory_bytes > 0),
        place_bytes_(kKeptBytes + max_frame_bytes()),
        places_(std::max<uint64_t>(kBurst, memory_bytes / place_bytes_)) {
    port_->Service(clock_.NowNs());
  }
  // Room for a frame, after the one before and round again.
  uint8_t* Next() {
    if (memory_.empty()) memory_.resize(places_ * place_bytes_);
    next_place_ = (next_place_ + 1) % places_;
    return memory_.data() + next_place_ * place_bytes_;
  }

  std::unique_ptr<Port> port_;
  SystemClock clock_;
  uint64_t idle_ = 0;
  bool fills_;
  size_t place_bytes_, places_, next_place_ = 0;
  std::vector<uint8_t> memory_;
};

absl::Status Echo(const BenchEnds& ends, const std::function<void()>& ready) {
  auto port = RawPort::Open(ends.far_port);
  if (!port.ok()) return port.status();
  ready();
  bool stop = false;
  uint64_t idle_since = port->NowNs();
  while (!stop) {
    PathId path = 0;
    const size_t came = port->Receive([&](const Frame& frame) {
      path = frame.path;
      stop |= frame.data[kHeader] == kStop;
    });
    if (came > 0) {
      port->Send(path, kData, 64, 1);
      idle_since = port->NowNs();
    } else if (port->NowNs() - idle_since > kGiveUpNs) {
      return absl::DeadlineExceededError("no frames came");
    }
  }
  return absl::OkStatus();
}

// One round trip; false when no answer came within `patience_ns`.
bool Bounce(RawPort& port, uint64_t patience_ns) {
  const uint64_t end = port.NowNs() + patience_ns;
  while (port.Send(kAllPaths, kData, 64, 1) == 0) {
    if (port.NowNs() > end) return false;
    port.Receive([](const Frame&) {});
  }
  while (port.Receive([](const Frame&) {}) == 0) {
    if (port.NowNs() > end) return false;
  }
  return true;
}

struct Report {
  uint64_t frames = 0, ns = 0;
};

absl::Status Count(const BenchEnds& ends, uint64_t memory_bytes,
                   const std::function<void()>& ready, int report_fd) {
  auto port = RawPort::Open(ends.far_port, memory_bytes);
  if (!port.ok()) return port.status();
  ready();
  Report report;
  uint64_t first_ns = 0, last_ns = 0, idle_since = port->NowNs();
  for (bool stop = false; !stop;) {
    size_t counted = 0;
    const size_t came = port->Receive([&](const Frame& frame) {
      port->Keep(frame);
      counted += frame.length_bytes > 64;  // small ones only open the way
      stop |= frame.data[kHeader] == kStop;
    });
    if (came > 0) idle_since = port->NowNs();
    if (counted > 0) {
      if (first_ns == 0) first_ns = idle_since;
      last_ns = idle_since;
      report.frames += counted;
    } else if (port->NowNs() - idle_since > kGiveUpNs) {
      return absl::DeadlineExceededError("no frames came");
    }
  }
  report.ns = last_ns - first_ns;
  if (::write(report_fd, &report, sizeof report) != sizeof report) {
    return absl::InternalError("cannot report");
  }
  return absl::OkStatus();
}

// Over memif the near end may have to wait until it has joined.
absl::Status SendStop(RawPort& port) {
  const uint64_t end = port.NowNs() + kGiveUpNs;
  size_t sent = 0;
  // Several: the medium may lose some. Those the port dropped, because the far
  // end has not yet taken what came before, do not count.
  while (sent < 20 && port.NowNs() < end) {
    const uint64_t dropped = port.dropped();
    const size_t taken = port.Send(kAllPaths, kStop, 64, 1);
    if (port.dropped() == dropped) sent += taken;
    port.Receive([](const Frame&) {});
  }
  return sent > 0 ? absl::OkStatus()
                  : absl::UnavailableError("the port takes no frames");
}

}  // namespace

absl::StatusOr<RoundTrip> RawRoundTrip(const BenchEnds& ends, int rounds) {
  auto far = FarEnd::Start(ends, [&](const std::function<void()>& ready, int) {
    return Echo(ends, ready);
  });
  if (!far.ok()) return far.status();
  auto port = RawPort::Open(ends.near_port);
  if (!port.ok()) return port.status();
  int failures = 0;
  while (!Bounce(*port, 100 * kMillisecond)) {
    if (++failures > 50)
      return absl::UnavailableError("no frame came back over the raw port");
  }
  for (int i = 0; i < rounds / 10; ++i) Bounce(*port, kSecond);
  Latencies times(static_cast<size_t>(rounds));
  for (int i = 0; i < rounds; ++i) {
    const uint64_t begin = port->NowNs();
    if (Bounce(*port, kSecond)) times.Add(port->NowNs() - begin);
  }
  if (auto status = SendStop(*port); !status.ok()) return status;
  if (auto report = far->Finish(); !report.ok()) return report.status();
  return RoundTrip{times.Quantile(0.5), times.Quantile(0.99)};
}

absl::StatusOr<Goodput> RawGoodput(const BenchEnds& ends, uint64_t duration_ns,
                                   uint32_t frame_bytes,
                                   uint64_t memory_bytes) {
  auto far =
      FarEnd::Start(ends, [&](const std::function<void()>& ready, int fd) {
        return Count(ends, memory_bytes, ready, fd);
      });
  if (!far.ok()) return far.status();
  auto port = RawPort::Open(ends.near_port, memory_bytes);
  if (!port.ok()) return port.status();
  const uint32_t length = frame_bytes != 0
                              ? std::min(frame_bytes, port->max_frame_bytes())
                              : port->max_frame_bytes();
  const uint64_t join_end = port->NowNs() + kGiveUpNs;
  while (port->Send(kAllPaths, kData, 64, 1) == 0) {
    if (port->NowNs() > join_end)
      return absl::UnavailableError("the port takes no frames");
    port->Receive([](const Frame&) {});
  }
  const uint64_t end = port->NowNs() + duration_ns;
  while (port->NowNs() < end) {
    if (port->Send(kAllPaths, kData, length, kBurst) == 0)
      port->Receive([](const Frame&) {});
  }
  if (auto status = SendStop(*port); !status.ok()) return status;
  auto report = far->Finish();
  if (!report.ok()) return report.status();
  Report counted;
  if (report->size() != sizeof counted)
    return absl::InternalError("the far end's report is short");
  std::memcpy(&counted, report->data(), sizeof counted);
  return Goodput{counted.frames * (length - kHeader), counted.frames,
                 counted.ns};
}

}  // namespace tripwire::tools
