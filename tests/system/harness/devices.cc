// SPDX-License-Identifier: BSD-3-Clause
#include "tests/system/harness/devices.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <stdexcept>

namespace tripwire::systest {

DeviceServer::DeviceServer(Wire wire, int clients)
    : network_(wire, temp_.path(), clients) {}

DeviceServer::~DeviceServer() {
  if (::testing::Test::HasFailure()) {
    std::cerr << "--- tw-periphd:\n" << Tail(process_.err());
  }
}

void DeviceServer::Start(const Argv& devices, const Argv& more) {
  Argv argv = {Program("tw-periphd"), "--port", network_.ServerPort(), "--node",
               "server"};
  for (const std::string& device : devices) {
    argv.push_back("--device");
    argv.push_back(device);
  }
  argv.insert(argv.end(), more.begin(), more.end());
  process_ = Process(argv, network_.ServerNode());
  const bool is_ready = Eventually(30, [&] {
    return !process_.Running() ||
           process_.err().find("ready:") != std::string::npos;
  });
  if (!is_ready || !process_.Running()) {
    throw std::runtime_error("tw-periphd: " + process_.err());
  }
}

Argv DeviceServer::Command(const Argv& arguments, int client) const {
  Argv argv = {Program("tw-periph")};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  argv.push_back("--port");
  argv.push_back(network_.ClientPort(client));
  return argv;
}

Process DeviceServer::Begin(const Argv& arguments, int client) const {
  return Process(Command(arguments, client), network_.ClientNode(client));
}

Result DeviceServer::Run(const Argv& arguments, double timeout_seconds,
                         int client) const {
  return Execute(Command(arguments, client), timeout_seconds,
                 network_.ClientNode(client));
}

Process DeviceServer::BeginLine(const std::string& line, int client) const {
  return Process({"bash", "-c", line}, network_.ClientNode(client));
}

Result DeviceServer::RunLine(const std::string& line, int client) const {
  return Execute({"bash", "-c", line}, 60, network_.ClientNode(client));
}

void ExpectOneLine(const Result& result, const std::string& said) {
  EXPECT_GT(result.exit_code, 0);
  EXPECT_LT(result.exit_code, 126);
  EXPECT_THAT(result.err, ::testing::HasSubstr(said));
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1)
      << result.err;
}

FarLine::FarLine() {
  int master_fd = -1, slave_fd = -1;
  char name[64] = {};
  if (::openpty(&master_fd, &slave_fd, name, nullptr, nullptr) != 0) {
    throw std::runtime_error("no pty");
  }
  master.reset(master_fd);
  slave.reset(slave_fd);
  path = name;
}

UniqueFd OpenTerminal(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_NOCTTY));
  termios mode;
  if (!fd || ::tcgetattr(fd.get(), &mode) != 0) {
    throw std::runtime_error("cannot open " + path);
  }
  ::cfmakeraw(&mode);
  ::tcsetattr(fd.get(), TCSANOW, &mode);
  return fd;
}

namespace {

// One end: writes `out` as there is room, and keeps what comes.
struct End {
  int fd;
  const std::string& out;
  size_t expected;
  std::string in;
  size_t written = 0;

  bool done() const { return written == out.size() && in.size() >= expected; }
  void Step(int events) {
    char buffer[16384];
    if ((events & POLLIN) != 0) {
      const ssize_t size = ::read(fd, buffer, sizeof buffer);
      if (size > 0) in.append(buffer, static_cast<size_t>(size));
    }
    if ((events & POLLOUT) != 0 && written < out.size()) {
      const size_t most = std::min<size_t>(4096, out.size() - written);
      const ssize_t size = ::write(fd, out.data() + written, most);
      if (size > 0) written += static_cast<size_t>(size);
    }
  }
};

}  // namespace

Exchanged Exchange(int a, int b, const std::string& there,
                   const std::string& back, double seconds) {
  for (const int fd : {a, b}) {
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  End near{a, there, back.size(), {}}, far{b, back, there.size(), {}};
  const double end = NowSeconds() + seconds;
  while (!(near.done() && far.done()) && NowSeconds() < end) {
    // Both may be one descriptor, of a terminal that echoes.
    const auto wanted = [](const End& e) {
      const int reads = e.in.size() < e.expected ? POLLIN : 0;
      const int writes = e.written < e.out.size() ? POLLOUT : 0;
      return static_cast<short>(reads | writes);
    };
    pollfd waits[] = {{a, wanted(near), 0}, {b, wanted(far), 0}};
    ::poll(waits, 2, 1000);
    near.Step(waits[0].revents & waits[0].events);
    far.Step(waits[1].revents & waits[1].events);
  }
  return {far.in, near.in};
}

}  // namespace tripwire::systest
