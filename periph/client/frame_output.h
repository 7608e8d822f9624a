// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_CLIENT_FRAME_OUTPUT_H_
#define TRIPWIRE_PERIPH_CLIENT_FRAME_OUTPUT_H_

#include <memory>
#include <optional>
#include <string>

#include "periph/client/frame_stream.h"
#include "periph/client/peripherals.h"
#include "periph/client/stream_link.h"
#include "periph/stream/feeder.h"

namespace tripwire::periph {

// A FrameOutput on a context of its own. After a lost link it goes on with the frame that
// could not be put; what was put and not yet played is lost, which the next frame's
// kDiscontinuity says. It has no thread: who does not put calls Tend (see KeptOutput).
class RemoteSink final : public FrameOutput, private StreamLink::Owner {
 public:
  static absl::StatusOr<std::unique_ptr<RemoteSink>> Open(Nic& nic, const StreamWish& wish);
  ~RemoteSink() override;

  absl::Status Put(const Frame& frame, uint64_t deadline_ns) override;
  absl::Status Finish(uint64_t deadline_ns) override;
  void Cancel() override { link_.Cancel(); }
  // Does what is to be done between two frames: opens a lost link again, lets go of what
  // was delivered; or, if there is nothing, waits until there may be. False: nothing will
  // ever be again.
  bool Tend();
  // Makes a Tend that waits return, or the next. Any thread.
  void Interrupt() { link_.context().Interrupt(); }
  std::string format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return max_frame_bytes_; }
  FeederCounters counters() const override;

 private:
  RemoteSink(Nic& nic, const StreamWish& wish);
  void OnOpened(const proto::Opened& opened) override;
  bool OnMessage(const proto::StreamMessage& message) override;
  void OnLost() override;

  bool Begin(const proto::Ring& ring);
  void Leave();  // REQUIRES: end_
  // Waits for news, if there is none; the error is why there will be none.
  absl::Status Await(uint64_t deadline_ns);

  const StreamWish wish_;
  std::string format_;
  uint64_t max_frame_bytes_ = 0;
  uint64_t next_number_ = 0;
  bool has_ring_ = false;  // on this link
  bool discontinuity_ = false;
  std::optional<absl::Status> end_;  // what the device's side said
  FeederCounters past_;              // of feeders that are gone
  StreamLink link_;                  // its context outlives the feeder
  std::unique_ptr<Feeder> feeder_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_CLIENT_FRAME_OUTPUT_H_
