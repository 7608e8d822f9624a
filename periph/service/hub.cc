// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/hub.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/service/format_match.h"

namespace tripwire::periph {
namespace {

constexpr auto kRetryEvery = std::chrono::seconds(1);
// Who closes a stream and asks for another format may be ahead of his own closing.
constexpr auto kPatience = std::chrono::milliseconds(500);
// Of one device, each in a format of its own.
constexpr size_t kMaxSources = 16;
// Those whose users have left, and that have not yet ended: each still is a thread.
constexpr size_t kMaxStopping = 64;
// Frames up to this size are copied by each feeder that has to keep them; larger ones
// once for all.
constexpr size_t kSmallFrameBytes = 1024;

}  // namespace

Hub::Hub(HubSet& set, ServedDevice& device, std::string wanted, std::shared_ptr<Subscriber> first)
    : set_(set),
      device_(device),
      wanted_(std::move(wanted)),
      subscribers_(std::make_shared<Subscribers>(1, std::move(first))),
      thread_([this] { Run(); }) {}

Hub::~Hub() { thread_.join(); }

// ------------------------------------------------------------------- who shares it

bool Hub::Join(const std::shared_ptr<Subscriber>& subscriber) {
  std::lock_guard lock(mutex_);
  if (state_ == State::kStopping || ended_.has_value()) return false;
  const std::string& made = format_.name.empty() ? wanted_ : format_.name;
  if (!FormatMatches(subscriber->wanted(), made) && subscriber->wanted() != wanted_) return false;
  auto all = std::make_shared<Subscribers>(*subscribers_);
  all->push_back(subscriber);
  subscribers_ = std::move(all);
  if (state_ == State::kRunning) {
    subscriber->OnFormat(format_.name, format_.max_frame_bytes);
  } else if (state_ == State::kAbsent) {
    subscriber->OnAbsent(why_absent_);
  }
  return true;
}

void Hub::Leave(const Subscriber* subscriber) {
  std::lock_guard lock(mutex_);
  auto rest = std::make_shared<Subscribers>(*subscribers_);
  std::erase_if(*rest, [&](const auto& each) { return each.get() == subscriber; });
  subscribers_ = std::move(rest);
  changed_.notify_all();
}

bool Hub::HasSubscribers() {
  std::lock_guard lock(mutex_);
  return !subscribers_->empty();
}

// ------------------------------------------------------------------- the hub's thread

void Hub::Run() {
  const absl::Status turn = set_.WaitForTurn(*this);
  {
    std::unique_lock lock(mutex_);
    if (!turn.ok()) Finish(turn);
    while (state_ != State::kStopping) RunSource(lock);
  }
  at_rest_.store(true, std::memory_order_release);
  set_.changed_.notify_all();
}

// From the start of the source to its end, and the pause thereafter.
void Hub::RunSource(std::unique_lock<std::mutex>& lock) {
  ended_.reset();
  early_format_.reset();
  overrun_before_ = overrun_;
  if (ever_ran_) {
    for (const auto& each : *subscribers_) each->OnRestart();
  }
  lock.unlock();
  auto source = device_.device().StartSource(wanted_, *this);
  lock.lock();
  if (!source.ok()) return StayAway(lock, source.status());
  Announce(**source);
  changed_.wait(lock, [this] { return ended_.has_value() || subscribers_->empty(); });
  if (subscribers_->empty()) state_ = State::kStopping;
  lock.unlock();
  source->reset();
  lock.lock();
  if (state_ == State::kStopping) return;
  if (absl::IsUnavailable(*ended_)) {
    StayAway(lock, *ended_);
  } else {
    Finish(*ended_);
  }
}

void Hub::Announce(const Source& source) {
  format_ = early_format_.value_or(Format{source.format(), source.max_frame_bytes()});
  if (state_ == State::kAbsent) {
    spdlog::info("{}: there again", device_.name());
    device_.NotePresence();
  }
  state_ = State::kRunning;
  ever_ran_ = true;
  TellFormat();
  set_.changed_.notify_all();
}

void Hub::TellFormat() {
  for (const auto& each : *subscribers_) each->OnFormat(format_.name, format_.max_frame_bytes);
}

// The device is not there: its users are told once, and wait for it.
void Hub::StayAway(std::unique_lock<std::mutex>& lock, const absl::Status& why) {
  // What can never be is told at once; but once it could, it may again.
  if (!absl::IsUnavailable(why) && !ever_ran_) return Finish(why);
  if (state_ != State::kAbsent) {
    spdlog::warn("{}: gone: {}", device_.name(), std::string(why.message()));
    state_ = State::kAbsent;
    device_.NotePresence();
    set_.changed_.notify_all();
  }
  why_absent_ = why;
  for (const auto& each : *subscribers_) each->OnAbsent(why);
  changed_.wait_for(lock, kRetryEvery, [this] { return subscribers_->empty(); });
  if (subscribers_->empty()) state_ = State::kStopping;
}

void Hub::Finish(const absl::Status& why) {
  state_ = State::kStopping;
  for (const auto& each : *subscribers_) each->OnEnd(why);
  subscribers_ = std::make_shared<Subscribers>();
}

// --------------------------------------------------------------------- by the source

void Hub::Take(Frame frame) {
  overrun_ = std::max(overrun_, overrun_before_ + frame.overrun);
  frame.overrun = overrun_;
  frame.number = taken_++ + overrun_;  // every frame it made counts
  std::shared_ptr<const Subscribers> subscribers;
  {
    std::lock_guard lock(mutex_);
    subscribers = subscribers_;
  }
  if (subscribers->empty()) return;
  if (frame.data.size() > kSmallFrameBytes) pool_.Own(frame);
  for (const auto& each : *subscribers) each->Offer(frame);
}

void Hub::SetFormat(const std::string& format, uint64_t max_frame_bytes) {
  std::lock_guard lock(mutex_);
  if (state_ != State::kRunning) {
    early_format_ = Format{format, max_frame_bytes};
    return;
  }
  format_ = {format, max_frame_bytes};
  TellFormat();
}

void Hub::End(const absl::Status& why) {
  std::lock_guard lock(mutex_);
  ended_ = why;
  changed_.notify_all();
}

// -------------------------------------------------------------------------- all hubs

HubSet::~HubSet() {
  // Each waits for its thread, which still looks at the list.
  std::list<std::unique_ptr<Hub>> hubs;
  {
    std::lock_guard lock(mutex_);
    hubs.swap(hubs_);
  }
}

void HubSet::Join(ServedDevice& device, const std::shared_ptr<Subscriber>& subscriber) {
  std::lock_guard lock(mutex_);
  size_t sources = 0, stopping = 0;
  for (const auto& hub : hubs_) {
    if (&hub->device() != &device || hub->at_rest()) continue;
    if (hub->Join(subscriber)) return;
    ++(hub->HasSubscribers() ? sources : stopping);
  }
  if (sources >= kMaxSources || stopping >= kMaxStopping) {
    return subscriber->OnEnd(absl::ResourceExhaustedError(
        absl::StrCat("device '", device.name(), "' already makes ", sources,
                     " formats (and stops making ", stopping, ")")));
  }
  hubs_.push_back(std::make_unique<Hub>(*this, device, subscriber->wanted(), subscriber));
}

void HubSet::Leave(const Subscriber* subscriber) {
  std::lock_guard lock(mutex_);
  for (const auto& hub : hubs_) hub->Leave(subscriber);
  changed_.notify_all();
}

void HubSet::Sweep() {
  std::lock_guard lock(mutex_);
  hubs_.remove_if([](const auto& hub) { return hub->at_rest(); });
}

bool HubSet::empty() {
  std::lock_guard lock(mutex_);
  return hubs_.empty();
}

std::optional<absl::Status> HubSet::TakeTurn(Hub& hub) {
  if (!hub.HasSubscribers()) return absl::CancelledError("nobody waits for it");
  for (const auto& other : hubs_) {
    if (other.get() == &hub) break;  // the younger ones wait for this one
    if (&other->device() != &hub.device() || other->at_rest()) continue;
    std::unique_lock other_lock(other->mutex_);
    if (other->state_ == Hub::State::kStarting || other->state_ == Hub::State::kStopping) {
      return std::nullopt;
    }
    const std::string made = other->format_.name;
    other_lock.unlock();
    if (made.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("device '", hub.device().name(), "' is busy: others wait for it"));
    }
    std::shared_ptr<const Hub::Subscribers> subscribers;
    {
      std::lock_guard lock(hub.mutex_);
      subscribers = hub.subscribers_;
    }
    for (const auto& each : *subscribers) {
      if (other->Join(each)) hub.Leave(each.get());
    }
    if (!hub.HasSubscribers()) return absl::CancelledError("they share another source");
    return absl::FailedPreconditionError(
        absl::StrCat("device '", hub.device().name(), "' is busy: it makes ", made, " for others"));
  }
  return absl::OkStatus();
}

absl::Status HubSet::WaitForTurn(Hub& hub) {
  if (hub.device().device().Describe().many_formats) return absl::OkStatus();
  const auto patience = std::chrono::steady_clock::now() + kPatience;
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto turn = TakeTurn(hub);
    const bool is_busy = turn.has_value() && absl::IsFailedPrecondition(*turn);
    if (turn && (!is_busy || std::chrono::steady_clock::now() > patience)) return *turn;
    // States change under each hub's own lock, so that news of one can be missed; such
    // news are rare, and this long late.
    changed_.wait_for(lock, std::chrono::milliseconds(20));
  }
}

}  // namespace tripwire::periph
