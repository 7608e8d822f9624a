// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_QUIET_TERMINAL_H_
#define TRIPWIRE_PERIPH_TOOLS_QUIET_TERMINAL_H_

#include <termios.h>

#include <functional>
#include <optional>
#include <thread>

#include "nic/base/fd.h"

namespace tripwire::periph::tools {

// While it lives, the terminal that a picture is drawn on shows nothing of what
// is typed, and gives it at once: `q` calls `quit`, on a thread of its own.
// Ctrl-C interrupts as ever; the keys that would end or stop the program in the
// middle of a picture do nothing. Then the terminal is as it was before, and
// what was typed meanwhile is thrown away.
//
// Nothing is done to a terminal that another program has at the moment, and no
// keys are taken from an input that is none.
class QuietTerminal {
 public:
  // `terminal` is where is drawn, `keys` where it is typed; both outlive it.
  QuietTerminal(int terminal, int keys, std::function<void()> quit);
  ~QuietTerminal();
  QuietTerminal(const QuietTerminal&) = delete;

 private:
  void Run();

  const int terminal_, keys_;
  const std::function<void()> quit_;
  std::optional<termios> before_;
  UniqueFd stop_;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace tripwire::periph::tools

#endif  // TRIPWIRE_PERIPH_TOOLS_QUIET_TERMINAL_H_
