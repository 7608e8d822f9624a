// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/driver.h"

#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>

#include "nic/base/futex.h"

namespace tripwire {
namespace {

// How long nobody may have driven before the service thread takes the watch.
constexpr uint64_t kWatchNs = kMillisecond;
constexpr uint64_t kLongestNapNs = 256 * kMillisecond;
// Ports that cannot wake anybody are looked at this often.
constexpr uint64_t kBlindPollNs = 200 * kMicrosecond;
// Spinning gives way to other runnable threads after this, then ever so often.
constexpr uint64_t kPoliteAfterNs = 10 * kMicrosecond;
// Turns of a spin between looks at the ports' slow work.
constexpr uint32_t kServiceTurns = 4096;
// Reading the clock costs as much as looking at a port: idle turns of a spin
// read it this often. Round trips are measured to within as many turns.
constexpr uint32_t kClockTurns = 8;
// How long a spinning thread steps aside for one that wants the lock.
constexpr int kAsideTurns = 8;
// The service thread stays awake this long after it had something to do.
constexpr uint64_t kServiceLingerNs = 20 * kMicrosecond;
// Who is woken by a frame, or sees some while it spins, looks so much longer
// for the next: much data comes in many frames, and is not worth a sleep
// between them.
constexpr uint64_t kLingerNs = 100 * kMicrosecond;

void Signal(const UniqueFd& fd) {
  const uint64_t one = 1;
  // An eventfd that is already at its maximum is readable: nothing is lost.
  [[maybe_unused]] const ssize_t n = write(fd.get(), &one, sizeof one);
}

void Silence(const UniqueFd& fd) {
  uint64_t count;
  [[maybe_unused]] const ssize_t n = read(fd.get(), &count, sizeof count);
}

// Returns whether `first` is readable.
bool PollFds(int first, int second, uint64_t timeout_ns) {
  pollfd fds[2] = {{first, POLLIN, 0}, {second, POLLIN, 0}};
  timespec timeout;
  timeout.tv_sec = static_cast<time_t>(timeout_ns / kSecond);
  timeout.tv_nsec = static_cast<long>(timeout_ns % kSecond);
  ppoll(fds, 2, timeout_ns == kNever ? nullptr : &timeout, nullptr);
  return (fds[0].revents & POLLIN) != 0;
}

uint64_t Until(uint64_t deadline_ns, uint64_t now_ns) {
  if (deadline_ns == kNever) return kNever;
  return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

}  // namespace

Driver::Driver(Engine& engine, Clock& clock, uint64_t max_spin_ns,
               bool can_block)
    : engine_(engine),
      clock_(clock),
      max_spin_ns_(max_spin_ns),
      can_block_(can_block) {
  if (!can_block_) return;
  doorbells_.reset(epoll_create1(EPOLL_CLOEXEC));
  sentinel_kick_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  service_kick_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  for (const auto& port : engine_.ports()) {
    if (port->wake_fd() < 0) {
      ports_can_wake_ = false;
      continue;
    }
    epoll_event event{};
    event.events = EPOLLIN;
    epoll_ctl(doorbells_.get(), EPOLL_CTL_ADD, port->wake_fd(), &event);
  }
  // One descriptor less between a frame and who sleeps.
  doorbell_ = engine_.ports().size() == 1 && ports_can_wake_
                  ? engine_.ports()[0]->wake_fd()
                  : doorbells_.get();
}

Driver::~Driver() { StopService(); }

void Driver::StartService() {
  if (!can_block_) return;
  service_ = std::thread([this] { Service(); });
}

void Driver::StopService() {
  if (!service_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  Signal(service_kick_);
  service_.join();
}

bool Driver::PollOnce(uint64_t now_ns) {
  const bool busy = engine_.Poll(now_ns);
  if (engine_.news() != seen_news_) {
    seen_news_ = engine_.news();
    WakeReady(false);
  }
  return busy;
}

void Driver::WakeReady(bool all) {
  for (auto it = followers_.begin(); it != followers_.end();) {
    Waiter* waiter = *it;
    if (!all && !waiter->ready()) {
      ++it;
      continue;
    }
    it = followers_.erase(it);
    // The waiter looks at `woken` without the lock; what it waits for it checks
    // again with the lock held.
    waiter->woken.store(1, std::memory_order_release);
    FutexWakeOne(waiter->woken);
  }
  if (sentinel_waiter_ != nullptr && (all || sentinel_waiter_->ready())) {
    KickSentinel();
  }
}

void Driver::KickSentinel() {
  sentinel_kicked_ = true;
  Signal(sentinel_kick_);
}
void Driver::KickService() { Signal(service_kick_); }

bool Driver::Arm() {
  for (size_t i = 0; i < engine_.ports().size(); ++i) {
    if (engine_.ports()[i]->ArmWakeup()) continue;
    for (size_t j = 0; j < i; ++j) engine_.ports()[j]->DisarmWakeup();
    return false;
  }
  armed_ = true;
  return true;
}

void Driver::Disarm() {
  for (const auto& port : engine_.ports()) port->DisarmWakeup();
  armed_ = false;
}

bool Driver::Poll() {
  std::lock_guard lock(mutex_);
  const uint64_t now_ns = clock_.NowNs();
  last_drive_ns_.store(now_ns, std::memory_order_relaxed);
  const bool busy = PollOnce(now_ns);
  NoteWork();  // what came may have set an earlier timer
  return busy;
}

void Driver::Notify() {
  std::lock_guard lock(mutex_);
  WakeReady(true);
}

void Driver::NoteWork() {
  if (sentinel_ == Sentinel::kNone || driving_ > 0) return;
  if (engine_.NextDeadline() >= sentinel_until_ns_) return;
  if (sentinel_ == Sentinel::kService) {
    KickService();
  } else {
    KickSentinel();
  }
}

uint64_t Driver::SpinBudgetNs() {
  return static_cast<uint64_t>(static_cast<double>(max_spin_ns_) *
                               std::clamp(2 * spin_success_, 0.05, 1.0));
}

bool Driver::WaitUntil(absl::FunctionRef<bool()> ready, uint64_t deadline_ns,
                       PortWatch watch) {
  std::unique_lock lock(mutex_);
  if (ready()) return true;
  if (!can_block_) {
    while (engine_.Poll(clock_.NowNs()) && !ready()) {
    }
    return ready();
  }
  ++driving_;
  const bool takes_watch = watch == PortWatch::kTake || !has_service();
  bool done = false;
  if (!takes_watch) {
    done = Block(lock, ready, deadline_ns, takes_watch);
  } else {
    const uint64_t start_ns = clock_.NowNs();
    done = Spin(lock, ready, start_ns, SpinBudgetNs(), deadline_ns);
    // Whether spinning to the limit would have met it: a budget that only asked
    // whether it was enough itself would never grow again.
    bool spin_pays = done;
    if (!done) {
      done = Block(lock, ready, deadline_ns, takes_watch);
      const uint64_t end_ns = clock_.NowNs();
      last_drive_ns_.store(end_ns, std::memory_order_relaxed);
      spin_pays = done && end_ns - start_ns <= max_spin_ns_;
    }
    spin_success_ = 0.9 * spin_success_ + (spin_pays ? 0.1 : 0.0);
  }
  --driving_;
  HandOver();
  return done;
}

bool Driver::Spin(std::unique_lock<AdaptiveMutex>& lock,
                  absl::FunctionRef<bool()> ready, uint64_t start_ns,
                  uint64_t budget_ns, uint64_t deadline_ns) {
  // Peers need not ring while somebody looks.
  if (armed_) Disarm();
  uint64_t end_ns = std::min(start_ns + budget_ns, deadline_ns);
  uint64_t now_ns = start_ns;
  for (uint32_t turn = 1;; ++turn) {
    const bool busy = PollOnce(now_ns);
    last_drive_ns_.store(now_ns, std::memory_order_relaxed);
    if (ready()) return true;
    if (busy && max_spin_ns_ > 0) {
      end_ns = std::max(end_ns, std::min(now_ns + kLingerNs, deadline_ns));
    }
    if (now_ns >= end_ns) return false;
    // Short waits are what spinning is for: they hold the lock until somebody
    // wants it. Longer ones let go every turn, lest this thread be preempted
    // holding it.
    const bool is_long = now_ns - start_ns > kPoliteAfterNs;
    if (is_long || mutex_.waiting() > 0) {
      lock.unlock();
      StepAside();
      if (is_long && turn % 16 == 0) sched_yield();
      lock.lock();
      if (ready()) return true;
    }
    // A long spin does not see the ports' descriptors: peers may be joining.
    if (turn % kServiceTurns == 0) engine_.ServicePorts();
    if (busy || is_long || turn % kClockTurns == 0) now_ns = clock_.NowNs();
  }
}

void Driver::StepAside() {
  const uint32_t waiting = mutex_.waiting();
  CpuRelax();
  for (int i = 1; i < kAsideTurns && waiting > 0 &&
                  mutex_.waiting() >= waiting;
       ++i) {
    CpuRelax();
  }
}

bool Driver::Block(std::unique_lock<AdaptiveMutex>& lock,
                   absl::FunctionRef<bool()> ready, uint64_t deadline_ns,
                   bool takes_watch) {
  while (!ready()) {
    if (clock_.NowNs() >= deadline_ns) return false;
    // A waiter is woken for its own sake, the service thread only to wake
    // another; so a waiter takes the watch from it.
    if (sentinel_ == Sentinel::kWaiter || !takes_watch) {
      SleepAsFollower(lock, ready, deadline_ns, takes_watch);
    } else {
      SleepAsSentinel(lock, ready, deadline_ns);
    }
  }
  return true;
}

void Driver::SleepAsSentinel(std::unique_lock<AdaptiveMutex>& lock,
                             absl::FunctionRef<bool()> ready,
                             uint64_t deadline_ns) {
  if (ports_rung_) return ServeRungPorts(clock_.NowNs());
  if (sentinel_ == Sentinel::kService) KickService();
  sentinel_ = Sentinel::kWaiter;
  engine_.FlushAcks();
  if (!armed_ && !Arm()) {
    sentinel_ = Sentinel::kNone;
    PollOnce(clock_.NowNs());
    return;
  }
  Waiter self{ready, true};
  sentinel_waiter_ = &self;
  const uint64_t now_ns = clock_.NowNs();
  sentinel_until_ns_ = std::min(deadline_ns, engine_.NextDeadline());
  if (!ports_can_wake_) {
    sentinel_until_ns_ = std::min(sentinel_until_ns_, now_ns + kBlindPollNs);
  }
  ++sleeps_;
  --driving_;
  lock.unlock();
  const bool rung = PollFds(doorbell_, sentinel_kick_.get(),
                            Until(sentinel_until_ns_, now_ns));
  lock.lock();
  ++driving_;
  sentinel_waiter_ = nullptr;
  sentinel_ = Sentinel::kNone;
  if (armed_) Disarm();
  if (sentinel_kicked_) {
    sentinel_kicked_ = false;
    Silence(sentinel_kick_);
  }
  const uint64_t woken_ns = clock_.NowNs();
  const bool came = PollOnce(woken_ns);
  if (!rung) return;
  ports_rung_ = true;
  // Whoever is woken for a frame should not wait for the ports' slow work.
  if (!came) ServeRungPorts(woken_ns);
  if (max_spin_ns_ > 0 && !ready()) {
    (void)Spin(lock, ready, woken_ns, kLingerNs, deadline_ns);
  }
}

void Driver::ServeRungPorts(uint64_t now_ns) {
  ports_rung_ = false;
  engine_.ServicePorts();
  PollOnce(now_ns);
}

void Driver::SleepAsFollower(std::unique_lock<AdaptiveMutex>& lock,
                             absl::FunctionRef<bool()> ready,
                             uint64_t deadline_ns, bool takes_watch) {
  Waiter self{ready, takes_watch};
  followers_.push_back(&self);
  ++sleeps_;
  --driving_;
  HandOver();  // as far as the ports are concerned, this thread is gone
  const uint64_t now_ns = clock_.NowNs();
  lock.unlock();
  FutexWait(self.woken, 0, Until(deadline_ns, now_ns));
  lock.lock();
  ++driving_;
  followers_.remove(&self);
  PollOnce(clock_.NowNs());
}

void Driver::HandOver() {
  if (driving_ > 0) return;  // that thread will
  if (sentinel_ == Sentinel::kWaiter) {
    // We may have disarmed under the sentinel's feet.
    while (!armed_ && !Arm()) PollOnce(clock_.NowNs());
    if (engine_.NextDeadline() < sentinel_until_ns_) KickSentinel();
    return;
  }
  for (Waiter* next : followers_) {
    if (!next->takes_watch) continue;
    followers_.remove(next);
    next->woken.store(1, std::memory_order_release);
    FutexWakeOne(next->woken);
    return;
  }
  if (!has_service()) return;
  // Asleep for long, and on doorbells that are no longer armed: from now on it
  // is to nap, so that this is paid once for each busy period.
  const bool deaf = sentinel_ == Sentinel::kService && !armed_;
  if (deaf || service_nap_ns_ > 2 * kWatchNs) {
    sentinel_ = Sentinel::kNone;
    service_nap_ns_ = kWatchNs;
    KickService();
  }
}

void Driver::Service() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const uint64_t now_ns = clock_.NowNs();
    const bool others = driving_ > 0 || sentinel_ == Sentinel::kWaiter ||
                        now_ns < LastDriveNs() + kWatchNs;
    if (others) {
      ServiceNap(lock);
    } else {
      ServiceSleep(lock);
    }
  }
}

void Driver::ServiceNap(std::unique_lock<AdaptiveMutex>& lock) {
  // The longer somebody else keeps the watch, the longer the nap.
  service_nap_ns_ = sentinel_ == Sentinel::kWaiter && service_nap_ns_ > 0
                        ? std::min(service_nap_ns_ * 2, kLongestNapNs)
                        : kWatchNs;
  const uint64_t nap_ns = service_nap_ns_;
  lock.unlock();
  // While somebody drives there is nothing for us to do, and whoever drives
  // should not have to wait for us to say so.
  uint64_t begun_ns;
  do {
    begun_ns = clock_.NowNs();
    if (PollFds(service_kick_.get(), -1, nap_ns)) {
      Silence(service_kick_);
      break;
    }
  } while (nap_ns == kWatchNs && LastDriveNs() > begun_ns);
  lock.lock();
}

void Driver::ServiceSleep(std::unique_lock<AdaptiveMutex>& lock) {
  service_nap_ns_ = 0;
  // Stay awake while there is something to do, and a little longer.
  uint64_t now_ns = clock_.NowNs();
  uint64_t idle_since_ns = now_ns;
  do {
    const uint64_t frames = engine_.counters().rx_frames;
    PollOnce(now_ns);
    if (stopping_ || driving_ > 0 || sentinel_ == Sentinel::kWaiter) return;
    if (engine_.counters().rx_frames != frames) idle_since_ns = now_ns;
    lock.unlock();
    CpuRelax();
    lock.lock();
    now_ns = clock_.NowNs();
  } while (max_spin_ns_ > 0 && now_ns < idle_since_ns + kServiceLingerNs);
  if (stopping_ || driving_ > 0 || sentinel_ == Sentinel::kWaiter) return;
  if (ports_rung_) ServeRungPorts(now_ns);
  engine_.FlushAcks();
  if (!armed_ && !Arm()) return;
  sentinel_ = Sentinel::kService;
  sentinel_until_ns_ = engine_.NextDeadline();
  if (!ports_can_wake_) {
    sentinel_until_ns_ = std::min(sentinel_until_ns_, now_ns + kBlindPollNs);
  }
  ++sleeps_;
  const uint64_t timeout_ns = Until(sentinel_until_ns_, now_ns);
  lock.unlock();
  const bool rung = PollFds(doorbell_, service_kick_.get(), timeout_ns);
  lock.lock();
  Silence(service_kick_);
  if (sentinel_ == Sentinel::kService) {
    sentinel_ = Sentinel::kNone;
    if (armed_) Disarm();
  }
  if (rung) engine_.ServicePorts();
}

}  // namespace tripwire
