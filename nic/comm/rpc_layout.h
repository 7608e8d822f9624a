// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_RPC_LAYOUT_H_
#define TRIPWIRE_NIC_COMM_RPC_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nic/base/wire_int.h"
#include "nic/datapath/types.h"

// The memory that an RPC client and server share: layouts only. See
// docs/communication.md.
//
// A message lies at the *end* of its slot, just before the slot's tail, whose
// last word is the sequence word, so that message, tail and word are one write
// and the word is the last of it. A message of n bytes starts Padded(n) bytes
// before the tail.
namespace tripwire::rpc {

inline constexpr uint32_t kNoStaging = UINT32_MAX;

// CallTail::flags. The call was sent before, over an earlier link, and the
// server said that it has it: only where the bulk reply goes is new.
inline constexpr uint32_t kCallAgain = 1;
// Instead of being staged, the bulk request lies at `shown_offset` of the
// memory that the client shows the server (Context::ShownMemory).
inline constexpr uint32_t kCallByReference = 2;

struct CallTail {
  Le32 message_bytes;
  Le32 flags;
  Le32 staging_slot;   // where the bulk request is, or kNoStaging
  Le32 staging_bytes;  // how long it is, wherever it is
  Le64 bulk_offset;    // where in `bulk_name` the bulk reply goes
  Le32 bulk_capacity;  // how long it may be; 0: none wanted
  Le32 shown_offset;
  uint8_t bulk_name[ApertureName::kWireBytes];
  Le64 sequence;  // grows by at least one from call to call; never 0
};
static_assert(sizeof(CallTail) == 64);
static_assert(offsetof(CallTail, bulk_name) == 32);
static_assert(offsetof(CallTail, sequence) == 56);

// ReplyTail::status.
inline constexpr uint32_t kReplyOk = 0;
inline constexpr uint32_t kReplyAborted = 1;  // the call was dropped unanswered

struct ReplyTail {
  Le32 message_bytes;
  Le32 status;
  Le32 bulk_bytes;  // placed in the call's bulk target before this
  Le32 reserved;
  Le64 reserved2;
  Le64 sequence;  // the call's
};
static_assert(sizeof(ReplyTail) == 32);
static_assert(offsetof(ReplyTail, sequence) == 24);

struct NotifyTail {
  Le32 message_bytes;
  Le32 reserved;
  Le64 sequence;  // 1, 2, 3, ... in each session
};
static_assert(sizeof(NotifyTail) == 16);
static_assert(offsetof(NotifyTail, sequence) == 8);

constexpr uint64_t Padded(uint64_t bytes) { return (bytes + 7) & ~uint64_t{7}; }

// Every slot of either side is as large: room for a message and any tail.
constexpr uint64_t SlotBytes(uint32_t message_bytes) {
  return ((uint64_t{message_bytes} + 63) & ~uint64_t{63}) + sizeof(CallTail);
}

// The server's call area: a head, then the call slots.
struct CallAreaHead {
  Le64 notify_acked;  // how many notifications the client has served
  uint8_t reserved[56];
};
static_assert(sizeof(CallAreaHead) == 64);

constexpr uint64_t CallSlotOffset(uint32_t slot, uint32_t message_bytes) {
  return sizeof(CallAreaHead) + slot * SlotBytes(message_bytes);
}
constexpr uint64_t CallAreaBytes(uint32_t slots, uint32_t message_bytes) {
  return CallSlotOffset(slots, message_bytes);
}

// The client's reply area: the reply slots, then the notify slots.
// Notification n is in notify slot n % notify_slots.
inline constexpr uint32_t kNotifySlots = 16;

constexpr uint64_t ReplySlotOffset(uint32_t slot, uint32_t message_bytes) {
  return slot * SlotBytes(message_bytes);
}
constexpr uint64_t NotifySlotOffset(uint32_t slots, uint64_t sequence,
                                    uint32_t notify_slots,
                                    uint32_t message_bytes) {
  return (slots + sequence % notify_slots) * SlotBytes(message_bytes);
}
constexpr uint64_t ReplyAreaBytes(uint32_t slots, uint32_t notify_slots,
                                  uint32_t message_bytes) {
  return (uint64_t{slots} + notify_slots) * SlotBytes(message_bytes);
}

// Copies memory that a peer may be writing, exactly once: the compiler must not
// go back to the source after the copy was checked.
inline void CopyOnce(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;  // nothing may have no address
  std::memcpy(to, from, bytes);
  asm volatile("" ::: "memory");
}

// Limits a server must keep to, so that a client can check what it is told.
inline constexpr uint32_t kMinSlots = 2;  // one is kept for recovery
inline constexpr uint32_t kMaxSlots = 4096;
inline constexpr uint32_t kMaxMessageBytes = 1u << 18;
inline constexpr uint32_t kMaxStagingSlots = 4096;
inline constexpr uint32_t kMaxBulkBytes = 64u << 20;
inline constexpr uint32_t kMaxNotifySlots = 1024;

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_NIC_COMM_RPC_LAYOUT_H_
