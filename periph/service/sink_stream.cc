// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/sink_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tripwire::periph {
namespace {

constexpr uint32_t kMinSlots = 2;
// What one user may have waiting in our memory; frames beyond wait at his side.
constexpr uint64_t kMaxRingBytes = uint64_t{64} << 20;
constexpr auto kRetryEvery = std::chrono::seconds(1);

uint32_t Slots(uint32_t wanted, uint64_t payload_bytes) {
  const uint64_t most = std::max<uint64_t>(kMaxRingBytes / SlotStride(payload_bytes), kMinSlots);
  return static_cast<uint32_t>(std::clamp<uint64_t>(wanted, kMinSlots, most));
}

}  // namespace

SinkStream::SinkStream(StreamPlace place, ServedDevice& device, Opening opening,
                       const proto::Open& open, Asker asker)
    : Stream(std::move(place), device, std::move(opening), open, std::move(asker)),
      thread_([this] { Run(); }) {}

SinkStream::~SinkStream() { thread_.join(); }

// --------------------------------------------------------------- the event loop

bool SinkStream::OnMessage(const proto::StreamMessage& message) {
  std::lock_guard lock(mutex_);
  switch (message.kind_case()) {
    case proto::StreamMessage::kCredit:
      if (!has_ring_ || credit_.has_value()) return false;
      credit_ = ParseAperture(message.credit().aperture());
      if (!credit_.has_value()) return false;
      credit_is_new_ = true;
      break;
    case proto::StreamMessage::kEnd:
      if (!has_ring_) return false;
      no_more_comes_ = true;
      break;
    default:
      return false;
  }
  news_.notify_all();
  return true;
}

void SinkStream::OnTripwire() {
  std::lock_guard lock(mutex_);
  tripped_ = true;
  news_.notify_all();
}

void SinkStream::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  if (sink_ != nullptr) sink_->Cancel();
  news_.notify_all();
}

proto::StreamStat SinkStream::Stat() {
  proto::StreamStat stat = StatBase();
  std::lock_guard lock(mutex_);
  stat.set_format(format_);
  stat.set_policy("block");
  stat.set_offered(counters_.received + counters_.dropped);
  stat.set_sent(counters_.received);
  stat.set_bytes(counters_.bytes);
  stat.set_dropped(counters_.dropped);
  return stat;
}

// --------------------------------------------------------------- the stream's thread

void SinkStream::Run() {
  absl::Status status = Start();
  if (!status.ok()) {
    Refuse(status);
  } else {
    status = Play();
    // By the user's own leave, or the link's end, there is nobody to tell.
    if (!absl::IsCancelled(status)) TellEnd(status);
  }
  ring_.reset();
  {
    std::lock_guard lock(mutex_);
    sink_.reset();
  }
  opening_.Close();
  at_rest_.store(true, std::memory_order_release);
}

absl::StatusOr<std::shared_ptr<Sink>> SinkStream::NewSink() {
  auto started = device_.device().StartSink(open_.format());
  if (!started.ok()) return started.status();
  std::shared_ptr<Sink> sink = *std::move(started);
  std::lock_guard lock(mutex_);
  if (closed_) return absl::CancelledError("the stream has ended");
  sink_ = sink;
  return sink;
}

absl::Status SinkStream::Start() {
  auto sink = NewSink();
  if (!sink.ok()) return sink.status();
  FrameRing::Options options;
  options.payload_bytes = (*sink)->max_frame_bytes();
  options.slots = Slots(open_.queue_frames(), options.payload_bytes);
  options.cookie = place_.cookie;
  auto ring = FrameRing::Create(*place_.context, place_.link, options);
  if (!ring.ok()) return ring.status();
  ring_ = *std::move(ring);
  const RingName name = ring_->name();
  proto::StreamMessage opened, told;
  opened.mutable_opened()->set_format((*sink)->format());
  opened.mutable_opened()->set_max_frame_bytes(options.payload_bytes);
  opened.mutable_opened()->set_present(true);
  told.mutable_ring()->set_aperture(ToBytes(name.aperture));
  told.mutable_ring()->set_slots(name.slots);
  told.mutable_ring()->set_payload_bytes(name.payload_bytes);
  std::lock_guard lock(mutex_);
  format_ = (*sink)->format();
  has_ring_ = true;  // before its answer can come
  Tell(opened);
  Tell(told);
  return absl::OkStatus();
}

absl::Status SinkStream::Play() {
  for (;;) {
    const bool is_last = NoMoreComes();  // said after the last frame was written
    auto view = ring_->Take();
    if (view.ok()) {
      const absl::Status put = PutOne(*view);
      view->Release();
      if (absl::IsUnavailable(put)) {
        if (!Restart(put)) return absl::CancelledError("the user has gone");
      } else if (!put.ok()) {
        return put;
      }
      continue;
    }
    if (absl::IsUnavailable(view.status())) return absl::CancelledError("the user has gone");
    if (!absl::IsNotFound(view.status())) {
      place_.drop(place_.cookie);
      return absl::CancelledError("the user broke the rules");
    }
    if (is_last) break;
    if (!AwaitNews()) return absl::CancelledError("the stream has ended");
  }
  return sink()->Drain();
}

bool SinkStream::NoMoreComes() {
  std::lock_guard lock(mutex_);
  return no_more_comes_;
}

std::shared_ptr<Sink> SinkStream::sink() {
  std::lock_guard lock(mutex_);
  return sink_;
}

absl::Status SinkStream::PutOne(const FrameView& view) {
  const absl::Status put = sink()->Put(view.frame());
  std::lock_guard lock(mutex_);
  counters_ = ring_->counters();
  return put;
}

// Until there may be a frame, credit was told, or no more comes.
bool SinkStream::AwaitNews() {
  std::unique_lock lock(mutex_);
  tripped_ = false;
  lock.unlock();
  const bool armed = ring_->Arm();
  lock.lock();
  if (armed) {
    news_.wait(lock, [this] { return tripped_ || closed_ || no_more_comes_ || credit_is_new_; });
  }
  const bool tell = std::exchange(credit_is_new_, false);
  const ApertureName credit = credit_.value_or(ApertureName());
  const bool open = !closed_;
  lock.unlock();
  if (tell) ring_->SetCredit(credit);
  return open;
}

// The device has gone: what was put is lost, and what comes waits for it.
bool SinkStream::Restart(absl::Status why) {
  TellState(false, why);
  device_.NotePresence();
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      sink_.reset();
      news_.wait_for(lock, kRetryEvery, [this] { return closed_; });
      if (closed_) return false;
    }
    auto sink = NewSink();
    if (!sink.ok()) continue;
    TellState(true, absl::OkStatus());
    device_.NotePresence();
    return true;
  }
}

}  // namespace tripwire::periph
