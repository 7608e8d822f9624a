// SPDX-License-Identifier: BSD-3-Clause
// tripwiresink: a pipeline's frames to a remote device.
#include <gst/base/gstbasesink.h>

#include <string>
#include <utility>

#include "periph/gst/element.h"
#include "periph/media/formats.h"
#include "periph/media/sample.h"

namespace tripwire::periph {
namespace {

constexpr uint64_t kFinishNs = 60 * kSecond;

struct State : StreamingState<FrameOutput> {
  std::string format;  // of what is played now
};

struct TripwireSink {
  GstBaseSink parent;
  State* state;
};
struct TripwireSinkClass {
  GstBaseSinkClass parent_class;
};

G_DEFINE_TYPE(TripwireSink, tripwire_sink, GST_TYPE_BASE_SINK)

State& StateOf(gpointer element) {
  return *reinterpret_cast<TripwireSink*>(element)->state;
}

void SetProperty(GObject* object, guint id, const GValue* value,
                 GParamSpec* spec) {
  if (!StateOf(object).SetProperty(GST_ELEMENT(object), id, value))
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
}

void GetProperty(GObject* object, guint id, GValue* value, GParamSpec* spec) {
  if (!StateOf(object).GetProperty(GST_ELEMENT(object), id, value))
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
}

gboolean Start(GstBaseSink* sink) {
  State& state = StateOf(sink);
  const auto info = state.Connect(GST_ELEMENT(sink), true);
  if (!info.ok()) {
    PostError(GST_ELEMENT(sink), info.status());
    return FALSE;
  }
  state.cancelled = false;
  return TRUE;
}

gboolean Stop(GstBaseSink* sink) {
  State& state = StateOf(sink);
  state.SetStream(nullptr);
  state.format.clear();
  state.Disconnect();
  return TRUE;
}

gboolean Unlock(GstBaseSink* sink) {
  StateOf(sink).Cancel();
  return TRUE;
}

gboolean UnlockStop(GstBaseSink* sink) {
  StateOf(sink).EndCancel();
  return TRUE;
}

GstCaps* GetCaps(GstBaseSink* sink, GstCaps* filter) {
  return StateOf(sink).CapsOf(sink->sinkpad, filter);
}

bool Open(GstBaseSink* sink, State& state) {
  StreamOptions options = state.options;
  options.format = state.format;
  options.policy = Policy::kBlock;
  auto output = state.connection->devices->OpenSink(state.name.device, options);
  if (!output.ok()) {
    PostError(GST_ELEMENT(sink), output.status());
    return false;
  }
  state.SetStream(*std::move(output));
  return true;
}

gboolean SetCaps(GstBaseSink* sink, GstCaps* caps) {
  State& state = StateOf(sink);
  const std::string format = FormatOfCaps(caps);
  if (state.stream != nullptr && format == state.format) return TRUE;
  if (state.stream != nullptr) {
    // What is under way is played in the format it has.
    (void)state.stream->Finish(state.connection->nic->clock().NowNs() +
                               kFinishNs);
    state.SetStream(nullptr);
  }
  state.format = format;
  return Open(sink, state) ? TRUE : FALSE;
}

GstFlowReturn Render(GstBaseSink* sink, GstBuffer* buffer) {
  State& state = StateOf(sink);
  if (state.stream == nullptr && !Open(sink, state)) return GST_FLOW_ERROR;
  const CapsRef caps(gst_pad_get_current_caps(sink->sinkpad));
  absl::StatusOr<Frame> frame = FrameOfBuffer(buffer, caps.get());
  absl::Status status = frame.status();
  if (status.ok()) {
    frame->capture_ns = state.connection->nic->clock().NowNs();
    status = state.stream->Put(*frame, kNever);
  }
  if (status.ok()) return GST_FLOW_OK;
  if (absl::IsCancelled(status)) return GST_FLOW_FLUSHING;
  PostError(GST_ELEMENT(sink), status);
  return GST_FLOW_ERROR;
}

gboolean OnEvent(GstBaseSink* sink, GstEvent* event) {
  State& state = StateOf(sink);
  if (GST_EVENT_TYPE(event) == GST_EVENT_EOS && state.stream != nullptr) {
    const absl::Status played = state.stream->Finish(kNever);
    if (!played.ok() && !absl::IsCancelled(played))
      PostError(GST_ELEMENT(sink), played);
  }
  return GST_BASE_SINK_CLASS(tripwire_sink_parent_class)->event(sink, event);
}

void Finalize(GObject* object) {
  delete reinterpret_cast<TripwireSink*>(object)->state;
  G_OBJECT_CLASS(tripwire_sink_parent_class)->finalize(object);
}

void tripwire_sink_class_init(TripwireSinkClass* type) {
  auto* object_class = G_OBJECT_CLASS(type);
  object_class->set_property = SetProperty;
  object_class->get_property = GetProperty;
  object_class->finalize = Finalize;
  InstallSharedProperties(object_class,
                          "Frames that may wait here for the device");

  auto* element_class = GST_ELEMENT_CLASS(type);
  gst_element_class_set_static_metadata(
      element_class, "Tripwire sink", "Sink/Network",
      "Plays pictures, sound or bytes on a remote device",
      "The Tripwire authors");
  gst_element_class_add_pad_template(
      element_class, gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS,
                                          gst_caps_new_any()));

  auto* base_class = GST_BASE_SINK_CLASS(type);
  base_class->start = Start;
  base_class->stop = Stop;
  base_class->unlock = Unlock;
  base_class->unlock_stop = UnlockStop;
  base_class->get_caps = GetCaps;
  base_class->set_caps = SetCaps;
  base_class->render = Render;
  base_class->event = OnEvent;
}

void tripwire_sink_init(TripwireSink* sink) {
  sink->state = new State;
  // The device paces.
  gst_base_sink_set_sync(GST_BASE_SINK(sink), FALSE);
}

}  // namespace

GType TripwireSinkType() { return tripwire_sink_get_type(); }

}  // namespace tripwire::periph
