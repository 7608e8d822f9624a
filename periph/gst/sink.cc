// SPDX-License-Identifier: BSD-3-Clause
// tripwiresink: a pipeline's frames to a remote device.
#include <gst/base/gstbasesink.h>

#include <memory>
#include <mutex>
#include <utility>

#include "periph/gst/connection.h"
#include "periph/gst/element.h"
#include "periph/media/formats.h"
#include "periph/media/sample.h"

namespace tripwire::periph {
namespace {

constexpr uint64_t kFinishNs = 60 * kSecond;

enum Property : guint {
  kNoProperty,
  kDevice,
  kPort,
  kQueue,
  kExclusive,
  kReconnect
};

struct State {
  // Properties, under the object's lock.
  std::string device, ports;
  StreamOptions options;

  // Between start and stop; `output` changes under the mutex, in the streaming
  // thread.
  DeviceName name;
  std::shared_ptr<Connection> connection;
  CapsRef takes;
  std::string format;
  std::mutex mutex;
  std::unique_ptr<FrameOutput> output;
  bool cancelled = false;
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
  State& state = StateOf(object);
  switch (id) {
    case kDevice:
      return Assign(GST_ELEMENT(object), state.device, value);
    case kPort:
      return Assign(GST_ELEMENT(object), state.ports, value);
    case kQueue:
      state.options.queue_frames = g_value_get_uint(value);
      return;
    case kExclusive:
      state.options.exclusive = g_value_get_boolean(value) != FALSE;
      return;
    case kReconnect:
      state.options.reconnect = g_value_get_boolean(value) != FALSE;
      return;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
  }
}

void GetProperty(GObject* object, guint id, GValue* value, GParamSpec* spec) {
  const State& state = StateOf(object);
  switch (id) {
    case kDevice:
      return g_value_set_string(
          value, Copy(GST_ELEMENT(object), state.device).c_str());
    case kPort:
      return g_value_set_string(value,
                                Copy(GST_ELEMENT(object), state.ports).c_str());
    case kQueue:
      return g_value_set_uint(value, state.options.queue_frames);
    case kExclusive:
      return g_value_set_boolean(value, state.options.exclusive);
    case kReconnect:
      return g_value_set_boolean(value, state.options.reconnect);
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
  }
}

gboolean Start(GstBaseSink* sink) {
  State& state = StateOf(sink);
  const auto fail = [sink](const absl::Status& why) {
    PostError(GST_ELEMENT(sink), why);
    return FALSE;
  };
  auto name = ParseDeviceName(Copy(GST_ELEMENT(sink), state.device));
  if (!name.ok()) return fail(name.status());
  state.name = *std::move(name);
  auto connection =
      ConnectTo(Copy(GST_ELEMENT(sink), state.ports), state.name.node);
  if (!connection.ok()) return fail(connection.status());
  auto info = (*connection)->devices->Info(state.name.device);
  if (!info.ok()) return fail(info.status());
  state.takes = CapsOfDevice(*info, true);
  state.connection = *std::move(connection);
  state.cancelled = false;
  return TRUE;
}

gboolean Stop(GstBaseSink* sink) {
  State& state = StateOf(sink);
  {
    const std::lock_guard lock(state.mutex);
    state.output.reset();
  }
  state.format.clear();
  state.takes.reset();
  state.connection.reset();
  return TRUE;
}

gboolean Unlock(GstBaseSink* sink) {
  State& state = StateOf(sink);
  const std::lock_guard lock(state.mutex);
  state.cancelled = true;
  if (state.output != nullptr) state.output->Cancel();
  return TRUE;
}

gboolean UnlockStop(GstBaseSink* sink) {
  State& state = StateOf(sink);
  const std::lock_guard lock(state.mutex);
  // A cancelled output stays so: another is opened for the next frame.
  if (state.cancelled) state.output.reset();
  state.cancelled = false;
  return TRUE;
}

GstCaps* GetCaps(GstBaseSink* sink, GstCaps* filter) {
  const State& state = StateOf(sink);
  CapsRef caps(state.takes != nullptr
                   ? gst_caps_ref(state.takes.get())
                   : gst_pad_get_pad_template_caps(sink->sinkpad));
  if (filter == nullptr) return caps.release();
  return Intersect(filter, caps.get()).release();
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
  const std::lock_guard lock(state.mutex);
  state.output = *std::move(output);
  if (state.cancelled) state.output->Cancel();
  return true;
}

gboolean SetCaps(GstBaseSink* sink, GstCaps* caps) {
  State& state = StateOf(sink);
  const std::string format = FormatOfCaps(caps);
  if (state.output != nullptr && format == state.format) return TRUE;
  if (state.output != nullptr) {
    // What is under way is played in the format it has.
    (void)state.output->Finish(state.connection->nic->clock().NowNs() +
                               kFinishNs);
    const std::lock_guard lock(state.mutex);
    state.output.reset();
  }
  state.format = format;
  return Open(sink, state) ? TRUE : FALSE;
}

GstFlowReturn Render(GstBaseSink* sink, GstBuffer* buffer) {
  State& state = StateOf(sink);
  if (state.output == nullptr && !Open(sink, state)) return GST_FLOW_ERROR;
  const CapsRef caps(gst_pad_get_current_caps(sink->sinkpad));
  absl::StatusOr<Frame> frame = FrameOfBuffer(buffer, caps.get());
  absl::Status status = frame.status();
  if (status.ok()) {
    frame->capture_ns = state.connection->nic->clock().NowNs();
    status = state.output->Put(*frame, kNever);
  }
  if (status.ok()) return GST_FLOW_OK;
  if (absl::IsCancelled(status)) return GST_FLOW_FLUSHING;
  PostError(GST_ELEMENT(sink), status);
  return GST_FLOW_ERROR;
}

gboolean OnEvent(GstBaseSink* sink, GstEvent* event) {
  State& state = StateOf(sink);
  if (GST_EVENT_TYPE(event) == GST_EVENT_EOS && state.output != nullptr) {
    const absl::Status played = state.output->Finish(kNever);
    if (!played.ok() && !absl::IsCancelled(played))
      PostError(GST_ELEMENT(sink), played);
  }
  return GST_BASE_SINK_CLASS(tripwire_sink_parent_class)->event(sink, event);
}

void Finalize(GObject* object) {
  delete reinterpret_cast<TripwireSink*>(object)->state;
  G_OBJECT_CLASS(tripwire_sink_parent_class)->finalize(object);
}

void InstallProperties(GObjectClass* object_class) {
  constexpr auto kFlags = static_cast<GParamFlags>(
      G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);
  g_object_class_install_property(
      object_class, kDevice,
      g_param_spec_string("device", "Device",
                          "The device, NODE:NAME; no NODE: the only one", "",
                          kFlags));
  g_object_class_install_property(
      object_class, kPort,
      g_param_spec_string(
          "port", "Port",
          "The network, as after --port; several with spaces between", "",
          kFlags));
  g_object_class_install_property(
      object_class, kQueue,
      g_param_spec_uint("queue", "Queue",
                        "Frames that may wait here for the device", 1, 4096, 4,
                        kFlags));
  g_object_class_install_property(
      object_class, kExclusive,
      g_param_spec_boolean("exclusive", "Exclusive",
                           "Nobody else may use the device meanwhile", FALSE,
                           kFlags));
  g_object_class_install_property(
      object_class, kReconnect,
      g_param_spec_boolean("reconnect", "Reconnect",
                           "Wait for a lost device to come back", TRUE,
                           kFlags));
}

void tripwire_sink_class_init(TripwireSinkClass* type) {
  auto* object_class = G_OBJECT_CLASS(type);
  object_class->set_property = SetProperty;
  object_class->get_property = GetProperty;
  object_class->finalize = Finalize;
  InstallProperties(object_class);

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
