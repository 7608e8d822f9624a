// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_ENGINE_H_
#define TRIPWIRE_NIC_DATAPATH_ENGINE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <queue>
#include <span>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "nic/base/clock.h"
#include "nic/base/random.h"
#include "nic/datapath/aperture_table.h"
#include "nic/datapath/context_state.h"
#include "nic/datapath/copy_pool.h"
#include "nic/datapath/counters.h"
#include "nic/datapath/engine_types.h"
#include "nic/datapath/link.h"
#include "nic/datapath/place.h"
#include "nic/datapath/received.h"
#include "nic/datapath/slab.h"
#include "nic/datapath/tripwire_entry.h"
#include "nic/datapath/tripwire_table.h"
#include "nic/datapath/types.h"
#include "nic/port/port.h"
#include "nic/wire/parse.h"

namespace tripwire {

// The NIC itself: ports in, memory and events out. Everything a frame can cause
// happens here, on one thread at a time, with time and randomness from outside.
//
// Thread safety: none; the owner serialises all calls (nic/api holds one lock).
// Invariants:
//  1. Frames of a link are delivered once each, in sequence.
//  2. Nothing from a frame reaches memory except through ApertureTable::Check
//     or a read of ours that is outstanding.
//  3. Tripwires fire after the bytes of their access are stored (release).
class Engine {
 public:
  Engine(EngineOptions options, Clock& clock, Random& random,
         std::vector<std::unique_ptr<Port>> ports);
  ~Engine();
  Engine(const Engine&) = delete;

  void set_control(ControlPlane* control) {
    control_ = control;
    WakeControl();
  }

  // One turn: receives a burst from each port, delivers it, acknowledges, sends
  // what there is room for, and runs due timers. Returns whether anything
  // happened.
  bool Poll(uint64_t now_ns);
  uint64_t NextDeadline() const;
  // Before a sleep: says what was put off (delayed acknowledgements), without
  // waking peers for it, and forgets timers that have moved: they are not worth
  // waking up for.
  void FlushAcks();
  // A port's wake_fd was readable: let the ports do their slow work at once.
  void ServicePorts() { service_at_ = 0; }
  // Until the next frame comes, somebody listens for what ports have to say.
  void PortsAreHeard() { look_at_ = kNever; }
  // The control plane has something to do now.
  void WakeControl() { control_at_ = timers_at_ = 0; }
  // Changes whenever memory, a completion or an event may have changed.
  uint64_t news() const { return news_; }

  // --- Contexts and apertures ----------------------------------------------
  uint32_t CreateContext(const ContextQuotas& quotas = {});
  // Whether the context may still have so much more.
  bool MayExport(uint32_t context) const {
    return contexts_[context]->MayExport();
  }
  bool MayWatch(uint32_t context) const {
    return contexts_[context]->MayWatch();
  }
  bool MayAddLink(uint32_t context) const {
    return contexts_[context]->MayAddLink() &&
           (!free_links_.empty() || links_.size() <= kSlotMask);
  }
  bool MayQueue(uint32_t context, uint64_t copied_bytes) const {
    return contexts_[context]->MayQueue(copied_bytes);
  }
  void DestroyContext(uint32_t context);
  ApertureName Export(uint32_t context, std::span<uint8_t> memory,
                      Access rights, std::optional<LinkId> only);
  void Revoke(uint32_t context, const ApertureName& name);

  // --- Operations (see Context in nic/api/context.h) -----------------------
  struct WriteOptions {
    bool is_unordered = false;
    uint8_t hops = 0;
  };
  // The short way for the usual small write without a Completion, with all that
  // is to be asked about the context and the link. False, with nothing done,
  // when this is no case for it: then Write is.
  bool WriteAtOnce(uint32_t context, LinkId id, const ApertureName& to,
                   uint64_t offset, std::span<const uint8_t> data) {
    Link* link = FindLink(id);
    return link != nullptr && link->context == context &&
           link->state == LinkState::kOpen &&
           data.size() <= SendOp::kInlineBytes &&
           MayQueue(context, data.size()) &&
           WriteAtOnce(*link, to, offset, data);
  }
  bool Write(LinkId link, const ApertureName& to, uint64_t offset,
             std::span<const uint8_t> data, Completion* completion,
             WriteOptions options);
  bool Write(LinkId link, const ApertureName& to, uint64_t offset,
             std::span<const uint8_t> data, Completion* completion) {
    return Write(link, to, offset, data, completion, WriteOptions());
  }
  // Write in two steps, for one of many: what was queued leaves with Send.
  // REQUIRES: the link is open.
  void QueueWrite(Link& link, const ApertureName& to, uint64_t offset,
                  std::span<const uint8_t> data, Completion* completion,
                  WriteOptions options);
  void Send(Link& link) { Pump(link); }
  bool WriteGather(LinkId link, const ApertureName& to, uint64_t offset,
                   std::span<const std::span<const uint8_t>> parts,
                   Completion* completion, WriteOptions options);
  bool Read(LinkId link, const ApertureName& from, uint64_t offset,
            std::span<uint8_t> into, Completion* completion);
  bool ReadScatter(LinkId link, const ApertureName& from, uint64_t offset,
                   std::span<const std::span<uint8_t>> parts,
                   Completion* completion);
  // What is written after it is placed after all that was issued before it.
  bool Fence(LinkId link);
  // `result`, if not null, gets what the word held before.
  bool Atomic(LinkId link, const ApertureName& to, uint64_t offset,
              wire::AtomicOperation operation, uint64_t operand,
              uint64_t expected, uint64_t* result, Completion* completion);
  bool Flush(LinkId link, Completion* completion);
  bool SendMessage(LinkId link, std::span<const uint8_t> message);
  std::optional<std::vector<uint8_t>> TakeMessage(LinkId link);

  // --- Tripwires ------------------------------------------------------------
  // REQUIRES: a range of a live aperture; what `extra` asks for makes sense
  // there.
  uint32_t Watch(const TripwireSpec& spec);
  void Unwatch(uint32_t tripwire);
  void Arm(uint32_t tripwire);
  bool ArmIfEqual(uint32_t tripwire, uint64_t expected);
  bool Disarm(uint32_t tripwire);
  const TripwireEntry& tripwire(uint32_t id) const { return tripwires_[id]; }

  // --- Events ---------------------------------------------------------------
  size_t TakeEvents(uint32_t context, std::span<Event> events);
  bool HasEvents(uint32_t context) const;
  // For event fds: the queue went from empty to not empty.
  void set_event_signal(uint32_t context, void (*signal)(void*),
                        void* argument);

  // --- Statistics ------------------------------------------------------------
  // Show what is live in the next `most` slots; false after the last.
  bool ShowLinks(StatsCursor& at, size_t most,
                 absl::FunctionRef<void(const Link&)> show) const;
  bool ShowApertures(
      StatsCursor& at, size_t most,
      absl::FunctionRef<void(uint32_t context, uint32_t handle,
                             const ApertureEntry&)>
          show) const;
  bool ShowTripwires(
      StatsCursor& at, size_t most,
      absl::FunctionRef<void(uint32_t id, const TripwireEntry&,
                             const TripwireRange&)>
          show) const;

  // --- Links, for the control plane ----------------------------------------
  Link& NewLink(uint32_t context);
  Link* FindLink(LinkId id) {
    const uint32_t slot = id.value & kSlotMask;
    if (slot >= links_.size()) return nullptr;
    Link* link = links_[slot].get();
    if (link->id != id || link->state == LinkState::kFree) return nullptr;
    return link;
  }
  // From kConnecting or kRequested; starts its timers.
  void OpenLink(Link& link);
  // Ends the link now: fails what is outstanding, tells the context (unless
  // `tell` is false) and frees held frames.
  void EndLink(Link& link, LinkEnd why, bool tell = true);
  void FreeLink(Link& link);
  void CloseGracefully(Link& link);
  void Tell(Link& link);      // puts the link's news on its context's queue
  void Schedule(Link& link);  // its timers changed
  template <typename F>
  void ForEachLink(F f) {
    for (auto& link : links_) {
      if (link != nullptr && link->state != LinkState::kFree) f(*link);
    }
  }

  // --- Frames, for the control plane ---------------------------------------
  // Sends one control frame with this body. Lost if the port has no room.
  void SendControl(size_t port, PathId path, const MacAddress& to,
                   uint8_t type, uint32_t link, uint32_t epoch,
                   std::span<const uint8_t> body);
  void SendReset(size_t port, PathId path, const MacAddress& to,
                 uint32_t remote_link, uint32_t remote_epoch,
                 uint32_t named_link, uint32_t named_epoch);

  std::span<const std::unique_ptr<Port>> ports() const { return ports_; }
  Clock& clock() { return clock_; }
  Random& random() { return random_; }
  const EngineOptions& options() const { return options_; }
  NicCounters& counters() { return counters_; }

 private:
  enum class Delivery { kTaken, kNoRoom };

  // burst.cc
  void LookAhead(size_t begin, size_t received);
  void LookUp(Received& ahead, const Received* before);
  bool ReceiveBursts();
  void TakeBurst(size_t port, size_t received);
  void TakeFrame(size_t port, Frame& frame, Received& received);
  void ServePorts();
  void NoteRejoined(size_t port);
  void OnFrame(size_t port, Frame& frame, Received& received);
  void TakePlainWrite(Link& link, const Received& received);

  // engine.cc
  bool RunTimers();
  void RunLinkTimers(Link& link);
  void TidyTimers();
  void SetTimersAt();
  bool ServeLinks();
  uint16_t Credit() const {
    return held_frames_ < kMaxHeldFrames / 2 ? kWindowFrames : kPressedCredit;
  }
  // The time, read at most once in a turn, and not before it is needed: whoever
  // waits for a frame of ours should not wait for a clock.
  uint64_t Now() {
    if (now_is_stale_) {
      now_ns_ = clock_.NowNs();
      now_is_stale_ = false;
    }
    return now_ns_;
  }

  // receive.cc
  void OnSequenced(Link& link, Frame& frame, const wire::FrameView& view);
  bool HoldFrame(Link& link, Frame& frame, const wire::FrameView& view,
                 Frame& slot);
  void DrainEarly(Link& link);
  bool TakeEarly(Link& link, Frame& frame, const wire::FrameView& view,
                 uint64_t sequence);
  void PlaceEarly(Link& link, const wire::FrameView& view, uint64_t sequence);
  void DeliverPlaced(Link& link, WriteFrame& placed);
  void NoteReceived(Link& link);
  Delivery Deliver(Link& link, const wire::FrameView& view);
  void DropEarly(Link& link);

  // send.cc
  void Pump(Link& link);
  bool MaySend(const Link& link, uint64_t sequence, uint32_t more) const {
    return sequence < link.acked + std::min(link.peer_credit,
                                            kWindowFrames - kReservedFrames) &&
           link.InFlight() + more <
               static_cast<uint32_t>(link.congestion_window);
  }
  bool PumpLost(Link& link);
  bool PumpRefusals(Link& link);
  bool PumpNew(Link& link);
  bool TransmitBurst(Link& link, std::span<Frame> frames, size_t* sent);
  uint32_t SegmentBytes(const Link& link, const SendOp& op,
                        uint64_t offset) const;
  const uint8_t* SourceOf(const SendOp& op, uint64_t offset,
                          uint32_t length) const;
  size_t CutPieces(Link& link, std::span<Piece> pieces);
  bool MustAsk(Link& link, const Piece& piece, uint64_t sequence,
               uint32_t more);
  void AskWhatIsOwed();
  void NotePieceSent(Link& link, const Piece& piece, uint32_t acknowledged);
  void BuildFrame(Link& link, SendOp& op, uint64_t sequence,
                  uint32_t acknowledged, uint64_t offset, uint32_t length,
                  bool ack_requested, Frame& frame);
  void BuildPlainWrite(const Link& link, const SendOp& op, uint64_t sequence,
                       uint32_t acknowledged, uint64_t offset, uint32_t length,
                       bool ack_requested, Frame& frame) const;
  void OnTransmitted(Link& link, SendOp& op);
  void FillHeaders(const Link& link, uint8_t type, uint16_t flags,
                   uint64_t sequence, uint32_t acknowledged,
                   uint8_t* out) const;
  static void NoteAckSent(Link& link) {
    link.unacknowledged = 0;
    link.ack_now = false;
    link.ack_requested = false;
    link.ack_at = kNever;
  }
  static uint32_t Acknowledged(const Link& link) {
    return static_cast<uint32_t>(
        link.refusals.empty() ? link.expected
                              : link.refusals.front().refused_at);
  }

  // loss.cc
  // False when the frame acknowledges what was never sent.
  bool ApplyAck(Link& link, const wire::FrameView& view);
  void AcknowledgeAll(Link& link);
  void CountAnswers(Link& link);
  void GrowWindow(Link& link, uint32_t newly);
  void ApplyCompletion(Link& link);
  void CompleteOps(Link& link, uint64_t acked);
  void DetectLosses(Link& link, uint64_t newest_transmission);
  void OnRepeatedAck(Link& link);
  void OnCongestion(Link& link, bool timeout);
  void OnRetransmitTimer(Link& link);
  void SetRetransmitTimer(Link& link);

  // one file each: frame_*.cc
  void OnAck(Link& link, const wire::FrameView& view);
  void SendAck(Link& link, Ring ring, bool ask);
  void OnReset(const wire::FrameView& view);
  SendOp& AddWrite(Link& link, const ApertureName& to, uint64_t offset,
                   uint64_t length, Completion* completion,
                   WriteOptions options);
  uint8_t* TakeCopy(SendOp& op, size_t bytes);
  // Counts the operation, and what of its data was copied, until it ends.
  void Charge(Link& link, SendOp& op, uint64_t copied_bytes) {
    op.quota_bytes = kQueuedOperationBytes + copied_bytes;
    link.queued_bytes += op.quota_bytes;
    contexts_[link.context]->queued_bytes += op.quota_bytes;
  }
  void Discharge(Link& link, uint64_t bytes) {
    link.queued_bytes -= bytes;
    contexts_[link.context]->queued_bytes -= bytes;
  }
  bool WriteAtOnce(Link& link, const ApertureName& to, uint64_t offset,
                   std::span<const uint8_t> data);
  void OnWrite(Link& link, const wire::FrameView& view);
  // REQUIRES: the range was checked.
  void PlaceChecked(ApertureEntry& aperture, uint64_t offset,
                    std::span<const uint8_t> data) {
    // What was placed before is visible before this: a reader that polls a word
    // with an acquire load relies on it.
    std::atomic_thread_fence(std::memory_order_release);
    PlaceInShared(aperture.base + offset, data.data(), data.size());
    counters_.write_bytes += data.size();
    aperture.bytes += data.size();
  }
  OpStatus PlaceWrite(Link& link, const wire::FrameView& view,
                      ApertureEntry** aperture);
  static WriteFrame DescribeWrite(const wire::FrameView& view, OpStatus status);
  void FinishWrite(Link& link, const WriteFrame& frame,
                   ApertureEntry* aperture);
  SendOp& QueueRead(Link& link, const ApertureName& from, uint64_t offset,
                    uint64_t length, Completion* completion);
  Delivery OnReadRequest(Link& link, const wire::FrameView& view);
  void OnReadResponse(Link& link, const wire::FrameView& view);
  // Takes the outstanding reply off the link's list.
  using Awaited = absl::flat_hash_map<uint32_t, AwaitedReply>;
  AwaitedReply TakeAwaited(Link& link, Awaited::iterator it);
  Delivery OnAtomicRequest(Link& link, const wire::FrameView& view);
  void OnAtomicResponse(Link& link, const wire::FrameView& view);
  Delivery OnFlushRequest(Link& link, const wire::FrameView& view);
  void OnFlushResponse(Link& link, const wire::FrameView& view);
  void OnOpError(Link& link, const wire::FrameView& view);
  void Refuse(Link& link, uint64_t sequence, OpStatus status);
  void BuildRefusal(Link& link, uint32_t operation, OpStatus status,
                    uint64_t sequence, uint32_t acknowledged, Frame& frame);
  Delivery OnMessage(Link& link, const wire::FrameView& view);
  void OnClose(Link& link);
  void OnClosed(Link& link);

  // engine_tripwires.cc, engine_events.cc
  // An access touched the range of the tripwire. `hops`: those of the access.
  void Touch(uint32_t tripwire, Access access, unsigned hops) {
    if (Includes(tripwires_[tripwire].armed, access)) Fire(tripwire, hops);
  }
  // What was written within a granule of which `slot` tells all.
  void TouchSlot(const ShortWatches::Watch& slot, uint64_t offset,
                 uint64_t last, unsigned hops) {
    constexpr uint64_t kInGranule =
        (uint64_t{1} << ShortWatches::kGranuleShift) - 1;
    if (!slot.Overlaps(static_cast<int64_t>(offset & kInGranule),
                       static_cast<int64_t>(last & kInGranule))) {
      return;
    }
    // As in TouchWritten.
    std::atomic_thread_fence(std::memory_order_release);
    Touch(slot.id, Access::kWrite, hops);
  }
  // Those that watch what was written, at the end of its operation.
  void TouchWritten(const ApertureEntry& aperture, uint64_t offset,
                    uint64_t length, unsigned hops) {
    // Pairs with the acquire of whoever sees the tripwire's event or count.
    std::atomic_thread_fence(std::memory_order_release);
    aperture.tripwires->Visit(offset, length, [&](uint32_t tripwire) {
      Touch(tripwire, Access::kWrite, hops);
    });
  }
  void Fire(uint32_t tripwire, unsigned hops);
  bool Qualifies(TripwireExtra& extra, uint64_t word) const;
  void Act(uint32_t tripwire, TripwireExtra& extra, uint64_t word,
           unsigned hops);
  bool RunChains();
  void FreeTripwire(uint32_t tripwire);
  ApertureEntry* ApertureOf(const TripwireEntry& entry);
  void SetExtra(TripwireEntry& entry, const TripwireExtra& extra);
  void FireOutbound(Link& link, Access access, uint32_t handle,
                    uint32_t generation, uint64_t offset, uint64_t length,
                    unsigned hops);
  void PushSource(uint32_t context, uint64_t source) {
    ContextState& state = *contexts_[context];
    if (!state.live) return;
    const bool was_empty = state.events.empty();
    state.events.push_back(source);
    ++counters_.events;
    ++news_;
    if (was_empty && state.signal != nullptr) {
      state.signal(state.signal_argument);
    }
  }
  bool TakeLinkEvent(Link& link, Event* event);
  void FailOp(Link& link, OpStatus status);
  void Finish(Completion* completion, OpStatus status);
  void MarkReady(Link& link) {
    if (link.ready) return;
    link.ready = true;
    ready_.push_back(link.id);
  }

  static constexpr size_t kBurst = 32;
  // Longer: the first and the last frames of a burst gain nothing from looking ahead.
  static constexpr size_t kRxBurst = 64;
  // A link id is a slot and how often the slot was used, so that the id of an
  // ended link names nothing.
  static constexpr uint32_t kSlotBits = 20;
  static constexpr uint32_t kSlotMask = (1u << kSlotBits) - 1;

  const EngineOptions options_;
  Clock& clock_;
  Random& random_;
  std::vector<std::unique_ptr<Port>> ports_;
  std::vector<MacAddress> macs_;  // theirs
  // By port: how often it was seen to rejoin, and when last (0: never).
  std::vector<uint64_t> rejoins_, rejoined_ns_;
  ControlPlane* control_ = nullptr;
  NicCounters counters_;
  uint64_t news_ = 0;
  uint64_t now_ns_ = 0;  // see Now()
  bool now_is_stale_ = false;
  uint64_t service_at_ = 0;    // when ports want to be served, or are to be
  uint64_t look_at_ = kNever;  // and the same because nothing else would tell
  uint64_t control_at_ = 0;
  uint64_t timers_at_ = 0;  // control_at_, or when the first of timers_ is due
  uint32_t tripwires_made_ = 0;
  uint32_t held_frames_ = 0;  // early frames, all links
  // Here rather than on the stack: clearing them would cost more than a frame.
  std::array<Frame, kRxBurst> rx_burst_;
  std::array<Frame, kBurst> tx_burst_;
  std::array<Received, kRxBurst> rx_views_;
  // Whose plain write the frame taken last was, if nothing came of it; or null.
  Link* plain_ = nullptr;
  std::vector<uint8_t> control_body_;

  std::vector<std::unique_ptr<ContextState>> contexts_;
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<uint32_t> free_links_;
  Slab<TripwireEntry> tripwires_;
  Slab<TripwireRange> ranges_;  // of the same ids
  std::vector<uint32_t> free_tripwires_;
  std::vector<std::unique_ptr<TripwireExtra>> extras_;
  std::vector<uint32_t> free_extras_;
  // Writes that firings asked for: begun between frames, never in the middle of
  // what one causes.
  std::vector<ChainToBegin> chains_;
  CopyPool copies_;

  // Links with frames to send or acknowledgements due at the end of this turn.
  std::vector<LinkId> ready_;
  std::vector<LinkId> serving_;
  std::vector<LinkId> delayed_acks_;
  std::vector<LinkId> questions_owed_;
  using TimerEntry = std::pair<uint64_t, uint32_t>;  // deadline, link id value
  std::priority_queue<TimerEntry, std::vector<TimerEntry>, std::greater<>>
      timers_;
  // How the peer names a link -> ours, to place resets.
  using RemoteName = std::tuple<std::array<uint8_t, 6>, uint32_t, uint32_t>;
  static RemoteName NameAtPeer(const Link& link) {
    return {link.remote_mac.bytes, link.remote_link, link.remote_epoch};
  }
  absl::flat_hash_map<RemoteName, LinkId> by_remote_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_ENGINE_H_
