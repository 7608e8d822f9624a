// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_LINK_H_
#define TRIPWIRE_NIC_DATAPATH_LINK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "nic/base/clock.h"
#include "nic/base/mac_address.h"
#include "nic/base/ring_queue.h"
#include "nic/datapath/copy_pool.h"
#include "nic/datapath/memory_pieces.h"
#include "nic/datapath/tripwire_table.h"
#include "nic/datapath/types.h"
#include "nic/port/port.h"
#include "nic/wire/layout.h"

namespace tripwire {

// Frames a sender may have outstanding, and a receiver may hold early: what one
// acknowledgement's bitmap can describe.
inline constexpr uint32_t kWindowFrames = 256;
// The last frames of the window, which only refusals may use. Were there none,
// two peers that refuse each other's full windows would wait for ever: neither
// could acknowledge before it has refused, nor refuse before it is
// acknowledged.
inline constexpr uint32_t kReservedFrames = 8;
// An acknowledgement of its own goes out at the latest after so many frames.
inline constexpr uint32_t kAckEveryFrames = kWindowFrames / 8;
// Early frames held for all links together; they are the ports' buffers.
inline constexpr uint32_t kMaxHeldFrames = 2048;
// What a receiver grants while it holds more than half of that.
inline constexpr uint16_t kPressedCredit = 32;
// Answers one link may have queued here; beyond that its requests wait, so a
// peer cannot make this side remember without bound.
inline constexpr size_t kMaxQueuedAnswers = 4096;

// An operation on its way out: one or more frames with consecutive sequence
// numbers, produced when there is room for them and again if they are lost.
struct SendOp {
  // Data of up to so many bytes is kept in the operation itself.
  static constexpr size_t kInlineBytes = 64;

  // Leaves `small` as it is: clearing it costs more than all else.
  SendOp() {}  // NOLINT

  // What every write looks at is together in a cache line.
  uint8_t type = 0;                 // wire::FrameType
  OpStatus status = OpStatus::kOk;  // how it ended
  uint8_t hops = 0;
  bool is_unordered = false;
  bool is_small = false;
  bool transmitted = false;   // its last frame has been sent at least once
  uint32_t handle = 0;        // peer's aperture; for read responses, ours
  uint32_t generation = 0;
  uint64_t offset = 0;        // in that aperture
  uint64_t length = 0;        // bytes of data
  const uint8_t* data = nullptr;  // unless it is in `small`
  Completion* completion = nullptr;
  uint64_t end_sequence = 0;  // past its last frame; 0 until that is produced
  uint64_t quota_bytes = 0;   // what it counts as until it ends; 0: it does not
  uint64_t first_sequence = 0;
  // Owns `data` if it was copied, or the list `pieces`.
  CopyPool::Block copy;
  uint32_t piece_count = 0;   // if not 0, `copy` lists where the memory is
  uint32_t operation = 0;     // responses and errors: what they answer
  uint8_t* read_into = nullptr;  // read requests: where the data goes
  // Unordered writes: not before the operation with this number is the oldest
  // there is. The fence before it has been passed then.
  uint64_t fence = 0;
  uint8_t small[kInlineBytes];

  const uint8_t* Data() const { return is_small ? small : data; }
  std::span<const MemoryPiece> pieces() const {
    return PieceList{copy, piece_count}.pieces();
  }
};

// Whether an operation ends with an answer of its own, not when acknowledged.
constexpr bool IsAnswered(uint8_t type) {
  return type == wire::kReadRequest || type == wire::kFlushRequest ||
         type == wire::kAtomicRequest;
}
// Whether an operation's data travels in its frames.
constexpr bool CarriesData(uint8_t type) {
  return type == wire::kWrite || type == wire::kReadResponse ||
         type == wire::kMessage;
}
constexpr bool IsAnswer(uint8_t type) {
  return type == wire::kReadResponse || type == wire::kFlushResponse ||
         type == wire::kAtomicResponse;
}

// A frame sent and not yet acknowledged.
struct SentFrame {
  uint64_t op = 0;  // which operation (absolute number)
  uint64_t sent_ns = 0;
  uint64_t transmission = 0;  // serial number of its latest transmission
  uint64_t op_offset = 0;     // data of the operation it carries
  uint32_t length = 0;
  // What it acknowledged when first sent. Said again when sent again: a later
  // acknowledgement under an old sequence number would seem to precede refusals
  // it really follows (see Engine::ApplyAck).
  uint32_t acknowledged = 0;
  bool received = false;      // selectively acknowledged
  bool lost = false;          // to be sent again
  bool retransmitted = false;
  // A refusal has no operation here: `op` is the refused frame's sequence
  // number, and this the reason.
  OpStatus refusal = OpStatus::kOk;
};

// Tells the peer that an operation of its was refused; not sent yet.
struct Refusal {
  uint32_t operation = 0;  // sequence number of the frame that was refused
  OpStatus status = OpStatus::kOk;
  uint64_t refused_at = 0;  // the same in 64 bits
};

// An operation of ours whose answer is outstanding.
struct AwaitedReply {
  uint8_t type = 0;  // the request's
  Completion* completion = nullptr;
  uint8_t* into = nullptr;  // or, if not empty, `list`
  PieceList list;
  uint64_t length = 0;
  uint64_t received = 0;
  uint32_t handle = 0, generation = 0;  // for out-bound tripwires
  uint8_t hops = 0;
  uint64_t offset = 0;
  uint64_t quota_bytes = 0;
};

// A tripwire touched by an access still under way; `made` tells it from a later
// one that got the same id.
struct TouchedTripwire {
  uint32_t id = 0;
  uint32_t made = 0;
  auto operator<=>(const TouchedTripwire&) const = default;
};

// One frame of a write after its data was placed, or refused: all that is left
// to do in its turn.
struct WriteFrame {
  uint32_t handle = 0, generation = 0;
  uint64_t offset = 0;
  uint32_t length = 0;
  uint32_t sequence = 0;
  OpStatus status = OpStatus::kPending;  // kPending: nothing here
  uint8_t hops = 0;
  bool is_last = false;
};

enum class LinkState : uint8_t {
  kFree,
  kConnecting,  // we asked; no answer yet
  kRequested,   // a peer asked; the application has not answered
  kOpen,
  kClosing,     // our kClose is on its way; nothing new is taken
  kDown,        // ended; the application has not let go of the id yet
};

// One link's state at this end. Owned and interpreted by the engine; the
// functions here keep the arithmetic of its two sequence spaces in one place.
//
// Invariants:
//  1. acked <= next_sequence <= acked + kWindowFrames; frames
//     acked..next_sequence-1 are described by Sent(sequence).
//  2. Ops are completed in order, once acknowledged and nothing the peer sent
//     before that acknowledgement is missing here.
//  3. early[i] holds a frame, or placed[i] says what became of an unordered
//     one, only for sequences in [expected, expected + kWindowFrames).
struct Link {
  // Identity.
  LinkId id;
  LinkState state = LinkState::kFree;
  LinkEnd end = LinkEnd::kNone;
  uint32_t context = 0;
  uint32_t epoch = 0;         // ours: what frames to us must carry
  uint32_t remote_link = 0;   // theirs
  uint32_t remote_epoch = 0;
  MacAddress remote_mac;
  size_t port = 0;
  PathId path = 0;
  bool checksum = false;
  bool gathers = false;  // as its port does, and there is no checksum
  uint32_t max_frame_bytes = 1514;
  uint32_t peer_features = 0;  // wire::Feature
  std::string node, service;
  std::vector<uint8_t> private_data;

  // Sending.
  RingQueue<SendOp> ops;      // oldest first
  uint64_t first_op = 0;       // absolute number of ops.front()
  uint64_t cursor_op = 0;      // the next frame comes from this operation ...
  uint64_t cursor_offset = 0;  // ... at this offset of its data
  uint64_t fence = 0;  // operations from this number on are after the fence
  uint64_t acked = 1;          // lowest sequence not cumulatively acknowledged
  uint64_t next_sequence = 1;
  // Acknowledgements that wait until everything sent before them is here (see
  // Engine::ApplyAck): the first such, and the last. 0: none.
  struct PendingAck {
    uint64_t acked = 0, barrier = 0;
  };
  PendingAck pending, pending_latest;
  uint32_t answers_queued = 0;  // of `ops`: answers not acknowledged yet
  uint64_t counted_op = 0;      // those before this one are
  std::vector<SentFrame> sent;  // ring of kWindowFrames, allocated when opened
  uint32_t received_count = 0;  // selectively acknowledged above `acked`
  uint32_t lost_count = 0;      // marked lost, not yet sent again
  uint32_t peer_credit = kWindowFrames;
  double congestion_window = 64;
  double slow_start_threshold = kWindowFrames;
  // One window reduction until this is acknowledged.
  uint64_t recovery_point = 0;
  uint64_t transmissions = 0;
  uint64_t asked = 0;  // the newest frame that asks for an acknowledgement
  // On the engine's list of links that have yet to ask.
  bool owes_question = false;
  absl::flat_hash_map<uint32_t, AwaitedReply> awaited;  // by request's sequence

  // Round trips and timers (ns; 0 means not measured, kNever not running).
  uint64_t smoothed_rtt = 0, rtt_variance = 0;
  uint64_t least_rtt = 0;  // what the path takes when nothing queues on it
  uint32_t backoff = 0;
  // Of kSpreads: by how much of their half time-outs are longer. Links that lost
  // together at a full queue would else send again together, and lose again
  // (V. Vasudevan et al., Safe and Effective Fine-grained TCP Retransmissions for
  // Datacenter Communication, 2009).
  static constexpr uint32_t kSpreads = 256;
  uint32_t timeout_spread = 0;
  uint32_t repeated_acks = 0;  // go-back-n: in a row, with nothing new
  uint64_t retransmit_at = kNever;
  uint64_t ack_at = kNever;
  uint64_t probe_at = kNever;    // keep-alive
  uint64_t heard_ns = 0;
  uint64_t scheduled_at = kNever;  // when the engine's heap will look at us

  // Receiving.
  uint64_t expected = 1;        // next sequence to deliver
  std::vector<Frame> early;     // ring of kWindowFrames, allocated at first use
  // Unordered writes that came early: placed, and remembered. The same kind of
  // ring.
  std::vector<WriteFrame> placed;
  uint32_t early_count = 0;     // of both
  uint64_t early_end = 0;       // past the highest sequence held
  bool ready = false;           // on the engine's list for the end of this turn
  bool ack_delayed = false;  // on the engine's list of delayed acknowledgements
  // Keep-alives since we last heard the peer, those sent sooner than one should
  // be sent after another left out; and when the last of them was.
  uint32_t probes = 0;
  uint64_t probed_ns = 0;
  uint32_t unacknowledged = 0;  // sequenced frames received since our last ack
  bool ack_now = false;
  bool ack_requested = false;
  // Refusals not sent yet, oldest first. They overtake operations that wait to
  // be sent. Until one is on its way, nothing from the frame it refuses on is
  // acknowledged (see Engine::ApplyAck).
  RingQueue<Refusal> refusals;
  // The access being received (its segments so far).
  bool access_refused = false;  // told the peer once; the rest is ignored
  std::vector<TouchedTripwire> touched;  // to fire at its end
  size_t touched_limit = 64;    // duplicates are dropped when it is longer
  // The message being received, and those not yet taken.
  std::vector<uint8_t> message;
  RingQueue<std::vector<uint8_t>> inbox;
  uint64_t inbox_bytes = 0;
  uint64_t queued_bytes = 0;  // of its context's quota

  // Out-bound tripwires, by the peer's (handle, generation).
  absl::flat_hash_map<uint64_t, std::unique_ptr<TripwireIndex>> outbound;

  // Events waiting to be told. While `quiet`, a blocking Connect reports
  // instead.
  bool quiet = false;
  bool queued = false;
  bool tell_request = false, tell_up = false, tell_down = false,
       tell_message = false;
  uint64_t failed_ops = 0;
  OpStatus failed_status = OpStatus::kOk;

  // Counters.
  uint64_t retransmitted_frames = 0;

  SentFrame& Sent(uint64_t sequence) { return sent[sequence % kWindowFrames]; }
  const SentFrame& Sent(uint64_t sequence) const {
    return sent[sequence % kWindowFrames];
  }
  Frame& Early(uint64_t sequence) { return early[sequence % kWindowFrames]; }
  WriteFrame* Placed(uint64_t sequence) {
    if (placed.empty()) return nullptr;
    WriteFrame& frame = placed[sequence % kWindowFrames];
    return frame.status == OpStatus::kPending ? nullptr : &frame;
  }
  // Whether the frame with this number came early.
  bool CameEarly(uint64_t sequence) {
    return (!early.empty() && Early(sequence).data != nullptr) ||
           Placed(sequence) != nullptr;
  }
  SendOp& Op(uint64_t number) { return ops[number - first_op]; }
  uint32_t InFlight() const {
    return static_cast<uint32_t>(next_sequence - acked) - received_count -
           lost_count;
  }
  bool carries_data() const {
    return state == LinkState::kOpen || state == LinkState::kClosing;
  }

  void MeasureRoundTrip(uint64_t sample_ns);
  uint64_t RetransmitTimeoutNs() const;

  static uint64_t OutboundKey(uint32_t handle, uint32_t generation) {
    return (static_cast<uint64_t>(handle) << 32) | generation;
  }
};

// The 64-bit sequence number nearest to `near` whose low half is `wire`.
uint64_t ExpandSequence(uint32_t wire, uint64_t near);

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_LINK_H_
