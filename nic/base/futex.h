// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_FUTEX_H_
#define TRIPWIRE_NIC_BASE_FUTEX_H_

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <ctime>

namespace tripwire {

// Sleeps while `word` holds `expected`, at most `timeout_ns` (UINT64_MAX: for
// ever). May return early; callers loop.
inline void FutexWait(std::atomic<uint32_t>& word, uint32_t expected,
                      uint64_t timeout_ns) {
  timespec timeout;
  timeout.tv_sec = static_cast<time_t>(timeout_ns / 1'000'000'000u);
  timeout.tv_nsec = static_cast<long>(timeout_ns % 1'000'000'000u);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE,
          expected, timeout_ns == UINT64_MAX ? nullptr : &timeout, nullptr, 0);
}

inline void FutexWakeOne(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, 1,
          nullptr, nullptr, 0);
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_FUTEX_H_
