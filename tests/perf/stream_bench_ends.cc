// SPDX-License-Identifier: BSD-3-Clause
// The two ends of a benchmarked stream.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nic/api/context.h"
#include "nic/comm/mapping.h"
#include "nic/port/port_spec.h"
#include "periph/stream/feeder.h"
#include "periph/stream/frame_ring.h"
#include "tests/perf/allocations.h"
#include "tests/perf/stream_bench.h"

namespace tripwire {
namespace {

using periph::Feeder;
using periph::Frame;
using periph::FrameRing;
using tools::BenchEnds;

constexpr char kService[] = "stream-bench";
constexpr uint64_t kPatienceNs = 10 * kSecond;

absl::StatusOr<std::unique_ptr<Nic>> Open(const std::string& spec,
                                          const char* node, bool spin) {
  auto port = OpenPort(spec);
  if (!port.ok()) return port.status();
  NicOptions options;
  options.node = node;
  options.service_thread = false;  // whoever waits is the engine
  options.max_spin_ns = spin ? kPatienceNs : 0;
  options.ports.push_back(*std::move(port));
  return Nic::Open(std::move(options));
}

uint64_t CpuNs() {
  timespec ts;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * kSecond +
         static_cast<uint64_t>(ts.tv_nsec);
}

// What happened between the first frame and the last.
class Meter {
 public:
  explicit Meter(Nic& nic) : nic_(nic) { Start(); }
  void Start() {
    at_ = nic_.counters();
    begin_ = Now();
  }
  StreamEnd Stop(uint64_t frames) {
    const NicCounters now = nic_.counters();
    StreamEnd end = Now();
    end.frames = frames;
    end.ns -= begin_.ns;
    end.cpu_ns -= begin_.cpu_ns;
    end.allocations -= begin_.allocations;
    end.sleeps = now.sleeps - at_.sleeps;
    end.doorbells = now.doorbells_rung - at_.doorbells_rung;
    end.wakeups = now.wakeups - at_.wakeups;
    return end;
  }

 private:
  StreamEnd Now() {
    StreamEnd now;
    now.ns = nic_.clock().NowNs();
    now.cpu_ns = CpuNs();
    now.allocations = Allocations();
    return now;
  }
  Nic& nic_;
  NicCounters at_;
  StreamEnd begin_;
};

// ------------------------------------------------------------------ the
// consumer

struct ConsumerReport {
  StreamEnd end;
  uint64_t p50_ns = 0, p99_ns = 0;
};

absl::StatusOr<LinkId> AwaitFeeder(Context& context, Clock& clock) {
  Event event;
  while (context.Wait({&event, 1}, clock.NowNs() + kPatienceNs) == 1) {
    if (event.kind == EventKind::kConnectRequest) return event.link;
  }
  return absl::DeadlineExceededError("no feeder came");
}

// Whether the ends of the frame say its number, as Source makes them.
bool IsWhole(std::span<const uint8_t> data, uint64_t number) {
  uint64_t first, last;
  std::memcpy(&first, data.data(), sizeof first);
  std::memcpy(&last, data.data() + data.size() - sizeof last, sizeof last);
  return first == number && last == number;
}

absl::Status Consume(const BenchEnds& ends, const StreamLoad& load,
                     const std::function<void()>& ready, int report_fd) {
  auto nic = Open(ends.far_port, "stream-far", load.spin);
  if (!nic.ok()) return nic.status();
  auto context = (*nic)->CreateContext();
  if (absl::Status s = context->Listen(kService); !s.ok()) return s;
  ready();
  Clock& clock = (*nic)->clock();
  const auto link = AwaitFeeder(*context, clock);
  if (!link.ok()) return link.status();
  auto ring = FrameRing::Create(
      *context, *link,
      {.slots = load.slots, .payload_bytes = load.frame_bytes});
  if (!ring.ok()) return ring.status();
  uint8_t name[ApertureName::kWireBytes];
  (*ring)->name().aperture.Serialize(name);
  if (absl::Status s = context->Accept(*link, name); !s.ok()) return s;
  std::optional<std::vector<uint8_t>> credit;
  while (!(credit = context->TakeMessage(*link))) {
    Event event;
    if (context->Wait({&event, 1}, clock.NowNs() + kPatienceNs) == 0) {
      return absl::DeadlineExceededError("no credit's name came");
    }
  }
  (*ring)->SetCredit(ApertureName::Parse(credit->data()));

  tools::Latencies latencies(1 << 24);
  Meter meter(**nic);
  uint64_t frames = 0, wrong = 0, last_ns = clock.NowNs();
  for (;;) {
    if (!(*ring)->Wait(last_ns + kPatienceNs)) {
      return absl::DeadlineExceededError("no frame came");
    }
    auto view = (*ring)->Take();
    if (!view.ok()) return view.status();
    if (view->data().empty()) break;          // the last
    if (frames == load.slots) meter.Start();  // all slots have been touched
    wrong += !IsWhole(view->data(), view->frame().number);
    if (frames < (1 << 24)) {
      latencies.Add(view->arrival_ns() -
                    std::min(view->frame().capture_ns, view->arrival_ns()));
    }
    ++frames;
    last_ns = view->arrival_ns();
  }
  ConsumerReport report;
  report.end = meter.Stop(frames > load.slots ? frames - load.slots : 0);
  report.end.reports = (*ring)->counters().reports;
  report.end.lost = wrong + (*ring)->counters().lost;
  if (frames > 0) {
    report.p50_ns = latencies.Quantile(0.5);
    report.p99_ns = latencies.Quantile(0.99);
  }
  if (::write(report_fd, &report, sizeof report) != sizeof report) {
    return absl::InternalError("cannot report");
  }
  return absl::OkStatus();
}

// -------------------------------------------------------------------- the
// feeder

// Frames that say their number at both ends.
class Source {
 public:
  explicit Source(const StreamLoad& load)
      : stride_((load.frame_bytes + 4095) / 4096 * 4096),
        memory_(std::make_shared<Mapping>(stride_ * load.source_frames)) {
    std::memset(memory_->data(), 0x5a, memory_->size());
  }
  Frame Make(const StreamLoad& load, uint64_t number, uint64_t now_ns) {
    uint8_t* data = memory_->data() + number % load.source_frames * stride_;
    std::memcpy(data, &number, sizeof number);
    std::memcpy(data + load.frame_bytes - sizeof number, &number,
                sizeof number);
    Frame frame;
    frame.data = {data, static_cast<size_t>(load.frame_bytes)};
    frame.owner = memory_;
    frame.number = number;
    frame.capture_ns = now_ns;
    return frame;
  }

 private:
  const uint64_t stride_;
  const std::shared_ptr<Mapping> memory_;
};

// Offers it until it is taken.
absl::Status Put(Context& context, Feeder& feeder, const Frame& frame) {
  for (;;) {
    switch (feeder.Offer(frame)) {
      case Feeder::Taken::kYes:
        return absl::OkStatus();
      case Feeder::Taken::kGone:
        return feeder.status();
      case Feeder::Taken::kFull:
        break;
    }
    Event event;
    if (!feeder.Pump() && feeder.status().ok() &&
        context.Wait({&event, 1},
                     context.nic().clock().NowNs() + kPatienceNs) == 0) {
      return absl::DeadlineExceededError("no credit came");
    }
  }
}

absl::StatusOr<StreamEnd> Feed(Context& context, Feeder& feeder,
                               const StreamLoad& load) {
  Clock& clock = context.nic().clock();
  Source source(load);
  uint64_t number = 0;
  Meter meter(context.nic());
  const uint64_t end_ns = clock.NowNs() + load.duration_ns;
  uint64_t due_ns = clock.NowNs();
  for (;;) {
    uint64_t now_ns = clock.NowNs();
    if (load.interval_ns != 0) {
      due_ns += load.interval_ns;
      context.nic().WaitUntil([] { return false; }, due_ns);
      now_ns = clock.NowNs();
    }
    if (now_ns >= end_ns) break;
    // A frame still being sent is not made anew.
    while (feeder.in_flight() + 1 >= load.source_frames) {
      feeder.Pump();
      if (feeder.in_flight() + 1 < load.source_frames) break;
      context.nic().Poll();
    }
    const absl::Status put =
        Put(context, feeder, source.Make(load, number, now_ns));
    if (!put.ok()) return put;
    ++number;
  }
  StreamEnd end = meter.Stop(number);
  Frame last;
  last.number = number;
  if (absl::Status s = Put(context, feeder, last); !s.ok()) return s;
  return end;
}

}  // namespace

absl::StatusOr<StreamResult> RunStream(const BenchEnds& ends,
                                       const StreamLoad& load) {
  auto far = tools::FarEnd::Start(
      ends, [&](const std::function<void()>& ready, int fd) {
        return Consume(ends, load, ready, fd);
      });
  if (!far.ok()) return far.status();
  auto nic = Open(ends.near_port, "stream-near", load.spin);
  if (!nic.ok()) return nic.status();
  auto context = (*nic)->CreateContext();
  const auto link = context->Connect("stream-far", kService, {}, kPatienceNs);
  if (!link.ok()) return link.status();
  const auto info = context->Describe(*link);
  if (!info.ok()) return info.status();
  if (info->private_data.size() != ApertureName::kWireBytes) {
    return absl::DataLossError("the consumer does not say where its ring is");
  }
  Feeder feeder(*context, *link,
                {.policy = periph::Policy::kBlock, .cookie = 1});
  uint8_t name[ApertureName::kWireBytes];
  feeder.credit_name().Serialize(name);
  if (absl::Status s = context->SendMessage(*link, name); !s.ok()) return s;
  const absl::Status began =
      feeder.Begin({ApertureName::Parse(info->private_data.data()), load.slots,
                    load.frame_bytes});
  if (!began.ok()) return began;
  auto fed = Feed(*context, feeder, load);
  if (!fed.ok()) return fed.status();
  Completion delivered;
  if (absl::Status s = context->Flush(*link, &delivered); !s.ok()) return s;
  (*nic)->WaitUntil([&] { return delivered.done(); },
                    (*nic)->clock().NowNs() + kPatienceNs);
  auto report = far->Finish();
  if (!report.ok()) return report.status();
  ConsumerReport consumer;
  if (report->size() != sizeof consumer)
    return absl::InternalError("a short report");
  std::memcpy(&consumer, report->data(), sizeof consumer);
  return StreamResult{*fed, consumer.end, consumer.p50_ns, consumer.p99_ns};
}

}  // namespace tripwire
