// SPDX-License-Identifier: BSD-3-Clause
#include "tests/perf/rate_receiver.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "nic/wire/parse.h"

namespace tripwire {
namespace {

constexpr uint32_t kWordBytes = 8;
constexpr size_t kLongestBytes = 16384;

uint32_t Overhead(bool checksum) {
  return wire::kHeaderBytes + sizeof(wire::WritePayload) +
         (checksum ? wire::kChecksumBytes : 0);
}

size_t MemoryBytes(const RateLoad& load) {
  return std::max<size_t>(
             size_t{2} * std::max(load.tripwires, 1u) * load.stride_bytes,
             1 << 20) +
         kLongestBytes;
}

}  // namespace

void Fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

uint32_t RateDataBytes(uint32_t size_bytes, bool checksum) {
  const uint32_t overhead = Overhead(checksum) + kFcsBytes;
  return size_bytes > overhead + kWordBytes ? size_bytes - overhead
                                            : kWordBytes;
}

uint32_t RateFrameBytes(uint32_t data_bytes, bool checksum) {
  return std::max<uint32_t>(Overhead(checksum) + data_bytes,
                            wire::kMinFrameBytes);
}

void RateTarget::Build(uint8_t* data) const {
  std::memset(data, 0, frame_bytes);
  auto* ethernet = reinterpret_cast<wire::EthernetHeader*>(data);
  std::copy_n(to.bytes.begin(), 6, ethernet->destination);
  std::copy_n(from.bytes.begin(), 6, ethernet->source);
  std::copy_n(wire::kEtherType, 2, ethernet->ether_type);
  auto* header = reinterpret_cast<wire::FrameHeader*>(data + sizeof(*ethernet));
  header->version = wire::kVersion;
  header->type = wire::kWrite;
  header->flags = wire::kLast;
  header->link = link;
  header->epoch = epoch;
  header->acknowledged = 1;
  header->credit = kWindowFrames;
  auto* body = reinterpret_cast<wire::WritePayload*>(data + wire::kHeaderBytes);
  body->handle = handle;
  body->generation = generation;
  wire::Seal(data, sizeof *body + data_bytes, checksum);
}

uint64_t RateTarget::HitsBetween(uint64_t before, uint64_t after) const {
  uint64_t hits = 0;
  for (uint64_t sequence = before; sequence < after; ++sequence) {
    hits += plan.Hits(sequence) ? 1 : 0;
  }
  return hits;
}

RateMemory::RateMemory(size_t bytes) : bytes_(bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) Fail("no memory");
  data_ = static_cast<uint8_t*>(at);
  madvise(data_, bytes, MADV_HUGEPAGE);  // a wish
  std::memset(data_, 0, bytes);
}

RateMemory::~RateMemory() { munmap(data_, bytes_); }

RateReceiver::RateReceiver(std::unique_ptr<Port> port, const MacAddress& peer,
                           const RateLoad& load, uint32_t size_bytes,
                           bool checksum)
    : random_(1), memory_(MemoryBytes(load)) {
  const PortInfo info = port->info();
  std::vector<std::unique_ptr<Port>> ports;
  ports.push_back(std::move(port));
  engine_ = std::make_unique<Engine>(EngineOptions{}, clock_, random_,
                                     std::move(ports));
  context_ = engine_->CreateContext();
  name_ =
      engine_->Export(context_, memory_.span(), Access::kWrite, std::nullopt);
  Link& link = engine_->NewLink(context_);
  link.state = LinkState::kConnecting;
  link.port = 0;
  link.path = 0;
  link.remote_mac = peer;
  link.remote_link = 7;
  link.remote_epoch = 7;
  link.max_frame_bytes = info.max_frame_bytes;
  link.checksum = checksum;
  engine_->OpenLink(link);
  link_ = link.id;
  Arm(load);

  target_.to = info.mac;
  target_.from = peer;
  target_.link = link.id.value;
  target_.epoch = link.epoch;
  target_.handle = name_.handle;
  target_.generation = name_.generation;
  target_.checksum = checksum;
  target_.data_bytes = RateDataBytes(size_bytes, checksum);
  target_.frame_bytes = RateFrameBytes(target_.data_bytes, checksum);
  // Frames that hit end in a watched word, the others do not touch any.
  RatePlan& plan = target_.plan;
  plan.places = std::max(load.tripwires, 1u);
  plan.stride = load.stride_bytes;
  plan.hit_percent = load.tripwires > 0 ? load.hit_percent : 0;
  plan.is_long = target_.data_bytes > load.stride_bytes;
  plan.long_hit = 2 * (plan.places - 1) * plan.stride;
  plan.long_miss =
      memory_.span().size() - target_.data_bytes / 8 * 8 - kWordBytes;
}

void RateReceiver::Arm(const RateLoad& load) {
  for (uint32_t i = 0; i < load.tripwires; ++i) {
    TripwireSpec spec;
    spec.context = context_;
    spec.offset = uint64_t{2} * i * load.stride_bytes;
    spec.length = kWordBytes;
    spec.access = Access::kWrite;
    spec.handle = name_.handle;
    spec.generation = name_.generation;
    engine_->Arm(engine_->Watch(spec));
  }
}

bool RateReceiver::Turn(uint64_t now_ns) {
  const bool busy = engine_->Poll(now_ns);
  while (engine_->HasEvents(context_)) {
    const size_t n = engine_->TakeEvents(context_, events_);
    for (size_t i = 0; i < n; ++i) told_ += events_[i].count;
  }
  return busy;
}

void RateReceiver::Expect(uint64_t sequence) {
  first_ = link().expected = sequence;
  told_ = 0;
}

uint64_t RateReceiver::Check() {
  const NicCounters& counters = engine_->counters();
  if (counters.duplicate_frames > 0 || counters.drop_window > 0 ||
      counters.early_frames > 0 || counters.drop_malformed > 0 ||
      counters.drop_checksum > 0 || counters.drop_no_buffer > 0) {
    Fail("frames were lost");
  }
  const uint64_t end = link().expected;
  if (told_ != target_.HitsBetween(first_, end)) {
    Fail("firings were lost or made up");
  }
  return end - first_;
}

}  // namespace tripwire
