// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/sink_line.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/device/passing_sink.h"
#include "periph/media/formats.h"
#include "periph/media/gst_sink.h"

namespace tripwire::periph {
absl::StatusOr<std::unique_ptr<Sink>> StartSinkLine(
    const std::string& line, const std::string& format,
    const std::function<void(GstElement* bin)>& prepare) {
  InitGst();
  GError* error = nullptr;
  GstElement* parsed = gst_parse_bin_from_description_full(
      line.c_str(), TRUE, nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (parsed == nullptr) {
    const std::string why = error != nullptr ? error->message : line;
    g_clear_error(&error);
    return absl::UnimplementedError(
        absl::StrCat(why, ": is its plug-in installed?"));
  }
  g_clear_error(&error);
  ElementRef bin(GST_ELEMENT(gst_object_ref_sink(parsed)));
  if (prepare) prepare(bin.get());
  const PadRef pad(gst_element_get_static_pad(bin.get(), "sink"));
  if (pad == nullptr)
    return absl::UnimplementedError("its elements take nothing");
  const CapsRef takes(gst_pad_query_caps(pad.get(), nullptr));
  absl::StatusOr<std::unique_ptr<Sink>> sink =
      GstSink::Start(bin.get(), takes.get(), format, GstSink::Timing::kKeep);
  if (!sink.ok()) return sink.status();
  return std::make_unique<PassingSink>(
      *std::move(sink), std::shared_ptr<GstElement>(std::move(bin)));
}

}  // namespace tripwire::periph
