// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_CLIENT_STREAM_LINK_H_
#define TRIPWIRE_PERIPH_CLIENT_STREAM_LINK_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/api/context.h"
#include "nic/base/fd.h"
#include "periph/proto/messages.h"
#include "periph/stream/clock_offset.h"

namespace tripwire::periph {

// The link of one stream at its user's side: opens it, opens it again after it was lost,
// measures how far the clocks are apart. It has no thread: whoever uses it calls Step
// and Wait. What is special to sources and sinks is in FrameStream and FrameOutput.
//
// It works without seeing events, because coroutines may take them (nic/api/await.h):
// Step looks for itself.
//
// Thread safety: Cancel from any thread, the rest from one.
class StreamLink {
 public:
  struct Options {
    std::string node;
    proto::Open open;
    bool reconnect = true;
    bool measures_clock = true;
    uint64_t connect_timeout_ns = 5 * kSecond;
  };
  // What its owner does with what comes.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void OnOpened(const proto::Opened& opened) = 0;
    // False: the message breaks the rules.
    virtual bool OnMessage(const proto::StreamMessage& message) = 0;
    // What belongs to the link must go.
    virtual void OnLost() = 0;
    virtual void OnClock() {}
  };

  StreamLink(Nic& nic, Owner& owner, Options options);
  // Waits until the stream is open, or it is known why not.
  absl::Status Open();

  Context& context() { return *context_; }
  LinkId link() const { return link_; }
  bool is_open() const { return state_ == State::kOpen; }
  const ClockOffset& clock() const { return clock_; }
  uint64_t NowNs() { return context_->nic().clock().NowNs(); }

  // Does what can be done without waiting; true if something happened. At most one
  // message is handed to the owner. Messages are left for later while the owner has not
  // done with the last (kAtTimers), and the end of the link while it still takes what came
  // before that (kAtMessages).
  enum class Look : uint8_t { kAtTimers, kAtMessages, kAtAll };
  bool Step(Look look = Look::kAtAll);
  // Until something may have happened, at most until the deadline.
  void Wait(uint64_t deadline_ns, PortWatch watch = PortWatch::kTake);
  // Why there will never be anything any more: CANCELLED, refused, or lost for good.
  const absl::Status& status() const { return status_; }
  // The peer broke the rules, or the owner has no use for the link any more.
  void Fail(const absl::Status& why);
  void Say(const proto::StreamMessage& message) { (void)Send(*context_, link_, message); }

  void Cancel();
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  // Readable when Step may do something, or a deadline of its own has passed that was
  // the next when PrepareFd was called.
  absl::StatusOr<int> EventFd();
  void PrepareFd();

 private:
  enum class State : uint8_t { kDown, kConnecting, kOpening, kOpen, kEnded };

  bool TakeEvents();
  void Handle(std::span<const Event> events);
  bool TakeMessage();
  void Handle(const proto::StreamMessage& message);
  void OnUp();
  void Lost(const std::string& why);
  bool RunTimers();
  uint64_t NextTimer() const;
  void Ping();

  Owner& owner_;
  const Options options_;
  const std::unique_ptr<Context> context_;
  State state_ = State::kDown;
  absl::Status status_;
  bool ever_open_ = false;
  LinkId link_;
  uint64_t retry_ns_ = 0;  // kDown: when to connect again
  uint64_t retry_pause_ns_ = 0;
  uint64_t give_up_ns_ = kNever;  // kConnecting, kOpening
  uint64_t next_ping_ns_ = 0;
  uint32_t pings_ = 0;  // on this link
  ClockOffset clock_;
  std::atomic<bool> cancelled_{false};
  UniqueFd cancel_fd_, timer_fd_, poll_fd_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_CLIENT_STREAM_LINK_H_
