// SPDX-License-Identifier: BSD-3-Clause
// The NIC under the benchmarks: a word written there, a tripwire, a word
// written back; and bulk writes.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nic/api/context.h"
#include "nic/api/open_nic.h"
#include "nic/base/clock.h"
#include "nic/tools/bench_pair.h"

namespace tripwire::tools {
namespace {

constexpr char kService[] = "tw.bench";
constexpr size_t kApertureBytes = 4u << 20;
constexpr size_t kBulkBytes = 512u << 10;
constexpr uint64_t kPatienceNs = 10 * kSecond;
// So many rounds of the NIC's, then as many bare wake-ups, and so on.
constexpr uint64_t kTurnRounds = 32;
// How often the clock is looked at, as in the raw port's benchmark.
constexpr size_t kClockWrites = 32;

struct Memory {
  Memory()
      : bytes(static_cast<uint8_t*>(std::aligned_alloc(4096, kApertureBytes))) {
    std::memset(bytes, 0, kApertureBytes);
  }
  ~Memory() { std::free(bytes); }
  Memory(const Memory&) = delete;
  std::span<uint8_t> all() const { return {bytes, kApertureBytes}; }
  uint8_t* const bytes;
};

absl::StatusOr<std::unique_ptr<Nic>> OpenBenchNic(const std::string& port,
                                                  const char* node, bool spin) {
  NicOptions options;
  options.node = node;
  // Caller-driven: whoever waits is the engine, so no thread is in the way.
  options.service_thread = false;
  options.max_spin_ns = spin ? kPatienceNs : 0;
  return OpenNic({port}, PortRole::kClient, "tw", std::move(options));
}

absl::Status WriteWord(Context& context, const RemoteAperture& to,
                       uint64_t value) {
  uint8_t bytes[8];
  std::memcpy(bytes, &value, sizeof value);
  return context.Write(to, 0, bytes);
}

// A tripwire on the first word, for Tripwire::Wait.
Tripwire WatchWord(Context& context, const Aperture& aperture) {
  Tripwire tripwire =
      context.Watch(aperture, 0, sizeof(uint64_t), Access::kWrite,
                    TripwireMode::kPersistent, 0, /*events=*/false);
  tripwire.Arm();
  return tripwire;
}

// The far end: offers an aperture; writes each new first word, when the
// tripwire on it fires, back to the first word of the peer's aperture, if the
// peer named one; until the link ends. Answers bare wake-ups in turn with that,
// if asked to.
absl::Status Serve(const BenchEnds& ends, bool spin,
                   const std::function<void()>& ready,
                   const BareWakeUp* bare = nullptr) {
  auto nic = OpenBenchNic(ends.far_port, "bench-far", spin);
  if (!nic.ok()) return nic.status();
  Memory memory;
  auto context = (*nic)->CreateContext();
  Aperture aperture = context->Export(memory.all(), Access::kWrite);
  Tripwire tripwire = WatchWord(*context, aperture);
  if (auto status = context->Listen(kService); !status.ok()) return status;
  ready();
  Clock& clock = (*nic)->clock();
  RemoteAperture back;
  Event event;
  uint64_t seen = 0, fired = 0;
  bool answers = false;
  for (;;) {
    if (answers) {
      const uint64_t before = fired;
      fired = tripwire.Wait(before, clock.NowNs() + kPatienceNs);
      if (fired == before) return absl::OkStatus();
      std::memcpy(&seen, memory.bytes, sizeof seen);
      if (!WriteWord(*context, back, seen).ok()) return absl::OkStatus();
      if (bare != nullptr && fired % kTurnRounds == 0) {
        for (uint64_t i = 0; i < kTurnRounds; ++i) {
          if (!bare->AwaitAndAnswer()) return absl::OkStatus();
        }
      }
      if (seen != UINT64_MAX) continue;
      answers = false;  // the last: now only the link's end is of interest
    }
    if (context->Wait({&event, 1}, clock.NowNs() + kPatienceNs) == 0) {
      return absl::DeadlineExceededError("nobody came");
    }
    if (event.kind == EventKind::kLinkDown) return absl::OkStatus();
    if (event.kind != EventKind::kConnectRequest) continue;
    auto link = context->Describe(event.link);
    if (!link.ok()) continue;
    if (link->private_data.size() >= ApertureName::kWireBytes) {
      back = context->Import(event.link,
                             ApertureName::Parse(link->private_data.data()));
      answers = true;
    }
    std::array<uint8_t, ApertureName::kWireBytes> name;
    aperture.name().Serialize(name.data());
    if (auto status = context->Accept(event.link, name); !status.ok())
      return status;
  }
}

absl::StatusOr<RemoteAperture> Connect(Context& context,
                                       std::span<const uint8_t> private_data) {
  auto link = context.Connect("bench-far", kService, private_data, kPatienceNs);
  if (!link.ok()) return link.status();
  auto info = context.Describe(*link);
  if (!info.ok()) return info.status();
  if (info->private_data.size() != ApertureName::kWireBytes)
    return absl::InternalError("the far end names no aperture");
  return context.Import(*link, ApertureName::Parse(info->private_data.data()));
}

}  // namespace

namespace {

RoundTrip Summary(Latencies& times) {
  return {times.Quantile(0.5), times.Quantile(0.99)};
}

// Spins without `bare`, and blocks with it.
absl::StatusOr<BlockingRoundTrip> RoundTrips(const BenchEnds& ends, int rounds,
                                             const BareWakeUp* bare) {
  const bool spin = bare == nullptr;
  auto far = FarEnd::Start(ends, [&](const std::function<void()>& ready, int) {
    return Serve(ends, spin, ready, bare);
  });
  if (!far.ok()) return far.status();
  auto nic = OpenBenchNic(ends.near_port, "bench-near", spin);
  if (!nic.ok()) return nic.status();
  Memory memory;
  auto context = (*nic)->CreateContext();
  Clock& clock = (*nic)->clock();
  Latencies times(static_cast<size_t>(rounds));
  Latencies bare_times(static_cast<size_t>(rounds));
  {
    Aperture aperture = context->Export(memory.all(), Access::kWrite);
    Tripwire tripwire = WatchWord(*context, aperture);
    std::array<uint8_t, ApertureName::kWireBytes> name;
    aperture.name().Serialize(name.data());
    auto to = Connect(*context, name);
    if (!to.ok()) return to.status();
    const int warm_up = rounds / 10;
    for (int i = 0; i < rounds + warm_up; ++i) {
      const uint64_t begin = clock.NowNs();
      const uint64_t value =
          i + 1 == rounds + warm_up ? UINT64_MAX : static_cast<uint64_t>(i) + 1;
      if (auto status = WriteWord(*context, *to, value); !status.ok())
        return status;
      const auto answers = static_cast<uint64_t>(i);
      if (tripwire.Wait(answers, begin + kPatienceNs) != answers + 1) {
        return absl::DeadlineExceededError(
            absl::StrCat("no answer to word ", i + 1));
      }
      if (i >= warm_up) times.Add(clock.NowNs() - begin);
      if (bare == nullptr || (answers + 1) % kTurnRounds != 0) continue;
      for (uint64_t k = 0; k < kTurnRounds; ++k) {
        const uint64_t asked = clock.NowNs();
        if (!bare->AskAndAwait()) return absl::InternalError("no wake-up");
        bare_times.Add(clock.NowNs() - asked);
      }
    }
    context->Close(to->link);
    // Say goodbye before going: the engine runs only while somebody calls it.
    (*nic)->WaitUntil([] { return false; }, clock.NowNs() + 20 * kMillisecond);
  }
  if (auto report = far->Finish(); !report.ok()) return report.status();
  BlockingRoundTrip result;
  result.nic = Summary(times);
  if (bare != nullptr) result.wake_up = Summary(bare_times);
  return result;
}

}  // namespace

absl::StatusOr<RoundTrip> NicRoundTrip(const BenchEnds& ends, int rounds) {
  auto times = RoundTrips(ends, rounds, nullptr);
  if (!times.ok()) return times.status();
  return times->nic;
}

absl::StatusOr<BlockingRoundTrip> NicBlockingRoundTrip(const BenchEnds& ends,
                                                       int rounds) {
  auto bare = BareWakeUp::Make();
  if (!bare.ok()) return bare.status();
  return RoundTrips(ends, rounds, &*bare);
}

namespace {

// Writes with a Completion each, round and round: as many under way as the
// window holds, the oldest first to be waited for.
class WritesUnderWay {
 public:
  WritesUnderWay(Context& context, const RemoteAperture& to,
                 std::span<const uint8_t> data, uint32_t write_bytes,
                 size_t window, size_t list)
      : context_(context),
        data_(data),
        write_bytes_(write_bytes),
        completions_(window),
        requests_(list) {
    for (WriteRequest& request : requests_) request.to = to;
  }

  uint64_t bytes_done() const { return done_ * write_bytes_; }

  // Posts the next list, once there is room for it.
  absl::Status Post() {
    const size_t list = requests_.size();
    while (posted_ + list - done_ > completions_.size()) {
      if (auto status = WaitForOldest(); !status.ok()) return status;
    }
    for (WriteRequest& request : requests_) {
      request.offset = next_offset_;
      request.data = data_.subspan(next_offset_, write_bytes_);
      request.completion = &completions_[next_];
      if (++next_ == completions_.size()) next_ = 0;
      next_offset_ += write_bytes_;
      if (next_offset_ + write_bytes_ > data_.size()) next_offset_ = 0;
    }
    posted_ += list;
    if (list > 1) return context_.WriteMany(requests_);
    const WriteRequest& only = requests_.front();
    return context_.Write(only.to, only.offset, only.data, only.completion);
  }

  absl::Status WaitForAll() {
    while (done_ < posted_) {
      if (auto status = WaitForOldest(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status WaitForOldest() {
    Completion& oldest = completions_[oldest_];
    if (!oldest.done()) {
      Nic& nic = context_.nic();
      if (!nic.WaitUntil([&] { return oldest.done(); },
                         nic.clock().NowNs() + kPatienceNs)) {
        return absl::DeadlineExceededError("a write does not complete");
      }
    }
    if (oldest.status != OpStatus::kOk)
      return absl::InternalError(ToString(oldest.status));
    ++done_;
    if (++oldest_ == completions_.size()) oldest_ = 0;
    return absl::OkStatus();
  }

  Context& context_;
  const std::span<const uint8_t> data_;
  const uint32_t write_bytes_;
  std::vector<Completion> completions_;
  std::vector<WriteRequest> requests_;
  uint64_t posted_ = 0, done_ = 0;
  size_t next_ = 0, oldest_ = 0;  // of completions_
  uint64_t next_offset_ = 0;
};

}  // namespace

absl::StatusOr<Goodput> NicGoodput(const BenchEnds& ends, uint32_t write_bytes,
                                   size_t list, uint64_t duration_ns) {
  auto far = FarEnd::Start(ends, [&](const std::function<void()>& ready, int) {
    return Serve(ends, true, ready);
  });
  if (!far.ok()) return far.status();
  auto nic = OpenBenchNic(ends.near_port, "bench-near", true);
  if (!nic.ok()) return nic.status();
  Memory memory;
  auto context = (*nic)->CreateContext();
  Clock& clock = (*nic)->clock();
  auto to = Connect(*context, {});
  if (!to.ok()) return to.status();
  // Enough under way to keep the wire busy. The data lies in half a megabyte,
  // or as much as one write needs: as much as the raw port's bursts, so that
  // both find it in the same caches.
  const size_t span_bytes = std::max<size_t>(kBulkBytes, write_bytes);
  const size_t window = std::max(
      2 * list, std::clamp<size_t>(2 * kBulkBytes / write_bytes, 4, 256));
  WritesUnderWay writes(*context, *to, memory.all().first(span_bytes),
                        write_bytes, window, list);
  const auto frames_sent = [&] { return (*nic)->counters().tx_frames; };
  const uint64_t frames_before = frames_sent();
  const uint64_t begin = clock.NowNs();
  for (size_t next = 0;
       next % kClockWrites >= list || clock.NowNs() - begin < duration_ns;
       next += list) {
    if (auto status = writes.Post(); !status.ok()) return status;
  }
  if (auto status = writes.WaitForAll(); !status.ok()) return status;
  Goodput result;
  result.bytes = writes.bytes_done();
  result.ns = clock.NowNs() - begin;
  result.frames = frames_sent() - frames_before;
  context->Close(to->link);
  (*nic)->WaitUntil([] { return false; }, clock.NowNs() + 20 * kMillisecond);
  if (auto report = far->Finish(); !report.ok()) return report.status();
  return result;
}

}  // namespace tripwire::tools
