// SPDX-License-Identifier: BSD-3-Clause
#include "nic/comm/ring.h"

#include <algorithm>
#include <cstring>

namespace tripwire::comm {
namespace {

absl::Status Lost() { return absl::UnavailableError("the peer is lost"); }
absl::Status Broken() {
  return absl::DataLossError("the peer wrote nonsense into a ring");
}

uint64_t RoundedBytes(uint32_t ring_bytes) {
  const uint32_t bytes = std::clamp(ring_bytes, kMinRingBytes, kMaxRingBytes);
  return (uint64_t{bytes} + 63) & ~uint64_t{63};
}

// One load of a word the peer writes, as it lies in memory.
uint64_t LoadRaw(const uint8_t* at) {
  return __atomic_load_n(reinterpret_cast<const uint64_t*>(at),
                         __ATOMIC_ACQUIRE);  // pairs with the NIC's stores
}

uint64_t Decode(uint64_t raw) {
  Le64 wire;
  std::memcpy(static_cast<void*>(&wire), &raw, sizeof wire);
  return wire.get();
}

std::span<const uint8_t> AsBytes(const Le64& word) {
  return {reinterpret_cast<const uint8_t*>(&word), sizeof word};
}

}  // namespace

// ------------------------------------------------------------------ receiver

RingReceiver::RingReceiver(Context& context, LinkId link, uint32_t ring_bytes)
    : context_(context),
      link_(link),
      capacity_(RoundedBytes(ring_bytes)),
      memory_(sizeof(RingBlock) + capacity_),
      aperture_(context.Export(memory_.span(), Access::kWrite, link)) {}

RingReceiver::~RingReceiver() {
  if (!Join()) return;
  const Le64 end(head_ | kRingEnd);
  (void)context_.Write(*head_block_, 0, AsBytes(end));
}

bool RingReceiver::Join() {
  if (head_block_.has_value()) return true;
  if (LoadRaw(memory_.data() + offsetof(RingBlock, joined)) == 0) return false;
  uint8_t name[ApertureName::kWireBytes];
  std::memcpy(name, memory_.data() + offsetof(RingBlock, head_name),
              sizeof name);
  head_block_ = context_.Import(link_, ApertureName::Parse(name));
  return true;
}

absl::Status RingReceiver::WaitJoined(ApertureName* reverse,
                                      uint64_t deadline_ns) {
  if (!context_.WaitWord(aperture_, offsetof(RingBlock, joined), 0, deadline_ns,
                         link_)) {
    return context_.IsUp(link_)
               ? absl::DeadlineExceededError("the peer did not join the ring")
               : Lost();
  }
  uint8_t name[ApertureName::kWireBytes];
  std::memcpy(name, memory_.data() + offsetof(RingBlock, reverse_name),
              sizeof name);
  *reverse = ApertureName::Parse(name);
  return absl::OkStatus();
}

// Waits for the tail to change and takes the news in.
absl::Status RingReceiver::Look(uint64_t deadline_ns) {
  const bool changed = context_.WaitWord(aperture_, offsetof(RingBlock, tail),
                                         raw_tail_, deadline_ns, link_);
  if (!changed) {
    return context_.IsUp(link_)
               ? absl::DeadlineExceededError("nothing came in time")
               : Lost();
  }
  raw_tail_ = LoadRaw(memory_.data() + offsetof(RingBlock, tail));
  const uint64_t word = Decode(raw_tail_);
  const uint64_t tail = word & ~kRingEnd;
  if (tail < tail_ || tail - head_ > capacity_ || ended_) {
    broken_ = true;
    return Broken();
  }
  tail_ = tail;
  ended_ = (word & kRingEnd) != 0;
  return absl::OkStatus();
}

absl::Status RingReceiver::WaitReadable(uint64_t bytes, uint64_t deadline_ns) {
  while (readable() < bytes) {
    if (broken_) return Broken();
    if (ended_) return absl::OutOfRangeError("the peer has ended");
    Report();  // the sender may be waiting for just this room
    if (absl::Status s = Look(deadline_ns); !s.ok()) return s;
  }
  return absl::OkStatus();
}

void RingReceiver::Peek(uint64_t offset, std::span<uint8_t> into) const {
  if (into.empty()) return;  // it may have no address
  const uint8_t* data = memory_.data() + sizeof(RingBlock);
  const uint64_t at = (head_ + offset) % capacity_;
  const size_t first = std::min<uint64_t>(into.size(), capacity_ - at);
  std::memcpy(into.data(), data + at, first);
  std::memcpy(into.data() + first, data, into.size() - first);
}

void RingReceiver::Consume(uint64_t bytes) {
  head_ += bytes;
  if (head_ - reported_ >= capacity_ / 4) Report();
}

void RingReceiver::Report() {
  if (head_ == reported_ || !Join()) return;
  const Le64 head(head_);
  (void)context_.Write(*head_block_, 0, AsBytes(head));
  reported_ = head_;
}

Tripwire RingReceiver::Watch(uint64_t cookie) {
  return context_.Watch(aperture_, offsetof(RingBlock, tail), 8, Access::kWrite,
                        TripwireMode::kOneShot, cookie);
}

bool RingReceiver::Arm(Tripwire& tripwire) {
  if (readable() > 0 || ended_ || broken_) return false;
  Report();
  return tripwire.Arm(raw_tail_);
}

// -------------------------------------------------------------------- sender

RingSender::RingSender(Context& context, LinkId link, const ApertureName& name,
                       const ApertureName& reverse)
    : context_(context),
      link_(link),
      ring_(context.Import(link, name)),
      capacity_(name.length_bytes > sizeof(RingBlock)
                    ? std::min<uint64_t>(name.length_bytes - sizeof(RingBlock),
                                         uint64_t{kMaxRingBytes} + 63) &
                          ~uint64_t{63}
                    : 0),
      memory_(sizeof(HeadBlock)),
      aperture_(context.Export(memory_.span(), Access::kWrite, link)) {
  uint8_t names[2 * ApertureName::kWireBytes];
  aperture_.name().Serialize(names);
  reverse.Serialize(names + ApertureName::kWireBytes);
  // A lost link shows at the first use.
  (void)context_.Write(ring_, offsetof(RingBlock, head_name), names);
  const Le64 joined(1);
  (void)context_.Write(ring_, offsetof(RingBlock, joined), AsBytes(joined));
}

RingSender::~RingSender() { (void)End(); }

absl::Status RingSender::Look(uint64_t deadline_ns) {
  const bool changed =
      context_.WaitWord(aperture_, 0, raw_head_, deadline_ns, link_);
  if (!changed) {
    return context_.IsUp(link_)
               ? absl::DeadlineExceededError("the peer made no room in time")
               : Lost();
  }
  raw_head_ = LoadRaw(memory_.data());
  const uint64_t word = Decode(raw_head_);
  const uint64_t head = word & ~kRingEnd;
  if (head < head_ || head > tail_) {
    broken_ = true;
    return Broken();
  }
  head_ = head;
  refused_ = (word & kRingEnd) != 0;
  return absl::OkStatus();
}

absl::Status RingSender::WaitWritable(uint64_t bytes, uint64_t deadline_ns) {
  for (;;) {
    if (broken_ || bytes > capacity_) return Broken();
    if (refused_) {
      return absl::FailedPreconditionError("the peer takes no more");
    }
    if (ended_) return absl::FailedPreconditionError("already ended here");
    if (writable() >= bytes) return absl::OkStatus();
    if (absl::Status s = Look(deadline_ns); !s.ok()) return s;
  }
}

absl::Status RingSender::Put(std::span<const uint8_t> data) {
  while (!data.empty()) {
    const uint64_t at = tail_ % capacity_;
    const auto piece = data.first(std::min<uint64_t>(data.size(), capacity_ - at));
    const absl::Status sent =
        context_.Write(ring_, sizeof(RingBlock) + at, piece);
    if (!sent.ok()) return sent;
    tail_ += piece.size();
    data = data.subspan(piece.size());
  }
  return absl::OkStatus();
}

absl::Status RingSender::Publish() {
  const Le64 tail(tail_ | (ended_ ? kRingEnd : 0));
  return context_.Write(ring_, offsetof(RingBlock, tail), AsBytes(tail));
}

absl::Status RingSender::End() {
  if (ended_) return absl::OkStatus();
  ended_ = true;
  return Publish();
}

}  // namespace tripwire::comm
