// SPDX-License-Identifier: BSD-3-Clause
// pattern: frames whose bytes say what they must be, to try and to measure a
// network.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nic/base/wire_int.h"
#include "periph/device/device.h"
#include "periph/device/frame_pool.h"

namespace tripwire::periph {
namespace {

// Every frame begins with its number, and all that follows is made of it: byte
// i is number + i. So a frame that was torn, lost or mixed up is seen in its
// bytes.
constexpr size_t kHeadBytes = 8;
constexpr uint64_t kMaxFrameBytes = uint64_t{1} << 28;

struct Settings {
  uint64_t bytes = 4096;
  uint64_t rate = 100;  // frames a second; 0: as fast as they are taken
  uint64_t count = 0;   // frames in all; 0: no end
};

void Fill(uint64_t number, std::span<uint8_t> into) {
  Le64 head;
  head.set(number);
  std::memcpy(into.data(), &head, kHeadBytes);
  for (size_t i = kHeadBytes; i < into.size(); ++i) {
    into[i] = static_cast<uint8_t>(number + i);
  }
}

bool IsWhole(std::span<const uint8_t> data) {
  if (data.size() < kHeadBytes) return false;
  Le64 head;
  std::memcpy(&head, data.data(), kHeadBytes);
  const uint64_t number = head.get();
  for (size_t i = kHeadBytes; i < data.size(); ++i) {
    if (data[i] != static_cast<uint8_t>(number + i)) return false;
  }
  return true;
}

class PatternSource final : public Source {
 public:
  PatternSource(const Settings& settings, FrameTaker& taker, Clock& clock)
      : settings_(settings), taker_(taker), clock_(clock), thread_([this] { Run(); }) {}
  ~PatternSource() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    stopped_.notify_all();
    thread_.join();
  }
  const std::string& format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return settings_.bytes; }

 private:
  void Run() {
    const uint64_t begin_ns = clock_.NowNs();
    for (uint64_t number = 0; settings_.count == 0 || number < settings_.count; ++number) {
      if (!Pause(begin_ns, number)) return;
      const auto bytes = pool_.New(settings_.bytes);
      Fill(number, *bytes);
      Frame frame;
      frame.data = *bytes;
      frame.owner = bytes;
      frame.capture_ns = clock_.NowNs();
      taker_.Take(std::move(frame));
    }
    taker_.End(absl::OkStatus());
  }
  // Until frame `number` is due; false to stop.
  bool Pause(uint64_t begin_ns, uint64_t number) {
    std::unique_lock lock(mutex_);
    if (settings_.rate == 0) return !stopping_;
    const auto due_ns = begin_ns + static_cast<uint64_t>(static_cast<double>(number) * 1e9 /
                                                         static_cast<double>(settings_.rate));
    for (uint64_t now_ns; !stopping_ && (now_ns = clock_.NowNs()) < due_ns;) {
      stopped_.wait_for(lock, std::chrono::nanoseconds(due_ns - now_ns));
    }
    return !stopping_;
  }

  const Settings settings_;
  FrameTaker& taker_;
  Clock& clock_;
  const std::string format_ = kByteStream;
  FramePool pool_;  // the thread's
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the rest
};

// What came to the device's sinks.
struct Checked {
  std::atomic<uint64_t> frames{0}, wrong{0};
};

class PatternSink final : public Sink {
 public:
  PatternSink(uint64_t bytes, std::shared_ptr<Checked> checked)
      : bytes_(bytes), checked_(std::move(checked)) {}
  const std::string& format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return bytes_; }
  absl::Status Put(const Frame& frame) override {
    if (cancelled_) return absl::CancelledError("cancelled");
    ++checked_->frames;
    if (!IsWhole(frame.data)) ++checked_->wrong;
    return absl::OkStatus();
  }
  absl::Status Drain() override { return absl::OkStatus(); }
  void Cancel() override { cancelled_ = true; }

 private:
  const std::string format_ = kByteStream;
  const uint64_t bytes_;
  const std::shared_ptr<Checked> checked_;
  std::atomic<bool> cancelled_{false};
};

class Pattern final : public Device {
 public:
  Pattern(const Settings& settings, Clock& clock) : settings_(settings), clock_(clock) {}
  DeviceInfo Describe() override {
    DeviceInfo info;
    const std::string rate = settings_.rate == 0 ? std::string("as fast as they are taken")
                                                 : absl::StrCat(settings_.rate, " a second");
    info.description = absl::StrCat("frames of ", settings_.bytes, " bytes, ", rate);
    info.source_formats = {kByteStream};
    info.sink_formats = {kByteStream};
    return info;
  }
  absl::StatusOr<std::unique_ptr<Source>> StartSource(const std::string& format,
                                                      FrameTaker& taker) override {
    if (auto status = CheckFormat(format); !status.ok()) return status;
    return std::make_unique<PatternSource>(settings_, taker, clock_);
  }
  absl::StatusOr<std::unique_ptr<Sink>> StartSink(const std::string& format) override {
    if (auto status = CheckFormat(format); !status.ok()) return status;
    return std::make_unique<PatternSink>(settings_.bytes, checked_);
  }
  absl::StatusOr<std::vector<Control>> Controls() override {
    return std::vector<Control>{{.name = "checked",
                                 .value = absl::StrCat(checked_->frames.load()),
                                 .help = "frames that came to its sinks",
                                 .writable = false},
                                {.name = "wrong",
                                 .value = absl::StrCat(checked_->wrong.load()),
                                 .help = "of these, whose bytes were not what they must be",
                                 .writable = false}};
  }

 private:
  static absl::Status CheckFormat(const std::string& format) {
    if (format.empty() || format == kByteStream) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat("it only has ", kByteStream));
  }
  const Settings settings_;
  Clock& clock_;
  const std::shared_ptr<Checked> checked_ = std::make_shared<Checked>();
};

absl::StatusOr<std::unique_ptr<Device>> Make(const std::string& argument, Clock& clock) {
  Settings settings;
  const std::map<std::string, uint64_t*> numbers = {
      {"bytes", &settings.bytes}, {"rate", &settings.rate}, {"count", &settings.count}};
  for (const std::string& part :
       std::vector<std::string>(absl::StrSplit(argument, ',', absl::SkipEmpty()))) {
    const size_t equals = part.find('=');
    const auto number = numbers.find(part.substr(0, equals));
    if (equals == part.npos || number == numbers.end() ||
        !absl::SimpleAtoi(part.substr(equals + 1), number->second)) {
      return absl::InvalidArgumentError(
          absl::StrCat("pattern: '", part, "' is none of bytes=N, rate=N, count=N"));
    }
  }
  if (settings.bytes < kHeadBytes || settings.bytes > kMaxFrameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern: bytes= is from ", kHeadBytes, " to ", kMaxFrameBytes));
  }
  return std::make_unique<Pattern>(settings, clock);
}

const RegisterKind kPattern{{"pattern", "pattern:[bytes=N][,rate=N][,count=N]",
                             "numbered frames whose content is known, and a sink that checks "
                             "them; to try and to measure",
                             Make}};

}  // namespace
}  // namespace tripwire::periph
