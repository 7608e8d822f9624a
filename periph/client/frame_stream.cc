// SPDX-License-Identifier: BSD-3-Clause
#include "periph/client/frame_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tripwire::periph {
namespace {

// How long frames alone keep us from looking at the link.
constexpr uint64_t kLookEveryNs = 20 * kMillisecond;

}  // namespace

StreamLink::Options LinkOptions(const StreamWish& wish) {
  StreamLink::Options options;
  options.node = wish.node;
  options.reconnect = wish.options.reconnect;
  // Only who gets frames asks how old they are.
  options.measures_clock = !wish.sink;
  options.connect_timeout_ns = wish.connect_timeout_ns;
  proto::Open& open = options.open;
  open.set_version(kProtocolVersion);
  open.set_device(wish.device);
  open.set_sink(wish.sink);
  open.set_format(wish.options.format);
  open.set_policy(static_cast<uint32_t>(wish.options.policy));
  open.set_queue_frames(wish.options.queue_frames);
  open.set_exclusive(wish.options.exclusive);
  open.set_user(wish.user);
  open.set_program(wish.program);
  return options;
}

RemoteSource::RemoteSource(Nic& nic, const StreamWish& wish)
    : wish_(wish), link_(nic, *this, LinkOptions(wish)) {}

RemoteSource::~RemoteSource() = default;

absl::StatusOr<std::unique_ptr<FrameStream>> RemoteSource::Open(Nic& nic, const StreamWish& wish) {
  std::unique_ptr<RemoteSource> source(new RemoteSource(nic, wish));
  if (auto status = source->link_.Open(); !status.ok()) return status;
  return source;
}

// --------------------------------------------------------------------- what comes

void RemoteSource::OnOpened(const proto::Opened& opened) {
  present_ = opened.present();
  if (opened.max_frame_bytes() == 0) return;  // told when the device is there
  format_ = Printable(opened.format(), kMaxStreamMessageBytes);
  max_frame_bytes_ = opened.max_frame_bytes();
  BeginRing();
}

bool RemoteSource::OnMessage(const proto::StreamMessage& message) {
  switch (message.kind_case()) {
    case proto::StreamMessage::kCredit: {
      const auto credit = ParseAperture(message.credit().aperture());
      if (!credit.has_value() || ring_ == nullptr) return false;
      ring_->SetCredit(*credit);
      return true;
    }
    case proto::StreamMessage::kFormat:
      if (message.format().max_frame_bytes() == 0) return false;
      next_format_ = message.format();
      return true;
    case proto::StreamMessage::kState:
      present_ = message.state().present();
      return true;
    case proto::StreamMessage::kEnd:
      end_ = ToStatus(message.end().code(), message.end().error());
      return true;
    default:
      return false;
  }
}

void RemoteSource::BeginRing() {
  const uint64_t stride = SlotStride(std::min(max_frame_bytes_, kNever / 2));
  if (wish_.options.slots == 0 || stride > wish_.options.max_ring_bytes / wish_.options.slots) {
    return link_.Fail(absl::ResourceExhaustedError(
        absl::StrCat(wish_.options.slots, " slots for frames of ", max_frame_bytes_,
                     " bytes are more than the ", wish_.options.max_ring_bytes, " bytes allowed")));
  }
  FrameRing::Options options;
  options.slots = wish_.options.slots;
  options.payload_bytes = max_frame_bytes_;
  options.after = position_;
  auto ring = FrameRing::Create(link_.context(), link_.link(), options);
  if (!ring.ok()) return link_.Fail(ring.status());
  ring_ = *std::move(ring);
  OnClock();
  const RingName name = ring_->name();
  proto::StreamMessage message;
  message.mutable_ring()->set_aperture(ToBytes(name.aperture));
  message.mutable_ring()->set_slots(name.slots);
  message.mutable_ring()->set_payload_bytes(name.payload_bytes);
  link_.Say(message);
}

void RemoteSource::DropRing() {
  if (ring_ == nullptr) return;
  const RingCounters counters = this->counters();
  position_ = ring_->position();
  ring_.reset();
  past_ = counters;
}

void RemoteSource::OnLost() {
  DropRing();
  // Another feeder counts what it drops anew; what is missing in between was lost.
  position_.dropped = 0;
  next_format_.reset();
  present_ = false;
}

void RemoteSource::OnClock() {
  if (ring_ == nullptr || !link_.clock().known()) return;
  ring_->SetLateness(wish_.options.late_ns, link_.clock().offset_ns());
}

RingCounters RemoteSource::counters() const {
  RingCounters sum = past_;
  if (ring_ == nullptr) return sum;
  const RingCounters now = ring_->counters();
  sum.received += now.received;
  sum.bytes += now.bytes;
  sum.overrun += now.overrun;
  sum.dropped += now.dropped;
  sum.lost += now.lost;
  sum.late += now.late;
  sum.reports += now.reports;
  return sum;
}

// -------------------------------------------------------------------------- taking

absl::Status RemoteSource::Ended() const {
  // Only OUT_OF_RANGE is the proper end.
  if (!end_->ok()) return *end_;
  return absl::OutOfRangeError(absl::StrCat("the stream of '", wish_.device, "' has ended"));
}

absl::StatusOr<FrameView> RemoteSource::TakeNow() {
  if (ring_ != nullptr) {
    auto view = ring_->Take();
    if (view.ok()) return view;
    if (absl::IsDataLoss(view.status())) {
      link_.Fail(view.status());
      return view.status();
    }
  }
  // Nothing of the old format is left.
  if (next_format_.has_value()) {
    DropRing();
    format_ = Printable(next_format_->format(), kMaxStreamMessageBytes);
    max_frame_bytes_ = next_format_->max_frame_bytes();
    next_format_.reset();
    BeginRing();
  }
  if (end_.has_value()) link_.Fail(Ended());  // its place at the device is free
  return absl::NotFoundError("no frame is there");
}

absl::StatusOr<FrameView> RemoteSource::Next(uint64_t deadline_ns) {
  for (;;) {
    auto view = TakeNow();
    if (view.ok()) {
      if (view->arrival_ns() - looked_ns_ > kLookEveryNs) {
        looked_ns_ = view->arrival_ns();
        const bool busy = next_format_.has_value() || end_.has_value();
        link_.Step(busy ? StreamLink::Look::kAtTimers : StreamLink::Look::kAtMessages);
      }
      return view;
    }
    if (!absl::IsNotFound(view.status())) return view.status();
    const bool news = link_.Step();
    if (!link_.status().ok()) return link_.status();
    if (news) continue;
    // From here on a frame makes an event, for whoever waits for one.
    if (ring_ != nullptr && !ring_->Arm()) continue;
    looked_ns_ = link_.NowNs();
    if (looked_ns_ >= deadline_ns) {
      link_.PrepareFd();
      return absl::DeadlineExceededError("no frame came in time");
    }
    link_.Wait(deadline_ns);
  }
}

}  // namespace tripwire::periph
