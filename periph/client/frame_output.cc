// SPDX-License-Identifier: BSD-3-Clause
#include "periph/client/frame_output.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace tripwire::periph {

RemoteSink::RemoteSink(Nic& nic, const StreamWish& wish)
    : wish_(wish), link_(nic, *this, LinkOptions(wish)) {}

RemoteSink::~RemoteSink() = default;

absl::StatusOr<std::unique_ptr<RemoteSink>> RemoteSink::Open(Nic& nic, const StreamWish& wish) {
  std::unique_ptr<RemoteSink> sink(new RemoteSink(nic, wish));
  if (auto status = sink->link_.Open(); !status.ok()) return status;
  return sink;
}

// --------------------------------------------------------------------- what comes

void RemoteSink::OnOpened(const proto::Opened& opened) {
  format_ = Printable(opened.format(), kMaxStreamMessageBytes);
  max_frame_bytes_ = opened.max_frame_bytes();
  Feeder::Options options;
  options.policy = Policy::kBlock;
  feeder_ = std::make_unique<Feeder>(link_.context(), link_.link(), options);
  has_ring_ = false;
}

bool RemoteSink::OnMessage(const proto::StreamMessage& message) {
  switch (message.kind_case()) {
    case proto::StreamMessage::kRing:
      return Begin(message.ring());
    case proto::StreamMessage::kState:
      return true;  // it waits by itself
    case proto::StreamMessage::kEnd:
      end_ = ToStatus(message.end().code(), message.end().error());
      return true;
    default:
      return false;
  }
}

// What was put goes into this ring and no other, and fits.
bool RemoteSink::Begin(const proto::Ring& ring) {
  const auto aperture = ParseAperture(ring.aperture());
  if (!aperture.has_value() || feeder_ == nullptr || has_ring_ ||
      ring.payload_bytes() < max_frame_bytes_) {
    return false;
  }
  has_ring_ = true;
  const absl::Status begun = feeder_->Begin({*aperture, ring.slots(), ring.payload_bytes()});
  // The link may be down already, which is no fault of the ring's.
  if (!begun.ok()) return !absl::IsInvalidArgument(begun);
  proto::StreamMessage answer;
  answer.mutable_credit()->set_aperture(ToBytes(feeder_->credit_name()));
  link_.Say(answer);
  return true;
}

void RemoteSink::OnLost() {
  if (feeder_ == nullptr) return;
  past_ = counters();
  feeder_.reset();
  discontinuity_ = true;
}

FeederCounters RemoteSink::counters() const {
  FeederCounters sum = past_;
  if (feeder_ == nullptr) return sum;
  const FeederCounters now = feeder_->counters();
  sum.offered += now.offered;
  sum.sent += now.sent;
  sum.bytes += now.bytes;
  sum.dropped += now.dropped;
  sum.too_large += now.too_large;
  sum.waits += now.waits;
  sum.queued = now.queued;
  return sum;
}

// For good: its place at the device is free.
void RemoteSink::Leave() {
  link_.Fail(end_->ok() ? absl::UnavailableError("the device takes no more") : *end_);
}

bool RemoteSink::Tend() {
  if (end_.has_value() && link_.status().ok()) Leave();
  if (feeder_ != nullptr) {
    feeder_->Pump();
    if (absl::IsDataLoss(feeder_->status())) link_.Fail(absl::Status(feeder_->status()));
  }
  const bool news = link_.Step();
  if (!link_.status().ok()) return false;
  // Others may have better use for what comes by the port.
  if (!news) link_.Wait(kNever, PortWatch::kLeave);
  return true;
}

// -------------------------------------------------------------------------- putting

absl::Status RemoteSink::Await(uint64_t deadline_ns) {
  const bool news = link_.Step();
  if (!link_.status().ok()) return link_.status();
  if (news) return absl::OkStatus();
  if (link_.NowNs() >= deadline_ns) {
    return absl::DeadlineExceededError("the device took nothing in time");
  }
  link_.Wait(deadline_ns);
  return absl::OkStatus();
}

absl::Status RemoteSink::Put(const Frame& frame, uint64_t deadline_ns) {
  link_.Step(StreamLink::Look::kAtMessages);
  Frame numbered = frame;
  numbered.number = next_number_;
  for (;;) {
    if (!link_.status().ok()) return link_.status();
    if (end_.has_value()) {
      Leave();
      continue;
    }
    if (feeder_ != nullptr) {
      // It may be another device than the one before, that takes less.
      if (frame.data.size() > max_frame_bytes_) {
        return absl::InvalidArgumentError(absl::StrCat(
            "a frame of ", frame.data.size(), " bytes; the device takes ", max_frame_bytes_));
      }
      if (discontinuity_) numbered.flags |= kDiscontinuity;
      const Feeder::Taken taken = feeder_->Offer(numbered);
      if (taken == Feeder::Taken::kYes) {
        discontinuity_ = false;
        ++next_number_;
        return absl::OkStatus();
      }
      if (taken == Feeder::Taken::kFull && feeder_->Pump()) continue;
      if (taken == Feeder::Taken::kGone && absl::IsDataLoss(feeder_->status())) {
        link_.Fail(absl::Status(feeder_->status()));
        continue;
      }
    }
    if (auto status = Await(deadline_ns); !status.ok()) return status;
  }
}

absl::Status RemoteSink::Finish(uint64_t deadline_ns) {
  if (end_.has_value()) return *end_;
  if (feeder_ == nullptr) return absl::UnavailableError("the link is lost");
  // It follows the last frame.
  proto::StreamMessage message;
  message.mutable_end();
  link_.Say(message);
  while (!end_.has_value()) {
    if (feeder_ == nullptr) {
      return absl::UnavailableError("the link was lost before the device had played all");
    }
    feeder_->Pump();
    if (auto status = Await(deadline_ns); !status.ok()) return status;
  }
  return *end_;
}

}  // namespace tripwire::periph
