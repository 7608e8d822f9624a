// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_MESSAGE_QUEUE_H_
#define TRIPWIRE_NIC_COMM_MESSAGE_QUEUE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "nic/api/context.h"
#include "nic/comm/ring.h"

// Messages of any length, one way, over a link that is already there. The
// receiver makes the queue and hands its name to the sender by whatever they
// have (connection data, an out-of-band message, other shared memory).
//
// A message costs the receiver's processor nothing until it looks, and wakes it
// only if it waits. The queue is bounded: a sender waits when it is full.
//
// In the ring: a 32-bit length, the bytes, padding to 8.
namespace tripwire::comm {

// Thread safety: one thread at a time. Must go before its context.
class MessageReceiver {
 public:
  MessageReceiver(Context& context, LinkId link, uint32_t queue_bytes)
      : ring_(context, link, queue_bytes) {}

  const ApertureName& name() const { return ring_.name(); }

  // Takes the oldest message, waiting for it until `deadline_ns` on the NIC's
  // clock (0: not at all). Errors: DEADLINE_EXCEEDED (none came), OUT_OF_RANGE
  // (the sender has gone; all messages were taken), UNAVAILABLE (the link is
  // lost; what had come was taken), DATA_LOSS (the sender broke the rules).
  absl::Status Receive(std::vector<uint8_t>* message, uint64_t deadline_ns);

  // For event loops, see RingReceiver.
  Tripwire Watch(uint64_t cookie) { return ring_.Watch(cookie); }
  bool Arm(Tripwire& tripwire) { return ring_.Arm(tripwire); }

 private:
  RingReceiver ring_;
};

// Thread safety: one thread at a time. Must go before its context.
class MessageSender {
 public:
  MessageSender(Context& context, LinkId link, const ApertureName& queue)
      : ring_(context, link, queue) {}

  uint64_t max_message_bytes() const;

  // Sends, waiting for room until `deadline_ns` (0: not at all). The bytes are
  // copied. Errors: DEADLINE_EXCEEDED (full), FAILED_PRECONDITION (the receiver
  // has gone), UNAVAILABLE (the link is lost), INVALID_ARGUMENT (too long),
  // DATA_LOSS (the receiver broke the rules).
  absl::Status Send(std::span<const uint8_t> message, uint64_t deadline_ns);
  // No more will come: the receiver hears so after the last message.
  absl::Status End() { return ring_.End(); }

 private:
  RingSender ring_;
  std::vector<uint8_t> scratch_;
};

}  // namespace tripwire::comm

#endif  // TRIPWIRE_NIC_COMM_MESSAGE_QUEUE_H_
