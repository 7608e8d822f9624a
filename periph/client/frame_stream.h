// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_CLIENT_FRAME_STREAM_H_
#define TRIPWIRE_PERIPH_CLIENT_FRAME_STREAM_H_

#include <memory>
#include <optional>
#include <string>

#include "periph/client/peripherals.h"
#include "periph/client/stream_link.h"

namespace tripwire::periph {

// Who asks for a stream, and for what.
struct StreamWish {
  std::string node, device, program;
  uint64_t user = 0;
  bool sink = false;
  uint64_t connect_timeout_ns = 5 * kSecond;
  StreamOptions options;
};
StreamLink::Options LinkOptions(const StreamWish& wish);

// A FrameStream on a context of its own. Between two frames it looks at its link; while
// frames are there, only now and then.
class RemoteSource final : public FrameStream, private StreamLink::Owner {
 public:
  static absl::StatusOr<std::unique_ptr<FrameStream>> Open(Nic& nic, const StreamWish& wish);
  ~RemoteSource() override;

  absl::StatusOr<FrameView> Next(uint64_t deadline_ns) override;
  absl::StatusOr<int> EventFd() override { return link_.EventFd(); }
  Context& context() override { return link_.context(); }
  void Cancel() override { link_.Cancel(); }
  std::string format() const override { return format_; }
  uint64_t max_frame_bytes() const override { return max_frame_bytes_; }
  bool device_present() const override { return present_; }
  bool connected() const override { return link_.is_open(); }
  const ClockOffset& clock() const override { return link_.clock(); }
  RingCounters counters() const override;

 private:
  RemoteSource(Nic& nic, const StreamWish& wish);
  void OnOpened(const proto::Opened& opened) override;
  bool OnMessage(const proto::StreamMessage& message) override;
  void OnLost() override;
  void OnClock() override;

  // The frame that is there, NOT_FOUND, or why there will be none.
  absl::StatusOr<FrameView> TakeNow();
  void BeginRing();
  void DropRing();
  absl::Status Ended() const;

  const StreamWish wish_;
  std::string format_;
  uint64_t max_frame_bytes_ = 0;
  bool present_ = false;
  // Of frames that come after those still in the ring.
  std::optional<proto::FormatChange> next_format_;
  std::optional<absl::Status> end_;  // after those still in the ring
  uint64_t looked_ns_ = 0;           // at the link
  RingCounters past_;                // of rings that are gone
  StreamPosition position_;
  StreamLink link_;  // its context outlives the ring
  std::unique_ptr<FrameRing> ring_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_CLIENT_FRAME_STREAM_H_
