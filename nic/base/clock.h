// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_CLOCK_H_
#define TRIPWIRE_NIC_BASE_CLOCK_H_

#include <cstdint>
#include <ctime>

namespace tripwire {

// A monotonic clock in nanoseconds. Protocol code only ever sees time through
// this interface, so a simulation can hand it a clock that moves by command.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual uint64_t NowNs() = 0;
};

// CLOCK_MONOTONIC. Thread-safe.
class SystemClock final : public Clock {
 public:
  uint64_t NowNs() override {
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return static_cast<uint64_t>(ts.tv_sec) * 1'000'000'000u +
           static_cast<uint64_t>(ts.tv_nsec);
  }
};

// Moves only when told. Single-threaded.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(uint64_t start_ns = 1) : now_ns_(start_ns) {}
  uint64_t NowNs() override { return now_ns_; }
  void AdvanceTo(uint64_t now_ns) {
    if (now_ns > now_ns_) now_ns_ = now_ns;
  }
  void AdvanceBy(uint64_t delta_ns) { now_ns_ += delta_ns; }

 private:
  uint64_t now_ns_;
};

inline constexpr uint64_t kNever = UINT64_MAX;  // a deadline that never comes
inline constexpr uint64_t kMicrosecond = 1'000;
inline constexpr uint64_t kMillisecond = 1'000'000;
inline constexpr uint64_t kSecond = 1'000'000'000;

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_CLOCK_H_
