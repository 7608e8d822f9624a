// SPDX-License-Identifier: BSD-3-Clause
#include "periph/kinds/gst/device.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "periph/device/passing_sink.h"
#include "periph/kinds/gst/controls.h"
#include "periph/media/formats.h"
#include "periph/media/gst_sink.h"

namespace tripwire::periph {
namespace {

// Opening a device to ask it may make a camera's light blink: not for every
// `ls`.
constexpr uint64_t kProbeAgeNs = 2 * kSecond;

// A part of a line between two '!'; caps become the element that enforces them,
// which the parser does by itself only between two elements.
std::string SpellOut(const std::string& part) {
  const std::string text(absl::StripAsciiWhitespace(part));
  const size_t slash = text.find('/');
  if (slash == std::string::npos || slash > text.find_first_of(" =."))
    return part;
  const CapsRef caps(gst_caps_from_string(text.c_str()));
  if (caps == nullptr) return part;
  return absl::StrCat(
      " capsfilter caps=\"",
      absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\" ");
}

std::string SpellOutEnds(std::string line) {
  const size_t last = line.rfind('!');
  if (last == std::string::npos) return SpellOut(line);
  line =
      absl::StrCat(line.substr(0, last + 1), SpellOut(line.substr(last + 1)));
  const size_t first = line.find('!');
  return absl::StrCat(SpellOut(line.substr(0, first)), line.substr(first));
}

absl::StatusOr<ElementRef> ParseLine(const std::string& line) {
  GError* error = nullptr;
  GstElement* bin = gst_parse_bin_from_description_full(
      SpellOutEnds(line).c_str(), TRUE, nullptr, GST_PARSE_FLAG_FATAL_ERRORS,
      &error);
  if (error == nullptr && bin != nullptr)
    return ElementRef(GST_ELEMENT(gst_object_ref_sink(bin)));
  std::string why = error != nullptr ? error->message : "it cannot be parsed";
  if (g_error_matches(error, GST_PARSE_ERROR,
                      GST_PARSE_ERROR_NO_SUCH_ELEMENT)) {
    absl::StrAppend(&why, ": is its plug-in installed?");
  }
  g_clear_error(&error);
  if (bin != nullptr) gst_object_unref(gst_object_ref_sink(bin));
  return absl::InvalidArgumentError(why);
}

bool HasPad(GstElement* bin, const char* name) {
  return PadRef(gst_element_get_static_pad(bin, name)) != nullptr;
}

const RegisterKind kGst{{
    "gst",
    "gst:LAUNCH-LINE",
    "pictures and sound: what GStreamer elements make (gst:v4l2src) or take "
    "(gst:autoaudiosink)",
    [](const std::string& argument,
       Clock& clock) -> absl::StatusOr<std::unique_ptr<Device>> {
      absl::StatusOr<std::unique_ptr<GstDevice>> device =
          GstDevice::Make(argument, clock);
      if (!device.ok()) return device.status();
      return *std::move(device);
    },
}};

}  // namespace

absl::StatusOr<std::unique_ptr<GstDevice>> GstDevice::Make(
    const std::string& line, Clock& clock) {
  InitGst();
  absl::StatusOr<ElementRef> bin = ParseLine(line);
  if (!bin.ok()) return bin.status();
  const bool makes = HasPad(bin->get(), "src"),
             takes = HasPad(bin->get(), "sink");
  if (makes == takes) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", line, "' is neither a source nor a sink: ",
                     makes ? "both its ends are free" : "it has no free end"));
  }
  return std::unique_ptr<GstDevice>(
      new GstDevice(*std::move(bin), line, makes, clock));
}

GstDevice::GstDevice(ElementRef bin, std::string line, bool is_source,
                     Clock& clock)
    : bin_(std::move(bin)),
      line_(std::move(line)),
      is_source_(is_source),
      clock_(clock) {}

GstDevice::~GstDevice() { gst_element_set_state(bin_.get(), GST_STATE_NULL); }

bool GstDevice::busy() { return !run_.expired() || !sink_in_use_.expired(); }

absl::StatusOr<CapsRef> GstDevice::Probe() {
  const ElementRef pipeline(
      GST_ELEMENT(gst_object_ref_sink(gst_pipeline_new(nullptr))));
  gst_bin_add(GST_BIN(pipeline.get()), bin_.get());
  const PadRef pad(
      gst_element_get_static_pad(bin_.get(), is_source_ ? "src" : "sink"));
  absl::StatusOr<CapsRef> caps = absl::UnavailableError("it cannot be opened");
  if (gst_element_set_state(pipeline.get(), GST_STATE_READY) ==
      GST_STATE_CHANGE_FAILURE) {
    const BusRef bus(gst_pipeline_get_bus(GST_PIPELINE(pipeline.get())));
    const MessageRef message(
        gst_bus_pop_filtered(bus.get(), GST_MESSAGE_ERROR));
    if (message != nullptr) caps = StatusOfError(message.get());
  } else {
    caps = CapsRef(gst_pad_query_caps(pad.get(), nullptr));
  }
  gst_element_set_state(pipeline.get(), GST_STATE_NULL);
  gst_bin_remove(GST_BIN(pipeline.get()), bin_.get());
  return caps;
}

DeviceInfo GstDevice::Describe() {
  const std::lock_guard lock(mutex_);
  if (!busy() && clock_.NowNs() >= probed_until_ns_) {
    absl::StatusOr<CapsRef> caps = Probe();
    probed_ = std::move(caps);
    probed_until_ns_ = clock_.NowNs() + kProbeAgeNs;
  }
  DeviceInfo info;
  info.description =
      absl::StrCat("GStreamer ", is_source_ ? "source: " : "sink: ", line_);
  info.many_formats = is_source_;
  CapsRef known;
  if (probed_.ok()) {
    known.reset(gst_caps_ref(probed_->get()));
  } else {
    info.present = false;
    info.why_absent = std::string(probed_.status().message());
    const PadRef pad(
        gst_element_get_static_pad(bin_.get(), is_source_ ? "src" : "sink"));
    known.reset(gst_pad_query_caps(pad.get(), nullptr));
  }
  std::vector<std::string> formats = FormatsOfCaps(known.get());
  for (const char* type : {"video/x-raw", "audio/x-raw"}) {
    // Any other raw format is made by converters.
    const bool listed =
        std::find(formats.begin(), formats.end(), type) != formats.end();
    if (!gst_caps_is_any(known.get()) && HasRaw(known.get(), type) && !listed) {
      formats.push_back(type);
    }
  }
  (is_source_ ? info.source_formats : info.sink_formats) = std::move(formats);
  return info;
}

absl::StatusOr<std::unique_ptr<Source>> GstDevice::StartSource(
    const std::string& format, FrameTaker& taker) {
  if (!is_source_) return Device::StartSource(format, taker);
  const std::lock_guard lock(mutex_);
  if (const std::shared_ptr<GstPipelineRun> running = run_.lock()) {
    if (running->over()) return absl::UnavailableError("it is just ending");
    return running->Add(format, taker);
  }
  absl::StatusOr<CapsRef> makes = Probe();
  if (!makes.ok()) return makes.status();
  probed_ = CapsRef(gst_caps_ref(makes->get()));
  return GstPipelineRun::Start(bin_.get(), makes->get(), format, taker, clock_,
                               &run_);
}

absl::StatusOr<std::unique_ptr<Sink>> GstDevice::StartSink(
    const std::string& format) {
  if (is_source_) return Device::StartSink(format);
  const std::lock_guard lock(mutex_);
  if (busy()) return absl::FailedPreconditionError("somebody uses it");
  absl::StatusOr<CapsRef> takes = Probe();
  if (!takes.ok()) return takes.status();
  probed_ = CapsRef(gst_caps_ref(takes->get()));
  absl::StatusOr<std::unique_ptr<Sink>> sink =
      GstSink::Start(bin_.get(), takes->get(), format, GstSink::Timing::kPlay);
  if (!sink.ok()) return sink.status();
  auto hold = std::make_shared<int>(0);
  sink_in_use_ = hold;
  return std::make_unique<PassingSink>(*std::move(sink), std::move(hold));
}

absl::StatusOr<std::vector<Control>> GstDevice::Controls() {
  return ControlsOf(bin_.get());
}

absl::Status GstDevice::SetControl(const std::string& name,
                                   const std::string& value) {
  return SetControlOf(bin_.get(), name, value);
}

}  // namespace tripwire::periph
