// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_MEDIA_GST_SINK_H_
#define TRIPWIRE_PERIPH_MEDIA_GST_SINK_H_

#include <gst/app/gstappsrc.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "periph/device/device.h"
#include "periph/media/gst_ptr.h"

namespace tripwire::periph {

// A sink's elements at work: appsrc ! [converters !] BIN. The pipeline paces: a
// few frames wait in the appsrc, and Put waits for room there.
class GstSink final : public Sink {
 public:
  // What becomes of frames' times. kPlay: the first is for now, and so is one
  // that comes so late that the source must have paused. kKeep: for files; all
  // keep their distances.
  enum class Timing : uint8_t { kPlay, kKeep };

  // `bin` has a sink pad "sink", which takes `takes`, and no parent; it has
  // none again when the sink is destroyed. Errors as Device::StartSink.
  static absl::StatusOr<std::unique_ptr<Sink>> Start(GstElement* bin,
                                                     const GstCaps* takes,
                                                     const std::string& format,
                                                     Timing timing);
  ~GstSink() override;

  const std::string& format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return max_bytes_; }
  absl::Status Put(const Frame& frame) override;
  absl::Status Drain() override;
  void Cancel() override;

 private:
  GstSink(GstElement* bin, CapsRef caps, Timing timing);
  absl::Status Build(const GstCaps* takes);
  absl::Status state();  // REQUIRES: mutex_
  void Retime(GstBuffer* buffer);
  static GstBusSyncReply OnMessage(GstBus* bus, GstMessage* message,
                                   gpointer self);

  ElementRef pipeline_;
  GstElement* bin_;               // owned by the pipeline, and by the device
  GstElement* source_ = nullptr;  // owned by the pipeline
  const CapsRef caps_;
  const std::string format_;
  const Timing timing_;
  uint64_t max_bytes_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool full_ = false, cancelled_ = false, played_ = false;
  absl::Status error_;

  // Put's: a frame with time t is for running time t + shift_ns_.
  bool timed_ = false;
  int64_t shift_ns_ = 0;
  uint64_t next_ns_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_MEDIA_GST_SINK_H_
