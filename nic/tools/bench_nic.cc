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

// The far end: offers an aperture; writes each new first word, when the tripwire
// on it fires, back to the first word of the peer's aperture, if the peer named
// one; until the link ends.
absl::Status Serve(const BenchEnds& ends, bool spin,
                   const std::function<void()>& ready) {
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

absl::StatusOr<RoundTrip> NicRoundTrip(const BenchEnds& ends, bool spin,
                                       int rounds) {
  auto far = FarEnd::Start(ends, [&](const std::function<void()>& ready, int) {
    return Serve(ends, spin, ready);
  });
  if (!far.ok()) return far.status();
  auto nic = OpenBenchNic(ends.near_port, "bench-near", spin);
  if (!nic.ok()) return nic.status();
  Memory memory;
  auto context = (*nic)->CreateContext();
  Clock& clock = (*nic)->clock();
  Latencies times(static_cast<size_t>(rounds));
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
    }
    context->Close(to->link);
    // Say goodbye before going: the engine runs only while somebody calls it.
    (*nic)->WaitUntil([] { return false; }, clock.NowNs() + 20 * kMillisecond);
  }
  if (auto report = far->Finish(); !report.ok()) return report.status();
  return RoundTrip{times.Quantile(0.5), times.Quantile(0.99)};
}

absl::StatusOr<Goodput> NicGoodput(const BenchEnds& ends, uint32_t write_bytes,
                                   uint64_t duration_ns) {
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
  // Enough under way to keep the wire busy. The data lies in half a megabyte, or
  // as much as one write needs: as much as the raw port's bursts, so that both
  // find it in the same caches.
  const size_t span_bytes = std::max<size_t>(kBulkBytes, write_bytes);
  const size_t window =
      std::clamp<size_t>(2 * kBulkBytes / write_bytes, 4, 256);
  std::vector<Completion> completions(window);
  std::vector<bool> used(window, false);
  const auto frames_sent = [&] { return (*nic)->counters().tx_frames; };
  const uint64_t frames_before = frames_sent();
  const uint64_t begin = clock.NowNs();
  Goodput result;
  const auto wait_for = [&](size_t slot) -> absl::Status {
    Completion& completion = completions[slot];
    if (!completion.done() &&
        !(*nic)->WaitUntil([&] { return completion.done(); },
                           clock.NowNs() + kPatienceNs)) {
      return absl::DeadlineExceededError("a write does not complete");
    }
    if (completion.status != OpStatus::kOk)
      return absl::InternalError(ToString(completion.status));
    result.bytes += write_bytes;
    return absl::OkStatus();
  };
  size_t next = 0;
  // The raw port's benchmark looks at the clock once in 32 frames, too.
  for (; next % 32 != 0 || clock.NowNs() - begin < duration_ns; ++next) {
    const size_t slot = next % window;
    if (used[slot]) {
      if (auto status = wait_for(slot); !status.ok()) return status;
    }
    used[slot] = true;
    completions[slot].status = OpStatus::kPending;
    const uint64_t offset =
        slot % (span_bytes / write_bytes) * write_bytes;
    if (auto status = context->Write(*to, offset,
                                     memory.all().subspan(offset, write_bytes),
                                     &completions[slot]);
        !status.ok())
      return status;
  }
  for (size_t slot = 0; slot < std::min(next, window); ++slot) {
    if (auto status = wait_for((next + slot) % window); !status.ok())
      return status;
  }
  result.ns = clock.NowNs() - begin;
  result.frames = frames_sent() - frames_before;
  context->Close(to->link);
  (*nic)->WaitUntil([] { return false; }, clock.NowNs() + 20 * kMillisecond);
  if (auto report = far->Finish(); !report.ok()) return report.status();
  return result;
}

}  // namespace tripwire::tools
