// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_PROTOCOL_H_
#define TRIPWIRE_NIC_CONFORM_PROTOCOL_H_

#include <cstdint>

// The responder protocol: what the suite says to a program beside the NIC under
// test, in messages (type 22) over a link to service "conform".
// docs/conformance.md explains each command; all integers are little-endian.
//
//   request = token Le32, command u8, arguments
//   reply   = token Le32, result u8, values
namespace tripwire::conform {

inline constexpr char kControlService[] = "conform";
inline constexpr uint8_t kProtocolVersion = 1;

enum class Command : uint8_t {
  kHello = 1,
  kContextNew = 2,
  kContextEnd = 3,
  kExport = 4,
  kRevoke = 5,
  kPeek = 6,
  kPoke = 7,
  kWatch = 8,
  kWatchRemote = 9,
  kUnwatch = 10,
  kArm = 11,
  kArmExpected = 12,
  kDisarm = 13,
  kCount = 14,
  kEvents = 15,
  kAccept = 16,
  kReject = 17,
  kConnect = 18,
  kClose = 19,
  kLinkState = 20,
  kWrite = 21,
  kRead = 22,
  kFlush = 23,
  kAtomic = 24,
  kMessage = 25,
  kTakeMessage = 26,
  kOperation = 27,
  kObserve = 28,
  kObserveEnd = 29,
  kCounters = 30,
  kFence = 31,
  kChain = 32,
  kWaitAny = 33,
  kLimitedContext = 34,
};

enum class Result : uint8_t {
  kDone = 0,
  kNotSupported = 1,  // this NIC, or its responder, has no such thing
  kFailed = 2,        // the NIC's interface refused it
  kBadRequest = 3,    // no such object, or arguments that make no sense
};

// What hello answers: which parts of the semantics the NIC has.
enum Ability : uint32_t {
  kTripwires = 1,     // watch, arm, disarm, count, events
  kOutbound = 2,      // watch-remote
  kAtomics = 4,       // atomic, and rights bit 4
  kObserver = 8,      // observe
  kCountsDrops = 16,  // counters
  kUnordered = 32,    // write with the flag
  kPredicates = 64,   // watch with a predicate or threshold
  kActions = 128,     // watch with a counter or a chained write
  kPieces = 256,      // write and read in several pieces
  kFences = 512,      // fence
  kQuotas = 1024,     // limited context
};

enum WatchMode : uint8_t { kPersistent = 0, kOneShot = 1 };
enum WriteFlags : uint8_t { kTracked = 1, kUnorderedWrite = 2, kInPieces = 4 };

// What the watched word must be for a tripwire to fire.
enum Predicate : uint8_t {
  kNoPredicate = 0,
  kEqualTo = 1,
  kNotEqualTo = 2,
  kAtLeast = 3,
  kMaskedEqual = 4,  // word & mask == operand
};

// Kinds of events, as kEvents tells them.
enum ToldEvent : uint8_t {
  kToldTripwire = 0,
  kToldRequest = 1,
  kToldUp = 2,
  kToldDown = 3,
  kToldMessage = 4,
  kToldFailed = 5,
};

// What an observer looks for.
enum ObserverKind : uint8_t {
  kWholeWords = 1,  // all 8 bytes of the first word are always the same
  kInOrder = 2,     // the second word, loaded after the first, is never less
};

// Counters by number, as kCounters gives them.
enum Counter : uint8_t {
  kDropMalformed = 1,
  kDropChecksum = 2,
  kDropUnknownLink = 3,
  kDropEpoch = 4,
  kDropWindow = 5,
  kRefusedHandle = 6,
  kRefusedGeneration = 7,
  kRefusedRights = 8,
  kRefusedBounds = 9,
  kDuplicates = 10,
  kChainsStopped = 11,  // actions not performed for their hops
  kChainsLost = 12,     // nor for want of a link, or of hops at the peer
};

inline constexpr uint32_t kAnyLink = UINT32_MAX;

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_PROTOCOL_H_
