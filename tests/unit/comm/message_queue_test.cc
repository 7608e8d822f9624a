// SPDX-License-Identifier: BSD-3-Clause
#include "nic/comm/message_queue.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>

#include "nic/base/random.h"
#include "tests/unit/comm/connected_pair.h"

namespace tripwire::comm {
namespace {

std::vector<uint8_t> Message(uint32_t number, size_t bytes) {
  std::vector<uint8_t> message(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    message[i] = static_cast<uint8_t>(number * 13 + i);
  }
  return message;
}

class MessageQueueTest : public ::testing::Test {
 protected:
  void Make(uint32_t bytes) {
    receiver_ = std::make_unique<MessageReceiver>(*pair_.right,
                                                  pair_.right_link, bytes);
    sender_ = std::make_unique<MessageSender>(*pair_.left, pair_.left_link,
                                              receiver_->name());
  }
  ConnectedPair pair_;
  std::unique_ptr<MessageReceiver> receiver_;
  std::unique_ptr<MessageSender> sender_;
};

TEST_F(MessageQueueTest, ManyMessagesOfAllSizesThroughASmallQueue) {
  Make(4096);
  constexpr uint32_t kCount = 3000;
  std::thread sending([&] {
    Random random(1);
    for (uint32_t i = 0; i < kCount; ++i) {
      const size_t bytes = random.Below(sender_->max_message_bytes() / 3);
      ASSERT_TRUE(sender_->Send(Message(i, bytes), kNever).ok());
    }
    ASSERT_TRUE(
        sender_->Send(Message(7, sender_->max_message_bytes()), kNever).ok());
    ASSERT_TRUE(sender_->End().ok());
  });
  Random random(1);
  std::vector<uint8_t> message;
  for (uint32_t i = 0; i < kCount; ++i) {
    ASSERT_TRUE(receiver_->Receive(&message, kNever).ok());
    ASSERT_EQ(message, Message(i, random.Below(4092 / 3)));
  }
  ASSERT_TRUE(receiver_->Receive(&message, kNever).ok());
  EXPECT_EQ(message, Message(7, 4092));
  EXPECT_TRUE(absl::IsOutOfRange(receiver_->Receive(&message, kNever)));
  sending.join();
}

TEST_F(MessageQueueTest, FullAndEmptyDoNotBlockIfToldSo) {
  Make(1024);
  std::vector<uint8_t> message;
  EXPECT_TRUE(absl::IsDeadlineExceeded(receiver_->Receive(&message, 0)));
  int sent = 0;
  while (sender_->Send(Message(1, 100), 0).ok()) ++sent;
  EXPECT_EQ(sent, 1024 / 104);
  EXPECT_TRUE(absl::IsDeadlineExceeded(sender_->Send(Message(1, 100), 0)));
  for (int i = 0; i < sent; ++i) {
    ASSERT_TRUE(receiver_->Receive(&message, kNever).ok());
  }
  // The room made is heard of.
  EXPECT_TRUE(sender_->Send(Message(1, 100), kNever).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(sender_->Send(Message(1, 5000), 0)));
}

TEST_F(MessageQueueTest, AnEventTellsAnEventLoop) {
  Make(1024);
  Tripwire tripwire = receiver_->Watch(42);
  ASSERT_TRUE(receiver_->Arm(tripwire));
  ASSERT_TRUE(sender_->Send(Message(1, 10), 0).ok());
  Event event;
  ASSERT_EQ(pair_.right->Wait({&event, 1}, ConnectedPair::Soon(*pair_.right_nic)),
            1u);
  EXPECT_EQ(event.kind, EventKind::kTripwire);
  EXPECT_EQ(event.cookie, 42u);
  EXPECT_FALSE(receiver_->Arm(tripwire));
  std::vector<uint8_t> message;
  EXPECT_TRUE(receiver_->Receive(&message, 0).ok());
  EXPECT_TRUE(receiver_->Arm(tripwire));
}

TEST_F(MessageQueueTest, TheEndOfEitherSideIsHeard) {
  Make(1024);
  ASSERT_TRUE(sender_->Send(Message(3, 10), 0).ok());
  std::vector<uint8_t> message;
  ASSERT_TRUE(receiver_->Receive(&message, kNever).ok());
  receiver_.reset();
  absl::Status status;
  for (int i = 0; status.ok(); ++i) status = sender_->Send(Message(3, 600), kNever);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

TEST_F(MessageQueueTest, ALostLinkEndsTheWaitAfterWhatHadCome) {
  Make(1024);
  ASSERT_TRUE(sender_->Send(Message(3, 10), 0).ok());
  std::vector<uint8_t> message;
  ASSERT_TRUE(receiver_->Receive(&message, kNever).ok());
  ASSERT_TRUE(sender_->Send(Message(4, 10), 0).ok());
  Completion arrived;
  ASSERT_TRUE(pair_.left->Flush(pair_.left_link, &arrived).ok());
  ASSERT_TRUE(pair_.left_nic->WaitUntil([&] { return arrived.done(); }, kNever));
  pair_.wire.SetCut(true);
  EXPECT_TRUE(receiver_->Receive(&message, kNever).ok());
  EXPECT_EQ(message, Message(4, 10));
  EXPECT_TRUE(absl::IsUnavailable(receiver_->Receive(&message, kNever)));
  absl::Status status;
  while (status.ok()) status = sender_->Send(Message(3, 600), kNever);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

// A peer that writes what it likes into the ring.
class HostilePeer : public MessageQueueTest,
                    public ::testing::WithParamInterface<int> {
 protected:
  void Write(uint64_t offset, uint64_t value) {
    const Le64 wire(value);
    ASSERT_TRUE(pair_.left
                    ->Write(pair_.left->Import(pair_.left_link,
                                               receiver_->name()),
                            offset,
                            {reinterpret_cast<const uint8_t*>(&wire), 8})
                    .ok());
  }
};

TEST_P(HostilePeer, NonsenseIsDetected) {
  Make(1024);
  std::vector<uint8_t> message;
  switch (GetParam()) {
    case 0: Write(0, 1025); break;                   // more than fits
    case 1: Write(0, kRingEnd - 1); break;           // far more
    case 2: Write(0, 4); break;                      // half a header
    case 3:                                          // a length beyond the tail
      Write(sizeof(RingBlock), 0xffffffff);
      Write(0, 64);
      break;
    case 4:                                          // backwards
      Write(0, 16);
      ASSERT_TRUE(receiver_->Receive(&message, kNever).ok());  // a zero length
      ASSERT_TRUE(receiver_->Receive(&message, kNever).ok());
      Write(0, 8);
      break;
  }
  EXPECT_TRUE(absl::IsDataLoss(receiver_->Receive(&message, kNever)));
}
INSTANTIATE_TEST_SUITE_P(All, HostilePeer, ::testing::Range(0, 5));

}  // namespace
}  // namespace tripwire::comm
