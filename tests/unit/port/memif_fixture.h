// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PORT_MEMIF_FIXTURE_H_
#define TRIPWIRE_TESTS_UNIT_PORT_MEMIF_FIXTURE_H_

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "nic/base/clock.h"
#include "nic/port/memif_port.h"
#include "tests/unit/port/frames.h"

namespace tripwire {

// A listener on a socket of its own, and clients that join it.
class MemifTest : public ::testing::Test {
 protected:
  MemifTest() {
    char name[] = "/tmp/tripwire-memif-XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~MemifTest() override {
    listener_.reset();
    std::filesystem::remove_all(directory_);
  }

  MemifOptions Options() const {
    MemifOptions options;
    options.name = "test";
    options.path = directory_ + "/s";
    options.max_frame_bytes = 4096;
    options.buffers = 2048;
    return options;
  }
  void Listen() {
    auto port = MemifListenerPort::Open(Options());
    ASSERT_TRUE(port.ok()) << port.status();
    listener_ = *std::move(port);
  }
  // Opens a client while the listener is being served.
  std::unique_ptr<Port> Join(MemifOptions options) {
    absl::StatusOr<std::unique_ptr<Port>> port;
    bool is_done = false;
    std::thread thread([&] {
      port = MemifClientPort::Open(options);
      __atomic_store_n(&is_done, true, __ATOMIC_RELEASE);
    });
    while (!__atomic_load_n(&is_done, __ATOMIC_ACQUIRE)) {
      if (listener_ != nullptr) listener_->Service(clock_.NowNs());
      usleep(100);
    }
    thread.join();
    EXPECT_TRUE(port.ok()) << port.status();
    return port.ok() ? *std::move(port) : nullptr;
  }
  std::unique_ptr<Port> Join() { return Join(Options()); }

  // A child that does not outlive the test, whatever happens.
  static pid_t Fork() {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      alarm(60);
    }
    return child;
  }

  // Serves both until `condition`; false after ten seconds.
  bool Until(const std::function<bool()>& condition, Port* other = nullptr) {
    const uint64_t deadline_ns = clock_.NowNs() + 10 * kSecond;
    while (!condition()) {
      if (clock_.NowNs() > deadline_ns) return false;
      if (listener_ != nullptr) listener_->Service(clock_.NowNs());
      if (other != nullptr) other->Service(clock_.NowNs());
      usleep(200);
    }
    return true;
  }
  // The next frame at a port, whose path is noted; "" after ten seconds.
  std::string Next(Port& port, PathId* path = nullptr) {
    std::string text;
    Until(
        [&] {
          Frame frame;
          if (port.Receive({&frame, 1}) == 0) return false;
          text = testing::TextOf(frame);
          if (path != nullptr) *path = frame.path;
          port.Release({&frame, 1});
          return true;
        },
        &port);
    return text;
  }

  SystemClock clock_;
  std::string directory_;
  std::unique_ptr<Port> listener_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_UNIT_PORT_MEMIF_FIXTURE_H_
