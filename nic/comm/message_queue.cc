// SPDX-License-Identifier: BSD-3-Clause
#include "nic/comm/message_queue.h"

#include <cstring>

namespace tripwire::comm {
namespace {

constexpr uint64_t kHeadBytes = sizeof(Le32);

uint64_t FrameBytes(uint64_t message_bytes) {
  return (kHeadBytes + message_bytes + 7) & ~uint64_t{7};
}

}  // namespace

absl::Status MessageReceiver::Receive(std::vector<uint8_t>* message,
                                      uint64_t deadline_ns) {
  if (absl::Status s = ring_.WaitReadable(1, deadline_ns); !s.ok()) return s;
  const absl::Status nonsense =
      absl::DataLossError("the peer wrote nonsense into a message queue");
  // The sender publishes whole messages only.
  if (ring_.readable() < 8) return nonsense;
  Le32 head;
  ring_.Peek(0, {reinterpret_cast<uint8_t*>(&head), sizeof head});
  const uint32_t length = head.get();
  if (FrameBytes(length) > ring_.readable()) return nonsense;
  message->resize(length);
  ring_.Peek(kHeadBytes, *message);
  ring_.Consume(FrameBytes(length));
  return absl::OkStatus();
}

uint64_t MessageSender::max_message_bytes() const {
  return ring_.capacity() < 8 ? 0 : ring_.capacity() - kHeadBytes;
}

absl::Status MessageSender::Send(std::span<const uint8_t> message,
                                 uint64_t deadline_ns) {
  if (message.size() > max_message_bytes()) {
    return absl::InvalidArgumentError("longer than the queue");
  }
  const uint64_t bytes = FrameBytes(message.size());
  if (absl::Status s = ring_.WaitWritable(bytes, deadline_ns); !s.ok()) {
    return s;
  }
  scratch_.assign(bytes, 0);
  const Le32 head(static_cast<uint32_t>(message.size()));
  std::memcpy(scratch_.data(), &head, sizeof head);
  if (!message.empty()) {
    std::memcpy(scratch_.data() + kHeadBytes, message.data(), message.size());
  }
  if (absl::Status s = ring_.Put(scratch_); !s.ok()) return s;
  return ring_.Publish();
}

}  // namespace tripwire::comm
