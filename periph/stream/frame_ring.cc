// SPDX-License-Identifier: BSD-3-Clause
#include "periph/stream/frame_ring.h"

#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "periph/stream/ring_core.h"
#include "periph/stream/tail.h"

namespace tripwire::periph {
namespace {

__extension__ typedef __int128 Wide;  // sums of any two times

constexpr int kTries = 8;  // at the network, before a wait is one

absl::Status Nonsense() {
  return absl::DataLossError("the feeder wrote nonsense into a ring");
}

// Said often: made once.
absl::Status NothingThere() {
  static const absl::Status& status =
      *new absl::Status(absl::NotFoundError("no frame is there"));
  return status;
}

class Ring final : public FrameRing {
 public:
  Ring(Context& context, LinkId link, const Options& options)
      : context_(context),
        link_(link),
        options_(options),
        core_(std::make_shared<RingCore>(context, link, options)),
        position_(options.after) {}
  ~Ring() override { core_->Close(); }

  absl::Status Open() {
    auto aperture = context_.TryExport(core_->memory(), Access::kWrite, link_);
    if (!aperture.ok()) return aperture.status();
    aperture_ = *std::move(aperture);
    // A frame is one write: whatever is written next is the next frame.
    tripwire_ =
        context_.Watch(aperture_, 0, core_->memory().size(), Access::kWrite,
                       TripwireMode::kOneShot, options_.cookie);
    if (!tripwire_)
      return absl::ResourceExhaustedError("no tripwire left for the ring");
    return absl::OkStatus();
  }

  RingName name() const override {
    return {aperture_.name(), options_.slots, options_.payload_bytes};
  }
  void SetCredit(const ApertureName& credit) override {
    core_->SetCredit(credit);
  }
  absl::StatusOr<FrameView> Take() override;
  bool Arm() override;
  bool Wait(uint64_t deadline_ns) override;
  void SetLateness(uint64_t limit_ns, int64_t offset_ns) override {
    late_ns_ = limit_ns;
    offset_ns_ = offset_ns;
  }
  RingCounters counters() const override {
    RingCounters counters = counters_;
    counters.reports = core_->reports();
    return counters;
  }
  StreamPosition position() const override { return position_; }

 private:
  enum class Next { kNothing, kFrame, kNonsense };
  Next Look() const;
  void Account(const CheckedTail& tail, uint64_t arrival_ns);

  Context& context_;
  const LinkId link_;
  const Options options_;
  const std::shared_ptr<RingCore> core_;
  Aperture aperture_;
  Tripwire tripwire_;      // goes before the aperture
  uint64_t sequence_ = 1;  // of the next frame
  bool broken_ = false;
  bool found_nothing_ = false;  // the last time
  uint64_t late_ns_ = kNever;
  int64_t offset_ns_ = 0;
  RingCounters counters_;
  StreamPosition position_;
};

// What the slot of the next frame holds. Its sequence word is that of the frame
// before it there, then that of the new one; nothing in between.
Ring::Next Ring::Look() const {
  const uint64_t word = LoadSequence(core_->Slot(sequence_));
  if (word == sequence_) return Next::kFrame;
  const uint64_t before =
      sequence_ > options_.slots ? sequence_ - options_.slots : 0;
  return word == before ? Next::kNothing : Next::kNonsense;
}

absl::StatusOr<FrameView> Ring::Take() {
  if (broken_ || core_->overwritten()) return Nonsense();
  Next next = Look();
  if (next == Next::kNothing) {
    // All that came over a link is there once it is down.
    const bool is_up = context_.IsUp(link_);
    if (!is_up) next = Look();
    if (next == Next::kNothing) {
      if (std::exchange(found_nothing_, true)) core_->Idle();
      return is_up ? NothingThere()
                   : absl::UnavailableError("the link is down");
    }
  }
  std::optional<CheckedTail> tail;
  if (next == Next::kFrame) {
    tail = ReadTail(core_->Slot(sequence_), options_.payload_bytes, sequence_);
  }
  if (!tail.has_value()) {
    broken_ = true;
    return Nonsense();
  }
  found_nothing_ = false;
  const uint64_t arrival_ns = context_.nic().clock().NowNs();
  std::optional<FrameView> view =
      RingCore::Hand(core_, sequence_, tail->frame, arrival_ns);
  if (!view.has_value()) return Nonsense();
  ++sequence_;
  Account(*tail, arrival_ns);
  return *std::move(view);
}

// Every frame the source made has a number, so those missing before this one
// are those it lost, those that were dropped, and those nobody speaks of.
void Ring::Account(const CheckedTail& tail, uint64_t arrival_ns) {
  const Frame& frame = tail.frame;
  ++counters_.received;
  counters_.bytes += frame.data.size();
  // A feeder counts what it dropped from its own beginning, with the first
  // ring.
  const uint64_t dropped_before = position_.known ? position_.dropped : 0;
  const uint64_t dropped =
      tail.dropped >= dropped_before ? tail.dropped - dropped_before : 0;
  counters_.dropped += dropped;
  // If the numbers do not grow, the source began anew.
  if (position_.known && frame.number > position_.number) {
    const uint64_t missing = frame.number - position_.number - 1;
    const uint64_t overrun = frame.overrun >= position_.overrun
                                 ? frame.overrun - position_.overrun
                                 : 0;
    counters_.overrun += overrun;
    if (missing > dropped && missing - dropped > overrun) {
      counters_.lost += missing - dropped - overrun;
    }
  }
  position_ = {true, frame.number, frame.overrun, tail.dropped};
  if (late_ns_ != kNever &&
      Wide{arrival_ns} - (Wide{frame.capture_ns} + offset_ns_) >=
          Wide{late_ns_}) {
    ++counters_.late;
  }
}

bool Ring::Arm() {
  if (broken_ || core_->overwritten() || Look() != Next::kNothing) return false;
  core_->Idle();
  tripwire_.Arm();
  // A frame that came before is not told of, nor is a link that went down.
  if (Look() == Next::kNothing && context_.IsUp(link_)) return true;
  (void)tripwire_.Disarm();
  return false;
}

bool Ring::Wait(uint64_t deadline_ns) {
  if (broken_ || core_->overwritten()) return false;
  // What comes at once needs no report of its own.
  for (int i = 0; i < kTries && Look() == Next::kNothing; ++i) context_.nic().Poll();
  if (Look() == Next::kNothing) {
    core_->Idle();
    const std::span<const uint8_t> slot = core_->Slot(sequence_);
    const uint64_t offset =
        static_cast<uint64_t>(slot.data() - core_->memory().data()) +
        slot.size() - sizeof(Le64);
    const Le64 before(sequence_ > options_.slots ? sequence_ - options_.slots
                                                 : 0);
    uint64_t raw;
    std::memcpy(&raw, static_cast<const void*>(&before), sizeof raw);
    context_.WaitWord(aperture_, offset, raw, deadline_ns, link_);
  }
  return Look() == Next::kFrame;
}

}  // namespace

// ------------------------------------------------------------------ FrameView

FrameView::FrameView(FrameView&& other) noexcept { *this = std::move(other); }

FrameView& FrameView::operator=(FrameView&& other) noexcept {
  if (this == &other) return *this;
  Release();
  core_ = std::move(other.core_);
  sequence_ = other.sequence_;
  arrival_ns_ = other.arrival_ns_;
  frame_ = std::exchange(other.frame_, Frame());
  return *this;
}

void FrameView::Release() {
  if (core_ == nullptr) return;
  frame_ = Frame();
  std::exchange(core_, nullptr)->GiveBack(sequence_);
}

// ------------------------------------------------------------------ FrameRing

absl::StatusOr<std::unique_ptr<FrameRing>> FrameRing::Create(Context& context,
                                                             LinkId link,
                                                             Options options) {
  if (options.slots == 0) return absl::InvalidArgumentError("a ring has slots");
  // What a frame's length and an aperture's offset can say.
  if (options.payload_bytes > UINT32_MAX ||
      Le48::kMax / SlotStride(options.payload_bytes) < options.slots) {
    return absl::InvalidArgumentError("a ring of more bytes than can be named");
  }
  try {
    auto ring = std::make_unique<Ring>(context, link, options);
    if (absl::Status s = ring->Open(); !s.ok()) return s;
    return ring;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("no memory for the ring");
  }
}

}  // namespace tripwire::periph
