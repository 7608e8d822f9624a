// SPDX-License-Identifier: BSD-3-Clause
// Users that say what they must not.
#include <random>

#include "absl/strings/str_cat.h"
#include "nic/api/context.h"
#include "periph/proto/messages.h"
#include "tests/unit/periph/service/service_test.h"

namespace tripwire::periph {
namespace {

// A stream's link in the hands of somebody who writes its messages himself.
class HostileTest : public ServiceTest {
 protected:
  void SetUp() override {
    StartServer();
    user_ = Connect();
    context_ = client_nic_->CreateContext();
    link_ = NewLink();
  }
  void TearDown() override {
    // Whatever was done to it, it serves.
    auto stream = Open(*user_);
    ASSERT_TRUE(cam_.AwaitSources(1));
    ASSERT_TRUE(cam_.Emit("alive"));
    EXPECT_EQ(Next(*stream), "alive");
  }
  LinkId NewLink() {
    auto link = context_->Connect("server", kStreamService, {}, kSoonNs);
    EXPECT_TRUE(link.ok()) << link.status();
    return link.value_or(LinkId());
  }
  void Say(const proto::StreamMessage& message) { (void)Send(*context_, link_, message); }
  static proto::StreamMessage OpenMessage() {
    proto::StreamMessage message;
    message.mutable_open()->set_version(kProtocolVersion);
    message.mutable_open()->set_device("cam");
    message.mutable_open()->set_queue_frames(4);
    message.mutable_open()->set_policy(static_cast<uint32_t>(Policy::kDropOldest));
    return message;
  }
  // The next message that is not of the ordinary exchange's beginning.
  std::optional<proto::StreamMessage> Hear() {
    for (;;) {
      if (auto bytes = context_->TakeMessage(link_)) return ParseStreamMessage(*bytes);
      if (!context_->IsUp(link_)) return std::nullopt;
      Event event;
      context_->Wait({&event, 1}, Soon());
    }
  }
  void ExpectClosed() {
    while (Hear().has_value()) {
    }
    EXPECT_FALSE(context_->IsUp(link_));
  }
  absl::StatusCode Refusal() {
    const auto message = Hear();
    EXPECT_TRUE(message.has_value() && message->has_refused());
    return message.has_value() ? static_cast<absl::StatusCode>(message->refused().code())
                               : absl::StatusCode::kOk;
  }

  std::unique_ptr<Context> context_;
  LinkId link_;
};

TEST_F(HostileTest, BytesThatAreNoMessageCloseTheLink) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    if (round > 0) link_ = NewLink();
    if (round % 2 == 1) Say(OpenMessage());
    // A message of no kind, then bytes: either is malformed whatever the bytes are.
    std::vector<uint8_t> bytes(random() % 200);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    (void)context_->SendMessage(link_, bytes);
    (void)context_->SendMessage(link_, {});
    ExpectClosed();
    context_->Close(link_);
  }
  EXPECT_GE(service_->stream_counters().malformed, 50u);
}

TEST_F(HostileTest, TooLongAMessageClosesTheLink) {
  (void)context_->SendMessage(link_, std::vector<uint8_t>(kMaxStreamMessageBytes + 1));
  ExpectClosed();
}

TEST_F(HostileTest, MessagesOutOfTurnCloseTheLink) {
  proto::StreamMessage ring, credit, end, format, state, pong, opened;
  ring.mutable_ring()->set_slots(4);
  credit.mutable_credit();
  end.mutable_end();
  format.mutable_format();
  state.mutable_state();
  pong.mutable_pong();
  opened.mutable_opened();
  const std::vector<proto::StreamMessage> messages = {ring,  credit, end,   format,
                                                      state, pong,   opened};
  for (size_t i = 0; i < messages.size(); ++i) {
    for (const bool is_open : {false, true}) {
      if (i > 0 || is_open) link_ = NewLink();
      if (is_open) Say(OpenMessage());
      Say(messages[i]);
      ExpectClosed();
      context_->Close(link_);
    }
  }
}

TEST_F(HostileTest, ANameThatIsCutInACharacterCanStillBeRead) {
  auto message = OpenMessage();
  // Others are told of at most 256 bytes.
  message.mutable_open()->set_program(std::string(255, 'x') + "\xc3\xa9");
  Say(message);
  const auto opened = Hear();
  ASSERT_TRUE(opened.has_value() && opened->has_opened());
  const auto info = user_->Info("cam");
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->users(0).program(), std::string(255, 'x'));
  context_->Close(link_);
}

TEST_F(HostileTest, OpeningTwiceClosesTheLink) {
  Say(OpenMessage());
  Say(OpenMessage());
  ExpectClosed();
  EXPECT_TRUE(cam_.AwaitSources(0));
}

// A stream on a link that the service has given up would have no end.
TEST_F(HostileTest, WhoWasSentAwayOpensNothing) {
  auto refused = OpenMessage();
  refused.mutable_open()->set_version(99);
  for (int round = 0; round < 40; ++round) {
    if (round > 0) link_ = NewLink();
    if (round % 2 == 0) {
      (void)context_->SendMessage(link_, {});
    } else {
      Say(refused);
    }
    for (int i = 0; i < 3; ++i) Say(OpenMessage());
    ExpectClosed();
    context_->Close(link_);
  }
  EXPECT_TRUE(cam_.AwaitSources(0));
  EXPECT_EQ(service_->stream_counters().opened, 0u);
  EXPECT_EQ(service_->stream_counters().open, 0u);
}

TEST_F(HostileTest, WhatCannotBeOpenedIsRefused) {
  auto message = OpenMessage();
  message.mutable_open()->set_version(99);
  Say(message);
  EXPECT_EQ(Refusal(), absl::StatusCode::kFailedPrecondition);
  for (const auto& spoil : std::vector<std::function<void(proto::Open&)>>{
           [](proto::Open& open) { open.set_policy(4); },
           [](proto::Open& open) { open.set_policy(UINT32_MAX); },
           [](proto::Open& open) { open.set_queue_frames(UINT32_MAX); }}) {
    link_ = NewLink();
    message = OpenMessage();
    spoil(*message.mutable_open());
    Say(message);
    EXPECT_EQ(Refusal(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(HostileTest, ARingThatIsNoneClosesTheLink) {
  for (const auto& make : std::vector<std::function<void(proto::Ring&)>>{
           [](proto::Ring& ring) { ring.set_aperture("short"); },
           [](proto::Ring& ring) { ring.set_slots(0); },
           [](proto::Ring& ring) { ring.set_slots(UINT32_MAX); },
           [](proto::Ring& ring) { ring.set_payload_bytes(UINT64_MAX); },
           [](proto::Ring& ring) { ring.set_payload_bytes(UINT64_MAX - 100); }}) {
    Say(OpenMessage());
    const auto opened = Hear();
    ASSERT_TRUE(opened.has_value() && opened->has_opened());
    proto::StreamMessage message;
    ApertureName name;
    name.length_bytes = 4096;
    name.rights = Access::kWrite;
    message.mutable_ring()->set_aperture(ToBytes(name));
    message.mutable_ring()->set_slots(4);
    message.mutable_ring()->set_payload_bytes(256);
    make(*message.mutable_ring());
    Say(message);
    ExpectClosed();
    context_->Close(link_);
    link_ = NewLink();
  }
}

// A ring in memory that is not there: writes to it are refused, and only that hurts.
TEST_F(HostileTest, ARingOfNobodysMemoryEndsTheStream) {
  Say(OpenMessage());
  ASSERT_TRUE(Hear().has_value());
  ApertureName name;
  name.handle = 12345;
  name.length_bytes = 1 << 20;
  name.rights = Access::kWrite;
  proto::StreamMessage message;
  message.mutable_ring()->set_aperture(ToBytes(name));
  message.mutable_ring()->set_slots(4);
  message.mutable_ring()->set_payload_bytes(256);
  Say(message);
  ASSERT_TRUE(Hear().has_value());  // the credit
  ASSERT_TRUE(cam_.AwaitSources(1));
  for (int i = 0; i < 10; ++i) cam_.Emit("frame");
  context_->Close(link_);
  EXPECT_TRUE(cam_.AwaitSources(0));
}

TEST_F(HostileTest, CreditThatWasNeverDueEndsTheStream) {
  std::vector<uint8_t> memory(4 * SlotStride(256));
  auto aperture = context_->Export(memory, Access::kWrite, link_);
  Say(OpenMessage());
  ASSERT_TRUE(Hear().has_value());
  proto::StreamMessage message;
  message.mutable_ring()->set_aperture(ToBytes(aperture.name()));
  message.mutable_ring()->set_slots(4);
  message.mutable_ring()->set_payload_bytes(256);
  Say(message);
  const auto credit = Hear();
  ASSERT_TRUE(credit.has_value() && credit->has_credit());
  const auto name = ParseAperture(credit->credit().aperture());
  ASSERT_TRUE(name.has_value());
  const Le64 lie(1'000'000);
  Completion done;
  ASSERT_TRUE(context_
                  ->Write(context_->Import(link_, *name), 0,
                          {reinterpret_cast<const uint8_t*>(&lie), sizeof lie}, &done)
                  .ok());
  client_nic_->WaitUntil([&] { return done.done(); }, Soon());
  ASSERT_TRUE(cam_.AwaitSources(1));
  cam_.Emit("frame");
  ExpectClosed();
  EXPECT_TRUE(cam_.AwaitSources(0));
}

TEST_F(HostileTest, NamesThatObeyNoRulesAreOnlyNames) {
  auto message = OpenMessage();
  message.mutable_open()->set_program("\x1b[2J\n" + std::string(10'000, 'x'));
  Say(message);
  const auto opened = Hear();
  ASSERT_TRUE(opened.has_value() && opened->has_opened());
  const auto info = user_->Info("cam");
  ASSERT_TRUE(info.ok());
  ASSERT_EQ(info->users_size(), 1);
  EXPECT_LE(info->users(0).program().size(), 256u);
  EXPECT_EQ(info->users(0).program().find('\x1b'), std::string::npos);
  context_->Close(link_);
}

TEST_F(HostileTest, CallsThatAreNoneAreAnswered) {
  rpc::ClientOptions options;
  options.node = "server";
  options.service = kControlService;
  auto client = rpc::Client::Connect(*client_nic_, options);
  ASSERT_TRUE(client.ok()) << client.status();
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint8_t> bytes(random() % 64);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    rpc::Request request;
    request.message = bytes;
    rpc::Response response;
    ASSERT_TRUE((*client)->Invoke(request, &response).ok());
    proto::Reply reply;
    EXPECT_TRUE(
        reply.ParseFromArray(response.message.data(), static_cast<int>(response.message.size())));
  }
}

}  // namespace
}  // namespace tripwire::periph
