// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_GST_XVFB_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_GST_XVFB_H_

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace tripwire::periph {

// An X server with a screen in memory, on a display number that it chooses.
// Ends with this.
class Xvfb {
 public:
  explicit Xvfb(const std::string& screen = "320x240x24") {
    int ready[2];
    if (pipe(ready) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      const int null = open("/dev/null", O_RDWR);
      dup2(null, 1);
      dup2(null, 2);
      dup2(ready[1], 3);
      execlp("Xvfb", "Xvfb", "-displayfd", "3", "-screen", "0", screen.c_str(),
             "-noreset", "-nolisten", "tcp", nullptr);
      _exit(127);
    }
    close(ready[1]);
    std::string number;
    for (char digit; read(ready[0], &digit, 1) == 1 && digit != '\n';)
      number += digit;
    close(ready[0]);
    if (!number.empty()) display_ = ":" + number;
  }
  ~Xvfb() { Stop(); }
  Xvfb(const Xvfb&) = delete;

  // "" if it did not start.
  const std::string& display() const { return display_; }
  void Stop() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  std::string display_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_GST_XVFB_H_
