// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_KINDS_GST_DEVICE_H_
#define TRIPWIRE_PERIPH_KINDS_GST_DEVICE_H_

#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "nic/base/clock.h"
#include "periph/device/device.h"
#include "periph/kinds/gst/pipeline.h"
#include "periph/media/gst_ptr.h"

namespace tripwire::periph {

// A GStreamer launch line as a device. A line whose last element has a free
// source pad is a source; one whose first element has a free sink pad is a
// sink.
class GstDevice final : public Device {
 public:
  // INVALID_ARGUMENT: not a launch line, no such element, neither source nor
  // sink.
  static absl::StatusOr<std::unique_ptr<GstDevice>> Make(
      const std::string& line, Clock& clock);
  ~GstDevice() override;

  DeviceInfo Describe() override;
  absl::StatusOr<std::unique_ptr<Source>> StartSource(
      const std::string& format, FrameTaker& taker) override;
  absl::StatusOr<std::unique_ptr<Sink>> StartSink(
      const std::string& format) override;
  absl::StatusOr<std::vector<Control>> Controls() override;
  absl::Status SetControl(const std::string& name,
                          const std::string& value) override;

 private:
  GstDevice(ElementRef bin, std::string line, bool is_source, Clock& clock);
  // What the free pad can do, asked of the opened device; opens it for that.
  absl::StatusOr<CapsRef> Probe();
  bool busy();  // REQUIRES: mutex_

  const ElementRef bin_;
  const std::string line_;
  const bool is_source_;
  Clock& clock_;

  std::mutex mutex_;
  std::weak_ptr<GstPipelineRun> run_;
  std::weak_ptr<void> sink_in_use_;
  absl::StatusOr<CapsRef> probed_ = absl::UnavailableError("not asked yet");
  uint64_t probed_until_ns_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_KINDS_GST_DEVICE_H_
