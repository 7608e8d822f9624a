// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_KINDS_BYTE_DEVICES_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_KINDS_BYTE_DEVICES_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "nic/base/clock.h"
#include "nic/base/fd.h"
#include "periph/device/device.h"

// What tests of devices that carry bytes have in common. Waits are bounded so
// that a hang ends; nothing is measured.
namespace tripwire::periph {

inline constexpr std::chrono::seconds kBound{60};

// Keeps the bytes a source gives. While its gate is shut it takes nothing: the
// source's Take blocks.
class ByteTaker final : public FrameTaker {
 public:
  void Take(Frame frame) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_; });
    bytes_.append(reinterpret_cast<const char*>(frame.data.data()),
                  frame.data.size());
    overrun_ = frame.overrun;
    longest_ = std::max(longest_, frame.data.size());
    times_.push_back(frame.capture_ns);
    ++frames_;
    changed_.notify_all();
  }
  void SetFormat(const std::string&, uint64_t) override {}
  void End(const absl::Status& why) override {
    const std::lock_guard lock(mutex_);
    end_ = why;
    changed_.notify_all();
  }

  void SetGate(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }
  // What came, once it is that much or the source has ended.
  std::string WaitFor(size_t bytes) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kBound,
                      [&] { return bytes_.size() >= bytes || end_; });
    return bytes_;
  }
  std::string WaitForFrames(size_t frames) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kBound, [&] { return frames_ >= frames || end_; });
    return bytes_;
  }
  absl::Status WaitEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kBound, [&] { return end_.has_value(); });
    return end_.value_or(absl::DeadlineExceededError("it did not end"));
  }
  size_t frames() { return Locked(frames_); }
  size_t longest() { return Locked(longest_); }
  uint64_t overrun() { return Locked(overrun_); }
  std::vector<uint64_t> times() { return Locked(times_); }

 private:
  template <typename T>
  T Locked(const T& value) {
    const std::lock_guard lock(mutex_);
    return value;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  std::string bytes_;
  size_t frames_ = 0, longest_ = 0;
  uint64_t overrun_ = 0;
  std::vector<uint64_t> times_;
  std::optional<absl::Status> end_;
};

inline Frame FrameOf(std::string_view text) {
  Frame frame;
  frame.data = {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  return frame;
}

// All of `bytes`, in pieces.
inline void PutAll(Sink& sink, const std::string& bytes, size_t piece_bytes) {
  for (size_t at = 0; at < bytes.size(); at += piece_bytes) {
    ASSERT_TRUE(sink.Put(FrameOf(bytes.substr(at, piece_bytes))).ok());
  }
}

// Bytes of every value, in an order that does not repeat soon.
inline std::string ManyBytes(size_t length) {
  std::string bytes(length, '\0');
  uint32_t state = 12345;
  for (char& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

// Reads that many bytes, or fewer at the end or after a minute.
inline std::string ReadBytes(int fd, size_t length) {
  std::string bytes;
  while (bytes.size() < length) {
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, 60'000) <= 0) break;
    char buffer[4096];
    const size_t most = std::min(sizeof buffer, length - bytes.size());
    const ssize_t size = ::read(fd, buffer, most);
    if (size <= 0) break;
    bytes.append(buffer, static_cast<size_t>(size));
  }
  return bytes;
}

inline void WriteBytes(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::write(fd, bytes.data(), bytes.size());
    ASSERT_GT(size, 0);
    bytes.remove_prefix(static_cast<size_t>(size));
  }
}

template <typename F>
bool Eventually(F ready) {
  const auto end = std::chrono::steady_clock::now() + kBound;
  while (!ready()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// A pty: the slave is a serial line, the master what is at its far end.
struct Pty {
  Pty() {
    int master_fd = -1, slave_fd = -1;
    char name[64] = {};
    if (::openpty(&master_fd, &slave_fd, name, nullptr, nullptr) != 0) abort();
    master.reset(master_fd);
    slave.reset(slave_fd);
    path = name;
  }
  UniqueFd master, slave;
  std::string path;
};

class ByteDeviceTest : public ::testing::Test {
 protected:
  ByteDeviceTest() {
    // As a server does, so that a reader that has gone is an error.
    std::signal(SIGPIPE, SIG_IGN);
    std::string name = ::testing::TempDir() + "/bytesXXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~ByteDeviceTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const {
    return directory_ + "/" + name;
  }
  std::unique_ptr<Device> Make(const std::string& spec) {
    auto device = MakeDevice(spec, clock_);
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  }
  std::unique_ptr<Source> Start(Device& device, FrameTaker& taker) {
    auto source = device.StartSource("", taker);
    EXPECT_TRUE(source.ok()) << source.status();
    return source.ok() ? *std::move(source) : nullptr;
  }
  std::unique_ptr<Sink> StartSink(Device& device) {
    auto sink = device.StartSink("");
    EXPECT_TRUE(sink.ok()) << sink.status();
    return sink.ok() ? *std::move(sink) : nullptr;
  }
  absl::Status WhyNot(const std::string& spec) {
    return MakeDevice(spec, clock_).status();
  }
  // The value of a control; "?" if there is none.
  static std::string ValueOf(Device& device, const std::string& name) {
    const auto controls = device.Controls();
    if (!controls.ok()) return controls.status().ToString();
    for (const Control& control : *controls) {
      if (control.name == name) return control.value;
    }
    return "?";
  }

  SystemClock clock_;
  std::string directory_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_KINDS_BYTE_DEVICES_H_
