// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_INTERRUPT_H_
#define TRIPWIRE_NIC_BASE_INTERRUPT_H_

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <utility>

#include "nic/base/fd.h"

namespace tripwire {

inline sigset_t InterruptSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGTERM);
  return set;
}

// Blocks the two signals in this thread and those it makes from now on.
inline void BlockInterrupts() {
  const sigset_t set = InterruptSignals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

// While it lives, SIGINT and SIGTERM do not end the program: they set a flag,
// once, and call `wake` from another thread. REQUIRES: made while the program
// has no other threads but those that block these signals or may be interrupted
// by them.
class Interrupt {
 public:
  explicit Interrupt(std::function<void()> wake) : wake_(std::move(wake)) {
    const sigset_t set = InterruptSignals();
    signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
    stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    if (signals_ && stop_) thread_ = std::thread([this] { Run(); });
  }
  ~Interrupt() {
    if (!thread_.joinable()) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t size =
        ::write(stop_.get(), &one, sizeof one);
    thread_.join();
  }
  Interrupt(const Interrupt&) = delete;

  bool came() const { return came_.load(std::memory_order_relaxed); }

 private:
  void Run() {
    pollfd waits[] = {{signals_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    while (::poll(waits, 2, -1) < 0) {
    }
    if (waits[0].revents == 0) return;
    came_.store(true, std::memory_order_relaxed);
    wake_();
  }

  const std::function<void()> wake_;
  UniqueFd signals_, stop_;
  std::atomic<bool> came_{false};  // a flag; guards nothing
  std::thread thread_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_INTERRUPT_H_
