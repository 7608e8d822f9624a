// SPDX-License-Identifier: BSD-3-Clause
// Video in a terminal: a character shows two pixels, one above the other.
#include <gst/app/gstappsink.h>
#include <gst/video/video.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/device/passing_sink.h"
#include "periph/media/formats.h"
#include "periph/media/sink_line.h"
#include "periph/media/window.h"

namespace tripwire::periph {
namespace {

// Writes it all, as far as somebody takes it.
void Print(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(STDOUT_FILENO, text.data() + at, text.size() - at);
    if (n <= 0) return;
    at += static_cast<size_t>(n);
  }
}

std::string Colour(const uint8_t* rgb) {
  return absl::StrCat(rgb[0], ";", rgb[1], ";", rgb[2]);
}

// From the top left corner; lines of `stride` bytes.
std::string Drawn(const uint8_t* pixels, size_t width, size_t height,
                  size_t stride) {
  std::string text = "\x1b[H";
  for (size_t y = 0; y + 1 < height; y += 2) {
    std::string before;
    for (size_t x = 0; x < width; ++x) {
      const uint8_t* upper = pixels + y * stride + 3 * x;
      std::string now = absl::StrCat("\x1b[38;2;", Colour(upper), ";48;2;",
                                     Colour(upper + stride), "m");
      if (now != before) text += now;
      before = std::move(now);
      text += "\xe2\x96\x80";  // upper half block
    }
    text += "\x1b[0m\r\n";
  }
  return text;
}

GstFlowReturn OnSample(GstAppSink* from, gpointer) {
  const SampleRef sample(gst_app_sink_pull_sample(from));
  if (sample == nullptr) return GST_FLOW_OK;
  GstVideoInfo info;
  GstVideoFrame frame;
  if (gst_video_info_from_caps(&info, gst_sample_get_caps(sample.get())) &&
      gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample.get()),
                          GST_MAP_READ)) {
    Print(Drawn(
        static_cast<const uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, 0)),
        static_cast<size_t>(info.width), static_cast<size_t>(info.height),
        static_cast<size_t>(GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0))));
    gst_video_frame_unmap(&frame);
  }
  return GST_FLOW_OK;
}

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
  auto sink = StartSinkLine(
      absl::StrCat("videoconvert ! videoscale ! appsink name=out sync=false "
                   "caps=\"video/x-raw,"
                   "format=RGB,pixel-aspect-ratio=1/1,width=",
                   width, ",height=", height, "\""),
      format, [](GstElement* bin) {
        const ElementRef out(gst_bin_get_by_name(GST_BIN(bin), "out"));
        GstAppSinkCallbacks callbacks{};
        callbacks.new_sample = &OnSample;
        gst_app_sink_set_callbacks(GST_APP_SINK(out.get()), &callbacks, nullptr,
                                   nullptr);
      });
  if (!sink.ok()) return sink.status();
  Print("\x1b[?1049h\x1b[?25l\x1b[2J");
  // The terminal is left as it was found.
  std::shared_ptr<void> restore(
      nullptr, [](void*) { Print("\x1b[0m\x1b[?25h\x1b[?1049l"); });
  return std::make_unique<PassingSink>(*std::move(sink), std::move(restore));
}

}  // namespace tripwire::periph
