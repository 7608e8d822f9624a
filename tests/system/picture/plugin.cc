// SPDX-License-Identifier: BSD-3-Clause
// GStreamer elements for tests and measurements:
//   twtestpicture  a camera of test pictures (I420), live, at its caps' rate;
//   pictures it is
//                  too late for it leaves out
//   twtestcheck    a sink that reads them, and writes its report to a file in
//   the end; REPORT.begun is there from the first picture on. The latencies of
//   the first `untimed` pictures are left out
#include <gst/base/gstbasesink.h>
#include <gst/base/gstpushsrc.h>
#include <gst/video/video.h>

#include <ctime>
#include <fstream>
#include <string>

#include "tests/system/picture/picture.h"

#define PACKAGE "tripwire"

namespace {

using tripwire::picture::Draw;
using tripwire::picture::Seen;
using tripwire::picture::Stamp;
using tripwire::picture::Tally;

uint64_t NowNs() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * 1'000'000'000u +
         static_cast<uint64_t>(ts.tv_nsec);
}

// ------------------------------------------------------------------
// twtestpicture

struct Picture {
  GstPushSrc parent;
  GstVideoInfo info;
  GstBufferPool* pool;
  uint64_t number, begin_ns, count;
};
struct PictureClass {
  GstPushSrcClass parent_class;
};
G_DEFINE_TYPE(Picture, picture, GST_TYPE_PUSH_SRC)

gboolean PictureStart(GstBaseSrc* src) {
  auto* self = reinterpret_cast<Picture*>(src);
  self->number = 0;
  self->begin_ns = 0;
  return TRUE;
}

gboolean PictureStop(GstBaseSrc* src) {
  auto* self = reinterpret_cast<Picture*>(src);
  if (self->pool != nullptr) {
    gst_buffer_pool_set_active(self->pool, FALSE);
    gst_object_unref(self->pool);
    self->pool = nullptr;
  }
  return TRUE;
}

GstCaps* PictureFixate(GstBaseSrc* src, GstCaps* caps) {
  caps = gst_caps_make_writable(gst_caps_truncate(caps));
  GstStructure* structure = gst_caps_get_structure(caps, 0);
  gst_structure_fixate_field_nearest_int(structure, "width", 640);
  gst_structure_fixate_field_nearest_int(structure, "height", 480);
  gst_structure_fixate_field_nearest_fraction(structure, "framerate", 30, 1);
  return GST_BASE_SRC_CLASS(picture_parent_class)->fixate(src, caps);
}

gboolean PictureSetCaps(GstBaseSrc* src, GstCaps* caps) {
  auto* self = reinterpret_cast<Picture*>(src);
  if (!gst_video_info_from_caps(&self->info, caps)) return FALSE;
  PictureStop(src);
  self->pool = gst_buffer_pool_new();
  GstStructure* config = gst_buffer_pool_get_config(self->pool);
  gst_buffer_pool_config_set_params(
      config, caps, static_cast<guint>(GST_VIDEO_INFO_SIZE(&self->info)), 0, 0);
  return gst_buffer_pool_set_config(self->pool, config) &&
         gst_buffer_pool_set_active(self->pool, TRUE);
}

// A slope, so that the pictures are pictures. Buffers come back with it still
// in them.
void Background(const GstVideoInfo& info, uint8_t* pixels) {
  const auto width = static_cast<size_t>(info.width),
             height = static_cast<size_t>(info.height);
  for (size_t y = 0; y < height; ++y) {
    for (size_t x = 0; x < width; ++x) {
      pixels[y * width + x] = static_cast<uint8_t>(16 + (x + y) % 220);
    }
  }
  uint8_t* const colour = pixels + width * height;
  for (size_t i = 0; i < width * height / 2; ++i) {
    colour[i] =
        static_cast<uint8_t>(i < width * height / 4 ? 90 + i % 64 : 160);
  }
}

GstFlowReturn PictureCreate(GstPushSrc* src, GstBuffer** out) {
  auto* self = reinterpret_cast<Picture*>(src);
  if (self->count != 0 && self->number >= self->count) return GST_FLOW_EOS;
  const auto fps_n = static_cast<uint64_t>(self->info.fps_n);
  const auto fps_d = static_cast<uint64_t>(self->info.fps_d);
  const uint64_t period_ns = fps_n == 0 ? 0 : 1'000'000'000u * fps_d / fps_n;
  uint64_t now_ns = NowNs();
  if (self->begin_ns == 0) self->begin_ns = now_ns;
  if (period_ns > 0) {
    const uint64_t due = self->begin_ns + self->number * period_ns;
    if (now_ns > due + period_ns)
      self->number += (now_ns - due) / period_ns;  // too late
    const uint64_t at_ns = self->begin_ns + self->number * period_ns;
    const timespec at{static_cast<time_t>(at_ns / 1'000'000'000u),
                      static_cast<long>(at_ns % 1'000'000'000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
    }
  }
  GstBuffer* buffer = nullptr;
  const GstFlowReturn got =
      gst_buffer_pool_acquire_buffer(self->pool, &buffer, nullptr);
  if (got != GST_FLOW_OK) return got;
  static const GQuark drawn =
      g_quark_from_static_string("tripwire-test-background");
  GstMapInfo map;
  if (!gst_buffer_map(buffer, &map, GST_MAP_WRITE)) return GST_FLOW_ERROR;
  GstMemory* memory = gst_buffer_peek_memory(buffer, 0);
  if (gst_mini_object_get_qdata(GST_MINI_OBJECT(memory), drawn) == nullptr) {
    Background(self->info, map.data);
    gst_mini_object_set_qdata(GST_MINI_OBJECT(memory), drawn, self, nullptr);
  }
  now_ns = NowNs();
  Draw({self->number, now_ns}, static_cast<uint32_t>(self->info.width),
       static_cast<uint32_t>(self->info.height), {map.data, map.size});
  gst_buffer_unmap(buffer, &map);
  GST_BUFFER_PTS(buffer) =
      gst_element_get_current_running_time(GST_ELEMENT(src));
  GST_BUFFER_DURATION(buffer) = period_ns > 0 ? period_ns : GST_CLOCK_TIME_NONE;
  GST_BUFFER_OFFSET(buffer) = self->number++;
  GST_BUFFER_OFFSET_END(buffer) = self->number;
  *out = buffer;
  return GST_FLOW_OK;
}

void PictureSet(GObject* object, guint, const GValue* value, GParamSpec*) {
  reinterpret_cast<Picture*>(object)->count = g_value_get_uint64(value);
}
void PictureGet(GObject* object, guint, GValue* value, GParamSpec*) {
  g_value_set_uint64(value, reinterpret_cast<Picture*>(object)->count);
}

void picture_class_init(PictureClass* type) {
  G_OBJECT_CLASS(type)->set_property = PictureSet;
  G_OBJECT_CLASS(type)->get_property = PictureGet;
  g_object_class_install_property(
      G_OBJECT_CLASS(type), 1,
      g_param_spec_uint64("count", "Count", "Pictures in all; 0: no end", 0,
                          G_MAXUINT64, 0,
                          static_cast<GParamFlags>(G_PARAM_READWRITE)));
  auto* element_class = GST_ELEMENT_CLASS(type);
  gst_element_class_set_static_metadata(
      element_class, "Test picture", "Source/Video",
      "Pictures that say which they are", "The Tripwire authors");
  gst_element_class_add_pad_template(
      element_class,
      gst_pad_template_new(
          "src", GST_PAD_SRC, GST_PAD_ALWAYS,
          gst_caps_from_string("video/x-raw, format=I420, width=[160,8192], "
                               "height=[192,8192], framerate=[0/1,1000/1]")));
  auto* base_class = GST_BASE_SRC_CLASS(type);
  base_class->start = PictureStart;
  base_class->stop = PictureStop;
  base_class->fixate = PictureFixate;
  base_class->set_caps = PictureSetCaps;
  GST_PUSH_SRC_CLASS(type)->create = PictureCreate;
}

void picture_init(Picture* self) {
  gst_base_src_set_format(GST_BASE_SRC(self), GST_FORMAT_TIME);
  gst_base_src_set_live(GST_BASE_SRC(self), TRUE);
}

// --------------------------------------------------------------------
// twtestcheck

struct CheckState {
  Tally tally;
  std::string report;
  uint64_t untimed = 0;
};
struct Check {
  GstBaseSink parent;
  GstVideoInfo info;
  CheckState* state;
};
struct CheckClass {
  GstBaseSinkClass parent_class;
};
G_DEFINE_TYPE(Check, check, GST_TYPE_BASE_SINK)

gboolean CheckSetCaps(GstBaseSink* sink, GstCaps* caps) {
  return gst_video_info_from_caps(&reinterpret_cast<Check*>(sink)->info, caps);
}

GstFlowReturn CheckRender(GstBaseSink* sink, GstBuffer* buffer) {
  auto* self = reinterpret_cast<Check*>(sink);
  GstMapInfo map;
  if (!gst_buffer_map(buffer, &map, GST_MAP_READ)) return GST_FLOW_ERROR;
  Stamp stamp;
  const Seen seen = tripwire::picture::Read(
      {map.data, map.size}, static_cast<uint32_t>(self->info.width),
      static_cast<uint32_t>(self->info.height), &stamp);
  CheckState& state = *self->state;
  if (state.tally.frames() == 0 && !state.report.empty())
    std::ofstream(state.report + ".begun");
  state.tally.Add(seen, stamp, NowNs());
  gst_buffer_unmap(buffer, &map);
  return GST_FLOW_OK;
}

gboolean CheckStart(GstBaseSink* sink) {
  CheckState& state = *reinterpret_cast<Check*>(sink)->state;
  state.tally = Tally(state.untimed);
  return TRUE;
}

gboolean CheckStop(GstBaseSink* sink) {
  auto* self = reinterpret_cast<Check*>(sink);
  if (!self->state->report.empty()) {
    std::ofstream(self->state->report) << self->state->tally.Report();
  }
  return TRUE;
}

enum CheckProperty : guint { kReport = 1, kUntimed };

void CheckSet(GObject* object, guint id, const GValue* value, GParamSpec*) {
  CheckState& state = *reinterpret_cast<Check*>(object)->state;
  if (id == kUntimed) {
    state.untimed = g_value_get_uint64(value);
    return;
  }
  const gchar* path = g_value_get_string(value);
  state.report = path != nullptr ? path : "";
}
void CheckGet(GObject* object, guint id, GValue* value, GParamSpec*) {
  const CheckState& state = *reinterpret_cast<Check*>(object)->state;
  if (id == kUntimed) return g_value_set_uint64(value, state.untimed);
  g_value_set_string(value, state.report.c_str());
}
void CheckFinalize(GObject* object) {
  delete reinterpret_cast<Check*>(object)->state;
  G_OBJECT_CLASS(check_parent_class)->finalize(object);
}

void check_class_init(CheckClass* type) {
  G_OBJECT_CLASS(type)->set_property = CheckSet;
  G_OBJECT_CLASS(type)->get_property = CheckGet;
  G_OBJECT_CLASS(type)->finalize = CheckFinalize;
  g_object_class_install_property(
      G_OBJECT_CLASS(type), kReport,
      g_param_spec_string("report", "Report", "File for what was seen", "",
                          static_cast<GParamFlags>(G_PARAM_READWRITE)));
  g_object_class_install_property(
      G_OBJECT_CLASS(type), kUntimed,
      g_param_spec_uint64(
          "untimed", "Untimed", "First pictures whose latency does not count",
          0, G_MAXUINT64, 0, static_cast<GParamFlags>(G_PARAM_READWRITE)));
  auto* element_class = GST_ELEMENT_CLASS(type);
  gst_element_class_set_static_metadata(element_class, "Test picture check",
                                        "Sink/Video", "Reads test pictures",
                                        "The Tripwire authors");
  gst_element_class_add_pad_template(
      element_class,
      gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS,
                           gst_caps_from_string("video/x-raw, format=I420")));
  auto* base_class = GST_BASE_SINK_CLASS(type);
  base_class->set_caps = CheckSetCaps;
  base_class->render = CheckRender;
  base_class->start = CheckStart;
  base_class->stop = CheckStop;
}

void check_init(Check* self) {
  self->state = new CheckState;
  gst_base_sink_set_sync(GST_BASE_SINK(self), FALSE);
}

gboolean Init(GstPlugin* plugin) {
  return gst_element_register(plugin, "twtestpicture", GST_RANK_NONE,
                              picture_get_type()) &&
         gst_element_register(plugin, "twtestcheck", GST_RANK_NONE,
                              check_get_type());
}

}  // namespace

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, twtest, "Test pictures",
                  Init, "1", "BSD", "tripwire", "Tripwire")
