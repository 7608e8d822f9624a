// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_ADAPTIVE_MUTEX_H_
#define TRIPWIRE_NIC_BASE_ADAPTIVE_MUTEX_H_

#include <atomic>
#include <cstdint>

#include "nic/base/futex.h"

namespace tripwire {

// Tells the processor that this is a spin loop.
inline void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A mutex for sections of about a microsecond: spins before it sleeps, because a
// wake-up costs far more than the section. Meets Lockable. (The futex protocol is
// that of Drepper, "Futexes Are Tricky", mutex 2.)
class AdaptiveMutex {
 public:
  void lock() {
    if (!try_lock()) LockSlowly();
  }
  bool try_lock() {
    uint32_t expected = kFree;
    // Pairs with the release in unlock.
    return state_.compare_exchange_strong(expected, kHeld,
                                          std::memory_order_acquire,
                                          std::memory_order_relaxed);
  }
  void unlock() {
    // Pairs with the acquires of those who lock next.
    if (state_.exchange(kFree, std::memory_order_release) == kSlept) {
      FutexWakeOne(state_);
    }
  }
  // How many threads are in lock(), waiting: for a holder that would go on
  // holding if nobody minds.
  uint32_t waiting() const { return waiting_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint32_t kFree = 0, kHeld = 1,
                            kSlept = 2;  // held, and somebody may sleep
  static constexpr int kSpins = 200;

  void LockSlowly() {
    waiting_.fetch_add(1, std::memory_order_relaxed);
    for (int i = 0; i < kSpins; ++i) {
      CpuRelax();
      if (state_.load(std::memory_order_relaxed) == kFree && try_lock()) {
        waiting_.fetch_sub(1, std::memory_order_relaxed);
        return;
      }
    }
    while (state_.exchange(kSlept, std::memory_order_acquire) != kFree) {
      FutexWait(state_, kSlept, UINT64_MAX);
    }
    waiting_.fetch_sub(1, std::memory_order_relaxed);
  }

  std::atomic<uint32_t> state_{kFree};
  std::atomic<uint32_t> waiting_{0};
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_ADAPTIVE_MUTEX_H_
