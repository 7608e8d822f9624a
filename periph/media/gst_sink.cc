// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/gst_sink.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/media/formats.h"
#include "periph/media/sample.h"

namespace tripwire::periph {
namespace {

constexpr guint64 kQueueFrames = 3;
constexpr int64_t kLateNs =
    100'000'000;  // frames later than this are taken for a pause

// What to send in for `format`: exact. "": what the elements like best.
absl::StatusOr<CapsRef> ExactCaps(const GstCaps* takes,
                                  const std::string& format) {
  absl::StatusOr<CapsRef> wanted = CapsOfFormat(format);
  if (!wanted.ok()) return wanted.status();
  if (gst_caps_is_any(wanted->get())) {
    if (gst_caps_is_any(takes)) return CapsOfFormat(kByteStream);
    CapsRef plain = InOrdinaryMemory(takes);
    if (!gst_caps_is_empty(plain.get())) return Fixate(std::move(plain));
  } else if (gst_caps_can_intersect(takes, wanted->get())) {
    return Fixate(Intersect(wanted->get(), takes));
  }
  for (const char* type : {"video/x-raw", "audio/x-raw"}) {
    CapsRef raw = OnlyRaw(wanted->get(), type);
    if (!gst_caps_is_empty(raw.get()) && HasRaw(takes, type))
      return Fixate(std::move(raw));
  }
  return absl::UnimplementedError(absl::StrCat(
      "it cannot take '", format, "'; it takes ", FormatOfCaps(takes)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sink>> GstSink::Start(GstElement* bin,
                                                     const GstCaps* takes,
                                                     const std::string& format,
                                                     Timing timing) {
  absl::StatusOr<CapsRef> caps = ExactCaps(takes, format);
  if (!caps.ok()) return caps.status();
  if (!gst_caps_is_fixed(caps->get())) {
    return absl::UnimplementedError(
        absl::StrCat("'", format, "' does not say all that is needed"));
  }
  std::unique_ptr<GstSink> sink(new GstSink(bin, *std::move(caps), timing));
  const absl::Status built = sink->Build(takes);
  if (!built.ok()) return built;
  return sink;
}

GstSink::GstSink(GstElement* bin, CapsRef caps, Timing timing)
    : pipeline_(GST_ELEMENT(gst_object_ref_sink(gst_pipeline_new(nullptr)))),
      bin_(bin),
      caps_(std::move(caps)),
      format_(FormatOfCaps(caps_.get())),
      timing_(timing) {
  max_bytes_ = LikelyFrameBytes(caps_.get(), 0);
  // Whoever sends sound or bytes chooses the pieces.
  if (!IsRawVideo(caps_.get())) max_bytes_ = uint64_t{1} << 20;
}

GstSink::~GstSink() {
  const BusRef bus(gst_pipeline_get_bus(GST_PIPELINE(pipeline_.get())));
  gst_element_set_state(pipeline_.get(), GST_STATE_NULL);
  gst_bus_set_sync_handler(bus.get(), nullptr, nullptr, nullptr);
  gst_bin_remove(GST_BIN(pipeline_.get()), bin_);
}

absl::Status GstSink::Build(const GstCaps* takes) {
  gst_bin_add(GST_BIN(pipeline_.get()), bin_);
  source_ = gst_element_factory_make("appsrc", nullptr);
  g_object_set(source_, "caps", caps_.get(), "format", GST_FORMAT_TIME,
               "max-buffers", kQueueFrames, "max-bytes", guint64{0}, "max-time",
               guint64{0}, nullptr);
  GstAppSrcCallbacks callbacks{};
  callbacks.need_data = [](GstAppSrc*, guint, gpointer self) {
    auto* sink = static_cast<GstSink*>(self);
    const std::lock_guard lock(sink->mutex_);
    sink->full_ = false;
    sink->changed_.notify_all();
  };
  callbacks.enough_data = [](GstAppSrc*, gpointer self) {
    auto* sink = static_cast<GstSink*>(self);
    const std::lock_guard lock(sink->mutex_);
    sink->full_ = true;
  };
  gst_app_src_set_callbacks(GST_APP_SRC(source_), &callbacks, this, nullptr);
  gst_bin_add(GST_BIN(pipeline_.get()), source_);
  GstElement* last = source_;
  const std::string line = gst_caps_is_subset(caps_.get(), takes)
                               ? ""
                               : ConverterLine(takes, caps_.get());
  if (!line.empty()) {
    GError* error = nullptr;
    GstElement* converters =
        gst_parse_bin_from_description(line.c_str(), TRUE, &error);
    g_clear_error(&error);
    if (converters == nullptr)
      return absl::UnimplementedError("cannot convert to what it takes");
    gst_bin_add(GST_BIN(pipeline_.get()), converters);
    gst_element_link(last, converters);
    last = converters;
  }
  if (!gst_element_link(last, bin_))
    return absl::UnimplementedError("the format cannot be had");
  const BusRef bus(gst_pipeline_get_bus(GST_PIPELINE(pipeline_.get())));
  gst_bus_set_sync_handler(bus.get(), &GstSink::OnMessage, this, nullptr);
  if (gst_element_set_state(pipeline_.get(), GST_STATE_PLAYING) !=
      GST_STATE_CHANGE_FAILURE) {
    return absl::OkStatus();
  }
  const std::lock_guard lock(mutex_);
  return error_.ok() ? absl::UnavailableError("it cannot be started") : error_;
}

GstBusSyncReply GstSink::OnMessage(GstBus*, GstMessage* message,
                                   gpointer self) {
  auto* sink = static_cast<GstSink*>(self);
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
    const absl::Status why = StatusOfError(message);
    const std::lock_guard lock(sink->mutex_);
    if (sink->error_.ok()) sink->error_ = why;
    sink->changed_.notify_all();
  } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS) {
    const std::lock_guard lock(sink->mutex_);
    sink->played_ = true;
    sink->changed_.notify_all();
  }
  gst_message_unref(message);
  return GST_BUS_DROP;
}

absl::Status GstSink::state() {
  if (cancelled_) return absl::CancelledError("cancelled");
  return error_;
}

absl::Status GstSink::Put(const Frame& frame) {
  if (frame.data.size() > max_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a frame of ", frame.data.size(), " bytes is too large for ", format_));
  }
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock,
                  [this] { return !full_ || cancelled_ || !error_.ok(); });
    if (!state().ok()) return state();
  }
  BufferRef buffer = BufferOfFrame(frame);
  Retime(buffer.get());
  const GstFlowReturn flow =
      gst_app_src_push_buffer(GST_APP_SRC(source_), buffer.release());
  const std::lock_guard lock(mutex_);
  if (flow != GST_FLOW_OK && error_.ok()) {
    return absl::UnavailableError("it takes no more");
  }
  return state();
}

// The first frame is for now. Later ones keep their distance to it, unless they
// go backwards, or come so late that the source must have paused.
void GstSink::Retime(GstBuffer* buffer) {
  if (!GST_BUFFER_PTS_IS_VALID(buffer)) return;
  const int64_t time = static_cast<int64_t>(
      std::min<uint64_t>(GST_BUFFER_PTS(buffer), INT64_MAX / 2));
  const GstClockTime now =
      gst_element_get_current_running_time(pipeline_.get());
  const int64_t now_ns =
      GST_CLOCK_TIME_IS_VALID(now) ? static_cast<int64_t>(now) : 0;
  int64_t at = time + shift_ns_;
  const int64_t next = static_cast<int64_t>(next_ns_);
  if (!timed_ || at + kLateNs < now_ns || at + kLateNs < next) {
    at = timed_ ? std::max(now_ns, next) : now_ns;
    if (timed_) GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
    shift_ns_ = at - time;
    timed_ = true;
  }
  at = std::max<int64_t>(at, 0);
  GST_BUFFER_PTS(buffer) = static_cast<GstClockTime>(at);
  next_ns_ = static_cast<uint64_t>(at);
}

absl::Status GstSink::Drain() {
  {
    const std::lock_guard lock(mutex_);
    if (!state().ok()) return state();
  }
  gst_app_src_end_of_stream(GST_APP_SRC(source_));
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return played_ || cancelled_ || !error_.ok(); });
  return played_ ? absl::OkStatus() : state();
}

void GstSink::Cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

}  // namespace tripwire::periph
