// SPDX-License-Identifier: BSD-3-Clause
#include "nic/tools/interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

namespace tripwire::tools {
namespace {

sigset_t Signals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

void BlockInterrupts() {
  const sigset_t set = Signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Interrupt::Interrupt(std::function<void()> wake) : wake_(std::move(wake)) {
  const sigset_t set = Signals();
  signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
  stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (signals_ && stop_) thread_ = std::thread([this] { Run(); });
}

Interrupt::~Interrupt() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t size = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void Interrupt::Run() {
  pollfd waits[] = {{signals_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  while (::poll(waits, 2, -1) < 0) {
  }
  if (waits[0].revents == 0) return;
  came_.store(true, std::memory_order_relaxed);
  wake_();
}

}  // namespace tripwire::tools
