// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_FEEDER_H_
#define TRIPWIRE_PERIPH_STREAM_FEEDER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "nic/api/context.h"
#include "nic/base/ring_queue.h"
#include "periph/stream/frame.h"

namespace tripwire::periph {

// What a consumer says of its ring.
struct RingName {
  ApertureName aperture;
  uint32_t slots = 0;
  uint64_t payload_bytes = 0;  // room in each
  // REQUIRES (checked by Feeder::Begin): slots > 0, slots *
  // SlotStride(payload_bytes)
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

// The sending end of one stream: writes frames into the slots of one consumer's
// ring. It owns the slots the consumer has given back and no others, so a frame
// never changes under its reader. It never blocks and makes no thread.
//
// Frames of at most kCopiedBytes, and those without an owner, are copied by the
// NIC when they are sent; others are sent from where they are, and held until
// delivered: as many as the ring has slots, but no more than kHeldFrames unless
// they are short, whatever number of slots the consumer claims.
//
// Thread safety: none; one lock outside for each feeder. Must go before its
// context. Invariants: sent - released <= slots, and the queue is empty unless
// that is an equality, too much is held, or no ring is there.
class Feeder {
 public:
  static constexpr uint64_t kCopiedBytes = 1024;
  static constexpr size_t kHeldFrames = 16;
  static constexpr uint64_t kHeldBytes = uint64_t{4} << 20;

  struct Options {
    Policy policy = Policy::kDropOldest;
    // How many may wait for credit; kLatest: one; kBlock: none, they wait
    // outside.
    uint32_t queue_frames = 4;
    uint64_t cookie = 0;  // of the event when awaited credit comes
  };
  Feeder(Context& context, LinkId link, Options options);
  // Waits for nothing: memory that the NIC still reads is let go of some time
  // after it has ended to, by whatever feeder of this process is used next, on
  // its thread. An owner must not depend on anything that may have gone by
  // then.
  ~Feeder();
  Feeder(const Feeder&) = delete;
  Feeder& operator=(const Feeder&) = delete;

  // The credit block, for the consumer. Another one after each Begin but the
  // first.
  const ApertureName& credit_name() const { return credit_.name(); }

  // Frames go here from now on, numbered from 1 again; all credit of the ring
  // before is void. What is queued goes too, when Pump is called.
  // INVALID_ARGUMENT if the ring is not one; RESOURCE_EXHAUSTED over the
  // context's quota; or what status() says.
  absl::Status Begin(const RingName& ring);
  // No ring any more, because the format is about to change: what is queued, of
  // the format before, is dropped; what is offered from now on queues by the
  // policy. Credit for those sent before is still taken.
  void Pause();

  enum class Taken : uint8_t {
    kYes,   // sent, queued or dropped by the policy: the frame is done with
    kFull,  // kBlock only: offer it again after Pump said that there is room
    kGone,  // the link is down or the peer broke the rules: status() says which
  };
  // Sends the frame, or queues it, or drops one, by the policy. A frame that
  // has to wait and has no owner is copied.
  Taken Offer(const Frame& frame);
  // Looks at the credit, sends what waits, lets go of frames that were
  // delivered. True if there is room for another frame without waiting. Call it
  // on the event, which comes when it returned and there is then more room for
  // frames that wait, also outside after kFull, or frames in flight have ended;
  // and when Offer left more than one in flight.
  bool Pump();

  // Frames whose memory is still held; as of the last Pump or Offer.
  uint64_t in_flight() const { return under_way_.size(); }
  // All frames offered were sent, delivered and given back; as of the last
  // Pump.
  bool drained() const {
    return queue_.empty() && under_way_.empty() && released_ == sent_;
  }
  // OK; UNAVAILABLE: the link is down; DATA_LOSS: the peer broke the rules;
  // RESOURCE_EXHAUSTED: over the context's quota. It stays.
  const absl::Status& status() const { return status_; }
  FeederCounters counters() const;

 private:
  struct Held;  // a frame the NIC reads
  struct Waiting {
    Frame frame;
    uint64_t dropped_before = 0;  // of those dropped at once
  };

  bool Export();
  void Fail(absl::Status status);
  void Look();
  bool MaySend() const;
  bool Send(const Frame& frame, uint64_t dropped_before);
  absl::Status SendHeld(const Frame& frame, uint64_t offset,
                        const SlotTail& tail);
  void SendQueue();
  Taken Wait(const Frame& frame);
  void Enqueue(const Frame& frame);
  void LetGo();
  bool ArmForEnd();

  Context& context_;
  const LinkId link_;
  const Options options_;
  const size_t queue_limit_;

  alignas(64) uint64_t credit_word_ = 0;  // the peer writes it: a CreditBlock
  Aperture credit_;
  Tripwire credit_tripwire_;  // goes before the aperture
  bool credit_used_ = false;  // by a Begin
  RingName ring_;
  RemoteAperture ring_aperture_;
  Tripwire held_tripwire_;            // on our own writes to the ring
  bool paused_ = true;                // or no ring was ever there
  bool refused_ = false;              // kFull was said, and nothing taken since
  uint64_t raw_credit_ = 0;           // the word as it was last seen
  uint64_t sent_ = 0, released_ = 0;  // of this ring
  uint64_t ring_serial_ = 0;

  RingQueue<Waiting> queue_;
  RingQueue<Held*> under_way_;  // in the order sent
  uint64_t held_bytes_ = 0;
  std::vector<std::unique_ptr<Held>> idle_;  // to use again
  std::vector<std::shared_ptr<std::vector<uint8_t>>>
      copies_;  // of frames without owner

  // Frames dropped out of the queue, older than any in it; and those dropped
  // when they were offered, younger than those in it.
  uint64_t dropped_waiting_ = 0, dropped_at_once_ = 0;
  FeederCounters counters_;
  absl::Status status_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_FEEDER_H_
