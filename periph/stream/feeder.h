// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_FEEDER_H_
#define TRIPWIRE_PERIPH_STREAM_FEEDER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "nic/api/context.h"
#include "nic/comm/mapping.h"
#include "periph/stream/frame.h"

namespace tripwire::periph {

// What a consumer says of its ring.
struct RingName {
  ApertureName aperture;
  uint32_t slots = 0;
  uint64_t payload_bytes = 0;  // room in each
  // REQUIRES (checked by Feeder::Begin): slots > 0, slots * SlotStride(payload_bytes)
  // <= aperture.length_bytes without overflow.
};

struct FeederCounters {
  uint64_t offered = 0;    // frames given to Offer
  uint64_t sent = 0;       // frames written
  uint64_t bytes = 0;      // of payload written
  uint64_t dropped = 0;    // frames not sent, by policy (no credit)
  uint64_t too_large = 0;  // of these, because they did not fit a slot
  uint64_t waits = 0;      // times it found no credit
  uint64_t queued = 0;     // now
};

// The sending end of one stream: writes frames into the slots of one consumer's ring.
// It owns the slots the consumer has given back and no others, so a frame never
// changes under its reader. It never blocks and makes no thread.
//
// Thread safety: none; one lock outside for each feeder.
// Invariants: sent - released <= slots, and the queue is empty unless that is an
// equality, or no ring is there yet.
class Feeder {
 public:
  struct Options {
    Policy policy = Policy::kDropOldest;
    uint32_t queue_frames = 4;  // how many may wait for credit; kLatest: one
    uint64_t cookie = 0;        // of the event when awaited credit comes
  };
  Feeder(Context& context, LinkId link, Options options);
  ~Feeder();  // waits for writes under way to end, or closes the link under them
  Feeder(const Feeder&) = delete;

  // The credit block, for the consumer.
  const ApertureName& credit_name() const;

  // Frames go here from now on, numbered from 1 again; all credit of the ring before is
  // void. What is queued goes too. INVALID_ARGUMENT if the ring is not one.
  absl::Status Begin(const RingName& ring);
  // No ring any more (the format is about to change): frames queue by the policy.
  void Pause();

  enum class Taken : uint8_t {
    kYes,   // sent, queued or dropped by the policy: the frame is done with
    kFull,  // kBlock only: offer it again after Pump said that there is room
    kGone,  // the link is down or the peer broke the rules: status() says which
  };
  // Sends the frame, or queues it, or drops one, by the policy.
  Taken Offer(const Frame& frame);
  // Looks at the credit, sends what waits, lets go of frames that were delivered.
  // True if there is room for another frame without waiting. Call it on the event, and
  // now and then while in_flight() is not 0. If frames wait when it returns, the
  // tripwire on the credit is armed: the event comes when there is more.
  bool Pump();

  uint64_t in_flight() const;  // frames whose memory is still held
  // All frames offered were sent, delivered and given back.
  bool drained() const;
  absl::Status status() const;
  FeederCounters counters() const;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_FEEDER_H_
