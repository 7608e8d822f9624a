// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_PASSING_SINK_H_
#define TRIPWIRE_PERIPH_DEVICE_PASSING_SINK_H_

#include <memory>
#include <string>
#include <utility>

#include "periph/device/device.h"

namespace tripwire::periph {

// A sink that passes everything on to another, and keeps something as long as
// that is there: what it plays with, or what is to be undone after it.
class PassingSink : public Sink {
 public:
  explicit PassingSink(std::unique_ptr<Sink> sink,
                       std::shared_ptr<void> keeps = nullptr)
      : keeps_(std::move(keeps)), sink_(std::move(sink)) {}
  const std::string& format() const override { return sink_->format(); }
  uint64_t max_frame_bytes() const override { return sink_->max_frame_bytes(); }
  absl::Status Put(const Frame& frame) override {
    return Judge(sink_->Put(frame));
  }
  absl::Status Drain() override { return Judge(sink_->Drain()); }
  void Cancel() override { sink_->Cancel(); }

 private:
  // What Put and Drain say, of what the other sink said.
  virtual absl::Status Judge(const absl::Status& status) { return status; }

  std::shared_ptr<void> keeps_;  // goes after the sink
  std::unique_ptr<Sink> sink_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_PASSING_SINK_H_
