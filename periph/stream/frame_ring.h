// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_FRAME_RING_H_
#define TRIPWIRE_PERIPH_STREAM_FRAME_RING_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "nic/api/context.h"
#include "periph/stream/feeder.h"
#include "periph/stream/frame.h"

namespace tripwire::periph {

struct RingCounters {
  uint64_t received = 0;   // frames
  uint64_t bytes = 0;
  uint64_t overrun = 0;    // the source itself lost, since this ring began
  uint64_t dropped = 0;    // left out by our policy, for want of a free slot
  uint64_t lost = 0;       // missing for no reason given: 0 unless links were lost
  uint64_t late = 0;       // older than the limit when they came
};

// A frame where the network put it: in the consumer's own memory, not copied. The slot
// goes back to the feeder when the view is destroyed (or Release is called), in any
// order; views may outlive the ring and its link. Movable. Thread-safe to destroy on
// any thread.
class FrameView {
 public:
  FrameView() = default;
  FrameView(FrameView&&) noexcept;
  FrameView& operator=(FrameView&&) noexcept;
  ~FrameView() { Release(); }
  void Release();
  explicit operator bool() const;

  std::span<const uint8_t> data() const;  // 64-byte aligned
  // As the feeder gave it, capture time still on the feeder's clock.
  const Frame& frame() const;
  uint64_t arrival_ns() const;  // when it was taken from the ring, on our NIC's clock
};

// The receiving end of one stream: a ring of slots in our memory.
//
// Thread safety: one thread takes; views may be released on any.
class FrameRing {
 public:
  struct Options {
    uint32_t slots = 4;
    uint64_t payload_bytes = 0;
    uint64_t cookie = 0;  // of the event after Arm
  };
  // RESOURCE_EXHAUSTED over the context's quota or without memory.
  static absl::StatusOr<std::unique_ptr<FrameRing>> Create(Context& context, LinkId link,
                                                           Options options);
  virtual ~FrameRing() = default;

  virtual RingName name() const = 0;
  // Where credit goes. Before it is told, it is remembered.
  virtual void SetCredit(const ApertureName& credit) = 0;

  // The oldest frame not yet taken, if there is one. Errors: UNAVAILABLE (the link is
  // down and all that came was taken), DATA_LOSS (the feeder broke the rules).
  // NOT_FOUND: nothing there now.
  virtual absl::StatusOr<FrameView> Take() = 0;
  // False if a frame is there already; else one event with the cookie comes when the
  // next one is there.
  virtual bool Arm() = 0;
  // The same by waiting (which also drives the NIC). False: the deadline passed or the
  // link is down, and nothing is there.
  virtual bool Wait(uint64_t deadline_ns) = 0;

  // Frames that come `limit_ns` or more after their capture count as late; `offset_ns` is
  // our clock minus the feeder's (see ClockOffset). kNever: none is late.
  virtual void SetLateness(uint64_t limit_ns, int64_t offset_ns) = 0;
  virtual RingCounters counters() const = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_FRAME_RING_H_
