// SPDX-License-Identifier: BSD-3-Clause
#include "periph/kinds/gst/branch.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "periph/kinds/gst/pipeline.h"
#include "periph/media/formats.h"
#include "periph/media/sample.h"

namespace tripwire::periph {
namespace {

constexpr guint kQueueFrames = 4;
constexpr uint64_t kOldestNs =
    10 * kSecond;  // what a live source may say of a frame's age

}  // namespace

GstBranch::~GstBranch() {
  if (tee_pad_ != nullptr)
    gst_element_release_request_pad(tee_, tee_pad_.get());
  if (tee_ != nullptr) gst_object_unref(tee_);
}

absl::Status GstBranch::Join(GstElement* pipeline, GstElement* tee, Plan plan) {
  tee_ = GST_ELEMENT(gst_object_ref(tee));
  std::vector<GstElement*> chain;
  if (plan.queue) {
    chain.push_back(gst_element_factory_make("queue", nullptr));
    g_object_set(chain.back(), "leaky", 2, "max-size-buffers", kQueueFrames,
                 "max-size-bytes", 0u, "max-size-time", guint64{0}, nullptr);
    WatchQueue(chain.back());
  }
  if (!plan.converters.empty()) {
    GError* error = nullptr;
    GstElement* converters =
        gst_parse_bin_from_description(plan.converters.c_str(), TRUE, &error);
    if (converters == nullptr || error != nullptr) {
      const std::string why = error != nullptr ? error->message : "unknown";
      g_clear_error(&error);
      if (converters != nullptr) gst_object_unref(converters);
      for (GstElement* element : chain) gst_object_unref(element);
      return absl::UnimplementedError(absl::StrCat("cannot convert: ", why));
    }
    chain.push_back(converters);
  }
  GstElement* sink = gst_element_factory_make("appsink", nullptr);
  // A branch that joins late must not make the pipeline wait for its first
  // frame.
  g_object_set(sink, "caps", plan.caps.get(), "sync", gboolean{plan.sync},
               "async", gboolean{!plan.queue}, "qos", FALSE,
               "enable-last-sample", FALSE, nullptr);
  GstAppSinkCallbacks callbacks{};
  callbacks.eos = &GstBranch::OnEos;
  callbacks.new_sample = &GstBranch::OnSample;
  gst_app_sink_set_callbacks(GST_APP_SINK(sink), &callbacks, this, nullptr);
  chain.push_back(sink);

  elements_ = chain;
  for (GstElement* element : chain) gst_bin_add(GST_BIN(pipeline), element);
  for (size_t i = 0; i + 1 < chain.size(); ++i)
    gst_element_link(chain[i], chain[i + 1]);
  // From the end, so that none passes on what the next cannot take yet.
  for (auto at = chain.rbegin(); at != chain.rend(); ++at)
    gst_element_sync_state_with_parent(*at);
  tee_pad_.reset(gst_element_request_pad_simple(tee, "src_%u"));
  const PadRef into(gst_element_get_static_pad(chain.front(), "sink"));
  if (gst_pad_link(tee_pad_.get(), into.get()) != GST_PAD_LINK_OK) {
    return absl::UnimplementedError("the format cannot be had");
  }
  return absl::OkStatus();
}

// What went in and did not come out, before something that came in later did,
// has leaked.
void GstBranch::WatchQueue(GstElement* queue) {
  const PadRef in(gst_element_get_static_pad(queue, "sink"));
  const PadRef out(gst_element_get_static_pad(queue, "src"));
  gst_pad_add_probe(
      in.get(), GST_PAD_PROBE_TYPE_BUFFER,
      [](GstPad*, GstPadProbeInfo* info, gpointer self) {
        auto* branch = static_cast<GstBranch*>(self);
        const std::lock_guard lock(branch->mutex_);
        branch->queued_.push_back(GST_PAD_PROBE_INFO_BUFFER(info));
        return GST_PAD_PROBE_OK;
      },
      this, nullptr);
  gst_pad_add_probe(
      out.get(), GST_PAD_PROBE_TYPE_BUFFER,
      [](GstPad*, GstPadProbeInfo* info, gpointer self) {
        auto* branch = static_cast<GstBranch*>(self);
        const std::lock_guard lock(branch->mutex_);
        while (!branch->queued_.empty()) {
          const bool same =
              branch->queued_.front() == GST_PAD_PROBE_INFO_BUFFER(info);
          branch->queued_.pop_front();
          if (same) break;
          ++branch->leaked_;
        }
        return GST_PAD_PROBE_OK;
      },
      this, nullptr);
}

GstFlowReturn GstBranch::OnSample(GstAppSink* sink, gpointer self) {
  const SampleRef sample(gst_app_sink_pull_sample(sink));
  if (sample == nullptr) return GST_FLOW_OK;  // the end; OnEos says so
  static_cast<GstBranch*>(self)->Take(sample.get());
  return GST_FLOW_OK;
}

void GstBranch::OnEos(GstAppSink*, gpointer self) {
  auto* branch = static_cast<GstBranch*>(self);
  {
    std::unique_lock lock(branch->mutex_);
    if (!branch->first_) {
      branch->failed_ =
          absl::UnavailableError("it ended before it made anything");
      branch->changed_.notify_all();
    }
  }
  // An element that fails says so first and then ends its stream.
  branch->End(branch->run_.error());
}

void GstBranch::Take(GstSample* sample) {
  GstBuffer* buffer = gst_sample_get_buffer(sample);
  if (buffer == nullptr) return;
  GstCaps* caps = gst_sample_get_caps(sample);
  const uint64_t capture_ns = CaptureNs(sample);
  absl::StatusOr<Frame> frame = FrameOfBuffer(buffer, caps);
  if (!frame.ok()) return run_.Fail(frame.status());
  bool changed = false;
  {
    std::unique_lock lock(mutex_);
    const bool same =
        caps == caps_.get() || (caps != nullptr && caps_ != nullptr &&
                                gst_caps_is_equal(caps, caps_.get()));
    changed = first_ && (!same || frame->data.size() > max_bytes_);
    if (!first_ || changed) {
      caps_.reset(caps != nullptr ? gst_caps_ref(caps) : gst_caps_new_any());
      format_ = FormatOfCaps(caps);
      max_bytes_ = LikelyFrameBytes(caps, frame->data.size());
      first_ = true;
      changed_.notify_all();
    }
    changed_.wait(lock, [this] { return released_ || stopping_; });
    if (stopping_) return;
    gaps_ += CountGap(buffer, caps);
    frame->overrun = std::max(gaps_, qos_dropped_) + leaked_;
  }
  frame->capture_ns = capture_ns;
  const std::lock_guard taking(taking_);
  if (ended_) return;
  if (changed) taker_.SetFormat(format_, max_bytes_);
  taker_.Take(*std::move(frame));
}

// A live source stamps a frame with the running time when it was captured;
// others have no capture time but now.
uint64_t GstBranch::CaptureNs(GstSample* sample) {
  const uint64_t now_ns = clock_.NowNs();
  const GstBuffer* buffer = gst_sample_get_buffer(sample);
  const GstSegment* segment = gst_sample_get_segment(sample);
  if (!run_.live() || !GST_BUFFER_PTS_IS_VALID(buffer) || segment == nullptr ||
      segment->format != GST_FORMAT_TIME) {
    return now_ns;
  }
  const GstClockTime at = gst_segment_to_running_time(segment, GST_FORMAT_TIME,
                                                      GST_BUFFER_PTS(buffer));
  const GstClockTime now =
      gst_element_get_current_running_time(run_.pipeline());
  if (!GST_CLOCK_TIME_IS_VALID(at) || !GST_CLOCK_TIME_IS_VALID(now) ||
      now <= at)
    return now_ns;
  const uint64_t age_ns = std::min<uint64_t>({now - at, kOldestNs, now_ns});
  return now_ns - age_ns;
}

// Frames that the source says are missing before this one: pictures are
// numbered by their offset, sound by its samples.
uint64_t GstBranch::CountGap(const GstBuffer* buffer, const GstCaps* caps) {
  const uint64_t offset = GST_BUFFER_OFFSET(buffer),
                 end = GST_BUFFER_OFFSET_END(buffer);
  const bool sound = IsRawAudio(caps);
  const bool numbered = offset != GST_BUFFER_OFFSET_NONE &&
                        (!sound || end > offset) && !IsByteStream(caps);
  uint64_t missing = 0;
  if (numbered && next_offset_ != GST_BUFFER_OFFSET_NONE &&
      offset > next_offset_) {
    missing = offset - next_offset_;
    if (sound)
      missing =
          last_frames_ > 0 ? (missing + last_frames_ - 1) / last_frames_ : 1;
    if (missing > 1'000'000) missing = 0;  // it counts something else
  }
  if (numbered && sound) last_frames_ = end - offset;
  next_offset_ = !numbered ? GST_BUFFER_OFFSET_NONE : sound ? end : offset + 1;
  return missing;
}

absl::Status GstBranch::WaitFirst(uint64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                    [this] { return first_ || !failed_.ok() || stopping_; });
  if (!failed_.ok()) return failed_;
  if (first_) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("it made nothing within ",
                                             timeout_ns / kSecond, " seconds"));
}

absl::Status GstBranch::CheckAdmittedBy(const std::string& format) {
  const absl::StatusOr<CapsRef> wanted = CapsOfFormat(format);
  if (!wanted.ok()) return wanted.status();
  const std::lock_guard lock(mutex_);
  // Bytes of no known format are no picture.
  const bool admitted =
      gst_caps_is_any(caps_.get())
          ? IsByteStream(wanted->get())
          : gst_caps_can_intersect(caps_.get(), wanted->get()) != 0;
  if (admitted) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("it cannot make '", format, "'; it makes ", format_));
}

void GstBranch::Release() {
  const std::lock_guard lock(mutex_);
  released_ = true;
  changed_.notify_all();
}

void GstBranch::Stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

void GstBranch::Leave(GstElement* pipeline) {
  struct Waiter {
    std::mutex mutex;
    std::condition_variable done_changed;
    bool done = false;
  } waiter;
  // When no buffer is on its way through the pad it may be taken off.
  gst_pad_add_probe(
      tee_pad_.get(), GST_PAD_PROBE_TYPE_IDLE,
      [](GstPad* pad, GstPadProbeInfo*, gpointer of) {
        const PadRef peer(gst_pad_get_peer(pad));
        if (peer != nullptr) gst_pad_unlink(pad, peer.get());
        auto* waiting = static_cast<Waiter*>(of);
        const std::lock_guard lock(waiting->mutex);
        waiting->done = true;
        waiting->done_changed.notify_all();
        return GST_PAD_PROBE_REMOVE;
      },
      &waiter, nullptr);
  {
    std::unique_lock lock(waiter.mutex);
    waiter.done_changed.wait(lock, [&waiter] { return waiter.done; });
  }
  for (GstElement* element : elements_) {
    gst_element_set_locked_state(element, TRUE);
    gst_element_set_state(element, GST_STATE_NULL);
    gst_bin_remove(GST_BIN(pipeline), element);
  }
  elements_.clear();
}

void GstBranch::End(const absl::Status& why) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock,
                  [this] { return released_ || stopping_ || !failed_.ok(); });
    if (stopping_ || !released_) return;
  }
  const std::lock_guard taking(taking_);
  if (!ended_) taker_.End(why);
  ended_ = true;
}

void GstBranch::Fail(const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  if (!first_ && failed_.ok()) failed_ = why;
  changed_.notify_all();
}

void GstBranch::CountQos(uint64_t dropped) {
  const std::lock_guard lock(mutex_);
  qos_dropped_ = std::max(qos_dropped_, dropped);
}

}  // namespace tripwire::periph
