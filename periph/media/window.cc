// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/window.h"

#include <gst/video/navigation.h>

#include <utility>

#include "absl/strings/match.h"
#include "periph/device/passing_sink.h"
#include "periph/media/formats.h"
#include "periph/media/input_event.h"
#include "periph/media/sink_line.h"

namespace tripwire::periph {
namespace {

using OnInput = std::function<void(const proto::InputEvent&)>;

// What the user does comes up the pipeline from the window.
void Listen(GstElement* bin, OnInput on_input) {
  const PadRef pad(gst_element_get_static_pad(bin, "sink"));
  gst_pad_add_probe(
      pad.get(), GST_PAD_PROBE_TYPE_EVENT_UPSTREAM,
      [](GstPad*, GstPadProbeInfo* info, gpointer of) {
        GstEvent* event = GST_PAD_PROBE_INFO_EVENT(info);
        if (GST_EVENT_TYPE(event) != GST_EVENT_NAVIGATION)
          return GST_PAD_PROBE_OK;
        const auto input = InputOfNavigation(event);
        if (input.has_value()) (*static_cast<OnInput*>(of))(*input);
        return GST_PAD_PROBE_OK;
      },
      new OnInput(std::move(on_input)),
      [](gpointer of) { delete static_cast<OnInput*>(of); });
}

class WindowSink final : public PassingSink {
 public:
  using PassingSink::PassingSink;

 private:
  // GStreamer's word for a window that its user has closed is an error.
  absl::Status Judge(const absl::Status& status) override {
    if (status.ok() ||
        !absl::StrContains(status.message(), "window was closed"))
      return status;
    return absl::CancelledError("the window was closed");
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Sink>> ShowInWindow(const std::string& format,
                                                   OnInput on_input) {
  InitGst();
  const absl::StatusOr<CapsRef> caps = CapsOfFormat(format);
  if (!caps.ok()) return caps.status();
  const std::string name(
      gst_caps_is_any(caps->get()) || gst_caps_is_empty(caps->get())
          ? ""
          : gst_structure_get_name(gst_caps_get_structure(caps->get(), 0)));
  std::string line;
  if (IsRawVideo(caps->get())) {
    line = "videoconvert ! autovideosink sync=false";
  } else if (IsRawAudio(caps->get())) {
    line = "audioconvert ! audioresample ! autoaudiosink sync=false";
  } else if (absl::StartsWith(name, "image/") ||
             absl::StartsWith(name, "video/")) {
    line = "decodebin ! videoconvert ! autovideosink sync=false";
  } else {
    return absl::InvalidArgumentError("it is neither a picture nor sound: '" +
                                      format + "'");
  }
  auto sink = StartSinkLine(line, format, [&on_input](GstElement* bin) {
    if (on_input) Listen(bin, std::move(on_input));
  });
  if (!sink.ok()) return sink.status();
  return std::make_unique<WindowSink>(*std::move(sink));
}

}  // namespace tripwire::periph
