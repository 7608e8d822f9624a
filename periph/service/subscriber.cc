// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/subscriber.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/service/hub.h"

namespace tripwire::periph {
namespace {

// A peer's ring: each slot costs us nothing, so this only keeps numbers sane.
constexpr uint32_t kMaxSlots = 1u << 20;
// What one subscriber may have waiting in our memory.
constexpr uint64_t kMaxQueueBytes = uint64_t{512} << 20;

Feeder::Options FeederOptions(const StreamPlace& place, const proto::Open& open) {
  Feeder::Options options;
  options.policy = static_cast<Policy>(open.policy());
  options.queue_frames = open.queue_frames();
  options.cookie = place.cookie;
  return options;
}

const char* ToString(Policy policy) {
  switch (policy) {
    case Policy::kBlock:
      return "block";
    case Policy::kDropOldest:
      return "drop-oldest";
    case Policy::kDropNewest:
      return "drop-newest";
    case Policy::kLatest:
      return "latest";
  }
  return "?";
}

}  // namespace

Subscriber::Subscriber(HubSet& hubs, StreamPlace place, ServedDevice& device, Opening opening,
                       const proto::Open& open, Asker asker)
    : Stream(std::move(place), device, std::move(opening), open, std::move(asker)),
      hubs_(hubs),
      feeder_(*place_.context, place_.link, FeederOptions(place_, open_)) {}

// ------------------------------------------------------------------ by the hub

void Subscriber::TellOpened(const absl::Status& absent) {
  proto::StreamMessage message;
  proto::Opened& opened = *message.mutable_opened();
  opened.set_format(format_);
  opened.set_max_frame_bytes(max_frame_bytes_);
  opened.set_present(present_);
  opened.set_why_absent(Printable(std::string(absent.message())));
  opened_ = true;
  if (max_frame_bytes_ > 0) ++formats_told_;
  Tell(message);
}

void Subscriber::OnRestart() {
  std::lock_guard lock(mutex_);
  begins_ = true;
  restarted_ = opened_ && max_frame_bytes_ > 0;
  if (restarted_) feeder_.Pause();
}

void Subscriber::OnFormat(const std::string& format, uint64_t max_frame_bytes) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  max_frame_bytes = std::max<uint64_t>(max_frame_bytes, 1);  // 0 would be: not known yet
  const bool changed = format != format_ || max_frame_bytes != max_frame_bytes_;
  const bool is_back = !std::exchange(present_, true);
  const bool is_paused = std::exchange(restarted_, false);
  if (changed && open_.queue_frames() > kMaxQueueBytes / max_frame_bytes) {
    return Refuse(absl::ResourceExhaustedError(
        absl::StrCat("a queue of ", open_.queue_frames(), " frames of ", max_frame_bytes,
                     " bytes is more than is given to one user")));
  }
  format_ = format;
  max_frame_bytes_ = max_frame_bytes;
  if (!opened_) return TellOpened(absl::OkStatus());
  if (changed && !is_paused) feeder_.Pause();
  if (changed || is_paused) {
    ++formats_told_;
    proto::StreamMessage message;
    message.mutable_format()->set_format(format);
    message.mutable_format()->set_max_frame_bytes(max_frame_bytes);
    Tell(message);
  }
  if (is_back) TellState(true, absl::OkStatus());
}

void Subscriber::OnAbsent(const absl::Status& why) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  const bool was_present = std::exchange(present_, false);
  if (!opened_) return TellOpened(why);
  if (was_present) TellState(false, why);
}

void Subscriber::OnEnd(const absl::Status& why) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  if (!opened_) return Refuse(why);
  end_ = why;
  EndIfAllSent();
}

void Subscriber::Offer(const Frame& frame) {
  std::unique_lock lock(mutex_);
  std::optional<Frame> marked;
  if (begins_) {
    marked = frame;
    marked->flags |= kDiscontinuity;
  }
  while (!closed_) {
    overrun_ = frame.overrun;
    switch (feeder_.Offer(marked ? *marked : frame)) {
      case Feeder::Taken::kYes:
        begins_ = false;
        if (feeder_.counters().queued > 0) feeder_.Pump();  // arms for its turn
        return;
      case Feeder::Taken::kFull:
        if (!feeder_.Pump()) room_.wait(lock);
        break;
      case Feeder::Taken::kGone:
        place_.drop(place_.cookie);
        closed_ = true;
    }
  }
}

// --------------------------------------------------------------- the event loop

bool Subscriber::Begin(const proto::Ring& ring) {
  if (rings_ == formats_told_) return false;
  if (++rings_ < formats_told_ || restarted_) return true;
  const auto aperture = ParseAperture(ring.aperture());
  if (!aperture.has_value() || ring.slots() > kMaxSlots) return false;
  const absl::Status begun = feeder_.Begin({*aperture, ring.slots(), ring.payload_bytes()});
  // The link may be down already, which is no fault of the ring's.
  if (!begun.ok()) return absl::IsUnavailable(begun);
  proto::StreamMessage message;
  message.mutable_credit()->set_aperture(ToBytes(feeder_.credit_name()));
  Tell(message);
  return true;
}

bool Subscriber::OnMessage(const proto::StreamMessage& message) {
  std::lock_guard lock(mutex_);
  if (closed_) return true;
  switch (message.kind_case()) {
    case proto::StreamMessage::kRing:
      if (!Begin(message.ring())) return false;
      feeder_.Pump();
      room_.notify_all();
      EndIfAllSent();
      return true;
    case proto::StreamMessage::kEnd:
      // It has used all there was; it closes the link itself.
      return end_told_;
    default:
      return false;
  }
}

void Subscriber::OnTripwire() {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  if (feeder_.Pump()) room_.notify_all();
  if (!feeder_.status().ok()) {
    place_.drop(place_.cookie);
    return;
  }
  EndIfAllSent();
}

void Subscriber::EndIfAllSent() {
  if (!end_.has_value() || end_told_ || feeder_.counters().queued > 0) return;
  end_told_ = true;
  TellEnd(*end_);
}

void Subscriber::Close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  room_.notify_all();
  hubs_.Leave(this);
  opening_.Close();
}

proto::StreamStat Subscriber::Stat() {
  proto::StreamStat stat = StatBase();
  std::lock_guard lock(mutex_);
  const FeederCounters counters = feeder_.counters();
  stat.set_format(format_);
  stat.set_policy(ToString(static_cast<Policy>(open_.policy())));
  stat.set_offered(counters.offered);
  stat.set_sent(counters.sent);
  stat.set_bytes(counters.bytes);
  stat.set_dropped(counters.dropped);
  stat.set_overrun(overrun_);
  stat.set_waits(counters.waits);
  stat.set_queued(counters.queued);
  return stat;
}

}  // namespace tripwire::periph
