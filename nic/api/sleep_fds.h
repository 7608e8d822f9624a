// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_SLEEP_FDS_H_
#define TRIPWIRE_NIC_API_SLEEP_FDS_H_

#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdint>
#include <ctime>
#include <iterator>

#include "nic/base/clock.h"
#include "nic/base/fd.h"

namespace tripwire {

// The descriptors that the driver's threads sleep on, and wake each other by.

inline void Signal(const UniqueFd& fd) {
  const uint64_t one = 1;
  // An eventfd that is already at its maximum is readable: nothing is lost.
  [[maybe_unused]] const ssize_t n = write(fd.get(), &one, sizeof one);
}

inline void Silence(const UniqueFd& fd) {
  uint64_t count;
  [[maybe_unused]] const ssize_t n = read(fd.get(), &count, sizeof count);
}

inline timespec Timespec(uint64_t ns) {
  return {static_cast<time_t>(ns / kSecond), static_cast<long>(ns % kSecond)};
}

// Returns whether `first` is readable.
inline bool PollFds(int first, int second, int timer, uint64_t timeout_ns) {
  pollfd fds[] = {{first, POLLIN, 0}, {second, POLLIN, 0}, {timer, POLLIN, 0}};
  const timespec timeout = Timespec(timeout_ns);
  ppoll(fds, std::size(fds), timeout_ns == kNever ? nullptr : &timeout,
        nullptr);
  return (fds[0].revents & POLLIN) != 0;
}

inline UniqueFd MakeTimer() {
  return UniqueFd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

// 0: it is not to ring.
inline void SetTimer(const UniqueFd& timer, uint64_t in_ns) {
  itimerspec once{};
  once.it_value = Timespec(in_ns);
  timerfd_settime(timer.get(), 0, &once, nullptr);
}

// Whether the kernel has epoll_pwait2 (Linux 5.11).
inline bool CanWaitPrecisely() {
  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event;
  const timespec at_once{};
  return epoll_pwait2(epoll.get(), &event, 1, &at_once, nullptr) == 0;
}

inline uint64_t Until(uint64_t deadline_ns, uint64_t now_ns) {
  if (deadline_ns == kNever) return kNever;
  return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_SLEEP_FDS_H_
