// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/fabric.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "absl/base/config.h"
#ifdef ABSL_HAVE_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

namespace tripwire {
namespace {

constexpr uint32_t kEthernetHeaderBytes = 14;
// Preamble, start delimiter, FCS and inter-frame gap: what a frame occupies on
// a real wire beyond itself (IEEE 802.3 clause 4).
constexpr uint32_t kWireOverheadBytes = 24;

// Copies of a broadcast, which are many and short, get buffers of this size.
constexpr uint32_t kSmallBytes = 256;

[[noreturn]] void Misused(const char* what) {
  std::fprintf(stderr, "fabric misused: %s\n", what);
  std::abort();
}

uint64_t MacKey(const uint8_t* bytes) {
  uint64_t key = 0;
  std::memcpy(&key, bytes, 6);
  return key;
}

}  // namespace

struct Fabric::Buffer {
  enum class State { kFree, kHandedOut, kOnTheWire };
  explicit Buffer(uint32_t capacity)
      : bytes(new uint8_t[capacity]), capacity_bytes(capacity) {}
  // Under AddressSanitizer a free buffer may not be touched at all.
  void Poison() {
#ifdef ABSL_HAVE_ADDRESS_SANITIZER
    __asan_poison_memory_region(bytes.get(), capacity_bytes);
#endif
  }
  void Unpoison() {
#ifdef ABSL_HAVE_ADDRESS_SANITIZER
    __asan_unpoison_memory_region(bytes.get(), capacity_bytes);
#endif
  }
  ~Buffer() { Unpoison(); }

  std::unique_ptr<uint8_t[]> bytes;
  const uint32_t capacity_bytes;
  State state = State::kFree;
  const void* holder = nullptr;  // the port that handed it out
};

class Fabric::MemoryPort final : public Port {
 public:
  MemoryPort(Fabric& fabric, PortInfo info)
      : fabric_(fabric), info_(std::move(info)) {}
  ~MemoryPort() override;

  const PortInfo& info() const override { return info_; }
  size_t Receive(std::span<Frame> frames) override;
  size_t Allocate(std::span<Frame> frames) override;
  size_t Transmit(PathId path, std::span<const Frame> frames,
                  Ring ring) override;
  void Release(std::span<const Frame> frames) override;
  bool ArmWakeup() override {
    LetArrive();
    return queue_.empty();
  }
  void DisarmWakeup() override {}
  int wake_fd() const override { return -1; }
  uint64_t Service(uint64_t) override { return kNever; }
  PortCounters counters() const override { return counters_; }

 private:
  friend class Fabric;
  struct Waiting {
    Buffer* buffer;
    uint32_t length_bytes;
  };

  void LetArrive();
  Frame HandOut(Fabric::Buffer* buffer, uint32_t length_bytes);
  Fabric::Buffer* TakeBack(const Frame& frame);

  Fabric& fabric_;
  const PortInfo info_;
  PortCounters counters_;
  bool is_link_up_ = true;
  size_t handed_out_ = 0;
  uint64_t tx_wire_free_ns_ = 0;     // when the wire towards the switch is idle
  uint64_t rx_wire_free_ns_ = 0;     // and the one from it
  std::deque<uint64_t> departures_;  // of frames sent but still in our queue
  Fabric::MinHeap<Fabric::Arrival> in_flight_;
  std::deque<Waiting> queue_;  // arrived
};

Fabric::MemoryPort::~MemoryPort() {
  for (const Waiting& waiting : queue_) fabric_.GiveBuffer(waiting.buffer);
  for (; !in_flight_.empty(); in_flight_.pop()) {
    fabric_.GiveBuffer(in_flight_.top().buffer);
  }
  std::erase(fabric_.ports_, this);
  fabric_.port_of_mac_.erase(MacKey(info_.mac.bytes.data()));
}

// Moves what has arrived by now to the receive queue. Doing so late is exact:
// the queue only shrinks in Receive, which calls this first.
void Fabric::MemoryPort::LetArrive() {
  const uint64_t now_ns = fabric_.clock_.NowNs();
  while (!in_flight_.empty() && in_flight_.top().at_ns <= now_ns) {
    const Fabric::Arrival arrival = in_flight_.top();
    in_flight_.pop();
    if (queue_.size() >= fabric_.options_.rx_queue_frames) {
      ++fabric_.counters_.queue_full;
      ++counters_.rx_no_buffer;
      fabric_.GiveBuffer(arrival.buffer);
      continue;
    }
    ++fabric_.counters_.delivered;
    queue_.push_back({arrival.buffer, arrival.length_bytes});
  }
}

Frame Fabric::MemoryPort::HandOut(Fabric::Buffer* buffer,
                                  uint32_t length_bytes) {
  buffer->state = Fabric::Buffer::State::kHandedOut;
  buffer->holder = this;
  ++handed_out_;
  Frame frame;
  frame.data = buffer->bytes.get();
  frame.length_bytes = length_bytes;
  frame.capacity_bytes = buffer->capacity_bytes;
  frame.cookie = buffer;
  return frame;
}

Fabric::Buffer* Fabric::MemoryPort::TakeBack(const Frame& frame) {
  auto* buffer = static_cast<Fabric::Buffer*>(frame.cookie);
  if (buffer == nullptr) Misused("frame without a buffer");
  if (buffer->state != Fabric::Buffer::State::kHandedOut) {
    Misused("frame given back twice");
  }
  if (buffer->holder != this) Misused("frame of another port");
  if (frame.data != buffer->bytes.get()) Misused("frame data moved");
  buffer->holder = nullptr;
  --handed_out_;
  return buffer;
}

size_t Fabric::MemoryPort::Receive(std::span<Frame> frames) {
  LetArrive();
  size_t count = 0;
  while (count < frames.size() && !queue_.empty()) {
    const Waiting waiting = queue_.front();
    queue_.pop_front();
    frames[count++] = HandOut(waiting.buffer, waiting.length_bytes);
    ++counters_.rx_frames;
    counters_.rx_bytes += waiting.length_bytes;
  }
  return count;
}

size_t Fabric::MemoryPort::Allocate(std::span<Frame> frames) {
  size_t count = 0;
  while (count < frames.size() &&
         handed_out_ < fabric_.options_.buffers_per_port) {
    frames[count++] = HandOut(fabric_.TakeBuffer(info_.max_frame_bytes), 0);
  }
  return count;
}

size_t Fabric::MemoryPort::Transmit(PathId, std::span<const Frame> frames,
                                    Ring) {
  const uint64_t now_ns = fabric_.clock_.NowNs();
  while (!departures_.empty() && departures_.front() <= now_ns) {
    departures_.pop_front();
  }
  size_t count = 0;
  for (const Frame& frame : frames) {
    if (departures_.size() >= fabric_.options_.tx_queue_frames) break;
    ++count;
    Fabric::Buffer* buffer = TakeBack(frame);
    if (frame.length_bytes < kEthernetHeaderBytes ||
        frame.length_bytes > info_.max_frame_bytes) {
      ++counters_.tx_dropped;
      fabric_.GiveBuffer(buffer);
      continue;
    }
    ++counters_.tx_frames;
    counters_.tx_bytes += frame.length_bytes;
    fabric_.Send(*this, buffer, frame.length_bytes);
  }
  return count;
}

void Fabric::MemoryPort::Release(std::span<const Frame> frames) {
  for (const Frame& frame : frames) fabric_.GiveBuffer(TakeBack(frame));
}

Fabric::Fabric(Clock& clock, FabricOptions options)
    : clock_(clock), options_(options) {}

Fabric::~Fabric() {
  if (!ports_.empty()) Misused("destroyed before its ports");
}

MacAddress Fabric::MacOf(std::string_view name) {
  auto [entry, is_new] = mac_of_name_.try_emplace(std::string(name));
  if (is_new) {
    // Locally administered, unicast; the low bytes count names.
    const auto index = static_cast<uint32_t>(mac_of_name_.size());
    entry->second.bytes = {0x02,
                           0x54,
                           static_cast<uint8_t>(index >> 24),
                           static_cast<uint8_t>(index >> 16),
                           static_cast<uint8_t>(index >> 8),
                           static_cast<uint8_t>(index)};
  }
  return entry->second;
}

std::unique_ptr<Port> Fabric::AddPort(std::string_view name,
                                      uint32_t max_frame_bytes) {
  PortInfo info;
  info.name = std::string(name);
  info.mac = MacOf(name);
  info.max_frame_bytes = max_frame_bytes;
  info.is_reliable = options_.is_reliable;
  const uint64_t key = MacKey(info.mac.bytes.data());
  if (port_of_mac_.contains(key)) Misused("two live ports of one name");
  auto port = std::make_unique<MemoryPort>(*this, std::move(info));
  ports_.push_back(port.get());
  port_of_mac_[key] = port.get();
  return port;
}

Fabric::Buffer* Fabric::TakeBuffer(uint32_t capacity_bytes) {
  std::vector<Buffer*>& free = free_[capacity_bytes];
  if (free.empty()) {
    buffers_.push_back(std::make_unique<Buffer>(capacity_bytes));
    return buffers_.back().get();
  }
  Buffer* buffer = free.back();
  free.pop_back();
  buffer->Unpoison();
  return buffer;
}

void Fabric::GiveBuffer(Buffer* buffer) {
  buffer->state = Buffer::State::kFree;
  buffer->Poison();
  free_[buffer->capacity_bytes].push_back(buffer);
}

uint64_t Fabric::WireTimeNs(uint32_t length_bytes) const {
  if (options_.bandwidth_bits_per_s == 0) return 0;
  const uint64_t bits = (uint64_t{length_bytes} + kWireOverheadBytes) * 8;
  return bits * kSecond / options_.bandwidth_bits_per_s;
}

void Fabric::Send(MemoryPort& from, Buffer* buffer, uint32_t length_bytes) {
  buffer->state = Buffer::State::kOnTheWire;
  const uint8_t* bytes = buffer->bytes.get();
  const uint64_t start_ns = std::max(clock_.NowNs(), from.tx_wire_free_ns_);
  const uint64_t departs_ns = start_ns + WireTimeNs(length_bytes);
  from.tx_wire_free_ns_ = departs_ns;
  if (departs_ns > clock_.NowNs()) from.departures_.push_back(departs_ns);

  if (filter_ && !filter_(from.info_.mac, {bytes, length_bytes})) {
    ++counters_.filtered;
    return GiveBuffer(buffer);
  }
  if (!from.is_link_up_) {
    ++counters_.cut;
    return GiveBuffer(buffer);
  }
  if ((bytes[0] & 1) == 0) {  // unicast
    auto to = port_of_mac_.find(MacKey(bytes));
    if (to == port_of_mac_.end() || to->second == &from) {
      ++counters_.no_such_mac;
      return GiveBuffer(buffer);
    }
    return Deliver(from, *to->second, departs_ns, buffer, length_bytes);
  }
  for (MemoryPort* to : ports_) {
    if (to == &from) continue;
    Buffer* copy = TakeBuffer(
        length_bytes <= kSmallBytes ? kSmallBytes : buffer->capacity_bytes);
    copy->state = Buffer::State::kOnTheWire;
    std::memcpy(copy->bytes.get(), bytes, length_bytes);
    Deliver(from, *to, departs_ns, copy, length_bytes);
  }
  GiveBuffer(buffer);
}

void Fabric::Deliver(MemoryPort& from, MemoryPort& to, uint64_t departs_ns,
                     Buffer* buffer, uint32_t length_bytes) {
  if (length_bytes > to.info_.max_frame_bytes) {
    ++counters_.too_long;
    return GiveBuffer(buffer);
  }
  if (!to.is_link_up_ || (!blocked_.empty() &&
                          blocked_.contains({from.info_.mac, to.info_.mac}))) {
    ++counters_.cut;
    return GiveBuffer(buffer);
  }
  // Store and forward: the switch sends the frame on when it has all of it and
  // the receiver's wire is idle. With equal speeds an idle wire costs nothing.
  const uint64_t wire_ns = WireTimeNs(length_bytes);
  if (options_.switch_queue_bytes > 0 && wire_ns > 0) {
    // What waits is what the wire is busy with from the frame's arrival there on.
    const uint64_t there_ns = departs_ns + options_.propagation_ns;
    const uint64_t waits_ns =
        to.rx_wire_free_ns_ > there_ns ? to.rx_wire_free_ns_ - there_ns : 0;
    if (waits_ns > options_.switch_queue_bytes * 8 * kSecond /
                       options_.bandwidth_bits_per_s) {
      ++counters_.switch_full;
      return GiveBuffer(buffer);
    }
  }
  const uint64_t at_ns = std::max(departs_ns + options_.propagation_ns,
                                  to.rx_wire_free_ns_ + wire_ns);
  if (wire_ns != 0) to.rx_wire_free_ns_ = at_ns;
  to.in_flight_.push({at_ns, next_order_++, buffer, length_bytes});
  event_times_.push(at_ns);
  if (arrival_hook_) arrival_hook_(to.info_.mac, at_ns);
  // Keeps the heap small also for users who never ask for the next event.
  const uint64_t now_ns = clock_.NowNs();
  while (!event_times_.empty() && event_times_.top() <= now_ns) {
    event_times_.pop();
  }
}

uint64_t Fabric::NextEventNs() {
  const uint64_t now_ns = clock_.NowNs();
  while (!event_times_.empty() && event_times_.top() <= now_ns) {
    event_times_.pop();
  }
  return event_times_.empty() ? kNever : event_times_.top();
}

void Fabric::SetLinkUp(const MacAddress& mac, bool is_up) {
  auto entry = port_of_mac_.find(MacKey(mac.bytes.data()));
  if (entry == port_of_mac_.end()) return;
  MemoryPort& port = *entry->second;
  port.LetArrive();
  if (is_up && !port.is_link_up_) ++port.counters_.rejoins;
  port.is_link_up_ = is_up;
  if (is_up) return;
  for (; !port.in_flight_.empty(); port.in_flight_.pop()) {
    ++counters_.cut;
    GiveBuffer(port.in_flight_.top().buffer);
  }
}

void Fabric::SetBlocked(const MacAddress& from, const MacAddress& to,
                        bool blocked) {
  if (blocked) {
    blocked_.insert({from, to});
  } else {
    blocked_.erase({from, to});
  }
}

size_t Fabric::FramesHeld(const MacAddress& mac) const {
  auto entry = port_of_mac_.find(MacKey(mac.bytes.data()));
  return entry == port_of_mac_.end() ? 0 : entry->second->handed_out_;
}

}  // namespace tripwire
