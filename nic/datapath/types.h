// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_TYPES_H_
#define TRIPWIRE_NIC_DATAPATH_TYPES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tripwire {

// What a peer may do to an aperture, and what a tripwire may watch for.
// A set of bits.
enum class Access : uint8_t {
  kNone = 0,
  kWrite = 1,
  kRead = 2,
  kAtomic = 4,  // fetch-add and compare-and-swap
  kAny = 7,
};
constexpr Access operator|(Access a, Access b) {
  return static_cast<Access>(static_cast<uint8_t>(a) | static_cast<uint8_t>(b));
}
constexpr bool Includes(Access set, Access member) {
  return (static_cast<uint8_t>(set) & static_cast<uint8_t>(member)) != 0;
}

// How an operation, or a link, ended.
enum class OpStatus : uint8_t {
  kOk = 0,
  kPending,          // not yet ended
  kBadHandle,        // the handle names no aperture of the peer
  kStaleGeneration,  // it named one that has since been revoked
  kNoRights,         // the aperture does not grant this access, or not to this link
  kOutOfBounds,      // offset + length passes the aperture's end
  kLinkLost,         // the link ended before the operation did
  kTooLarge,         // a message longer than the peer takes
  kMisaligned,       // the word is not 8-byte aligned in the exporter's memory
  kUnknownOperation,  // the peer knows no such operation
};
const char* ToString(OpStatus status);

// Why a link ended.
enum class LinkEnd : uint8_t {
  kNone = 0,
  kClosedHere,     // this side closed it
  kClosedByPeer,   // the peer closed it, after delivering all it had sent
  kRefused,        // the peer declined the connection
  kTimedOut,       // no answer: dead, cut off, or never there
  kPeerRestarted,  // the peer no longer knows this link: it crashed or restarted
  kNoSuchService,  // the node is there, but nothing listens
  kAmbiguous,      // no node was named, and several offer the service
};
const char* ToString(LinkEnd end);

// Follows one operation to its end. The owner keeps it alive and in place until
// `status` is no longer kPending. Plain memory: allocate it anywhere.
struct Completion {
  std::atomic<OpStatus> status{OpStatus::kPending};
  // If set, called once when the operation ends, after `status` is set, on the
  // thread that drives the NIC and with the NIC locked: it must be short and must
  // not call the NIC. It may destroy the Completion.
  void (*on_done)(Completion*) = nullptr;

  bool done() const {
    // Pairs with the release store in Finish: what the operation did is visible.
    return status.load(std::memory_order_acquire) != OpStatus::kPending;
  }
  void Finish(OpStatus end) {
    auto* callback = on_done;
    status.store(end, std::memory_order_release);
    if (callback != nullptr) callback(this);
  }
};

// Names an aperture of a peer: what its exporter hands out (in a message, in
// connection data, in other shared memory) and an importer imports. 24 bytes
// when serialised (see docs/wire-format.md); says nothing the exporter trusts.
struct ApertureName {
  uint32_t handle = 0;
  uint32_t generation = 0;
  uint64_t length_bytes = 0;
  Access rights = Access::kNone;

  static constexpr size_t kWireBytes = 24;
  void Serialize(uint8_t out[kWireBytes]) const;
  // Any bytes give some name; using a wrong one fails at the exporter.
  static ApertureName Parse(const uint8_t in[kWireBytes]);
};

// What the watched 64-bit word must be for a tripwire to fire; the word is looked at
// when the access is complete, in its turn.
enum class Compare : uint8_t {
  kAlways,
  kEqual,           // word == value
  kNotEqual,        // word != value
  kGreaterOrEqual,  // word >= value, unsigned
  kMasked,          // (word & mask) == value
};
struct ValueCondition {
  Compare compare = Compare::kAlways;
  uint64_t value = 0;
  uint64_t mask = 0;

  bool Holds(uint64_t word) const {
    switch (compare) {
      case Compare::kAlways: return true;
      case Compare::kEqual: return word == value;
      case Compare::kNotEqual: return word != value;
      case Compare::kGreaterOrEqual: return word >= value;
      case Compare::kMasked: return (word & mask) == value;
    }
    return false;
  }
};

// The longest out-of-band message.
inline constexpr uint32_t kMaxMessageBytes = 1u << 20;

// What one context may use up at most. The defaults are far above what a program
// needs that does not run away; what is over them is refused with
// RESOURCE_EXHAUSTED, and nothing else suffers.
struct ContextQuotas {
  uint32_t apertures = 1u << 20;
  uint32_t tripwires = 1u << 22;
  // In any state, also peers' requests not yet answered; those beyond it are
  // ignored, as if nobody were there.
  uint32_t links = 1u << 17;
  // Operations begun and not yet ended: kQueuedOperationBytes for each, and the
  // data of those whose data is copied.
  uint64_t queued_bytes = uint64_t{1} << 30;
};
inline constexpr uint64_t kQueuedOperationBytes = 256;

// Ids are indexes with a generation, so a stale one is recognised, not reused.
struct LinkId {
  uint32_t value = UINT32_MAX;
  auto operator<=>(const LinkId&) const = default;
};

// What a tripwire writes to a peer's aperture each time it fires: `data`, or the
// watched word as it was then.
struct ChainedWrite {
  LinkId link;
  ApertureName to;
  uint64_t offset = 0;
  std::vector<uint8_t> data;  // at most kMaxChainedBytes
  bool sends_word = false;    // then `data` is not looked at
};
inline constexpr size_t kMaxChainedBytes = 4096;

enum class EventKind : uint8_t {
  kTripwire,        // `cookie` is the tripwire's, `count` accesses since last told
  kConnectRequest,  // a peer asks for a link to a service of this context
  kLinkUp,          // a link this side asked for is there
  kLinkDown,        // `end` says why; the last event of a link
  kMessage,         // an out-of-band message waits on `link` (TakeMessage)
  kOpFailed,        // an operation without a Completion was refused (`status`)
};

struct Event {
  EventKind kind = EventKind::kTripwire;
  OpStatus status = OpStatus::kOk;
  LinkEnd end = LinkEnd::kNone;
  LinkId link;
  uint64_t cookie = 0;
  uint64_t count = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_TYPES_H_
