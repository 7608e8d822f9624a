// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_WIRE_LAYOUT_H_
#define TRIPWIRE_NIC_WIRE_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "nic/base/wire_int.h"

// Every frame's layout, and nothing else. docs/wire-format.md explains each
// field and works an example of each frame.
namespace tripwire::wire {

inline constexpr uint8_t kVersion = 1;
// IEEE Std 802 local experimental EtherType 1; big-endian like every EtherType.
inline constexpr uint8_t kEtherType[2] = {0x88, 0xb5};
inline constexpr size_t kMinFrameBytes = 60;  // Ethernet pads to this (no FCS)

enum FrameType : uint8_t {
  // On a link, unsequenced.
  kAck = 1,
  kReset = 2,
  // On a link, sequenced: delivered once and in order.
  kWrite = 16,
  kReadRequest = 17,
  kReadResponse = 18,
  kFlushRequest = 19,
  kFlushResponse = 20,
  kOpError = 21,
  kMessage = 22,
  kClose = 23,
  kAtomicRequest = 24,
  kAtomicResponse = 25,
  // Outside links: bodies are protobuf (nic/control/control.proto).
  kDiscover = 48,
  kAnnounce = 49,
  kConnect = 50,
  kAccept = 51,
  kReject = 52,
};
constexpr bool IsSequenced(uint8_t type) { return type >= 16 && type < 48; }
constexpr bool IsControl(uint8_t type) { return type >= 48; }

enum FrameFlags : uint16_t {
  kAckRequested = 1,  // answer with an acknowledgement soon
  kChecksummed = 2,   // a CRC32C of header and payload follows the payload
  kLast = 4,          // ends its operation
  // 16 bytes of tag follow the payload, in place of a checksum. This version knows
  // no method to make or check one: such a frame is malformed.
  kAuthenticated = 8,
  kUnordered = 16,  // a write that may be placed before its turn
  // Bits 5 to 11 are sent as 0 and ignored.
  kReservedFlags = 0x0fe0,
  // Bits 12 to 15: how many actions of tripwires led to this access.
  kHopsMask = 0xf000,
};
inline constexpr int kHopsShift = 12;
inline constexpr unsigned kMaxHops = kHopsMask >> kHopsShift;
inline constexpr size_t kTagBytes = 16;

// What a NIC understands beyond the base: said in connect and accept, and nothing
// else is sent to it.
enum Feature : uint32_t {
  kFeatureAtomics = 1,    // frames 24 and 25
  kFeatureUnordered = 2,  // flag kUnordered
  kFeatureHops = 4,       // the hops of a frame
};

struct EthernetHeader {
  uint8_t destination[6];
  uint8_t source[6];
  uint8_t ether_type[2];
};
static_assert(sizeof(EthernetHeader) == 14);

struct FrameHeader {
  uint8_t version;
  uint8_t type;
  Le16 flags;
  Le32 link;          // the receiver's name for the link; 0 in control frames
  Le32 epoch;         // what the receiver chose for this life of the link
  Le32 sequence;      // of this frame; in unsequenced frames, of the next one
  Le32 acknowledged;  // the next sequence number the sender expects
  Le16 credit;        // how many frames from there on the sender will hold
  Le16 length;        // payload bytes after this header, checksum not counted
};
static_assert(sizeof(FrameHeader) == 24);

// kAck: bit i of `received` says that acknowledged + 1 + i was received.
struct AckPayload {
  uint8_t received[32];
};
static_assert(sizeof(AckPayload) == 32);

// kReset: names the link as the offending frame did, so that only somebody who
// saw a frame of the link can end it.
struct ResetPayload {
  Le32 link;
  Le32 epoch;
};
static_assert(sizeof(ResetPayload) == 8);

// kWrite: data follows. 14 + 24 + 14 + 8 = 60: a word fits the smallest frame.
struct WritePayload {
  Le32 handle;
  Le32 generation;
  Le48 offset;
};
static_assert(sizeof(WritePayload) == 14);

// kReadRequest: the operation is named by this frame's sequence number.
struct ReadRequestPayload {
  Le32 handle;
  Le32 generation;
  Le48 offset;
  Le48 length;
};
static_assert(sizeof(ReadRequestPayload) == 20);

// kReadResponse: data follows.
struct ReadResponsePayload {
  Le32 operation;  // the request's sequence number
  Le48 offset;     // of this data in the read
};
static_assert(sizeof(ReadResponsePayload) == 10);

// kFlushResponse: names the request by its sequence number.
struct FlushResponsePayload {
  Le32 operation;
};
static_assert(sizeof(FlushResponsePayload) == 4);

// kOpError: the frame with this sequence number was refused.
struct OpErrorPayload {
  Le32 operation;
  uint8_t status;  // OpStatus
  uint8_t reserved[3];
};
static_assert(sizeof(OpErrorPayload) == 8);

// kMessage: data follows.
struct MessagePayload {
  Le32 total_length;
  Le32 offset;
};
static_assert(sizeof(MessagePayload) == 8);

enum AtomicOperation : uint8_t {
  kFetchAdd = 1,
  kCompareAndSwap = 2,
};

// kAtomicRequest: on one aligned 64-bit word; named by its sequence number.
struct AtomicRequestPayload {
  Le32 handle;
  Le32 generation;
  Le48 offset;
  uint8_t operation;  // AtomicOperation
  uint8_t reserved;   // 0
  Le64 operand;       // what is added, or the new value
  Le64 expected;      // kCompareAndSwap: what the word must hold; else 0
};
static_assert(sizeof(AtomicRequestPayload) == 32);

// kAtomicResponse.
struct AtomicResponsePayload {
  Le32 operation;  // the request's sequence number
  Le64 value;      // what the word held before
};
static_assert(sizeof(AtomicResponsePayload) == 12);

inline constexpr size_t kHeaderBytes =
    sizeof(EthernetHeader) + sizeof(FrameHeader);
inline constexpr size_t kChecksumBytes = 4;
// The longest fixed part of a payload.
inline constexpr size_t kMaxFixedBytes = sizeof(AckPayload);

}  // namespace tripwire::wire

#endif  // TRIPWIRE_NIC_WIRE_LAYOUT_H_
