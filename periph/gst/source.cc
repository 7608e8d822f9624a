// SPDX-License-Identifier: BSD-3-Clause
// tripwiresrc: frames of a remote device, in buffers that lie where the network
// put them.
#include <gst/base/gstpushsrc.h>
#include <gst/video/navigation.h>

#include <memory>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/gst/element.h"
#include "periph/gst/input_sender.h"
#include "periph/media/formats.h"
#include "periph/media/input_event.h"

GST_DEBUG_CATEGORY_STATIC(tripwire_src_debug);
#define GST_CAT_DEFAULT tripwire_src_debug

namespace tripwire::periph {
namespace {

enum Property : guint {
  kFormat = kFirstOwnProperty,
  kPolicy,
  kSlots,
  kIsLive,
  kLatency,
};

// Frames of one ring that the pipeline still has, by their order.
struct Ledger {
  std::mutex mutex;
  std::set<uint64_t> held;
};

constexpr uint64_t kStallNs = 250 * kMillisecond;

struct State : StreamingState<FrameStream> {
  // Properties, under the object's lock.
  std::string format;
  bool live = true;
  uint64_t latency_ns = 40 * kMillisecond;

  // Between start and stop.
  std::string stream_format;
  std::shared_ptr<Ledger> ledger;
  uint64_t taken = 0;   // of this ring
  bool copies = false;  // the pipeline keeps frames for long
  std::unique_ptr<InputSender> input;
  bool takes_input = false;
};

struct TripwireSrc {
  GstPushSrc parent;
  State* state;
};
struct TripwireSrcClass {
  GstPushSrcClass parent_class;
};

G_DEFINE_TYPE(TripwireSrc, tripwire_src, GST_TYPE_PUSH_SRC)

State& StateOf(gpointer element) {
  return *reinterpret_cast<TripwireSrc*>(element)->state;
}

void SetProperty(GObject* object, guint id, const GValue* value,
                 GParamSpec* spec) {
  State& state = StateOf(object);
  auto* element = GST_ELEMENT(object);
  switch (id) {
    case kFormat:
      return Assign(element, state.format, value);
    case kPolicy:
      state.options.policy = static_cast<Policy>(g_value_get_enum(value));
      return;
    case kSlots:
      state.options.slots = g_value_get_uint(value);
      return;
    case kIsLive:
      state.live = g_value_get_boolean(value) != FALSE;
      gst_base_src_set_live(GST_BASE_SRC(object), state.live);
      return;
    case kLatency:
      state.latency_ns = g_value_get_uint(value) * kMillisecond;
      return;
    default:
      if (!state.SetProperty(element, id, value))
        G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
  }
}

void GetProperty(GObject* object, guint id, GValue* value, GParamSpec* spec) {
  const State& state = StateOf(object);
  auto* element = GST_ELEMENT(object);
  switch (id) {
    case kFormat:
      return g_value_set_string(value, Copy(element, state.format).c_str());
    case kPolicy:
      return g_value_set_enum(value, static_cast<gint>(state.options.policy));
    case kSlots:
      return g_value_set_uint(value, state.options.slots);
    case kIsLive:
      return g_value_set_boolean(value, state.live);
    case kLatency:
      return g_value_set_uint(
          value, static_cast<guint>(state.latency_ns / kMillisecond));
    default:
      if (!state.GetProperty(element, id, value))
        G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
  }
}

gboolean Start(GstBaseSrc* src) {
  State& state = StateOf(src);
  const auto info = state.Connect(GST_ELEMENT(src), false);
  if (!info.ok()) {
    PostError(GST_ELEMENT(src), info.status());
    return FALSE;
  }
  state.takes_input = false;
  for (const std::string& format : info->sink_formats()) {
    if (format == kInputFormat) state.takes_input = true;
  }
  state.cancelled = false;
  state.copies = false;
  return TRUE;
}

gboolean Stop(GstBaseSrc* src) {
  State& state = StateOf(src);
  state.input.reset();
  state.SetStream(nullptr);
  state.Disconnect();
  return TRUE;
}

gboolean Unlock(GstBaseSrc* src) {
  StateOf(src).Cancel();
  return TRUE;
}

gboolean UnlockStop(GstBaseSrc* src) {
  StateOf(src).EndCancel();
  return TRUE;
}

GstCaps* GetCaps(GstBaseSrc* src, GstCaps* filter) {
  return StateOf(src).CapsOf(src->srcpad, filter);
}

// Says to the rest of the pipeline what format comes from now on.
bool Announce(GstBaseSrc* src, State& state) {
  state.stream_format = state.stream->format();
  // Bytes are left for others to find out what they are.
  if (state.stream_format == kByteStream) return true;
  const absl::StatusOr<CapsRef> caps = CapsOfFormat(state.stream_format);
  if (caps.ok() && gst_caps_is_fixed(caps->get()) &&
      gst_base_src_set_caps(src, caps->get())) {
    return true;
  }
  PostError(GST_ELEMENT(src), absl::UnimplementedError(absl::StrCat(
                                  "the pipeline cannot take '",
                                  state.stream_format, "', which comes now")));
  return false;
}

// What the rest of the pipeline and the device can agree on.
absl::StatusOr<std::string> WantedFormat(GstBaseSrc* src, State& state) {
  const std::string asked = Copy(GST_ELEMENT(src), state.format);
  if (!asked.empty()) return asked;
  const CapsRef peer(gst_pad_peer_query_caps(src->srcpad, nullptr));
  if (peer == nullptr || gst_caps_is_any(peer.get())) return std::string();
  const CapsRef both = Intersect(peer.get(), state.caps.get());
  if (gst_caps_is_empty(both.get())) {
    return absl::UnimplementedError(
        absl::StrCat("device '", state.name.device, "' makes ",
                     FormatOfCaps(state.caps.get()), "; the pipeline wants ",
                     FormatOfCaps(peer.get())));
  }
  // The device's own order of preference, if the pipeline takes everything it
  // makes.
  if (gst_caps_is_subset(state.caps.get(), peer.get())) return std::string();
  return FormatOfCaps(both.get());
}

// Opens the stream, or opens it again in another format or ring.
bool OpenStream(GstBaseSrc* src, State& state) {
  const auto fail = [src](const absl::Status& why) {
    PostError(GST_ELEMENT(src), why);
    return false;
  };
  const absl::StatusOr<std::string> format = WantedFormat(src, state);
  if (!format.ok()) return fail(format.status());
  StreamOptions options = state.options;
  options.format = *format;
  state.SetStream(nullptr);
  auto stream =
      state.connection->devices->OpenSource(state.name.device, options);
  if (!stream.ok()) return fail(stream.status());
  state.SetStream(*std::move(stream));
  state.ledger = std::make_shared<Ledger>();
  state.taken = 0;
  return Announce(src, state);
}

gboolean Negotiate(GstBaseSrc* src) {
  State& state = StateOf(src);
  if (state.stream != nullptr && !state.cancelled) {
    const CapsRef now(gst_pad_get_current_caps(src->srcpad));
    if (now == nullptr ||
        gst_pad_peer_query_accept_caps(src->srcpad, now.get())) {
      return TRUE;
    }
  }
  return OpenStream(src, state) ? TRUE : FALSE;
}

// A view that keeps what it needs alive, and is in the ledger meanwhile.
struct HeldView {
  FrameView view;
  std::shared_ptr<Connection> connection;
  std::shared_ptr<Ledger> ledger;
  uint64_t number;
  ~HeldView() {
    const std::lock_guard lock(ledger->mutex);
    ledger->held.erase(number);
  }
};

// The buffer is the frame where it lies, unless the pipeline keeps so many of
// them that the device would soon find no slot free: then it is a copy.
GstBuffer* BufferOf(State& state, FrameView view) {
  const std::span<const uint8_t> data = view.data();
  const uint64_t number = state.taken++;
  Ledger& ledger = *state.ledger;
  bool copies = state.copies || data.empty();
  if (!copies) {
    const std::lock_guard lock(ledger.mutex);
    copies = ledger.held.size() + 1 >= state.options.slots;
    if (!copies) ledger.held.insert(number);
  }
  if (copies) {
    GstBuffer* copy = gst_buffer_new_allocate(nullptr, data.size(), nullptr);
    gst_buffer_fill(copy, 0, data.data(), data.size());
    return copy;
  }
  auto* kept =
      new HeldView{std::move(view), state.connection, state.ledger, number};
  return gst_buffer_new_wrapped_full(
      GST_MEMORY_FLAG_READONLY, const_cast<uint8_t*>(data.data()), data.size(),
      0, data.size(), kept,
      [](gpointer of) { delete static_cast<HeldView*>(of); });
}

// Slots go back in order, so one frame that the pipeline keeps for long (an
// encoder that looks ahead, a file's buffer) stops them all; and it may be
// waiting for more frames.
bool IsStalled(const State& state) {
  const std::lock_guard lock(state.ledger->mutex);
  const auto& held = state.ledger->held;
  return !held.empty() && state.taken - *held.begin() >= state.options.slots;
}

// The next frame. Where the pipeline has stalled the ring, another ring is
// opened, and from then on the pipeline gets copies.
absl::StatusOr<FrameView> NextView(GstBaseSrc* src, State& state) {
  while (true) {
    const bool stalled = IsStalled(state);
    const uint64_t deadline_ns =
        stalled ? state.connection->nic->clock().NowNs() + kStallNs : kNever;
    absl::StatusOr<FrameView> view = state.stream->Next(deadline_ns);
    if (!absl::IsDeadlineExceeded(view.status())) return view;
    if (!IsStalled(state)) continue;
    GST_INFO_OBJECT(src, "the pipeline keeps frames for long: they are copied");
    state.copies = true;
    if (!OpenStream(src, state)) return absl::CancelledError("not negotiated");
  }
}

// The running time at which the frame was captured, by the clocks of both
// nodes.
GstClockTime CapturedAt(GstBaseSrc* src, State& state, const Frame& frame) {
  const GstClockTime now =
      gst_element_get_current_running_time(GST_ELEMENT(src));
  if (!GST_CLOCK_TIME_IS_VALID(now)) return GST_CLOCK_TIME_NONE;
  if (!state.stream->clock().known()) return now;
  const uint64_t captured_ns = state.stream->clock().ToOurs(frame.capture_ns);
  const uint64_t now_ns = state.connection->nic->clock().NowNs();
  const uint64_t age_ns = now_ns > captured_ns ? now_ns - captured_ns : 0;
  return now > age_ns ? now - age_ns : 0;
}

GstFlowReturn Create(GstPushSrc* push, GstBuffer** out) {
  auto* src = GST_BASE_SRC(push);
  State& state = StateOf(push);
  {
    const std::lock_guard lock(state.mutex);
    if (state.cancelled) return GST_FLOW_FLUSHING;
  }
  if (state.stream == nullptr && !Negotiate(src))
    return GST_FLOW_NOT_NEGOTIATED;
  absl::StatusOr<FrameView> view = NextView(src, state);
  if (!view.ok()) {
    if (absl::IsCancelled(view.status())) return GST_FLOW_FLUSHING;
    if (absl::IsOutOfRange(view.status())) return GST_FLOW_EOS;
    PostError(GST_ELEMENT(src), view.status());
    return GST_FLOW_ERROR;
  }
  if (state.stream->format() != state.stream_format && !Announce(src, state)) {
    return GST_FLOW_NOT_NEGOTIATED;
  }
  const Frame frame = view->frame();
  GstBuffer* buffer = BufferOf(state, *std::move(view));
  GST_BUFFER_PTS(buffer) = gst_base_src_get_do_timestamp(src)
                               ? CapturedAt(src, state, frame)
                           : frame.pts_ns != kNoTime ? frame.pts_ns
                                                     : GST_CLOCK_TIME_NONE;
  if (frame.duration_ns != kNoTime)
    GST_BUFFER_DURATION(buffer) = frame.duration_ns;
  GST_BUFFER_OFFSET(buffer) = frame.number;
  GST_BUFFER_OFFSET_END(buffer) = frame.number + 1;
  if (frame.flags & kDiscontinuity)
    GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
  if (!(frame.flags & kKeyFrame))
    GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DELTA_UNIT);
  *out = buffer;
  return GST_FLOW_OK;
}

// A window further down says what its user does: the screen gets it.
gboolean OnEvent(GstBaseSrc* src, GstEvent* event) {
  State& state = StateOf(src);
  if (GST_EVENT_TYPE(event) == GST_EVENT_NAVIGATION && state.takes_input) {
    const auto input = InputOfNavigation(event);
    const std::lock_guard lock(state.mutex);
    if (input.has_value() && state.connection != nullptr) {
      if (state.input == nullptr) {
        state.input = std::make_unique<InputSender>(
            *state.connection->devices, state.connection->nic->clock(),
            state.name.device);
      }
      state.input->Send(*input);
    }
    return TRUE;
  }
  return GST_BASE_SRC_CLASS(tripwire_src_parent_class)->event(src, event);
}

gboolean OnQuery(GstBaseSrc* src, GstQuery* query) {
  const State& state = StateOf(src);
  if (GST_QUERY_TYPE(query) == GST_QUERY_LATENCY && state.live) {
    gst_query_set_latency(query, TRUE, state.latency_ns, GST_CLOCK_TIME_NONE);
    return TRUE;
  }
  if (GST_QUERY_TYPE(query) == GST_QUERY_SCHEDULING) {
    gst_query_set_scheduling(query, GST_SCHEDULING_FLAG_SEQUENTIAL, 1, -1, 0);
    gst_query_add_scheduling_mode(query, GST_PAD_MODE_PUSH);
    return TRUE;
  }
  return GST_BASE_SRC_CLASS(tripwire_src_parent_class)->query(src, query);
}

gboolean IsSeekable(GstBaseSrc*) { return FALSE; }

void Finalize(GObject* object) {
  delete reinterpret_cast<TripwireSrc*>(object)->state;
  G_OBJECT_CLASS(tripwire_src_parent_class)->finalize(object);
}

void InstallProperties(GObjectClass* object_class) {
  InstallSharedProperties(object_class, "Frames that may wait at the device");
  g_object_class_install_property(
      object_class, kFormat,
      g_param_spec_string(
          "format", "Format",
          "What to ask the device for; empty: what the pipeline can take", "",
          kPropertyFlags));
  g_object_class_install_property(
      object_class, kPolicy,
      g_param_spec_enum("policy", "Policy",
                        "What to do with frames that find no free slot",
                        PolicyType(), static_cast<gint>(Policy::kDropOldest),
                        kPropertyFlags));
  g_object_class_install_property(
      object_class, kSlots,
      g_param_spec_uint("slots", "Slots", "Frames in the ring in our memory", 2,
                        4096, 8, kPropertyFlags));
  g_object_class_install_property(
      object_class, kIsLive,
      g_param_spec_boolean("is-live", "Is live",
                           "Whether the device is a live source", TRUE,
                           kPropertyFlags));
  g_object_class_install_property(
      object_class, kLatency,
      g_param_spec_uint(
          "latency", "Latency",
          "Milliseconds from capture until frames are shown in time", 0, 60000,
          40, kPropertyFlags));
}

void tripwire_src_class_init(TripwireSrcClass* type) {
  GST_DEBUG_CATEGORY_INIT(tripwire_src_debug, "tripwiresrc", 0,
                          "Tripwire source");
  auto* object_class = G_OBJECT_CLASS(type);
  object_class->set_property = SetProperty;
  object_class->get_property = GetProperty;
  object_class->finalize = Finalize;
  InstallProperties(object_class);
  gst_type_mark_as_plugin_api(PolicyType(), static_cast<GstPluginAPIFlags>(0));

  auto* element_class = GST_ELEMENT_CLASS(type);
  gst_element_class_set_static_metadata(
      element_class, "Tripwire source", "Source/Network",
      "Pictures, sound or bytes of a remote device", "The Tripwire authors");
  gst_element_class_add_pad_template(
      element_class, gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS,
                                          gst_caps_new_any()));

  auto* base_class = GST_BASE_SRC_CLASS(type);
  base_class->start = Start;
  base_class->stop = Stop;
  base_class->unlock = Unlock;
  base_class->unlock_stop = UnlockStop;
  base_class->get_caps = GetCaps;
  base_class->negotiate = Negotiate;
  base_class->event = OnEvent;
  base_class->query = OnQuery;
  base_class->is_seekable = IsSeekable;
  GST_PUSH_SRC_CLASS(type)->create = Create;
}

void tripwire_src_init(TripwireSrc* src) {
  src->state = new State;
  src->state->options.slots = 8;
  gst_base_src_set_format(GST_BASE_SRC(src), GST_FORMAT_TIME);
  gst_base_src_set_live(GST_BASE_SRC(src), TRUE);
  gst_base_src_set_do_timestamp(GST_BASE_SRC(src), TRUE);
}

}  // namespace

GType TripwireSrcType() { return tripwire_src_get_type(); }

}  // namespace tripwire::periph
