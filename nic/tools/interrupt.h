// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_TOOLS_INTERRUPT_H_
#define TRIPWIRE_NIC_TOOLS_INTERRUPT_H_

#include <atomic>
#include <functional>
#include <thread>

#include "nic/base/fd.h"

namespace tripwire::tools {

// While it lives, SIGINT and SIGTERM do not end the program: they set a flag,
// once, and call `wake` from another thread. REQUIRES: made while the program
// has no other threads but those that block these signals or may be interrupted
// by them.
class Interrupt {
 public:
  explicit Interrupt(std::function<void()> wake);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;

  bool came() const { return came_.load(std::memory_order_relaxed); }

 private:
  void Run();

  const std::function<void()> wake_;
  UniqueFd signals_, stop_;
  std::atomic<bool> came_{false};  // a flag; guards nothing
  std::thread thread_;
};

// Blocks the two signals in this thread and those it makes from now on.
void BlockInterrupts();

}  // namespace tripwire::tools

#endif  // TRIPWIRE_NIC_TOOLS_INTERRUPT_H_
