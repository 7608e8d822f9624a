// SPDX-License-Identifier: BSD-3-Clause
#include "periph/client/stream_link.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tripwire::periph {
namespace {

constexpr uint64_t kFirstRetryNs = 50 * kMillisecond;
constexpr uint64_t kMaxRetryNs = kSecond;
// A source may need long to start, before it is known what it makes.
constexpr uint64_t kOpenTimeoutNs = 30 * kSecond;
// A few exchanges at once, so that clocks are known soon, then one now and then.
constexpr uint32_t kFirstPings = 8;
constexpr uint64_t kFirstPingsEveryNs = 5 * kMillisecond;
constexpr uint64_t kPingEveryNs = kSecond;

}  // namespace

StreamLink::StreamLink(Nic& nic, Owner& owner, Options options)
    : owner_(owner),
      options_(std::move(options)),
      context_(nic.CreateContext()),
      cancel_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

absl::Status StreamLink::Open() {
  auto link = context_->Connect(options_.node, kStreamService, {}, options_.connect_timeout_ns);
  if (!link.ok()) return link.status();
  link_ = *link;
  OnUp();
  while (state_ != State::kOpen && status_.ok()) {
    if (!Step()) Wait(kNever);
    if (!ever_open_ && state_ == State::kDown) {
      return absl::UnavailableError(absl::StrCat("no answer from node \"", options_.node, "\""));
    }
  }
  return status_;
}

void StreamLink::OnUp() {
  state_ = State::kOpening;
  give_up_ns_ = NowNs() + kOpenTimeoutNs;
  proto::StreamMessage message;
  *message.mutable_open() = options_.open;
  Say(message);
}

void StreamLink::Lost(const std::string& why) {
  context_->Close(link_);
  link_ = LinkId();
  owner_.OnLost();
  clock_ = ClockOffset();
  if (!options_.reconnect) {
    state_ = State::kEnded;
    status_ = absl::UnavailableError(why);
    return;
  }
  state_ = State::kDown;
  retry_pause_ns_ = std::clamp(retry_pause_ns_ * 2, kFirstRetryNs, kMaxRetryNs);
  retry_ns_ = NowNs() + retry_pause_ns_;
}

void StreamLink::Fail(const absl::Status& why) {
  context_->Close(link_);
  link_ = LinkId();
  owner_.OnLost();
  state_ = State::kEnded;
  status_ = why;
}

// ----------------------------------------------------------------------------- steps

bool StreamLink::Step(Look look) {
  if (cancelled() && status_.ok()) Fail(absl::CancelledError("cancelled"));
  if (!status_.ok()) return false;
  bool news = TakeEvents();
  if (state_ == State::kConnecting && context_->IsUp(link_)) {
    OnUp();
    news = true;
  }
  if (look != Look::kAtTimers && TakeMessage()) return true;
  const bool has_link = state_ == State::kOpening || state_ == State::kOpen;
  if (has_link && look == Look::kAtAll && !context_->IsUp(link_)) {
    // What came before it ended is taken first.
    if (TakeMessage()) return true;
    Lost(absl::StrCat("the link to node \"", options_.node, "\" is lost"));
    return true;
  }
  return RunTimers() || news;
}

bool StreamLink::TakeEvents() {
  std::array<Event, 16> events;
  const size_t n = context_->Poll(events);
  Handle({events.data(), n});
  return n > 0;
}

void StreamLink::Handle(std::span<const Event> events) {
  for (const Event& event : events) {
    if (event.kind == EventKind::kLinkDown && event.link == link_ && state_ == State::kConnecting) {
      Lost(absl::StrCat("no link to node \"", options_.node, "\": ", ToString(event.end)));
    }
  }
}

bool StreamLink::TakeMessage() {
  if (state_ != State::kOpening && state_ != State::kOpen) return false;
  const auto bytes = context_->TakeMessage(link_);
  if (!bytes.has_value()) return false;
  const auto message = ParseStreamMessage(*bytes);
  if (message.has_value()) {
    Handle(*message);
  } else {
    Fail(absl::DataLossError(absl::StrCat("node \"", options_.node, "\" sent no message")));
  }
  return true;
}

void StreamLink::Handle(const proto::StreamMessage& message) {
  const bool opening = state_ == State::kOpening;
  if (message.has_opened() && opening) {
    state_ = State::kOpen;
    ever_open_ = true;
    retry_pause_ns_ = 0;
    give_up_ns_ = kNever;
    pings_ = 0;
    next_ping_ns_ = options_.measures_clock ? NowNs() : kNever;
    return owner_.OnOpened(message.opened());
  }
  if (message.has_refused() && opening) {
    const absl::Status why = ToStatus(message.refused().code(), message.refused().error());
    // A server that was just restarted may not have the device yet.
    if (ever_open_ && options_.reconnect && absl::IsUnavailable(why)) {
      return Lost(std::string(why.message()));
    }
    return Fail(why.ok() ? absl::UnknownError("refused") : why);
  }
  if (message.has_pong()) {
    const proto::ClockPong& pong = message.pong();
    if (clock_.Add(pong.sent_ns(), pong.there_ns(), pong.answered_ns(), NowNs())) {
      owner_.OnClock();
    }
    return;
  }
  if (message.has_ping()) {
    proto::StreamMessage answer;
    answer.mutable_pong()->set_sent_ns(message.ping().sent_ns());
    answer.mutable_pong()->set_there_ns(NowNs());
    answer.mutable_pong()->set_answered_ns(NowNs());
    return Say(answer);
  }
  if (state_ != State::kOpen || !owner_.OnMessage(message)) {
    Fail(
        absl::DataLossError(absl::StrCat("node \"", options_.node, "\" said what makes no sense")));
  }
}

bool StreamLink::RunTimers() {
  const uint64_t now_ns = NowNs();
  switch (state_) {
    case State::kDown: {
      if (now_ns < retry_ns_) return false;
      const auto link = context_->StartConnect(options_.node, kStreamService, {});
      if (!link.ok()) {
        Fail(link.status());
        return true;
      }
      link_ = *link;
      state_ = State::kConnecting;
      give_up_ns_ = now_ns + options_.connect_timeout_ns;
      return true;
    }
    case State::kConnecting:
    case State::kOpening:
      if (now_ns < give_up_ns_) return false;
      Lost(absl::StrCat("no answer from node \"", options_.node, "\""));
      return true;
    case State::kOpen:
      if (now_ns >= next_ping_ns_) Ping();
      return false;
    case State::kEnded:
      return false;
  }
  return false;
}

void StreamLink::Ping() {
  const uint64_t now_ns = NowNs();
  proto::StreamMessage message;
  message.mutable_ping()->set_sent_ns(now_ns);
  Say(message);
  next_ping_ns_ = now_ns + (++pings_ < kFirstPings ? kFirstPingsEveryNs : kPingEveryNs);
}

uint64_t StreamLink::NextTimer() const {
  switch (state_) {
    case State::kDown:
      return retry_ns_;
    case State::kConnecting:
    case State::kOpening:
      return give_up_ns_;
    case State::kOpen:
      return next_ping_ns_;
    case State::kEnded:
      break;
  }
  return kNever;
}

void StreamLink::Wait(uint64_t deadline_ns, PortWatch watch) {
  if (cancelled()) return;
  std::array<Event, 16> events;
  Handle({events.data(), context_->Wait(events, std::min(deadline_ns, NextTimer()), watch)});
}

// ------------------------------------------------------------------ stopping, and poll

void StreamLink::Cancel() {
  cancelled_.store(true, std::memory_order_release);  // pairs with cancelled()
  context_->Interrupt();
  if (const int fd = cancel_fd_.get(); fd >= 0) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(fd, &one, sizeof one);
  }
}

absl::StatusOr<int> StreamLink::EventFd() {
  if (poll_fd_) return poll_fd_.get();
  const auto events = context_->EventFd();
  if (!events.ok()) return events.status();
  UniqueFd poll(epoll_create1(EPOLL_CLOEXEC));
  UniqueFd timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  for (const int fd : {*events, timer.get(), cancel_fd_.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ctl(poll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return absl::ErrnoToStatus(errno, "an event fd cannot be made");
    }
  }
  timer_fd_ = std::move(timer);
  poll_fd_ = std::move(poll);
  PrepareFd();
  return poll_fd_.get();
}

void StreamLink::PrepareFd() {
  if (!timer_fd_) return;
  const uint64_t next_ns = NextTimer(), now_ns = NowNs();
  itimerspec spec{};  // zero: never
  if (next_ns != kNever) {
    // The NIC's clock need not be the kernel's.
    const uint64_t wait_ns = next_ns > now_ns ? next_ns - now_ns : 1;
    spec.it_value.tv_sec = static_cast<time_t>(wait_ns / kSecond);
    spec.it_value.tv_nsec = static_cast<long>(wait_ns % kSecond);
  }
  timerfd_settime(timer_fd_.get(), 0, &spec, nullptr);
}

}  // namespace tripwire::periph
