// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/interrupts.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>

#include "nic/base/fd.h"

namespace tripwire::fuse {
namespace {

uint64_t HexField(std::string_view status, std::string_view name) {
  const size_t at = status.find(name);
  if (at == std::string_view::npos) return 0;
  status.remove_prefix(at + name.size());
  while (!status.empty() && (status[0] == ' ' || status[0] == '\t')) {
    status.remove_prefix(1);
  }
  uint64_t value = 0;
  std::from_chars(status.data(), status.data() + status.size(), value, 16);
  return value;
}

constexpr uint64_t Bit(int signal) { return uint64_t{1} << (signal - 1); }

// Signals whose default action is not to end the process.
constexpr uint64_t kHarmless = Bit(SIGCHLD) | Bit(SIGCONT) | Bit(SIGURG) |
                               Bit(SIGWINCH) | Bit(SIGSTOP) | Bit(SIGTSTP) |
                               Bit(SIGTTIN) | Bit(SIGTTOU);
// Signals by which a user asks a program to stop, even when it handles them.
constexpr uint64_t kPleaseStop = Bit(SIGINT) | Bit(SIGTERM) | Bit(SIGQUIT) |
                                 Bit(SIGHUP) | Bit(SIGKILL);

}  // namespace

bool Interrupts::EndsWait(std::string_view status) {
  const uint64_t pending =
      HexField(status, "\nSigPnd:") | HexField(status, "\nShdPnd:");
  const uint64_t blocked = HexField(status, "\nSigBlk:");
  const uint64_t ignored = HexField(status, "\nSigIgn:");
  const uint64_t caught = HexField(status, "\nSigCgt:");
  const uint64_t acting = pending & ~blocked & ~ignored;
  return (acting & (kPleaseStop | ~(caught | kHarmless))) != 0;
}

Interrupts::~Interrupts() {
  {
    MutexLock lock(&mu_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Interrupts::Watch(const void* call, pid_t tid, rpc::CancelToken* token) {
  MutexLock lock(&mu_);
  if (stop_) return;
  watched_[call] = Watched{tid, token};
  if (!running_) {
    if (thread_.joinable()) thread_.join();  // it has ended already
    running_ = true;
    thread_ = std::thread([this] { Run(); });
  }
}

void Interrupts::Unwatch(const void* call) {
  MutexLock lock(&mu_);
  watched_.erase(call);
}

void Interrupts::Run() {
  constexpr absl::Duration kLookAgain = absl::Milliseconds(50);
  MutexLock lock(&mu_);
  // Linger for a while after the last: signals come in crowds.
  for (int idle = 0; !stop_ && idle < 20;) {
    idle = watched_.empty() ? idle + 1 : 0;
    for (const auto& [call, watched] : watched_) {
      char path[32];
      char text[4096];
      std::snprintf(path, sizeof(path), "/proc/%d/status",
                    static_cast<int>(watched.tid));
      UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
      const ssize_t n = fd ? read(fd.get(), text, sizeof(text)) : -1;
      // A caller that cannot be seen is not worth waiting for.
      if (n <= 0 || EndsWait({text, static_cast<size_t>(n)})) {
        watched.token->Cancel();
      }
    }
    mu_.AwaitWithTimeout(absl::Condition(&stop_), kLookAgain);
  }
  running_ = false;
}

}  // namespace tripwire::fuse
