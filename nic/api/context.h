// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_CONTEXT_H_
#define TRIPWIRE_NIC_API_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/api/nic.h"
#include "nic/base/fd.h"
#include "nic/datapath/types.h"

namespace tripwire {

class Awaiter;
class Awaiters;
class Context;
class Engine;
struct Link;
struct TripwireSpec;

// A local aperture: memory of this process that peers may reach. Destroying it
// revokes it: once the destructor (or Revoke) returns, no frame, however late,
// touches the memory again, so it may be freed. Its tripwires must go first.
class Aperture {
 public:
  Aperture() = default;
  Aperture(Aperture&& other) noexcept;
  Aperture& operator=(Aperture&& other) noexcept;
  ~Aperture() { Revoke(); }
  void Revoke();
  explicit operator bool() const { return context_ != nullptr; }

  std::span<uint8_t> memory() const { return memory_; }
  const ApertureName& name() const { return name_; }

 private:
  friend class Context;
  Context* context_ = nullptr;
  std::span<uint8_t> memory_;
  ApertureName name_;
};

// A peer's aperture as seen over one link. A plain value.
struct RemoteAperture {
  LinkId link;
  ApertureName name;
};

// Whether a write's bytes may become visible before those of operations issued
// earlier on the link, after the last Fence. Only the bytes: completion,
// refusal and tripwires are in their turn. For bulk data on networks that lose
// or reorder frames: what comes early is placed, not held. To a peer that does
// not know such writes they are ordered.
enum class WriteOrder : uint8_t { kOrdered, kUnordered };

// One write of a list (Context::WriteMany); each field as Write has it.
struct WriteRequest {
  RemoteAperture to;
  uint64_t offset = 0;
  std::span<const uint8_t> data;
  Completion* completion = nullptr;
  WriteOrder order = WriteOrder::kOrdered;
};

enum class TripwireMode : uint8_t { kOneShot, kPersistent };

// A peer's aperture as a tripwire's action writes to it, each time it fires.
struct ChainedWriteTo {
  RemoteAperture to;
  uint64_t offset = 0;
  // What is written (copied; at most kMaxChainedBytes), unless `sends_word`:
  // then the 64-bit word the tripwire watches, as it was when it fired.
  std::span<const uint8_t> data;
  bool sends_word = false;
};

// All that can be asked of a tripwire.
struct TripwireOptions {
  Access access = Access::kWrite;
  TripwireMode mode = TripwireMode::kPersistent;
  // It fires only for accesses that leave the 64-bit word at the start of its
  // range like this. Looked at when the access is complete, in its turn among
  // those of its link; what other links and the program's own threads store
  // counts as it is by then. In-bound only, and the word must be there as for
  // Arm(expected).
  ValueCondition condition;
  // It fires at every so-manieth of those accesses, counted since it was armed.
  // >= 1.
  uint64_t every = 1;

  // What it does when it fires; any of these.
  bool events = true;   // an event on the context's queue, coalesced
  uint64_t cookie = 0;  // of the events
  // Is incremented (release). Must outlive the tripwire.
  std::atomic<uint64_t>* counter = nullptr;
  // Is issued as Write without a Completion is. An access that was itself
  // issued by a tripwire's action, and so on, counts its hops; at 15 the write
  // is not issued (counter `chains_stopped`), so that loops end. Nor is it when
  // the link is down or the peer's NIC does not count hops (`chains_lost`).
  std::optional<ChainedWriteTo> write;
};

// A watch on [offset, offset + length) of an aperture. Made disarmed.
//
// In-bound (on an Aperture): fires when a peer's access touches the range,
// after the data of that access, and of everything before it on its link, is
// visible. Out-bound (on a RemoteAperture): fires when an access of ours to the
// range is complete: a write visible to the peer, a read's data placed here.
//
// Every access that touches the range while armed counts once, however it was
// segmented; firings coalesce into one event with an exact count.
//
// One that was moved from, removed, or never made does nothing and never fires.
class Tripwire {
 public:
  Tripwire() = default;
  Tripwire(Tripwire&& other) noexcept;
  Tripwire& operator=(Tripwire&& other) noexcept;
  ~Tripwire() { Remove(); }
  void Remove();
  explicit operator bool() const { return context_ != nullptr; }

  void Arm();
  // Arms only if the 64-bit word at the start of the watched range still holds
  // `expected`; false (and not armed) when it has already changed. No access
  // can fall between the look and the arming. In-bound only; the range must
  // start 8-byte aligned and hold 8 bytes.
  bool Arm(uint64_t expected);
  // Returns whether it had fired since it was last armed. If false, it never
  // will; if true, what it did is done, but for its event, which may still be
  // queued.
  bool Disarm();

  // Firings since it was made: accesses, unless a condition or `every` leaves
  // some out.
  uint64_t count() const;
  // Blocks until count() > seen, or the deadline (NIC clock) passes, or the
  // link of an out-bound tripwire is lost; returns count().
  uint64_t Wait(uint64_t seen, uint64_t deadline_ns);

 private:
  friend class Context;
  friend class Fired;
  Context* context_ = nullptr;
  uint32_t id_ = 0;
};

struct LinkInfo {
  std::string node;                    // the peer's name
  std::string service;
  // What the peer said when connecting or accepting.
  std::vector<uint8_t> private_data;
  bool up = false;
  bool shares_memory = false;  // the path is memory in common with the peer
  uint64_t round_trip_ns = 0;          // smoothed
  uint32_t send_window_frames = 0;     // min(congestion window, peer's credit)
  uint64_t retransmitted_frames = 0;
};

// One application's protected view of the NIC: its apertures, links, tripwires
// and event queue. Nothing of one context can be reached through another.
//
// Every method is thread-safe. Per operation:
//            locally complete          remotely visible   ordered with
//   Write    returns (no Completion);  Completion done    all operations before
//            Completion done           with kOk           and after on the link
//   Read     Completion done           -                  sees every write
//                                                         before it on the link
//   atomics  Completion done           Completion done    all operations before
//                                      with kOk           and after on the link
//   Flush    -                         all before it are  -
//   Message  returns                   in order with writes
// Tripwires fire after the access is visible, see Tripwire.
class Context {
 public:
  ~Context();  // closes links, revokes apertures
  Context(const Context&) = delete;

  // --- Apertures ------------------------------------------------------------
  // Exports `memory` (any alignment, any size; must stay mapped until revoked).
  // With `only` set, peers on other links are refused.
  // Over the context's quota, an empty Aperture.
  Aperture Export(std::span<uint8_t> memory, Access rights,
                  std::optional<LinkId> only = std::nullopt);
  // The same; over the quota, RESOURCE_EXHAUSTED.
  absl::StatusOr<Aperture> TryExport(
      std::span<uint8_t> memory, Access rights,
      std::optional<LinkId> only = std::nullopt);

  // --- Links ----------------------------------------------------------------
  // Offers a service by name: peers' requests come as kConnectRequest events.
  // ALREADY_EXISTS when another context of this NIC has it.
  absl::Status Listen(std::string_view service);
  void StopListening(std::string_view service);
  // Starts connecting; kLinkUp or kLinkDown follows. `private_data` (at most
  // 1024 bytes) reaches the listener with its kConnectRequest. An empty node
  // means whichever node answers for the service. Errors, after which nothing
  // follows: RESOURCE_EXHAUSTED (over the quota), INVALID_ARGUMENT (names or
  // data too long, each or together for the frames of all ports).
  absl::StatusOr<LinkId> StartConnect(std::string_view node,
                                      std::string_view service,
                                      std::span<const uint8_t> private_data);
  // The same, waiting. Further errors: NOT_FOUND (no such node or service),
  // PERMISSION_DENIED (refused), FAILED_PRECONDITION (an empty node name, and
  // several nodes offer the service), UNAVAILABLE (no answer). No kLinkUp
  // event.
  absl::StatusOr<LinkId> Connect(std::string_view node,
                                 std::string_view service,
                                 std::span<const uint8_t> private_data,
                                 uint64_t timeout_ns);
  absl::Status Accept(LinkId link, std::span<const uint8_t> private_data);
  void Reject(LinkId link);
  // Delivers what was sent, then closes. Operations not yet complete end
  // kLinkLost. The id is dead afterwards; no kLinkDown event.
  void Close(LinkId link);
  absl::StatusOr<LinkInfo> Describe(LinkId link);
  bool IsUp(LinkId link);
  // Memory of ours that the link's peer can read where it lies, if their path
  // has such (one machine, over memif): good for whatever is large and need not
  // be sent then. The same for all links over one port, for its life; empty on
  // others. Nothing in it is hidden from anybody at the port.
  std::span<uint8_t> ShownMemory(LinkId link);
  // The same of the peer's; empty unless it is shown to us.
  PeerMemory MemoryShownBy(LinkId link);
  // Connection data of the peer over this link is trusted no more than the
  // link: an imported name that is wrong fails at the peer.
  RemoteAperture Import(LinkId link, const ApertureName& name) const {
    return {link, name};
  }

  // --- Operations -----------------------------------------------------------
  // Writes `data` at `offset` of the peer's aperture. With a Completion, `data`
  // is read until that is done (zero copies here); without, it is copied before
  // the call returns, and a refusal comes as a kOpFailed event. Returns the
  // link's state: UNAVAILABLE if it is down; RESOURCE_EXHAUSTED, here and for
  // every operation, when the context's quota of queued bytes is used up. (The
  // Completion is then not used.) No bytes are as good as any: checked, done
  // like others, but they touch nothing, so no tripwire fires.
  absl::Status Write(const RemoteAperture& to, uint64_t offset,
                     std::span<const uint8_t> data,
                     Completion* completion = nullptr,
                     WriteOrder order = WriteOrder::kOrdered);
  // The same as a call of Write for each of the list, in its order, to one peer
  // or to several; but the lock, the way to the port and the telling of the
  // peers are paid once for many, so that short writes cost a fraction. Stops at
  // the first that Write would refuse and returns what Write would; `*begun`, if
  // not null, gets how many were begun: those before it. Nothing came between
  // the writes of a list: no operation of another thread, no frame received.
  // The list may be used again when the call returns; the data is as Write says.
  absl::Status WriteMany(std::span<const WriteRequest> writes,
                         size_t* begun = nullptr);
  // A write with data from several places, one after the other: one operation.
  // The list itself is copied.
  absl::Status WriteGather(const RemoteAperture& to, uint64_t offset,
                           std::span<const std::span<const uint8_t>> parts,
                           Completion* completion = nullptr,
                           WriteOrder order = WriteOrder::kOrdered);
  // Reads into `into`, which is written until the Completion is done.
  absl::Status Read(const RemoteAperture& from, uint64_t offset,
                    std::span<uint8_t> into, Completion* completion);
  // The same into several places, which must not overlap.
  absl::Status ReadScatter(const RemoteAperture& from, uint64_t offset,
                           std::span<const std::span<uint8_t>> parts,
                           Completion* completion);
  // Nothing issued after it is placed before everything issued before it on the
  // link. Without unordered writes that is so anyway. Sends nothing, waits for
  // nothing: unordered writes keep their places until what is before is done.
  absl::Status Fence(LinkId link);
  // Adds `addend` to the 64-bit word at `offset` of the peer's aperture, or
  // replaces it by `desired` if it holds `expected`; in one step also as the
  // peer's own threads see it, when they use atomic operations. `*result`, if
  // not null, gets what the word held before; it is written by the time the
  // Completion is done. Without a Completion a refusal comes as a kOpFailed
  // event, and `result` must be null. The word must be 8-byte aligned in the
  // peer's memory (kMisaligned). Ends with kUnknownOperation when the peer's
  // NIC has no atomics.
  absl::Status FetchAdd(const RemoteAperture& to, uint64_t offset,
                        uint64_t addend, uint64_t* result,
                        Completion* completion);
  absl::Status CompareAndSwap(const RemoteAperture& to, uint64_t offset,
                              uint64_t expected, uint64_t desired,
                              uint64_t* result, Completion* completion);
  // Done once everything issued before on the link is visible to the peer.
  absl::Status Flush(LinkId link, Completion* completion);
  // An out-of-band message of up to 1 MiB, delivered in order with the writes.
  absl::Status SendMessage(LinkId link, std::span<const uint8_t> message);
  // The oldest message waiting on `link`, if any.
  std::optional<std::vector<uint8_t>> TakeMessage(LinkId link);

  // --- Tripwires and events -------------------------------------------------
  // `cookie` comes back in the tripwire's events. With `events` false it only
  // counts: for callers of Tripwire::Wait and count().
  // REQUIRES: the range lies in the aperture and is not empty.
  Tripwire Watch(const Aperture& aperture, uint64_t offset, uint64_t length,
                 Access access, TripwireMode mode, uint64_t cookie = 0,
                 bool events = true);
  Tripwire Watch(const RemoteAperture& aperture, uint64_t offset,
                 uint64_t length, Access access, TripwireMode mode,
                 uint64_t cookie = 0, bool events = true);

  // The same with everything that can be asked for. INVALID_ARGUMENT when the
  // options make no sense for this range, OUT_OF_RANGE when it is empty or not
  // in the aperture, RESOURCE_EXHAUSTED over the context's quota (the forms
  // above then give an empty Tripwire).
  absl::StatusOr<Tripwire> Watch(const Aperture& aperture, uint64_t offset,
                                 uint64_t length,
                                 const TripwireOptions& options);
  absl::StatusOr<Tripwire> Watch(const RemoteAperture& aperture,
                                 uint64_t offset, uint64_t length,
                                 const TripwireOptions& options);

  // Waits until one of the tripwires has fired more often than `seen` says (as
  // many, in the same order), or its link is lost; returns its index, the first
  // if several have. Nothing when the deadline passed first.
  std::optional<size_t> WaitAny(std::span<const Tripwire* const> tripwires,
                                std::span<const uint64_t> seen,
                                uint64_t deadline_ns);

  // Waits while the aligned 64-bit word at `offset` holds `expected`: a futex
  // on the far side of a network. False when the deadline passed first, or
  // `peer`, if given, was lost; at once when there is no such word.
  bool WaitWord(const Aperture& aperture, uint64_t offset, uint64_t expected,
                uint64_t deadline_ns,
                std::optional<LinkId> peer = std::nullopt);

  // Takes events, oldest first; returns how many. Poll drives the NIC once if
  // there are none.
  size_t Poll(std::span<Event> events);
  // Blocks (spinning first) until there is an event or the deadline passes.
  size_t Wait(std::span<Event> events, uint64_t deadline_ns,
              PortWatch watch = PortWatch::kTake);
  // Runs coroutines that wait on this context (nic/api/await.h), as Poll and
  // Wait do besides, until `done()`, which is called after each round of them;
  // false when the deadline passed first. Interrupt makes it look again.
  bool Drive(absl::FunctionRef<bool()> done, uint64_t deadline_ns);
  // Makes one Wait, the one under way or else the next, return although there
  // may be no event: to stop a thread, or to give it work of another kind.
  void Interrupt();
  // A descriptor that polls readable while events wait; for select, poll,
  // epoll. Owned by the context. Needs the NIC's service thread to move by
  // itself.
  absl::StatusOr<int> EventFd();

  Nic& nic() { return nic_; }

 private:
  friend class Nic;
  friend class Aperture;
  friend class Tripwire;
  friend class Awaiter;
  friend class Fired;
  friend class NextEvent;
  Context(Nic& nic, uint32_t id);
  size_t TakeEvents(std::span<Event> events);
  size_t TakeEventsLocked(std::span<Event> events);
  size_t ResumeCoroutines();
  bool Owns(LinkId link) const;  // REQUIRES: the NIC's lock
  // REQUIRES: the NIC's lock.
  absl::StatusOr<LinkId> AskForLink(std::string_view node,
                                    std::string_view service,
                                    std::span<const uint8_t> private_data,
                                    uint64_t deadline_ns);
  absl::Status IssueAtomic(const RemoteAperture& to, uint64_t offset,
                           uint8_t operation, uint64_t operand,
                           uint64_t expected, uint64_t* result,
                           Completion* completion);
  absl::Status CheckOptions(const TripwireOptions& options,
                            const uint8_t* word, TripwireSpec* spec) const;
  absl::StatusOr<Tripwire> Make(const TripwireSpec& spec);
  // Queues one write of a list. REQUIRES: the NIC's lock.
  absl::Status BeginWrite(Link* link, const WriteRequest& write);
  // Starts an operation on a link of ours; it says whether the link is open.
  absl::Status Issue(LinkId link, Completion* completion, uint64_t copied_bytes,
                     absl::FunctionRef<bool(Engine&)> operation);
  Nic& nic_;
  Nic::Impl& impl_;
  const uint32_t id_;
  UniqueFd event_fd_;
  std::unique_ptr<Awaiters> awaiters_;
  std::atomic<bool> interrupted_{false};
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_CONTEXT_H_
