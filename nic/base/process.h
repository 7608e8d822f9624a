// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_PROCESS_H_
#define TRIPWIRE_NIC_BASE_PROCESS_H_

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>

// What programs that stay ask of the system before they begin.
namespace tripwire {

// This host's name; "localhost" if it has none.
inline std::string HostName() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') {
    return "localhost";
  }
  return name;
}

// As many open files as this user may have.
inline void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// The signals that end a program, or would have it read its configuration anew,
// come to whoever waits for them (sigwait, signalfd), not to whatever runs;
// returns them. A peer that has gone is an error of writing to it, no signal.
// REQUIRES: the process has no other thread yet.
inline sigset_t BlockServiceSignals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int each : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&signals, each);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return signals;
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_PROCESS_H_
