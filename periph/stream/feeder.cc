// SPDX-License-Identifier: BSD-3-Clause
#include "periph/stream/feeder.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace tripwire::periph {
namespace {

constexpr std::array<uint8_t, kSlotAlignment> kPadding{};

std::span<const uint8_t> AsBytes(const SlotTail& tail) {
  return {reinterpret_cast<const uint8_t*>(&tail), sizeof tail};
}

uint64_t Decode(uint64_t raw) {
  Le64 wire;
  std::memcpy(static_cast<void*>(&wire), &raw, sizeof wire);
  return wire.get();
}

size_t QueueLimit(const Feeder::Options& options) {
  switch (options.policy) {
    case Policy::kBlock:
      return 0;
    case Policy::kLatest:
      return 1;
    default:
      return std::max<size_t>(options.queue_frames, 1);
  }
}

absl::Status CheckRing(const RingName& ring) {
  const uint64_t bytes = ring.aperture.length_bytes;
  // A payload longer than the aperture might overflow the stride.
  if (ring.slots == 0 || ring.payload_bytes > bytes ||
      bytes > Le48::kMax ||  // what an offset can name
      bytes / SlotStride(ring.payload_bytes) < ring.slots) {
    return absl::InvalidArgumentError(
        "the consumer's ring does not fit its aperture");
  }
  if (!Includes(ring.aperture.rights, Access::kWrite)) {
    return absl::InvalidArgumentError("the consumer's ring cannot be written");
  }
  return absl::OkStatus();
}

}  // namespace

// The NIC reads the frame and the tail from here until it says so, on a thread
// of its choice and under its lock. Whoever comes second, that or the feeder's
// end, disposes of the frame; and as what its owner does in the end may be
// anything, the NIC's thread leaves that to others.
struct Feeder::Held : Completion {
  enum State : uint8_t { kReading, kEnded, kAbandoned };
  std::atomic<State> state{kReading};
  Frame frame;
  SlotTail tail;
  uint64_t ring_serial = 0;
  Held* next = nullptr;

  bool ended() const {
    return state.load(std::memory_order_acquire) ==
           kEnded;  // pairs with OnDone
  }
  static void OnDone(Completion* completion);
  void Abandon();
  static void Bury();
  static std::atomic<Held*> dead;  // abandoned, ended, not yet disposed of
};

std::atomic<Feeder::Held*> Feeder::Held::dead{nullptr};

void Feeder::Held::OnDone(Completion* completion) {
  auto* held = static_cast<Held*>(completion);
  // Pairs with ended() and Abandon().
  if (held->state.exchange(kEnded, std::memory_order_acq_rel) != kAbandoned)
    return;
  held->next = dead.load(std::memory_order_relaxed);
  // Pairs with Bury.
  while (!dead.compare_exchange_weak(
      held->next, held, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

void Feeder::Held::Abandon() {
  // Pairs with OnDone.
  if (state.exchange(kAbandoned, std::memory_order_acq_rel) == kEnded)
    delete this;
}

void Feeder::Held::Bury() {
  if (dead.load(std::memory_order_relaxed) == nullptr) return;
  Held* held =
      dead.exchange(nullptr, std::memory_order_acquire);  // pairs with OnDone
  while (held != nullptr) delete std::exchange(held, held->next);
}

// --------------------------------------------------------------------- set-up

Feeder::Feeder(Context& context, LinkId link, Options options)
    : context_(context),
      link_(link),
      options_(options),
      queue_limit_(QueueLimit(options)) {
  if (!Export())
    Fail(absl::ResourceExhaustedError("no aperture left for credit"));
}

Feeder::~Feeder() {
  for (; !under_way_.empty(); under_way_.pop_front())
    under_way_.front()->Abandon();
  Held::Bury();
}

// A new name for the credit word: what is still on its way to the old one does
// not touch it any more.
bool Feeder::Export() {
  credit_tripwire_ = Tripwire();
  credit_ = Aperture();
  credit_word_ = raw_credit_ = 0;
  credit_ = context_.Export(
      {reinterpret_cast<uint8_t*>(&credit_word_), sizeof credit_word_},
      Access::kWrite, link_);
  if (!credit_) return false;
  credit_tripwire_ =
      context_.Watch(credit_, 0, sizeof credit_word_, Access::kWrite,
                     TripwireMode::kOneShot, options_.cookie);
  return static_cast<bool>(credit_tripwire_);
}

absl::Status Feeder::Begin(const RingName& ring) {
  if (!status_.ok()) return status_;
  if (absl::Status s = CheckRing(ring); !s.ok()) return s;
  if (credit_used_ && !Export()) {
    Fail(absl::ResourceExhaustedError("no aperture left for credit"));
    return status_;
  }
  credit_used_ = true;
  ring_ = ring;
  ring_aperture_ = context_.Import(link_, ring.aperture);
  held_tripwire_ = Tripwire();
  sent_ = released_ = 0;
  ++ring_serial_;
  paused_ = false;
  return absl::OkStatus();
}

void Feeder::Pause() {
  paused_ = true;
  dropped_waiting_ += queue_.size();
  queue_.clear();
}

void Feeder::Fail(absl::Status status) {
  if (!status_.ok()) return;
  status_ = std::move(status);
  queue_.clear();
}

// -------------------------------------------------------------------- sending

// Takes in what the consumer says it has given back.
void Feeder::Look() {
  // Pairs with the NIC's store: the consumer has done with those slots.
  const uint64_t raw = __atomic_load_n(&credit_word_, __ATOMIC_ACQUIRE);
  if (raw == raw_credit_) return;
  raw_credit_ = raw;
  const uint64_t released = Decode(raw);
  if (released < released_ || released > sent_) {
    return Fail(
        absl::DataLossError("the consumer gave back frames it never got"));
  }
  released_ = released;
}

bool Feeder::MaySend() const {
  return !paused_ && sent_ - released_ < ring_.slots &&
         (under_way_.size() < kHeldFrames || held_bytes_ < kHeldBytes);
}

// Writes one frame into the next slot. False if that cannot be any more.
// REQUIRES: MaySend()
bool Feeder::Send(const Frame& frame, uint64_t dropped_before) {
  const uint64_t length = frame.data.size();
  if (length > ring_.payload_bytes || length > UINT32_MAX) {
    ++dropped_waiting_;  // nothing older is in the queue
    ++counters_.too_large;
    return true;
  }
  SlotTail tail;
  tail.capture_ns = frame.capture_ns;
  tail.pts_ns = frame.pts_ns;
  tail.duration_ns = frame.duration_ns;
  tail.length_bytes = static_cast<uint32_t>(length);
  tail.flags = frame.flags;
  tail.number = frame.number;
  tail.overrun = frame.overrun;
  tail.dropped = dropped_before + dropped_waiting_;
  tail.sequence = sent_ + 1;
  const uint64_t padded = PaddedBytes(length);
  const uint64_t room = PaddedBytes(ring_.payload_bytes);
  const uint64_t offset =
      sent_ % ring_.slots * (room + sizeof tail) + room - padded;
  absl::Status status;
  if (frame.owner == nullptr || length <= kCopiedBytes) {
    const std::span<const uint8_t> parts[] = {
        frame.data, std::span(kPadding).first(padded - length), AsBytes(tail)};
    status = context_.WriteGather(ring_aperture_, offset, parts);
  } else {
    status = SendHeld(frame, offset, tail);
  }
  if (!status.ok()) {
    Fail(std::move(status));
    return false;
  }
  ++sent_;
  ++counters_.sent;
  counters_.bytes += length;
  return true;
}

absl::Status Feeder::SendHeld(const Frame& frame, uint64_t offset,
                              const SlotTail& tail) {
  if (idle_.empty()) {
    idle_.push_back(std::make_unique<Held>());
    idle_.back()->on_done = Held::OnDone;
  }
  Held& held = *idle_.back();
  held.state.store(Held::kReading, std::memory_order_relaxed);
  held.frame = frame;
  held.tail = tail;
  held.ring_serial = ring_serial_;
  const uint64_t length = frame.data.size();
  const std::span<const uint8_t> parts[] = {
      frame.data, std::span(kPadding).first(PaddedBytes(length) - length),
      AsBytes(held.tail)};
  absl::Status status =
      context_.WriteGather(ring_aperture_, offset, parts, &held);
  if (!status.ok()) {
    held.frame = Frame();
    return status;
  }
  under_way_.push_back(idle_.back().release());
  idle_.pop_back();
  held_bytes_ += length;
  return status;
}

// Lets go of the frames that the NIC has read and delivered.
void Feeder::LetGo() {
  Held::Bury();
  while (!under_way_.empty() && under_way_.front()->ended()) {
    Held* held = under_way_.front();
    under_way_.pop_front();
    idle_.emplace_back(held);
    held_bytes_ -= held->frame.data.size();
    held->frame = Frame();
    const OpStatus end = held->status.load(std::memory_order_relaxed);
    if (end == OpStatus::kLinkLost) {
      Fail(absl::UnavailableError("the link is down"));
    } else if (end != OpStatus::kOk && held->ring_serial == ring_serial_ &&
               !paused_) {
      Fail(absl::DataLossError("the consumer's ring refused a frame"));
    }
  }
}

void Feeder::SendQueue() {
  while (!queue_.empty() && MaySend()) {
    Waiting waiting = std::move(queue_.front());
    queue_.pop_front();
    if (!Send(waiting.frame, waiting.dropped_before)) return;
  }
}

// -------------------------------------------------------------------- policies

Feeder::Taken Feeder::Offer(const Frame& frame) {
  LetGo();
  Look();
  SendQueue();
  if (!status_.ok()) return Taken::kGone;
  if (!queue_.empty() || !MaySend()) return Wait(frame);
  ++counters_.offered;
  refused_ = false;
  if (!Send(frame, dropped_at_once_)) return Taken::kGone;
  // A source with few buffers may have none left to come with.
  while (under_way_.size() > 1 && !ArmForEnd()) LetGo();
  return status_.ok() ? Taken::kYes : Taken::kGone;
}

// What becomes of a frame that cannot be sent now.
Feeder::Taken Feeder::Wait(const Frame& frame) {
  if (!context_.IsUp(link_)) {
    Fail(absl::UnavailableError("the link is down"));
    return Taken::kGone;
  }
  ++counters_.waits;
  if (options_.policy == Policy::kBlock) {
    refused_ = true;
    return Taken::kFull;
  }
  ++counters_.offered;
  if (queue_.size() < queue_limit_) {
    Enqueue(frame);
  } else if (options_.policy == Policy::kDropNewest) {
    ++dropped_at_once_;
  } else {
    queue_.pop_front();
    ++dropped_waiting_;
    Enqueue(frame);
  }
  return Taken::kYes;
}

void Feeder::Enqueue(const Frame& frame) {
  Waiting& waiting = queue_.emplace_back();
  waiting.frame = frame;
  waiting.dropped_before = dropped_at_once_;
  if (frame.owner != nullptr || frame.data.empty()) return;
  // Its bytes are the caller's again when Offer returns. Nobody else holds
  // copies, so one that only we hold is free.
  auto copy =
      std::find_if(copies_.begin(), copies_.end(),
                   [](const auto& each) { return each.use_count() == 1; });
  if (copy == copies_.end()) {
    copy = copies_.insert(copy, std::make_shared<std::vector<uint8_t>>());
  }
  (*copy)->assign(frame.data.begin(), frame.data.end());
  waiting.frame.data = **copy;
  waiting.frame.owner = *copy;
}

bool Feeder::Pump() {
  for (;;) {
    LetGo();
    Look();
    SendQueue();
    if (status_.ok() && !drained() && !context_.IsUp(link_)) {
      Fail(absl::UnavailableError("the link is down"));
    }
    if (!status_.ok()) return false;
    const bool room = MaySend() || queue_.size() < queue_limit_;
    const bool waits = (!queue_.empty() || (refused_ && !room)) && !paused_;
    if (room) refused_ = false;
    if (waits && sent_ - released_ >= ring_.slots &&
        !credit_tripwire_.Arm(raw_credit_)) {
      continue;  // there is more already
    }
    if (under_way_.empty() || ArmForEnd()) return room;
  }
}

// Asks for an event when any of the frames under way has ended. False if the
// first has already. REQUIRES: there are some.
bool Feeder::ArmForEnd() {
  if (!held_tripwire_) {
    held_tripwire_ =
        context_.Watch(ring_aperture_, 0, ring_.aperture.length_bytes,
                       Access::kWrite, TripwireMode::kOneShot, options_.cookie);
  }
  held_tripwire_.Arm();
  return !under_way_.front()->ended();
}

FeederCounters Feeder::counters() const {
  FeederCounters counters = counters_;
  counters.dropped = dropped_waiting_ + dropped_at_once_;
  counters.queued = queue_.size();
  return counters;
}

}  // namespace tripwire::periph
