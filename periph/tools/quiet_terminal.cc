// SPDX-License-Identifier: BSD-3-Clause
#include "periph/tools/quiet_terminal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

namespace tripwire::periph::tools {
namespace {

// Who is in the background would be stopped by asking.
bool IsOurs(int terminal) {
  const pid_t group = ::tcgetpgrp(terminal);
  return group == -1 || group == ::getpgrp();
}

termios Quiet(termios settings) {
  settings.c_iflag &= ~static_cast<tcflag_t>(IXON);
  settings.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ECHONL);
  settings.c_cc[VMIN] = 1;
  settings.c_cc[VTIME] = 0;
  settings.c_cc[VQUIT] = settings.c_cc[VSUSP] = _POSIX_VDISABLE;
  return settings;
}

}  // namespace

QuietTerminal::QuietTerminal(int terminal, int keys, std::function<void()> quit)
    : terminal_(terminal), keys_(keys), quit_(std::move(quit)) {
  termios before{};
  if (!IsOurs(terminal_) || ::tcgetattr(terminal_, &before) != 0) return;
  const termios quiet = Quiet(before);
  if (::tcsetattr(terminal_, TCSANOW, &quiet) != 0) return;
  before_ = before;
  if (::isatty(keys_) == 0) return;
  stop_.reset(::eventfd(0, EFD_CLOEXEC));
  if (stop_) thread_ = std::thread([this] { Run(); });
}

QuietTerminal::~QuietTerminal() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(stop_.get(), &one, sizeof one);
    thread_.join();
  }
  if (!before_.has_value()) return;
  ::tcflush(terminal_, TCIFLUSH);
  ::tcsetattr(terminal_, TCSANOW, &*before_);
}

void QuietTerminal::Run() {
  for (;;) {
    pollfd waits[] = {{keys_, POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (waits[1].revents != 0) return;
    char key = 0;
    const ssize_t n = ::read(keys_, &key, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n == 1 && key != 'q' && key != 'Q') continue;
    // Also when the terminal has gone.
    return quit_();
  }
}

}  // namespace tripwire::periph::tools
