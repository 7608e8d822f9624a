// SPDX-License-Identifier: BSD-3-Clause
#include "periph/device/program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

// NOLINTNEXTLINE: POSIX says that the program declares it.
extern char** environ;

namespace tripwire::periph {
namespace {

constexpr auto kGrace = std::chrono::seconds(2);
constexpr size_t kLongestLine = 1000;

struct Pipe {
  UniqueFd read, write;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0)
    return DeviceError(errno, "a pipe for a program");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void DoNotBlock(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

// /bin/sh -c COMMAND with these as 0, 1 and 2 and no other descriptor, leading
// a new process group, with all signals as a program expects them. An errno, or
// 0.
int Spawn(const std::string& command, const int (&fds)[3], pid_t& pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  for (int i = 0; i < 3; ++i)
    ::posix_spawn_file_actions_adddup2(&actions, fds[i], i);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP);
  std::string shell = "sh", option = "-c", text = command;
  char* const arguments[] = {shell.data(), option.data(), text.data(), nullptr};
  const int error =
      ::posix_spawn(&pid, "/bin/sh", &actions, &attributes, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  return error;
}

// A program's words, fit for a terminal.
void Log(const std::string& command, std::string line) {
  for (char& c : line) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c)) && c != '\t')
      c = '?';
  }
  spdlog::info("exec:{}: {}", command, line);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Program>> Program::Start(
    const std::string& command) {
  auto input = MakePipe(), output = MakePipe(), errors = MakePipe();
  if (!input.ok()) return input.status();
  if (!output.ok()) return output.status();
  if (!errors.ok()) return errors.status();
  pid_t pid = -1;
  const int error =
      Spawn(command,
            {input->read.get(), output->write.get(), errors->write.get()}, pid);
  if (error != 0) return DeviceError(error, "starting /bin/sh");
  auto program = std::unique_ptr<Program>(new Program(command, pid));
  program->process_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  program->input_ = std::move(input->write);
  program->output_ = std::move(output->read);
  program->errors_ = std::move(errors->read);
  for (const UniqueFd* fd :
       {&program->input_, &program->output_, &program->errors_}) {
    DoNotBlock(fd->get());
  }
  program->pump_ = std::thread([p = program.get()] { p->Pump(); });
  return program;
}

Program::~Program() {
  const auto end = std::chrono::steady_clock::now() + kGrace;
  DiscardOutput(true);
  CloseInput();
  ::kill(-pid_, SIGTERM);
  // It is over when the leader ended and nobody holds its outputs.
  for (const int fd : {process_.get(), silent_.get()}) {
    pollfd wait{fd, POLLIN, 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    ::poll(&wait, 1, std::max<int>(0, static_cast<int>(left.count())));
  }
  ::kill(-pid_, SIGKILL);
  siginfo_t info;
  while (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED) != 0 &&
         errno == EINTR) {
  }
  stop_.store(true, std::memory_order_release);
  wake_.Signal();
  pump_.join();
}

void Program::CloseInput() {
  input_.reset();
  input_open_.store(false, std::memory_order_release);
}

void Program::DiscardOutput(bool discards) {
  discards_.store(discards, std::memory_order_release);
  wake_.Signal();
}

std::optional<absl::Status> Program::ended() const {
  siginfo_t info = {};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info,
               WEXITED | WNOHANG | WNOWAIT) != 0 ||
      info.si_pid == 0) {
    return std::nullopt;
  }
  if (info.si_code != CLD_EXITED) {
    return absl::AbortedError(
        absl::StrCat("'", command_, "' was ended by signal ", info.si_status,
                     " (", ::strsignal(info.si_status), ")"));
  }
  if (info.si_status == 0) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat("'", command_, "' exited with ", info.si_status));
}

void Program::Pump() {
  std::string line;
  bool has_errors = true, has_output = true;
  while (!stop_.load(std::memory_order_acquire)) {
    const bool takes_output =
        has_output && discards_.load(std::memory_order_acquire);
    pollfd waits[] = {{wake_.get(), POLLIN, 0},
                      {has_errors ? errors_.get() : -1, POLLIN, 0},
                      {takes_output ? output_.get() : -1, POLLIN, 0}};
    if (::poll(waits, 3, -1) < 0) continue;
    if (waits[0].revents != 0) wake_.Clear();
    if (waits[1].revents != 0) has_errors = PumpErrors(line);
    // Only what was asked for before the poll: a reader may have come since.
    if (waits[2].revents != 0 && discards_.load(std::memory_order_acquire)) {
      has_output = PumpOutput();
    }
    if (!has_errors && !has_output) silent_.Signal();
  }
}

bool Program::PumpErrors(std::string& line) {
  char buffer[4096];
  const ssize_t size = ::read(errors_.get(), buffer, sizeof buffer);
  if (size < 0) return errno == EAGAIN || errno == EINTR;
  for (const char c : std::string_view(buffer, static_cast<size_t>(size))) {
    if (c != '\n') line.push_back(c);
    if (c != '\n' && line.size() < kLongestLine) continue;
    Log(command_, std::exchange(line, {}));
  }
  if (size == 0 && !line.empty()) Log(command_, std::exchange(line, {}));
  return size != 0;
}

bool Program::PumpOutput() {
  char buffer[65536];
  const ssize_t size = ::read(output_.get(), buffer, sizeof buffer);
  return size > 0 || (size < 0 && (errno == EAGAIN || errno == EINTR));
}

}  // namespace tripwire::periph
