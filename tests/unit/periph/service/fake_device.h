// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_SERVICE_FAKE_DEVICE_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_SERVICE_FAKE_DEVICE_H_

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "periph/device/device.h"

namespace tripwire::periph {

// What a test sees of a fake device, and does to it. Outlives the device.
class FakeControl {
 public:
  // --- What the device is; set before the service starts.
  std::vector<std::string> formats = {"test/bytes"};
  bool many_formats = false;
  uint64_t max_frame_bytes = 256;

  // --- As its source's thread.
  // Hands a frame to every source of this format that runs; blocks as Take does. True if
  // there was one.
  bool Emit(const std::string& text, const std::string& format = "test/bytes") {
    const auto source = Find(format);
    if (source == nullptr) return false;
    std::lock_guard taking(source->taking);
    if (source->stopped) return false;
    Frame frame;
    frame.data = {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
    frame.capture_ns = clock.NowNs();
    frame.overrun = source->overrun;
    source->taker->Take(frame);
    return true;
  }
  void Overrun(uint64_t frames) { Find("test/bytes")->overrun += frames; }
  void End(const absl::Status& why) {
    const auto source = Find("test/bytes");
    std::lock_guard taking(source->taking);
    if (!source->stopped) source->taker->End(why);
  }
  void ChangeFormat(const std::string& format, uint64_t bytes) {
    const auto source = Find("test/bytes");
    std::lock_guard taking(source->taking);
    source->taker->SetFormat(format, bytes);
  }
  // Whether it can be started, from now on.
  void SetStart(absl::Status status) {
    std::lock_guard lock(mutex);
    start = std::move(status);
  }

  // --- What happened.
  bool AwaitSources(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60),
                            [&] { return sources.size() == count; });
  }
  uint64_t starts() {
    std::lock_guard lock(mutex);
    return starts_;
  }
  bool AwaitTaken(size_t frames) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60), [&] { return taken.size() >= frames; });
  }

  struct Running {
    std::string format;
    FrameTaker* taker = nullptr;
    std::mutex taking;
    bool stopped = false;
    uint64_t overrun = 0;
  };
  std::shared_ptr<Running> Find(const std::string& format) {
    std::lock_guard lock(mutex);
    for (const auto& source : sources) {
      if (source->format == format) return source;
    }
    return nullptr;
  }

  SystemClock clock;
  std::mutex mutex;  // all below
  std::condition_variable changed;
  absl::Status start;
  absl::Status put;       // what the sink answers
  absl::Status put_once;  // the first time
  bool drained = false;
  std::list<std::shared_ptr<Running>> sources;
  std::vector<std::string> taken;  // by sinks
  std::map<std::string, std::string> settings = {{"gain", "1"}};
  uint64_t starts_ = 0;
};

class FakeDevice final : public Device {
 public:
  explicit FakeDevice(FakeControl& control) : control_(control) {}

  DeviceInfo Describe() override {
    std::lock_guard lock(control_.mutex);
    DeviceInfo info;
    info.description = "a fake";
    info.present = control_.start.ok();
    info.why_absent = std::string(control_.start.message());
    info.source_formats = control_.formats;
    info.sink_formats = control_.formats;
    info.many_formats = control_.many_formats;
    return info;
  }

  absl::StatusOr<std::unique_ptr<Source>> StartSource(const std::string& format,
                                                      FrameTaker& taker) override {
    auto chosen = Choose(format);
    if (!chosen.ok()) return chosen.status();
    auto running = std::make_shared<FakeControl::Running>();
    running->format = *chosen;
    running->taker = &taker;
    std::lock_guard lock(control_.mutex);
    control_.sources.push_back(running);
    ++control_.starts_;
    control_.changed.notify_all();
    return std::make_unique<FakeSource>(control_, running);
  }

  absl::StatusOr<std::unique_ptr<Sink>> StartSink(const std::string& format) override {
    auto chosen = Choose(format);
    if (!chosen.ok()) return chosen.status();
    return std::make_unique<FakeSink>(control_, *chosen);
  }

  absl::StatusOr<std::vector<Control>> Controls() override {
    std::lock_guard lock(control_.mutex);
    std::vector<Control> controls;
    for (const auto& [name, value] : control_.settings) {
      controls.push_back({.name = name, .value = value, .help = "a knob", .choices = {"1", "2"}});
    }
    return controls;
  }
  absl::Status SetControl(const std::string& name, const std::string& value) override {
    std::lock_guard lock(control_.mutex);
    if (control_.settings.count(name) == 0) return Device::SetControl(name, value);
    control_.settings[name] = value;
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<std::string> Choose(const std::string& format) {
    std::lock_guard lock(control_.mutex);
    if (!control_.start.ok()) return control_.start;
    if (format.empty()) return control_.formats[0];
    if (std::count(control_.formats.begin(), control_.formats.end(), format) > 0) return format;
    return absl::UnimplementedError(absl::StrCat("it cannot make '", format, "'"));
  }

  class FakeSource final : public Source {
   public:
    FakeSource(FakeControl& control, std::shared_ptr<FakeControl::Running> running)
        : control_(control), running_(std::move(running)) {}
    ~FakeSource() override {
      {
        std::lock_guard taking(running_->taking);
        running_->stopped = true;
      }
      std::lock_guard lock(control_.mutex);
      control_.sources.remove(running_);
      control_.changed.notify_all();
    }
    const std::string& format() const override { return running_->format; }
    uint64_t max_frame_bytes() const override { return control_.max_frame_bytes; }

   private:
    FakeControl& control_;
    const std::shared_ptr<FakeControl::Running> running_;
  };

  class FakeSink final : public Sink {
   public:
    FakeSink(FakeControl& control, std::string format)
        : control_(control), format_(std::move(format)) {}
    const std::string& format() const override { return format_; }
    uint64_t max_frame_bytes() const override { return control_.max_frame_bytes; }
    absl::Status Put(const Frame& frame) override {
      std::lock_guard lock(control_.mutex);
      if (!control_.put_once.ok()) return std::exchange(control_.put_once, absl::OkStatus());
      if (!control_.put.ok()) return control_.put;
      control_.taken.emplace_back(frame.data.begin(), frame.data.end());
      control_.changed.notify_all();
      return absl::OkStatus();
    }
    absl::Status Drain() override {
      std::lock_guard lock(control_.mutex);
      control_.drained = true;
      return absl::OkStatus();
    }
    void Cancel() override {}

   private:
    FakeControl& control_;
    const std::string format_;
  };

  FakeControl& control_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_SERVICE_FAKE_DEVICE_H_
