// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_KINDS_GST_BRANCH_H_
#define TRIPWIRE_PERIPH_KINDS_GST_BRANCH_H_

#include <gst/app/gstappsink.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "nic/base/clock.h"
#include "periph/device/device.h"
#include "periph/media/gst_ptr.h"

namespace tripwire::periph {

class GstPipelineRun;

// One format of a running pipeline: [queue !] [converters !] appsink, behind
// its tee. The queue leaks, so that no branch holds up another; the first
// branch has none.
//
// Thread safety: the streaming thread calls the taker; every method is for any
// thread.
class GstBranch {
 public:
  struct Plan {
    std::string converters;  // a launch line, or ""
    CapsRef caps;            // what the appsink admits
    bool queue = false;
    bool sync =
        false;  // wait for each frame's time: sources that do not by themselves
  };
  GstBranch(GstPipelineRun& run, Clock& clock, FrameTaker& taker)
      : run_(run), clock_(clock), taker_(taker) {}
  ~GstBranch();
  GstBranch(const GstBranch&) = delete;

  // Makes the elements and joins them to the tee. Errors: UNIMPLEMENTED.
  absl::Status Join(GstElement* pipeline, GstElement* tee, Plan plan);
  // Waits for the first frame, so that the format is known.
  absl::Status WaitFirst(uint64_t timeout_ns);
  // UNIMPLEMENTED if what comes is in another format after all.
  absl::Status CheckAdmittedBy(const std::string& format);
  void SetSync(bool sync) {
    g_object_set(elements_.back(), "sync", gboolean{sync}, nullptr);
  }
  // From now on the taker is called.
  void Release();
  // No call of the taker's from now on; one under way may still have to return.
  void Stop();
  // Takes the branch off a pipeline that goes on.
  void Leave(GstElement* pipeline);

  void End(const absl::Status& why);   // tells the taker, once
  void Fail(const absl::Status& why);  // ends the wait for the first frame
  void CountQos(uint64_t dropped);     // in all, of one element
  const std::string& format() const { return format_; }
  uint64_t max_frame_bytes() const { return max_bytes_; }
  CapsRef caps() const { return CapsRef(gst_caps_ref(caps_.get())); }

 private:
  static GstFlowReturn OnSample(GstAppSink* sink, gpointer self);
  static void OnEos(GstAppSink* sink, gpointer self);
  void WatchQueue(GstElement* queue);
  void Take(GstSample* sample);
  uint64_t CaptureNs(GstSample* sample);
  uint64_t CountGap(const GstBuffer* buffer, const GstCaps* caps);

  GstPipelineRun& run_;
  Clock& clock_;
  FrameTaker& taker_;
  std::vector<GstElement*> elements_;  // owned by the pipeline
  PadRef tee_pad_;
  GstElement* tee_ = nullptr;

  std::mutex mutex_;  // of what follows, never held over a call of the taker
  std::condition_variable changed_;
  CapsRef caps_;
  std::string format_;
  uint64_t max_bytes_ = 0;
  bool first_ = false, released_ = false, stopping_ = false;
  absl::Status failed_;
  std::deque<const GstBuffer*> queued_;  // names only, in order
  uint64_t leaked_ = 0, qos_dropped_ = 0;

  std::mutex taking_;  // one call of the taker at a time
  bool ended_ = false;
  uint64_t gaps_ = 0,
           next_offset_ = GST_BUFFER_OFFSET_NONE;  // streaming thread's
  uint64_t last_frames_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_KINDS_GST_BRANCH_H_
