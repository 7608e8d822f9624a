// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SYSTEM_HARNESS_PROCESS_H_
#define TRIPWIRE_TESTS_SYSTEM_HARNESS_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tripwire::systest {

using Argv = std::vector<std::string>;

struct SpawnOptions {
  int network_fd = -1;  // a network namespace to start in; -1: the caller's
  uid_t uid = 0;        // user and group to run as
  std::vector<std::string> environment;  // NAME=value, added to the caller's
  std::string directory;                 // working directory
};

// A child process, its output kept in files. Destroying it kills it; it dies
// with its parent whatever happens.
class Process {
 public:
  Process() = default;
  // Throws std::runtime_error when it cannot start.
  explicit Process(const Argv& argv, const SpawnOptions& options = {});
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  ~Process();

  pid_t pid() const { return pid_; }
  bool Running();
  void Signal(int signal) const;
  // The exit code (128 + signal for a killed process); nullopt after the time.
  std::optional<int> Wait(double seconds);
  // SIGKILL, and waits.
  void Kill();

  std::string out() const;
  std::string err() const;

  // Processor time used, in clock ticks (sysconf(_SC_CLK_TCK)).
  uint64_t CpuTicks() const;
  uint64_t OpenFiles() const;

 private:
  pid_t pid_ = -1;
  std::optional<int> exit_code_;
  int out_fd_ = -1;
  int err_fd_ = -1;
};

struct Result {
  int exit_code = -1;  // -1: killed for taking too long
  std::string out, err;
};

// Runs a command to its end.
Result Execute(const Argv& argv, double timeout_seconds = 60,
               const SpawnOptions& options = {});
// The same; throws when it fails.
std::string MustRun(const Argv& argv, double timeout_seconds = 60,
                    const SpawnOptions& options = {});

// As a line for a shell.
std::string Quoted(const Argv& argv);

// The full path of one of the project's programs.
std::string Program(const std::string& name);

// Calls `ready` every few milliseconds until it holds; false after the time.
template <typename F>
bool Eventually(double seconds, F ready);

void SleepMs(int milliseconds);
double NowSeconds();

template <typename F>
bool Eventually(double seconds, F ready) {
  const double end = NowSeconds() + seconds;
  while (!ready()) {
    if (NowSeconds() > end) return false;
    SleepMs(10);
  }
  return true;
}

}  // namespace tripwire::systest

#endif  // TRIPWIRE_TESTS_SYSTEM_HARNESS_PROCESS_H_
