// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/daemon.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fuse-client/mount_table.h"

namespace tripwire::fuse {
namespace {

struct Pipe {
  UniqueFd read, write;
};

Pipe MakePipe(const char* program) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) {
    std::fprintf(stderr, "%s: pipe: %s\n", program, std::strerror(errno));
    std::exit(32);
  }
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[512];
  for (;;) {
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return text;
    text.append(buffer, static_cast<size_t>(n));
  }
}

void WriteAll(int fd, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += static_cast<size_t>(n);
  }
}

void StandardFilesToNull() {
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) dup2(null, fd);
  if (null > 2) close(null);
}

}  // namespace

Daemon Daemon::Fork(const char* program) {
  Pipe pipe = MakePipe(program);
  const pid_t child = fork();
  if (child < 0) {
    std::fprintf(stderr, "%s: fork: %s\n", program, std::strerror(errno));
    std::exit(32);
  }
  if (child == 0) {
    setsid();
    return Daemon(std::move(pipe.write));
  }
  pipe.write.reset();
  // The first byte is the exit status, the rest what to say.
  const std::string word = ReadAll(pipe.read.get());
  if (word.empty()) {
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
      std::fprintf(stderr, "%s: ended by signal %d before the mount was ready\n",
                   program, WTERMSIG(status));
    } else {
      std::fprintf(stderr, "%s: ended before the mount was ready\n", program);
    }
    std::_Exit(32);
  }
  if (word.size() > 1) {
    std::fprintf(stderr, "%s: %s\n", program, word.c_str() + 1);
  }
  std::fflush(stderr);
  std::_Exit(static_cast<unsigned char>(word[0]));
}

void Daemon::Ready() {
  if (chdir("/") != 0) std::perror("chdir");
  StandardFilesToNull();
  WriteAll(pipe_.get(), std::string(1, '\0'));
  pipe_.reset();
}

void Daemon::Fail(const std::string& message, int code) {
  WriteAll(pipe_.get(), std::string(1, static_cast<char>(code)) + message);
  pipe_.reset();
}

MountGuard MountGuard::Fork() {
  Pipe pipe = MakePipe("tw-mount");
  const pid_t owner = getpid();
  const pid_t child = fork();
  if (child != 0) {
    pipe.read.reset();
    return MountGuard(child > 0 ? std::move(pipe.write) : UniqueFd(), owner);
  }
  // Ends when its owner does, not before: no signal to the group may end it.
  pipe.write.reset();
  setsid();
  prctl(PR_SET_NAME, "tw-mount-guard");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) {
    std::signal(signal, SIG_IGN);
  }
  StandardFilesToNull();
  if (chdir("/") != 0) _exit(1);
  // Nothing of the owner's must stay open because of us: sockets, pipes, terminals.
  const int keep = pipe.read.get();
  if (keep > 3) close_range(3, static_cast<unsigned>(keep) - 1, 0);
  close_range(static_cast<unsigned>(keep) + 1, ~0u, 0);
  const std::string word = ReadAll(keep);
  const size_t end = word.find('\0');
  if (end != std::string::npos) {
    const std::string mountpoint = word.substr(0, end);
    const std::string device = word.substr(end + 1);
    const bool ended = device.find('\0') != std::string::npos;
    if (!ended && !device.empty() && DeviceOfMount(mountpoint) == device) {
      DetachMount(mountpoint);
    }
  }
  _exit(0);
}

void MountGuard::Mounted(const std::string& mountpoint, const std::string& device) {
  if (pipe_) WriteAll(pipe_.get(), mountpoint + '\0' + device);
}

void MountGuard::Ended() {
  if (pipe_) WriteAll(pipe_.get(), std::string(1, '\0'));
}

}  // namespace tripwire::fuse
