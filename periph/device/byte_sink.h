// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_BYTE_SINK_H_
#define TRIPWIRE_PERIPH_DEVICE_BYTE_SINK_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "periph/device/bytes.h"
#include "periph/device/device.h"

namespace tripwire::periph {

// Where the bytes of a ByteSink go.
class ByteOutput {
 public:
  virtual ~ByteOutput() = default;
  virtual int fd() const = 0;  // does not block; polled for writing
  // A write failed with this errno: what that means.
  virtual absl::Status Failed(int error) = 0;
  // No more comes for now: true when the device is done with all that was
  // written. Asked again and again until then.
  virtual absl::StatusOr<bool> Done() { return true; }
};

// A sink that writes each frame, all of it, in turn.
class ByteSink final : public Sink {
 public:
  explicit ByteSink(std::unique_ptr<ByteOutput> output,
                    uint64_t max_frame_bytes = kByteFrameBytes)
      : output_(std::move(output)), max_frame_bytes_(max_frame_bytes) {}

  const std::string& format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return max_frame_bytes_; }
  absl::Status Put(const Frame& frame) override;
  absl::Status Drain() override;
  void Cancel() override { cancel_.Signal(); }

 private:
  // Until the output has room; CANCELLED if cancelled.
  absl::Status AwaitRoom();

  const std::string format_ = kByteStream;
  const std::unique_ptr<ByteOutput> output_;
  const uint64_t max_frame_bytes_;
  WakeFd cancel_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_BYTE_SINK_H_
