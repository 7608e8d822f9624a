// SPDX-License-Identifier: BSD-3-Clause
// Round trips over a terminal: one process echoes, another measures.
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace {

uint64_t NowNs() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u +
         static_cast<uint64_t>(now.tv_nsec);
}

void MakeRaw(int fd) {
  termios mode;
  ::tcgetattr(fd, &mode);
  ::cfmakeraw(&mode);
  ::tcsetattr(fd, TCSANOW, &mode);
}

// Prints the name of a new terminal and sends back whatever is written to it.
int Echo() {
  int master = -1, slave = -1;
  char path[64] = {};
  if (::openpty(&master, &slave, path, nullptr, nullptr) != 0) return 1;
  MakeRaw(slave);
  std::printf("%s\n", path);
  std::fflush(stdout);
  char buffer[4096];
  for (ssize_t size; (size = ::read(master, buffer, sizeof buffer)) > 0;) {
    if (::write(master, buffer, static_cast<size_t>(size)) != size) return 1;
  }
  return 0;
}

// One round trip of `bytes`, in ns; 0 when nothing comes back for ten seconds.
uint64_t RoundTrip(int fd, std::vector<char>& bytes) {
  const uint64_t begin_ns = NowNs();
  if (::write(fd, bytes.data(), bytes.size()) !=
      static_cast<ssize_t>(bytes.size()))
    return 0;
  for (size_t got = 0; got < bytes.size();) {
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, 10'000) <= 0) return 0;
    const ssize_t size = ::read(fd, bytes.data() + got, bytes.size() - got);
    if (size <= 0) return 0;
    got += static_cast<size_t>(size);
  }
  return NowNs() - begin_ns;
}

int Measure(const std::string& path, size_t bytes, size_t count,
            const std::string& label) {
  const int fd = ::open(path.c_str(), O_RDWR | O_NOCTTY);
  if (fd < 0)
    return std::fprintf(stderr, "serial_bench: cannot open %s\n", path.c_str()),
           1;
  MakeRaw(fd);
  std::vector<char> data(bytes, 'x');
  std::vector<uint64_t> times;
  for (size_t i = 0; i < count + count / 10; ++i) {
    const uint64_t time_ns = RoundTrip(fd, data);
    if (time_ns == 0) return std::fprintf(stderr, "serial_bench: no echo\n"), 1;
    if (i >= count / 10) times.push_back(time_ns);  // after warming up
  }
  std::sort(times.begin(), times.end());
  const auto at = [&](double part) {
    return static_cast<double>(times[static_cast<size_t>(
               static_cast<double>(times.size() - 1) * part)]) /
           1000;
  };
  std::printf(
      "%s bytes=%zu count=%zu p50_us=%.1f p90_us=%.1f p99_us=%.1f "
      "max_us=%.1f\n",
      label.c_str(), bytes, count, at(0.5), at(0.9), at(0.99), at(1));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Round trips over a terminal", "tw-serial-bench");
  bool echo = false;
  std::string path, label = "terminal";
  size_t bytes = 8, count = 5000;
  app.add_flag("--echo", echo,
               "make a terminal, print its name, echo what comes");
  app.add_option("--label", label, "what to call the result");
  app.add_option("--bytes", bytes, "each way")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--count", count, "round trips")
      ->check(CLI::Range(10, 10'000'000))
      ->capture_default_str();
  app.add_option("TERMINAL", path, "what to measure");
  CLI11_PARSE(app, argc, argv);
  if (echo) return Echo();
  if (path.empty())
    return std::fprintf(stderr, "serial_bench: which terminal?\n"), 2;
  return Measure(path, bytes, count, label);
}
