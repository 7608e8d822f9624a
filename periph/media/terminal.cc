// SPDX-License-Identifier: BSD-3-Clause
// Video in a terminal: a character shows two pixels, one above the other.
#include <gst/app/gstappsink.h>
#include <gst/video/video.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "periph/device/passing_sink.h"
#include "periph/media/formats.h"
#include "periph/media/sink_line.h"
#include "periph/media/terminal_output.h"
#include "periph/media/window.h"

namespace tripwire::periph {
namespace {

// How long a terminal that takes nothing keeps a program that wants to leave it.
constexpr int kLeaveMs = 500;

enum class Colours : uint8_t { kNone, k256, kAll };

// What the terminal can do, by what it says of itself.
Colours ColoursOfTerminal() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  const std::string term = variable("TERM"), more = variable("COLORTERM");
  if (!variable("NO_COLOR").empty() || term.empty() || term == "dumb" ||
      absl::StartsWith(term, "vt")) {
    return Colours::kNone;
  }
  const bool all = more == "truecolor" || more == "24bit" ||
                   absl::StrContains(term, "direct");
  return all ? Colours::kAll : Colours::k256;
}

// The nearest of the 6 x 6 x 6 colours, of levels 0, 95, 135, ... 255.
int Of256(const uint8_t* rgb) {
  const auto level = [](uint8_t c) {
    return c < 48 ? 0 : c < 115 ? 1 : (c - 35) / 40;
  };
  return 16 + 36 * level(rgb[0]) + 6 * level(rgb[1]) + level(rgb[2]);
}

std::string Colour(const uint8_t* rgb, Colours colours) {
  return colours == Colours::kAll
             ? absl::StrCat("2;", rgb[0], ";", rgb[1], ";", rgb[2])
             : absl::StrCat("5;", Of256(rgb));
}

// Two pixels as one letter, the brighter the fuller.
char Grey(const uint8_t* upper, const uint8_t* lower) {
  static constexpr std::string_view kLetters = " .:-=+*#%@";
  const auto bright = [](const uint8_t* rgb) {
    return 299u * rgb[0] + 587u * rgb[1] + 114u * rgb[2];
  };
  return kLetters[(bright(upper) + bright(lower)) * kLetters.size() /
                  (2 * 255'001)];
}

// From the top left corner; lines of `stride` bytes.
std::string Drawn(const uint8_t* pixels, size_t width, size_t height,
                  size_t stride, Colours colours) {
  std::string text = "\x1b[H";
  for (size_t y = 0; y + 1 < height; y += 2) {
    std::string before;
    for (size_t x = 0; x < width; ++x) {
      const uint8_t* upper = pixels + y * stride + 3 * x;
      const uint8_t* lower = upper + stride;
      if (colours == Colours::kNone) {
        text += Grey(upper, lower);
        continue;
      }
      std::string now = absl::StrCat("\x1b[38;", Colour(upper, colours), ";48;",
                                     Colour(lower, colours), "m");
      if (now != before) text += now;
      before = std::move(now);
      text += "\xe2\x96\x80";  // upper half block
    }
    text += colours == Colours::kNone ? "\r\n" : "\x1b[0m\r\n";
  }
  return text;
}

// The terminal while there is a picture on it.
class Screen {
 public:
  ~Screen() {
    if (entered_)
      output_.WriteWithin("\x1b[0m\x1b[?25h\x1b[?1049l", kLeaveMs);
  }
  void Draw(std::string_view picture) {
    if (!std::exchange(entered_, true))
      output_.Write("\x1b[?1049h\x1b[?25l\x1b[2J");
    output_.Write(picture);
  }
  // A Draw under way, and every later one, returns at once.
  void Stop() { output_.Stop(); }

 private:
  TerminalOutput output_{STDOUT_FILENO};
  bool entered_ = false;
};

GstFlowReturn OnSample(GstAppSink* from, gpointer screen) {
  static const Colours colours = ColoursOfTerminal();
  const SampleRef sample(gst_app_sink_pull_sample(from));
  if (sample == nullptr) return GST_FLOW_OK;
  GstVideoInfo info;
  GstVideoFrame frame;
  if (gst_video_info_from_caps(&info, gst_sample_get_caps(sample.get())) &&
      gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample.get()),
                          GST_MAP_READ)) {
    static_cast<Screen*>(screen)->Draw(Drawn(
        static_cast<const uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, 0)),
        static_cast<size_t>(info.width), static_cast<size_t>(info.height),
        static_cast<size_t>(GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0)),
        colours));
    gst_video_frame_unmap(&frame);
  }
  return GST_FLOW_OK;
}

// What draws on the screen ends before that is left.
class TerminalSink final : public PassingSink {
 public:
  TerminalSink(std::unique_ptr<Sink> sink, std::shared_ptr<Screen> screen)
      : PassingSink(std::move(sink), screen), screen_(*screen) {}
  ~TerminalSink() override { screen_.Stop(); }
  void Cancel() override {
    screen_.Stop();
    PassingSink::Cancel();
  }

 private:
  Screen& screen_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Sink>> ShowInTerminal(const std::string& format,
                                                     uint32_t columns,
                                                     uint32_t rows) {
  InitGst();
  const absl::StatusOr<CapsRef> caps = CapsOfFormat(format);
  if (!caps.ok()) return caps.status();
  GstVideoInfo info;
  if (!IsRawVideo(caps->get()) ||
      !gst_video_info_from_caps(&info, caps->get())) {
    return absl::InvalidArgumentError(
        absl::StrCat("it is no raw video: '", format, "'"));
  }
  // The last row stays free, so that nothing scrolls.
  const double wide = std::clamp<double>(columns, 2, 1000);
  const double high = 2 * (std::clamp<double>(rows, 2, 500) - 1);
  const double scale = std::min(wide / info.width, high / info.height);
  const int width = std::max(1, static_cast<int>(info.width * scale));
  const int height = std::max(2, static_cast<int>(info.height * scale) / 2 * 2);
  const auto screen = std::make_shared<Screen>();
  auto sink = StartSinkLine(
      absl::StrCat("videoconvert ! videoscale add-borders=false ! appsink "
                   "name=out sync=false "
                   "caps=\"video/x-raw,"
                   "format=RGB,pixel-aspect-ratio=1/1,width=",
                   width, ",height=", height, "\""),
      format, [&screen](GstElement* bin) {
        const ElementRef out(gst_bin_get_by_name(GST_BIN(bin), "out"));
        GstAppSinkCallbacks callbacks{};
        callbacks.new_sample = &OnSample;
        gst_app_sink_set_callbacks(GST_APP_SINK(out.get()), &callbacks,
                                   screen.get(), nullptr);
      });
  if (!sink.ok()) return sink.status();
  return std::make_unique<TerminalSink>(*std::move(sink), screen);
}

}  // namespace tripwire::periph
