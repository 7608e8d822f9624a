// SPDX-License-Identifier: BSD-3-Clause
// The server's threads: leader and followers.
//
// One worker, the leader, waits on the NIC. When calls arrive it steps down and
// runs them itself: no other thread is woken for a call. While it is away
// nobody waits on the NIC; a handler is expected to be shorter than a wake-up.
// Should one stay away longer (disk), the standby, a follower that sleeps on a
// timer, takes the lead. The timer is set when a handler starts and at most
// once in its period, and not at all when idle, so an idle server does nothing.
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "nic/base/fd.h"
#include "nic/comm/rpc.h"
#include "nic/comm/server_core.h"

namespace tripwire::rpc {
namespace {

// How long a handler may keep the NIC waiting.
constexpr uint64_t kWatchNs = 1 * kMillisecond;
// Waking another thread costs about this; for less work it is not worth it.
// When threads woken find nothing left to do, more and more is asked for.
constexpr double kLeastBacklogNs = 150e3;
constexpr double kMostBacklogNs = 10e6;

class ThreadedServer final : public Server {
 public:
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      Nic& nic, ServerOptions options, Callbacks callbacks) {
    if (!callbacks.call) {
      return absl::InvalidArgumentError("rpc: a server needs a call handler");
    }
    UniqueFd timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    if (!timer) {
      return absl::ErrnoToStatus(errno, "rpc: cannot make a timer");
    }
    const uint32_t workers = std::max(options.workers, 1u);
    auto core =
        ServerCore::Create(nic, std::move(options), std::move(callbacks));
    if (!core.ok()) return core.status();
    return std::unique_ptr<Server>(
        new ThreadedServer(*std::move(core), std::move(timer), workers));
  }

  ~ThreadedServer() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      SetTimer(1);
      rest_.notify_all();
    }
    core_->context().Interrupt();
    for (auto& thread : threads_) thread.join();
    core_->Stop();
  }

  void RestoreReply(uint64_t session_id, uint32_t slot, uint64_t sequence,
                    Bytes message) override {
    core_->RestoreReply(session_id, slot, sequence, message);
  }

  ServerStats stats() const override {
    std::lock_guard lock(mutex_);
    ServerStats stats = stats_;
    stats.calls = core_->calls_started();
    stats.by_reference = core_->calls_by_reference();
    return stats;
  }

 private:
  using Lock = std::unique_lock<std::mutex>;

  ThreadedServer(std::unique_ptr<ServerCore> core, UniqueFd timer,
                 uint32_t workers)
      : core_(std::move(core)), timer_(std::move(timer)), workers_(workers) {
    // Somebody outside the workers made a job: the leader is the one to run it.
    core_->on_job = [this] { core_->context().Interrupt(); };
    // One more than may run calls, so that the NIC, cancellations and the ends
    // of notifications are seen to while all calls block.
    for (uint32_t i = 0; i < workers + 1; ++i) {
      threads_.emplace_back([this] { Work(); });
    }
  }

  void Work() {
    Lock lock(mutex_);
    bool helper = false;  // was woken for work that others could not start
    while (!stop_) {
      ServerCore::Job job = core_->TakeJob(running_ < workers_);
      if (std::exchange(fetched_, false)) {
        backlog_ns_ = std::clamp(job ? backlog_ns_ / 2 : backlog_ns_ * 2,
                                 kLeastBacklogNs, kMostBacklogNs);
      }
      if (job) {
        helper = false;
        RunJob(lock, std::move(job));
      } else if (!leading_ && !helper) {
        Lead(lock);
      } else {
        helper = Rest(lock);
      }
    }
  }

  void RunJob(Lock& lock, ServerCore::Job job) {
    const bool is_call = job.call != nullptr;
    running_ += is_call;
    const uint64_t start_ns = clock_.NowNs();
    if (!leading_) left_ns_ = start_ns;
    CallForHelp();
    lock.unlock();
    core_->Run(std::move(job));
    const uint64_t took_ns = clock_.NowNs() - start_ns;
    lock.lock();
    running_ -= is_call;
    if (!is_call) return;
    // One handler that waited for a disk says nothing about the next.
    const double counted_ns =
        static_cast<double>(std::min(took_ns, kWatchNs));
    average_ns_ += (counted_ns - average_ns_) / 16;
    if (core_->options().watch_ns != kNever) called_ns_ = NicNowNs();
  }

  uint64_t NicNowNs() const { return core_->context().nic().clock().NowNs(); }

  // Until when it is first to be woken by frames. REQUIRES: the lock.
  uint64_t WatchUntilNs() const {
    const uint64_t watch_ns = core_->options().watch_ns;
    return watch_ns < kNever - called_ns_ ? called_ns_ + watch_ns : kNever;
  }

  // Before running a job: sees to it that somebody looks after the NIC, and the
  // calls behind this one, if it takes long.
  void CallForHelp() {
    if (standby_ && !watching_ && !leading_) {
      watching_ = true;
      SetTimer(kWatchNs);
    }
    if (resting_ == 0 || kicked_) return;
    const auto behind = static_cast<double>(core_->CallsPending());
    if (behind * average_ns_ > backlog_ns_) {
      kicked_ = true;
      ++stats_.handovers;
      rest_.notify_one();
    }
  }

  void Lead(Lock& lock) {
    leading_ = true;
    const uint64_t watch_until_ns = WatchUntilNs();
    const bool watches =
        watch_until_ns == kNever || NicNowNs() < watch_until_ns;
    lock.unlock();
    Event events[64];
    const size_t count = core_->context().Wait(
        events,
        std::min(core_->NextDeadlineNs(), watches ? watch_until_ns : kNever),
        watches ? PortWatch::kTake : PortWatch::kLeave);
    core_->Handle({events, count});
    lock.lock();
    leading_ = false;
    left_ns_ = clock_.NowNs();
  }

  // Sleeps. The first to come is the standby, until it takes the lead: then it
  // returns false. The others return true when they are wanted.
  bool Rest(Lock& lock) {
    if (standby_) {
      ++resting_;
      rest_.wait(lock);
      --resting_;
      fetched_ = std::exchange(kicked_, false);
      return true;
    }
    standby_ = true;
    while (!stop_) {
      lock.unlock();
      uint64_t expirations;
      const ssize_t got = read(timer_.get(), &expirations, sizeof expirations);
      lock.lock();
      if (got < 0 && errno != EINTR) break;  // cannot be; better busy than dead
      watching_ = false;
      if (leading_) continue;  // the handler was short
      const uint64_t away_ns = clock_.NowNs() - left_ns_;
      if (away_ns >= kWatchNs * 3 / 4) break;
      watching_ = true;
      SetTimer(kWatchNs - away_ns);
    }
    ++stats_.takeovers;
    standby_ = false;
    rest_.notify_one();  // somebody else is to stand by
    return false;
  }

  void SetTimer(uint64_t ns) {
    itimerspec when{};
    when.it_value.tv_sec = static_cast<time_t>(ns / kSecond);
    when.it_value.tv_nsec = static_cast<long>(ns % kSecond);
    timerfd_settime(timer_.get(), 0, &when, nullptr);
    ++stats_.timers_set;
  }

  const std::unique_ptr<ServerCore> core_;
  const UniqueFd timer_;
  const uint32_t workers_;
  SystemClock clock_;  // of the threads; the NIC may have another
  uint64_t called_ns_ = 0;  // a call ended, on the NIC's clock

  mutable std::mutex mutex_;
  std::condition_variable rest_;  // where followers beyond the standby sleep
  bool stop_ = false;
  bool leading_ = false;   // somebody waits on the NIC
  bool standby_ = false;   // somebody sleeps on the timer
  bool watching_ = false;  // the timer is set
  bool kicked_ = false;    // one of those was woken to help
  uint32_t running_ = 0;   // calls
  uint32_t resting_ = 0;
  uint64_t left_ns_ = 0;   // when the NIC was last left alone
  double average_ns_ = 0;  // how long a call takes
  double backlog_ns_ = kLeastBacklogNs;  // of work, worth waking another for
  bool fetched_ = false;   // the next to look for a job was woken for it
  ServerStats stats_;

  std::vector<std::thread> threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(Nic& nic,
                                                      ServerOptions options,
                                                      Callbacks callbacks) {
  return ThreadedServer::Start(nic, std::move(options), std::move(callbacks));
}

}  // namespace tripwire::rpc
