// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/driver.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "nic/api/sleep_fds.h"
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
// Who is woken by a frame, or sees some while it spins, looks at most so much
// longer for the next: much data comes in many frames, and is not worth a sleep
// between them.
constexpr uint64_t kLingerNs = 100 * kMicrosecond;
// What is left of a budget for looking that never pays.
constexpr double kLeastBudget = 0.05;

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
  watch_timer_ = MakeTimer();
  sentinel_timer_ = MakeTimer();
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
  if (doorbell_ != doorbells_.get() && CanWaitPrecisely() &&
      engine_.ports()[0]->Adopt(sentinel_kick_.get()) &&
      engine_.ports()[0]->Adopt(sentinel_timer_.get())) {
    only_port_ = engine_.ports()[0].get();
  }
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
  BringForward();
}

// The sentinel must wake for an earlier timer than it knew of.
void Driver::BringForward() {
  const uint64_t deadline_ns = engine_.NextDeadline();
  if (deadline_ns >= sentinel_until_ns_) return;
  if (sentinel_ == Sentinel::kService) return KickService();
  // Nearly always what the timer is for comes in time, and it never rings.
  sentinel_until_ns_ = deadline_ns;
  sentinel_timed_ = true;
  SetTimer(sentinel_timer_,
           std::max<uint64_t>(Until(deadline_ns, clock_.NowNs()), 1));
}

uint64_t Driver::Budget::of(uint64_t most_ns) const {
  return static_cast<uint64_t>(static_cast<double>(most_ns) *
                               std::clamp(2 * success_, kLeastBudget, 1.0));
}

uint64_t Driver::SpinNs(uint64_t now_ns) const {
  return contention_.is_there(now_ns) ? 0 : spin_budget_.of(max_spin_ns_);
}

uint64_t Driver::LingerNs(uint64_t now_ns) const {
  return contention_.is_there(now_ns) ? 0 : linger_budget_.of(kLingerNs);
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
    done = Spin(lock, ready, start_ns, SpinNs(start_ns), deadline_ns);
    // Whether spinning to the limit would have met it: a budget that only asked
    // whether it was enough itself would never grow again.
    bool spin_pays = done;
    if (!done) {
      done = Block(lock, ready, deadline_ns, takes_watch);
      const uint64_t end_ns = clock_.NowNs();
      last_drive_ns_.store(end_ns, std::memory_order_relaxed);
      spin_pays = done && end_ns - start_ns <= max_spin_ns_;
    }
    spin_budget_.Learn(spin_pays);
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
      end_ns =
          std::max(end_ns, std::min(now_ns + LingerNs(now_ns), deadline_ns));
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
    if (!busy && !is_long && turn % kClockTurns != 0) continue;
    const uint64_t looked_ns = std::exchange(now_ns, clock_.NowNs());
    contention_.Note(looked_ns, now_ns);
    if (contention_.is_there(now_ns)) end_ns = now_ns;
  }
}

void Driver::StepAside() {
  const uint32_t waiting = mutex_.waiting();
  CpuRelax();
  for (int i = 1; i < kAsideTurns && waiting > 0 && mutex_.waiting() >= waiting;
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
  if (ports_rung_ ||
      (only_port_ != nullptr && only_port_->Hear({}) == Heard::kSlowWork)) {
    return ServeRungPorts(clock_.NowNs());
  }
  if (sentinel_ == Sentinel::kService) KickService();
  sentinel_ = Sentinel::kWaiter;
  engine_.FlushAcks();
  if (!armed_ && !Arm()) {
    sentinel_ = Sentinel::kNone;
    PollOnce(clock_.NowNs());
    return;
  }
  if (only_port_ != nullptr) engine_.PortsAreHeard();
  Waiter self{ready, true};
  sentinel_waiter_ = &self;
  const uint64_t now_ns = clock_.NowNs();
  sentinel_until_ns_ = std::min(deadline_ns, engine_.NextDeadline());
  if (!ports_can_wake_) {
    sentinel_until_ns_ = std::min(sentinel_until_ns_, now_ns + kBlindPollNs);
  }
  const uint64_t timeout_ns = Until(sentinel_until_ns_, now_ns);
  ++sleeps_;
  --driving_;
  lock.unlock();
  const Woken woken = SleepOnPorts(timeout_ns);
  lock.lock();
  ++driving_;
  sentinel_waiter_ = nullptr;
  sentinel_ = Sentinel::kNone;
  if (armed_) Disarm();
  if (sentinel_kicked_) {
    sentinel_kicked_ = false;
    Silence(sentinel_kick_);
  }
  if (std::exchange(sentinel_timed_, false)) SetTimer(sentinel_timer_, 0);
  const uint64_t woken_ns = clock_.NowNs();
  const bool came = PollOnce(woken_ns);
  const Heard heard = HearPorts(woken);
  if (heard == Heard::kNothing) return;
  ports_rung_ |= heard == Heard::kSlowWork;
  // Whoever is woken for a frame should not wait for the ports' slow work.
  if (ports_rung_ && !came) ServeRungPorts(woken_ns);
  if (max_spin_ns_ > 0 && !ready()) Linger(lock, ready, woken_ns, deadline_ns);
}

// A bell was heard, but what this thread waits for has not come. To look on has
// paid if it brought a frame, or would have, had it been longer: then the next
// bell comes soon. So a receiver of much data looks on, and one who is woken
// now and then for a frame that is not his goes back to sleep.
void Driver::Linger(std::unique_lock<AdaptiveMutex>& lock,
                    absl::FunctionRef<bool()> ready, uint64_t woken_ns,
                    uint64_t deadline_ns) {
  linger_budget_.Learn(linger_paid_ || woken_ns < lingered_ns_ + kLingerNs);
  const uint64_t frames = engine_.counters().rx_frames;
  (void)Spin(lock, ready, woken_ns, LingerNs(woken_ns), deadline_ns);
  linger_paid_ = engine_.counters().rx_frames != frames;
  lingered_ns_ = woken_ns;
}

Driver::Woken Driver::SleepOnPorts(uint64_t timeout_ns) {
  Woken woken;
  if (only_port_ == nullptr) {
    woken.rung = PollFds(doorbell_, sentinel_kick_.get(),
                         sentinel_timer_.get(), timeout_ns);
    return woken;
  }
  const timespec timeout = Timespec(timeout_ns);
  woken.event_count = epoll_pwait2(
      doorbell_, woken.events.data(), static_cast<int>(woken.events.size()),
      timeout_ns == kNever ? nullptr : &timeout, nullptr);
  return woken;
}

Heard Driver::HearPorts(const Woken& woken) {
  if (woken.rung) return Heard::kSlowWork;  // nobody asked what it is about
  if (woken.event_count <= 0) return Heard::kNothing;
  return only_port_->Hear(
      {woken.events.data(), static_cast<size_t>(woken.event_count)});
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
    return BringForward();
  }
  for (Waiter* next : followers_) {
    if (!next->takes_watch) continue;
    followers_.remove(next);
    next->woken.store(1, std::memory_order_release);
    FutexWakeOne(next->woken);
    return;
  }
  if (!has_service()) return;
  if (sentinel_ == Sentinel::kService) {
    if (armed_) return;
    // Asleep on doorbells that are no longer armed: from now on it is to nap,
    // so that this is paid once for each busy period.
    sentinel_ = Sentinel::kNone;
    KickService();
  } else if (service_trusts_watch_) {
    service_trusts_watch_ = false;
    SetTimer(watch_timer_, kWatchNs);
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
  // Who keeps the watch sets the timer when he leaves it to nobody: not to wake
  // this thread then, but if nobody has come back by the time it is due.
  service_trusts_watch_ = sentinel_ == Sentinel::kWaiter;
  const bool is_long = service_trusts_watch_;
  lock.unlock();
  // While somebody drives there is nothing for us to do, and whoever drives
  // should not have to wait for us to say so.
  uint64_t begun_ns;
  do {
    begun_ns = clock_.NowNs();
    if (PollFds(service_kick_.get(), is_long ? watch_timer_.get() : -1, -1,
                is_long ? kLongestNapNs : kWatchNs)) {
      Silence(service_kick_);
      break;
    }
  } while (!is_long && LastDriveNs() > begun_ns);
  if (is_long) Silence(watch_timer_);
  lock.lock();
  service_trusts_watch_ = false;
}

void Driver::ServiceSleep(std::unique_lock<AdaptiveMutex>& lock) {
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
  const bool rung = PollFds(doorbell_, service_kick_.get(), -1, timeout_ns);
  lock.lock();
  Silence(service_kick_);
  if (sentinel_ == Sentinel::kService) {
    sentinel_ = Sentinel::kNone;
    if (armed_) Disarm();
  }
  if (rung) engine_.ServicePorts();
}

}  // namespace tripwire
