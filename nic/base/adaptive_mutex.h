// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_ADAPTIVE_MUTEX_H_
#define TRIPWIRE_NIC_BASE_ADAPTIVE_MUTEX_H_

#include <mutex>

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
// wake-up costs far more than the section. Meets Lockable.
class AdaptiveMutex {
 public:
  void lock() {
    for (int i = 0; i < kSpins; ++i) {
      if (mutex_.try_lock()) return;
      CpuRelax();
    }
    mutex_.lock();
  }
  bool try_lock() { return mutex_.try_lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  static constexpr int kSpins = 200;
  std::mutex mutex_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_ADAPTIVE_MUTEX_H_
