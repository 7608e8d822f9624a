// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_DRIVER_H_
#define TRIPWIRE_NIC_API_DRIVER_H_

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "nic/api/contention.h"
#include "nic/api/nic.h"
#include "nic/base/adaptive_mutex.h"
#include "nic/base/clock.h"
#include "nic/base/fd.h"
#include "nic/datapath/engine.h"

namespace tripwire {

// Who runs the engine, and who sleeps (docs/threads.md tells it at length).
//
// Any thread that waits drives: it takes the lock, polls, looks whether what it
// waits for has come, and lets go. After its spin budget it blocks. One blocked
// thread, the sentinel, sleeps on the ports' doorbells, armed; the others sleep
// each on its own futex until whoever drives finds them ready. The service
// thread is sentinel only when no waiter is; while others drive it naps on a
// timer, so that a busy program never pays for waking it.
//
// Thread safety: everything may be called from any thread; `mutex()` guards the
// engine.
// Invariants (under the lock):
//  1. If a thread is blocked, then a sentinel sleeps with the ports armed, or
//     some thread is driving, or the service thread looks again within
//     kWatchNs.
//  2. Ports are armed only while a sentinel sleeps.
class Driver {
 public:
  // `can_block` is false on a clock that does not move by itself: WaitUntil
  // then polls until nothing more happens.
  Driver(Engine& engine, Clock& clock, uint64_t max_spin_ns, bool can_block);
  ~Driver();

  void StartService();
  void StopService();
  bool has_service() const { return service_.joinable(); }

  AdaptiveMutex& mutex() { return mutex_; }

  bool Poll();
  bool WaitUntil(absl::FunctionRef<bool()> ready, uint64_t deadline_ns,
                 PortWatch watch = PortWatch::kTake);
  // Lets every blocked thread look again.
  void Notify();
  // After an operation issued under the lock: makes sure the sentinel will wake
  // for its timers.
  void NoteWork();

  uint64_t sleeps() const { return sleeps_; }
  uint64_t contended() const { return contention_.times(); }

 private:
  struct Waiter {
    absl::FunctionRef<bool()> ready;
    bool takes_watch;
    std::atomic<uint32_t> woken{0};
  };
  struct Woken {
    bool rung = false;
    std::array<epoll_event, 8> events;  // of only_port_
    int event_count = 0;
  };
  enum class Sentinel : uint8_t { kNone, kWaiter, kService };
  // How long it pays to look before one sleeps, by what looking brought before.
  class Budget {
   public:
    void Learn(bool paid) { success_ = 0.9 * success_ + (paid ? 0.1 : 0.0); }
    uint64_t of(uint64_t most_ns) const;

   private:
    double success_ = 1.0;
  };

  bool PollOnce(uint64_t now_ns);
  // How long to look before one sleeps, and for more after something came.
  uint64_t SpinNs(uint64_t now_ns) const;
  uint64_t LingerNs(uint64_t now_ns) const;
  void WakeReady(bool all);
  bool Arm();
  void Disarm();
  uint64_t LastDriveNs() const {
    return last_drive_ns_.load(std::memory_order_relaxed);
  }
  bool Spin(std::unique_lock<AdaptiveMutex>& lock,
            absl::FunctionRef<bool()> ready, uint64_t start_ns,
            uint64_t budget_ns, uint64_t deadline_ns);
  void StepAside();
  void Linger(std::unique_lock<AdaptiveMutex>& lock,
              absl::FunctionRef<bool()> ready, uint64_t woken_ns,
              uint64_t deadline_ns);
  bool Block(std::unique_lock<AdaptiveMutex>& lock,
             absl::FunctionRef<bool()> ready, uint64_t deadline_ns,
             bool takes_watch);
  void SleepAsSentinel(std::unique_lock<AdaptiveMutex>& lock,
                       absl::FunctionRef<bool()> ready, uint64_t deadline_ns);
  void SleepAsFollower(std::unique_lock<AdaptiveMutex>& lock,
                       absl::FunctionRef<bool()> ready, uint64_t deadline_ns,
                       bool takes_watch);
  // Leaves driving: somebody must watch the ports if anybody still waits.
  void HandOver();
  void BringForward();
  // What the ports' descriptors had to say, once there is time for it.
  void ServeRungPorts(uint64_t now_ns);
  // The sentinel's sleep, without the lock; what woke it is for HearPorts.
  Woken SleepOnPorts(uint64_t timeout_ns);
  Heard HearPorts(const Woken& woken);
  void KickSentinel();
  void KickService();

  void Service();
  void ServiceNap(std::unique_lock<AdaptiveMutex>& lock);
  void ServiceSleep(std::unique_lock<AdaptiveMutex>& lock);

  Engine& engine_;
  Clock& clock_;
  const uint64_t max_spin_ns_;
  const bool can_block_;
  bool ports_can_wake_ = true;

  AdaptiveMutex mutex_;
  UniqueFd doorbells_;      // epoll: all ports
  int doorbell_ = -1;       // that, or the only port's
  Port* only_port_ = nullptr;  // in whose descriptor sentinel_kick_ is, too
  UniqueFd sentinel_kick_;  // eventfds
  UniqueFd sentinel_timer_;  // timers that were set while it slept
  UniqueFd service_kick_;
  UniqueFd watch_timer_;  // for the service thread, when nobody keeps the watch

  Sentinel sentinel_ = Sentinel::kNone;
  Waiter* sentinel_waiter_ = nullptr;
  uint64_t sentinel_until_ns_ = kNever;
  bool armed_ = false;
  bool sentinel_kicked_ = false;  // sentinel_kick_ is readable
  bool sentinel_timed_ = false;   // sentinel_timer_ is set
  bool ports_rung_ = false;       // a doorbell was heard, and no port asked why
  std::list<Waiter*> followers_;
  uint32_t driving_ = 0;        // threads in WaitUntil that are not blocked
  // By anyone but the service thread, which looks at it without the lock: a
  // number.
  std::atomic<uint64_t> last_drive_ns_{0};
  uint64_t seen_news_ = 0;
  Budget spin_budget_, linger_budget_;
  Contention contention_;
  bool linger_paid_ = true;  // the last time
  uint64_t lingered_ns_ = 0;
  uint64_t sleeps_ = 0;

  std::thread service_;
  bool stopping_ = false;
  bool service_trusts_watch_ = false;  // it naps until watch_timer_ wakes it
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_DRIVER_H_
