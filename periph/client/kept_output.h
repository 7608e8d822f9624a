// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_CLIENT_KEPT_OUTPUT_H_
#define TRIPWIRE_PERIPH_CLIENT_KEPT_OUTPUT_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "periph/client/frame_output.h"

namespace tripwire::periph {

// A RemoteSink that is looked after also while nobody puts: a lost link is opened again,
// so that the user keeps his place at the device (it may be his alone) and the next frame
// goes at once; and frames are let go of when they were delivered.
//
// Thread safety: as FrameOutput. A thread of its own sleeps on the link once nothing was
// asked of it for a while; while frames go, it looks only whether they still do.
class KeptOutput final : public FrameOutput {
 public:
  static absl::StatusOr<std::unique_ptr<FrameOutput>> Open(Nic& nic, const StreamWish& wish);
  ~KeptOutput() override;

  absl::Status Put(const Frame& frame, uint64_t deadline_ns) override {
    const auto hold = Hold();
    return sink_->Put(frame, deadline_ns);
  }
  absl::Status Finish(uint64_t deadline_ns) override {
    const auto hold = Hold();
    return sink_->Finish(deadline_ns);
  }
  void Cancel() override { sink_->Cancel(); }
  std::string format() const override {
    const auto hold = Hold();
    return sink_->format();
  }
  uint64_t max_frame_bytes() const override {
    const auto hold = Hold();
    return sink_->max_frame_bytes();
  }
  FeederCounters counters() const override {
    const auto hold = Hold();
    return sink_->counters();
  }

 private:
  explicit KeptOutput(std::unique_ptr<RemoteSink> sink)
      : sink_(std::move(sink)), thread_([this] { Run(); }) {}
  // The sink, for one call of the user's: the thread gives way.
  std::unique_lock<std::mutex> Hold() const;
  void Run();

  mutable std::mutex mutex_;  // the sink, but for its Cancel and Interrupt
  const std::unique_ptr<RemoteSink> sink_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  mutable uint64_t calls_ = 0;
  mutable std::atomic<int> waiting_{0};  // for the thread to give way
  std::thread thread_;                   // last: it uses the rest
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_CLIENT_KEPT_OUTPUT_H_
