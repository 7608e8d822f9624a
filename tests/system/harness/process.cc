// SPDX-License-Identifier: BSD-3-Clause
#include "tests/system/harness/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

#ifndef TRIPWIRE_BIN_DIR
#error "TRIPWIRE_BIN_DIR must name the directory of the programs"
#endif

namespace tripwire::systest {
namespace {

std::string ReadAll(int fd) {
  std::string text;
  char buffer[8192];
  off_t offset = 0;
  ssize_t n;
  while (fd >= 0 && (n = ::pread(fd, buffer, sizeof buffer, offset)) > 0) {
    text.append(buffer, static_cast<size_t>(n));
    offset += n;
  }
  return text;
}

[[noreturn]] void ExecChild(const Argv& argv, const SpawnOptions& options,
                            int out_fd, int err_fd, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(126);
  const int null_fd = ::open("/dev/null", O_RDONLY);
  ::dup2(null_fd, 0);
  ::dup2(out_fd, 1);
  ::dup2(err_fd, 2);
  const auto check = [](int rc, const char* what) {
    if (rc != 0) {
      ::dprintf(2, "spawn: %s: %s\n", what, std::strerror(errno));
      ::_exit(126);
    }
  };
  if (options.network_fd >= 0) {
    check(::setns(options.network_fd, CLONE_NEWNET), "setns");
  }
  if (options.uid != 0) {
    check(::setgroups(0, nullptr), "setgroups");
    check(::setgid(options.uid), "setgid");
    check(::setuid(options.uid), "setuid");
    // Changing ids clears the death signal.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  if (!options.directory.empty()) {
    check(::chdir(options.directory.c_str()), "chdir");
  }
  for (const std::string& variable : options.environment) {
    ::putenv(const_cast<char*>(variable.c_str()));
  }
  // What tests hold open is theirs alone: a copy would keep locks and mounts.
  check(::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC), "close_range");
  std::vector<char*> pointers;
  for (const std::string& argument : argv) {
    pointers.push_back(const_cast<char*>(argument.c_str()));
  }
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  ::dprintf(2, "spawn: %s: %s\n", pointers[0], std::strerror(errno));
  ::_exit(127);
}

}  // namespace

Process::Process(const Argv& argv, const SpawnOptions& options) {
  out_fd_ = ::memfd_create("out", MFD_CLOEXEC);
  err_fd_ = ::memfd_create("err", MFD_CLOEXEC);
  if (out_fd_ < 0 || err_fd_ < 0)
    throw std::runtime_error("memfd_create failed");
  // Appending, as the two ends of a shared log must.
  ::fcntl(out_fd_, F_SETFL, O_APPEND);
  ::fcntl(err_fd_, F_SETFL, O_APPEND);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ == 0) ExecChild(argv, options, out_fd_, err_fd_, parent);
}

Process::Process(Process&& other) noexcept { *this = std::move(other); }

Process& Process::operator=(Process&& other) noexcept {
  if (this == &other) return *this;
  Kill();
  pid_ = std::exchange(other.pid_, -1);
  exit_code_ = std::exchange(other.exit_code_, std::nullopt);
  if (out_fd_ >= 0) ::close(out_fd_);
  if (err_fd_ >= 0) ::close(err_fd_);
  out_fd_ = std::exchange(other.out_fd_, -1);
  err_fd_ = std::exchange(other.err_fd_, -1);
  return *this;
}

Process::~Process() {
  Kill();
  if (out_fd_ >= 0) ::close(out_fd_);
  if (err_fd_ >= 0) ::close(err_fd_);
}

bool Process::Running() { return pid_ > 0 && !Wait(0).has_value(); }

void Process::Signal(int signal) const {
  if (pid_ > 0 && !exit_code_) ::kill(pid_, signal);
}

std::optional<int> Process::Wait(double seconds) {
  if (exit_code_ || pid_ <= 0) return exit_code_;
  const double end = NowSeconds() + seconds;
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(pid_, &status, WNOHANG);
    if (pid == pid_) {
      exit_code_ =
          WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      return exit_code_;
    }
    if (NowSeconds() >= end) return std::nullopt;
    SleepMs(2);
  }
}

void Process::Kill() {
  if (pid_ <= 0 || exit_code_) return;
  ::kill(pid_, SIGKILL);
  Wait(30);
}

std::string Process::out() const { return ReadAll(out_fd_); }
std::string Process::err() const { return ReadAll(err_fd_); }

uint64_t Process::CpuTicks() const {
  std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
  std::stringstream text;
  text << file.rdbuf();
  // The name, in parentheses, may hold anything; fields 14 and 15 are counted
  // from after it (proc(5)).
  const std::string stat = text.str();
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos)
    throw std::runtime_error("process is gone");
  std::istringstream fields(stat.substr(name_end + 1));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  uint64_t user = 0, system = 0;
  fields >> user >> system;
  return user + system;
}

uint64_t Process::OpenFiles() const {
  uint64_t count = 0;
  DIR* dir = ::opendir(("/proc/" + std::to_string(pid_) + "/fd").c_str());
  if (dir == nullptr) throw std::runtime_error("process is gone");
  while (const dirent* entry = ::readdir(dir)) count += entry->d_name[0] != '.';
  ::closedir(dir);
  return count;
}

Result Execute(const Argv& argv, double timeout_seconds,
               const SpawnOptions& options) {
  Process process(argv, options);
  Result result;
  if (auto code = process.Wait(timeout_seconds)) {
    result.exit_code = *code;
  } else {
    process.Kill();
  }
  result.out = process.out();
  result.err = process.err();
  return result;
}

std::string MustRun(const Argv& argv, double timeout_seconds,
                    const SpawnOptions& options) {
  Result result = Execute(argv, timeout_seconds, options);
  if (result.exit_code != 0) {
    std::string text;
    for (const std::string& argument : argv) text += argument + " ";
    throw std::runtime_error(text + "ended with " +
                             std::to_string(result.exit_code) + ": " +
                             result.out + result.err);
  }
  return result.out;
}

std::string Quoted(const Argv& argv) {
  std::string line;
  for (const std::string& word : argv) line += "'" + word + "' ";
  return line;
}

std::string Program(const std::string& name) {
  return std::string(TRIPWIRE_BIN_DIR) + "/" + name;
}

void SleepMs(int milliseconds) {
  timespec time{milliseconds / 1000, (milliseconds % 1000) * 1'000'000L};
  while (::nanosleep(&time, &time) != 0 && errno == EINTR) {
  }
}

double NowSeconds() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) +
         static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace tripwire::systest
