// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/terminal_output.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>

namespace tripwire::periph {

TerminalOutput::TerminalOutput(int terminal)
    : terminal_(::open(("/proc/self/fd/" + std::to_string(terminal)).c_str(),
                       O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)),
      stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (!terminal_) terminal_.reset(::fcntl(terminal, F_DUPFD_CLOEXEC, 0));
}

void TerminalOutput::Write(std::string_view text) {
  WriteUntil(text, stop_.get(), -1);
}

void TerminalOutput::Stop() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(stop_.get(), &one, sizeof one);
}

void TerminalOutput::WriteWithin(std::string_view text, int limit_ms) {
  WriteUntil(text, -1, limit_ms);
}

// `limit_ms` of waiting at a time.
void TerminalOutput::WriteUntil(std::string_view text, int stop, int limit_ms) {
  while (!text.empty()) {
    pollfd waits[] = {{terminal_.get(), POLLOUT, 0}, {stop, POLLIN, 0}};
    const int ready = ::poll(waits, 2, limit_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0 || waits[1].revents != 0) return;
    const ssize_t n = ::write(terminal_.get(), text.data(), text.size());
    if (n < 0 && errno != EAGAIN && errno != EINTR) return;
    if (n > 0) text.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace tripwire::periph
