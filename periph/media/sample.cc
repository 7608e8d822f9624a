// SPDX-License-Identifier: BSD-3-Clause
#include "periph/media/sample.h"

#include <gst/video/video.h>

#include <memory>
#include <utility>

#include "periph/media/formats.h"

namespace tripwire::periph {
namespace {

// A buffer, mapped for reading as long as this lives.
struct Mapped {
  explicit Mapped(GstBuffer* of) : buffer(gst_buffer_ref(of)) {
    ok = gst_buffer_map(buffer.get(), &map, GST_MAP_READ) != FALSE;
  }
  ~Mapped() {
    if (ok) gst_buffer_unmap(buffer.get(), &map);
  }
  Mapped(const Mapped&) = delete;
  BufferRef buffer;
  GstMapInfo map = GST_MAP_INFO_INIT;
  bool ok = false;
};

// The picture with lines as long as its format says, if they are not; else
// null.
BufferRef InShape(GstBuffer* buffer, const GstCaps* caps) {
  const GstVideoMeta* meta = gst_buffer_get_video_meta(buffer);
  GstVideoInfo info;
  if (meta == nullptr || !IsRawVideo(caps) ||
      !gst_video_info_from_caps(&info, caps)) {
    return nullptr;
  }
  bool same = meta->n_planes == GST_VIDEO_INFO_N_PLANES(&info);
  for (guint plane = 0; same && plane < meta->n_planes; ++plane) {
    same = meta->stride[plane] == GST_VIDEO_INFO_PLANE_STRIDE(&info, plane) &&
           meta->offset[plane] == GST_VIDEO_INFO_PLANE_OFFSET(&info, plane);
  }
  if (same) return nullptr;
  BufferRef shaped(
      gst_buffer_new_allocate(nullptr, GST_VIDEO_INFO_SIZE(&info), nullptr));
  GstVideoFrame from, to;
  if (!gst_video_frame_map(&from, &info, buffer, GST_MAP_READ)) return nullptr;
  if (gst_video_frame_map(&to, &info, shaped.get(), GST_MAP_WRITE)) {
    gst_video_frame_copy(&to, &from);
    gst_video_frame_unmap(&to);
  }
  gst_video_frame_unmap(&from);
  return shaped;
}

}  // namespace

absl::StatusOr<Frame> FrameOfBuffer(GstBuffer* buffer, const GstCaps* caps) {
  const BufferRef shaped = InShape(buffer, caps);
  auto mapped =
      std::make_shared<const Mapped>(shaped != nullptr ? shaped.get() : buffer);
  if (!mapped->ok)
    return absl::InternalError("the memory of a frame cannot be read");
  Frame frame;
  frame.data = {mapped->map.data, mapped->map.size};
  frame.owner = std::move(mapped);
  if (GST_BUFFER_PTS_IS_VALID(buffer)) frame.pts_ns = GST_BUFFER_PTS(buffer);
  if (GST_BUFFER_DURATION_IS_VALID(buffer))
    frame.duration_ns = GST_BUFFER_DURATION(buffer);
  if (GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_DISCONT))
    frame.flags |= kDiscontinuity;
  if (!GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_DELTA_UNIT))
    frame.flags |= kKeyFrame;
  return frame;
}

BufferRef BufferOfFrame(const Frame& frame) {
  BufferRef buffer;
  if (frame.owner != nullptr && !frame.data.empty()) {
    using Owner = std::shared_ptr<const void>;
    buffer.reset(gst_buffer_new_wrapped_full(
        GST_MEMORY_FLAG_READONLY, const_cast<uint8_t*>(frame.data.data()),
        frame.data.size(), 0, frame.data.size(), new Owner(frame.owner),
        [](gpointer owner) { delete static_cast<Owner*>(owner); }));
  } else {
    buffer.reset(gst_buffer_new_allocate(nullptr, frame.data.size(), nullptr));
    gst_buffer_fill(buffer.get(), 0, frame.data.data(), frame.data.size());
  }
  if (frame.pts_ns != kNoTime) GST_BUFFER_PTS(buffer.get()) = frame.pts_ns;
  if (frame.duration_ns != kNoTime)
    GST_BUFFER_DURATION(buffer.get()) = frame.duration_ns;
  if (frame.flags & kDiscontinuity)
    GST_BUFFER_FLAG_SET(buffer.get(), GST_BUFFER_FLAG_DISCONT);
  if (!(frame.flags & kKeyFrame))
    GST_BUFFER_FLAG_SET(buffer.get(), GST_BUFFER_FLAG_DELTA_UNIT);
  return buffer;
}

}  // namespace tripwire::periph
