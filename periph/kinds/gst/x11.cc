// SPDX-License-Identifier: BSD-3-Clause
// x11: the picture of an X screen, and its keyboard and pointer.
#include <cctype>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/kinds/gst/device.h"
#include "periph/kinds/gst/x11_display.h"
#include "periph/kinds/gst/x11_input.h"
#include "periph/media/input_event.h"

namespace tripwire::periph {
namespace {

// Passes frames on until the screen has gone; then says so. GStreamer's source
// would repeat the last picture for ever.
class ScreenTaker final : public FrameTaker {
 public:
  explicit ScreenTaker(FrameTaker& taker) : taker_(taker) {}
  void Take(Frame frame) override {
    const std::lock_guard lock(mutex_);
    if (!ended_) taker_.Take(std::move(frame));
  }
  void SetFormat(const std::string& format, uint64_t max_frame_bytes) override {
    const std::lock_guard lock(mutex_);
    if (!ended_) taker_.SetFormat(format, max_frame_bytes);
  }
  void End(const absl::Status& why) override {
    const std::lock_guard lock(mutex_);
    if (!ended_) taker_.End(why);
    ended_ = true;
  }

 private:
  FrameTaker& taker_;
  std::mutex mutex_;
  bool ended_ = false;
};

class ScreenSource final : public Source {
 public:
  ScreenSource(std::unique_ptr<ScreenTaker> taker,
               std::unique_ptr<Source> pictures,
               std::unique_ptr<DisplayWatch> watch)
      : taker_(std::move(taker)),
        pictures_(std::move(pictures)),
        watch_(std::move(watch)) {}
  const std::string& format() const override { return pictures_->format(); }
  uint64_t max_frame_bytes() const override {
    return pictures_->max_frame_bytes();
  }

 private:
  std::unique_ptr<ScreenTaker> taker_;  // goes last: the others call it
  std::unique_ptr<Source> pictures_;
  std::unique_ptr<DisplayWatch> watch_;
};

class Screen final : public Device {
 public:
  Screen(std::string display, std::unique_ptr<GstDevice> pictures)
      : display_(std::move(display)), pictures_(std::move(pictures)) {}

  DeviceInfo Describe() override {
    DeviceInfo info = pictures_->Describe();
    info.description = absl::StrCat("X screen ", display_);
    info.sink_formats = {kInputFormat};
    // The element itself looks for its display only when it starts.
    const absl::StatusOr<DisplayRef> display = OpenDisplay(display_);
    info.present = display.ok();
    if (!info.present)
      info.why_absent = std::string(display.status().message());
    return info;
  }

  absl::StatusOr<std::unique_ptr<Source>> StartSource(
      const std::string& format, FrameTaker& taker) override {
    auto guarded = std::make_unique<ScreenTaker>(taker);
    ScreenTaker* const screen_taker = guarded.get();
    auto watch = DisplayWatch::Start(display_, [this, screen_taker] {
      screen_taker->End(absl::UnavailableError(
          absl::StrCat("X display ", display_, " has gone")));
    });
    if (!watch.ok()) return watch.status();
    auto pictures = pictures_->StartSource(format, *guarded);
    if (!pictures.ok()) return pictures.status();
    return std::make_unique<ScreenSource>(
        std::move(guarded), *std::move(pictures), *std::move(watch));
  }

  absl::StatusOr<std::unique_ptr<Sink>> StartSink(
      const std::string& format) override {
    if (!format.empty() && format != kInputFormat) {
      return absl::UnimplementedError(absl::StrCat(
          "it cannot take '", format, "'; it takes ", kInputFormat));
    }
    return StartX11Input(display_);
  }

 private:
  const std::string display_;
  const std::unique_ptr<GstDevice> pictures_;
};

absl::StatusOr<std::unique_ptr<Device>> MakeScreen(const std::string& display,
                                                   Clock& clock) {
  for (const char c : display) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 &&
        std::string(":._/-").find(c) == std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", display, "' is no X display"));
    }
  }
  if (display.find(':') == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", display, "' is no X display: it has a form like :0 or host:0"));
  }
  auto pictures = GstDevice::Make(
      absl::StrCat("ximagesrc use-damage=false display-name=", display), clock);
  if (!pictures.ok()) return pictures.status();
  return std::make_unique<Screen>(display, *std::move(pictures));
}

const RegisterKind kX11{{
    "x11",
    "x11:DISPLAY",
    "the picture of an X screen (x11::0); its keyboard and pointer, as a sink",
    MakeScreen,
}};

}  // namespace
}  // namespace tripwire::periph
