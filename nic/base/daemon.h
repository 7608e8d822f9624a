// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_BASE_DAEMON_H_
#define TRIPWIRE_NIC_BASE_DAEMON_H_

#include <fcntl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "nic/base/fd.h"

namespace tripwire {

// A pipe on which one process tells another something, once.
struct TellingPipe {
  UniqueFd read, write;

  // `failure`: the exit status if there is none to be had.
  static TellingPipe Make(const char* program, int failure) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
      std::fprintf(stderr, "%s: pipe: %s\n", program, std::strerror(errno));
      std::exit(failure);
    }
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
  }
  // All that comes until the other end is closed.
  static std::string ReadAll(int fd) {
    std::string text;
    char buffer[512];
    for (;;) {
      const ssize_t n = ::read(fd, buffer, sizeof(buffer));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return text;
      text.append(buffer, static_cast<size_t>(n));
    }
  }
  static void WriteAll(int fd, const std::string& text) {
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;
      done += static_cast<size_t>(n);
    }
  }
};

inline void StandardFilesToNull() {
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) dup2(null, fd);
  if (null > 2) close(null);
}

// Becoming a daemon in two steps: the process forks first, while it has one
// thread and no devices, and the parent ends when the child says how it went.
class Daemon {
 public:
  // In the child, returns. In the parent, waits for the child's word, prints
  // its error if there is one, and exits accordingly; never returns. `failure`
  // is the exit status for a child that ends without a word.
  static Daemon Fork(const char* program, int failure) {
    TellingPipe pipe = TellingPipe::Make(program, failure);
    const pid_t child = fork();
    if (child < 0) {
      std::fprintf(stderr, "%s: fork: %s\n", program, std::strerror(errno));
      std::exit(failure);
    }
    if (child == 0) {
      setsid();
      return Daemon(std::move(pipe.write));
    }
    pipe.write.reset();
    // The first byte is the exit status, the rest what to say.
    const std::string word = TellingPipe::ReadAll(pipe.read.get());
    if (word.empty()) {
      int status = 0;
      waitpid(child, &status, 0);
      if (WIFSIGNALED(status)) {
        std::fprintf(stderr, "%s: ended by signal %d before it was ready\n",
                     program, WTERMSIG(status));
      } else {
        std::fprintf(stderr, "%s: ended before it was ready\n", program);
      }
      std::_Exit(failure);
    }
    if (word.size() > 1)
      std::fprintf(stderr, "%s: %s\n", program, word.c_str() + 1);
    std::fflush(stderr);
    std::_Exit(static_cast<unsigned char>(word[0]));
  }

  // Says that all is well: the parent exits with 0. Detaches from the terminal.
  void Ready() {
    if (chdir("/") != 0) std::perror("chdir");
    StandardFilesToNull();
    TellingPipe::WriteAll(pipe_.get(), std::string(1, '\0'));
    pipe_.reset();
  }
  // Says what went wrong in one line: the parent prints it and exits with
  // `code`.
  void Fail(const std::string& message, int code) {
    TellingPipe::WriteAll(pipe_.get(),
                          std::string(1, static_cast<char>(code)) + message);
    pipe_.reset();
  }

 private:
  explicit Daemon(UniqueFd pipe) : pipe_(std::move(pipe)) {}
  UniqueFd pipe_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_BASE_DAEMON_H_
