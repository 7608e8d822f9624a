// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_GST_COLLECTING_TAKER_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_GST_COLLECTING_TAKER_H_

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "periph/device/device.h"

namespace tripwire::periph {

// Keeps what a source gives. Thread-safe.
class CollectingTaker final : public FrameTaker {
 public:
  void Take(Frame frame) override {
    const std::lock_guard lock(mutex_);
    frames_.push_back(std::move(frame));
    changed_.notify_all();
  }
  void SetFormat(const std::string& format, uint64_t max_frame_bytes) override {
    const std::lock_guard lock(mutex_);
    format_ = format;
    max_frame_bytes_ = max_frame_bytes;
  }
  void End(const absl::Status& why) override {
    const std::lock_guard lock(mutex_);
    end_ = why;
    changed_.notify_all();
  }

  // Frames so far, once there are `count` or the source ended; bounded, so that
  // a hang ends.
  std::vector<Frame> WaitFor(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kBound, [&] {
      return frames_.size() >= count || end_.has_value();
    });
    return frames_;
  }
  std::optional<absl::Status> WaitEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kBound, [&] { return end_.has_value(); });
    return end_;
  }
  std::string format() {
    const std::lock_guard lock(mutex_);
    return format_;
  }

 private:
  static constexpr std::chrono::seconds kBound{60};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Frame> frames_;
  std::optional<absl::Status> end_;
  std::string format_;
  uint64_t max_frame_bytes_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_GST_COLLECTING_TAKER_H_
