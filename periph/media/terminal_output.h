// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_TERMINAL_OUTPUT_H_
#define TRIPWIRE_PERIPH_MEDIA_TERMINAL_OUTPUT_H_

#include <string_view>

#include "nic/base/fd.h"

namespace tripwire::periph {

// Writes to a terminal that may take nothing for any time: the user stopped it
// (Ctrl-S), or whoever shows it hangs. What waits for it can be stopped.
//
// Thread safety: one thread writes; Stop on any.
class TerminalOutput {
 public:
  // `terminal` is opened anew, so that writes that do not block are nobody
  // else's business. (Where that is not allowed they block.)
  explicit TerminalOutput(int terminal);

  // All of it, as the terminal takes it; less if that fails, or after Stop.
  void Write(std::string_view text);
  // A Write under way, and every later one, returns at once.
  void Stop();
  // Also after Stop: as much as the terminal takes within so long.
  void WriteWithin(std::string_view text, int limit_ms);

 private:
  void WriteUntil(std::string_view text, int stop, int limit_ms);

  UniqueFd terminal_;
  UniqueFd stop_;  // an eventfd, never read
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_TERMINAL_OUTPUT_H_
