// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_FRAME_RING_H_
#define TRIPWIRE_PERIPH_STREAM_FRAME_RING_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/api/context.h"
#include "periph/stream/feeder.h"
#include "periph/stream/frame.h"

namespace tripwire::periph {

struct RingCounters {
  uint64_t received = 0;  // frames
  uint64_t bytes = 0;
  uint64_t overrun = 0;  // the source itself lost, since this ring began
  uint64_t dropped = 0;  // left out by our policy, for want of a free slot
  uint64_t lost = 0;  // missing for no reason given: 0 unless links were lost
  uint64_t late = 0;  // older than the limit when they came
  uint64_t reports = 0;  // of credit, sent to the feeder
};

class RingCore;

// A frame where the network put it: in the consumer's own memory, not copied.
// The slot goes back to the feeder when the view is destroyed (or Release is
// called), in any order; views may outlive the ring, its link and its context.
// Movable. Thread-safe to destroy on any thread, but not in a Completion's
// callback.
//
// A feeder that keeps the rules leaves the bytes alone while the view lives.
// One that does not may change them at any time: what must be checked is copied
// first. It is found out if it filled the slot anew (DATA_LOSS from the next
// Take).
class FrameView {
 public:
  FrameView() = default;
  FrameView(FrameView&&) noexcept;
  FrameView& operator=(FrameView&&) noexcept;
  ~FrameView() { Release(); }
  void Release();
  explicit operator bool() const { return core_ != nullptr; }

  std::span<const uint8_t> data() const {
    return frame_.data;
  }  // 64-byte aligned
  // As the feeder gave it, capture time still on the feeder's clock.
  const Frame& frame() const { return frame_; }
  uint64_t arrival_ns() const {
    return arrival_ns_;
  }  // when taken from the ring, on our
     // NIC's clock
 private:
  friend class RingCore;
  std::shared_ptr<RingCore> core_;
  uint64_t sequence_ = 0;
  uint64_t arrival_ns_ = 0;
  Frame frame_;
};

// Where in its feeder's accounts a ring is: of the last frame taken.
struct StreamPosition {
  bool known = false;
  uint64_t number = 0, overrun = 0, dropped = 0;
};

// The receiving end of one stream: a ring of slots in our memory.
//
// Slots given back are reported to the feeder at once if that may be waiting
// for them or there is nothing else to do, else a quarter of the ring at a
// time.
//
// Thread safety: one thread takes; views may be released on any. Must go before
// its context. Then, and not before, the feeder may be given another ring: it
// forgets this one, and what is reported late of it fails (a kOpFailed event,
// to be ignored).
class FrameRing {
 public:
  struct Options {
    uint32_t slots = 4;
    uint64_t payload_bytes = 0;
    uint64_t cookie = 0;  // of the event after Arm
    // What the ring before had got to, if this one goes on with frames of the
    // same feeder, so that what is missing in between is counted too.
    StreamPosition after;
  };
  // INVALID_ARGUMENT without slots; RESOURCE_EXHAUSTED over the context's quota
  // or without memory.
  static absl::StatusOr<std::unique_ptr<FrameRing>> Create(Context& context,
                                                           LinkId link,
                                                           Options options);
  virtual ~FrameRing() = default;

  virtual RingName name() const = 0;
  // Where credit goes. Before it is told, it is remembered.
  virtual void SetCredit(const ApertureName& credit) = 0;

  // The oldest frame not yet taken, if there is one. Errors: UNAVAILABLE (the
  // link is down and all that came was taken), DATA_LOSS (the feeder broke the
  // rules). NOT_FOUND: nothing there now.
  virtual absl::StatusOr<FrameView> Take() = 0;
  // False if Take has something to say already; else one event with the cookie
  // comes when the next frame is there. (There may be one more event than that,
  // of a frame already taken.)
  virtual bool Arm() = 0;
  // The same by waiting (which also drives the NIC); true when a frame is
  // there. False: the deadline passed, the link is down, or the feeder broke
  // the rules.
  virtual bool Wait(uint64_t deadline_ns) = 0;

  // Frames that come `limit_ns` or more after their capture count as late;
  // `offset_ns` is our clock minus the feeder's (see ClockOffset). kNever: none
  // is late.
  virtual void SetLateness(uint64_t limit_ns, int64_t offset_ns) = 0;
  virtual RingCounters counters() const = 0;
  virtual StreamPosition position() const = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_FRAME_RING_H_
