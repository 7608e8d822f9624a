// SPDX-License-Identifier: BSD-3-Clause
// Peers that do not keep to the protocol: a server and a client must stand them,
// and go on serving, or being served by, those who do.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "nic/api/context.h"
#include "nic/base/random.h"
#include "nic/comm/rpc.h"
#include "nic/comm/rpc_control.h"
#include "nic/comm/rpc_layout.h"
#include "tests/unit/comm/test_wire.h"

namespace tripwire::rpc {
namespace {

constexpr uint32_t kSlots = 4;
constexpr uint32_t kMessageBytes = 256;

uint64_t Soon(Nic& nic) { return nic.clock().NowNs() + 60 * kSecond; }

template <typename T>
Bytes AsBytes(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof value};
}

// A client that writes what it likes.
class EvilClient {
 public:
  explicit EvilClient(Nic& nic) : nic_(nic), context_(nic.CreateContext()) {}

  // Connects and says hello as a good client does.
  void BeGood() {
    const auto link = context_->Connect(
        "server", "rpc", Serialize(ConnectRequest{.session_id = 666}),
        10 * kSecond);
    ASSERT_TRUE(link.ok()) << link.status();
    link_ = *link;
    const auto info = context_->Describe(link_);
    ASSERT_TRUE(info.ok());
    const auto answer = ParseConnectAnswer(info->private_data);
    ASSERT_TRUE(answer.has_value());
    answer_ = *answer;
    memory_.resize(ReplyAreaBytes(answer_.slots, kNotifySlots,
                                  answer_.message_bytes));
    aperture_ = context_->Export(memory_, Access::kWrite, link_);
  }
  void Greet() {
    Hello hello;
    hello.notify_slots = kNotifySlots;
    hello.reply_area = aperture_.name();
    Say(Serialize(hello));
    ASSERT_TRUE(Hears(MessageType::kWelcome));
  }
  void Say(const Octets& message) {
    ASSERT_TRUE(context_->SendMessage(link_, message).ok());
  }
  void Call(uint32_t slot, const CallTail& tail) {
    const uint64_t end = CallSlotOffset(slot + 1, answer_.message_bytes);
    ASSERT_TRUE(context_
                    ->Write(context_->Import(link_, answer_.call_area),
                            end - sizeof tail, AsBytes(tail))
                    .ok());
  }
  // Whether a message of this type comes before the link's end.
  bool Hears(MessageType type) {
    Event event;
    while (context_->Wait({&event, 1}, Soon(nic_)) == 1) {
      while (const auto message = context_->TakeMessage(link_)) {
        if (TypeOf(*message) == type) return true;
      }
      if (event.kind == EventKind::kLinkDown) return false;
    }
    return false;
  }
  void AwaitLinkDown() {
    Event event;
    while (context_->Wait({&event, 1}, Soon(nic_)) == 1) {
      if (event.kind == EventKind::kLinkDown) return;
    }
    ADD_FAILURE() << "the server keeps the link";
  }

 private:
  Nic& nic_;
  std::unique_ptr<Context> context_;
  LinkId link_;
  ConnectAnswer answer_;
  std::vector<uint8_t> memory_;
  Aperture aperture_;
};

class EvilClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_nic_ = wire_.MakeNic(0, "server");
    client_nic_ = wire_.MakeNic(1, "client");
    ServerOptions options;
    options.slots = kSlots;
    options.message_bytes = kMessageBytes;
    options.bulk_bytes = 1000;
    options.staging_slots = 2;
    auto server = Server::Start(
        *server_nic_, options,
        {.call = [](Call call) { call.Reply(call.request()); }});
    ASSERT_TRUE(server.ok());
    server_ = *std::move(server);
  }
  // The server still serves the good.
  void TearDown() override {
    ClientOptions options;
    options.node = "server";
    auto client = Client::Connect(*client_nic_, options);
    ASSERT_TRUE(client.ok()) << client.status();
    const std::string text = "hello";
    Request request;
    request.message = {reinterpret_cast<const uint8_t*>(text.data()), 5};
    Response response;
    EXPECT_TRUE((*client)->Invoke(request, &response).ok());
    EXPECT_EQ(std::string(response.message.begin(), response.message.end()),
              text);
  }

  TestWire wire_;
  std::unique_ptr<Nic> server_nic_, client_nic_;
  std::unique_ptr<Server> server_;
};

TEST_F(EvilClientTest, ConnectsWithNonsense) {
  auto context = client_nic_->CreateContext();
  Random random(1);
  for (size_t length : {size_t{0}, size_t{3}, size_t{16}, size_t{1024}}) {
    Octets data(length);
    for (auto& byte : data) byte = static_cast<uint8_t>(random.Next());
    EXPECT_TRUE(absl::IsPermissionDenied(
        context->Connect("server", "rpc", data, 10 * kSecond).status()));
  }
  // Another version is told so.
  ConnectRequest other;
  other.version = 99;
  other.session_id = 5;
  const auto link =
      context->Connect("server", "rpc", Serialize(other), 10 * kSecond);
  ASSERT_TRUE(link.ok());
  const auto info = context->Describe(*link);
  ASSERT_TRUE(info.ok());
  const auto answer = ParseConnectAnswer(info->private_data);
  ASSERT_TRUE(answer.has_value());
  EXPECT_NE(answer->refused.find("version"), std::string::npos);
}

TEST_F(EvilClientTest, SendsMessagesOfNonsense) {
  EvilClient evil(*client_nic_);
  evil.BeGood();
  evil.Say({0xff, 1, 2, 3});
  evil.AwaitLinkDown();
}

TEST_F(EvilClientTest, OffersTooLittleReplyMemory) {
  EvilClient evil(*client_nic_);
  evil.BeGood();
  Hello hello;
  hello.notify_slots = kNotifySlots;
  hello.reply_area.length_bytes = 64;
  evil.Say(Serialize(hello));
  evil.AwaitLinkDown();
}

struct BadCall {
  const char* what;
  uint32_t message_bytes, staging_slot, staging_bytes, flags;
  uint32_t shown_offset = 0;
};

class BadCallTest : public EvilClientTest,
                    public ::testing::WithParamInterface<BadCall> {
 protected:
  BadCallTest() { wire_.Show(kShownBytes); }
  static constexpr uint32_t kShownBytes = 500;
};

TEST_P(BadCallTest, IsExpelled) {
  EvilClient evil(*client_nic_);
  evil.BeGood();
  evil.Greet();
  CallTail tail{};
  tail.message_bytes = GetParam().message_bytes;
  tail.staging_slot = GetParam().staging_slot;
  tail.staging_bytes = GetParam().staging_bytes;
  tail.flags = GetParam().flags;
  tail.shown_offset = GetParam().shown_offset;
  tail.sequence = 1;
  evil.Call(0, tail);
  EXPECT_TRUE(evil.Hears(MessageType::kBye));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadCallTest,
    ::testing::Values(
        BadCall{"message", kMessageBytes + 1, kNoStaging, 0, 0},
        BadCall{"huge message", UINT32_MAX, kNoStaging, 0, 0},
        BadCall{"staging slot", 8, 2, 8, 0},
        BadCall{"staging length", 8, 0, 1001, 0},
        BadCall{"huge staging length", 8, 1, UINT32_MAX, 0},
        BadCall{"bytes without staging", 8, kNoStaging, 8, 0},
        BadCall{"reference past the end", 8, kNoStaging, 2, kCallByReference, 499},
        BadCall{"reference from past the end", 8, kNoStaging, 0, kCallByReference, 501},
        BadCall{"reference that wraps", 8, kNoStaging, 9, kCallByReference, UINT32_MAX},
        BadCall{"reference longer than bulk data", 8, kNoStaging, 1001, kCallByReference},
        BadCall{"reference and staging", 8, 0, 8, kCallByReference},
        BadCall{"again, never made", 0, kNoStaging, 0, kCallAgain}),
    [](const auto& info) {
      std::string name = info.param.what;
      for (char& c : name) {
        if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
      }
      return name;
    });

TEST_F(EvilClientTest, RefersToMemoryItDoesNotShow) {
  EvilClient evil(*client_nic_);
  evil.BeGood();
  evil.Greet();
  CallTail tail{};
  tail.staging_slot = kNoStaging;
  tail.staging_bytes = 1;
  tail.flags = kCallByReference;
  tail.sequence = 1;
  evil.Call(0, tail);
  EXPECT_TRUE(evil.Hears(MessageType::kBye));
}

TEST_F(EvilClientTest, NamesReplyMemoryItDoesNotHave) {
  EvilClient evil(*client_nic_);
  evil.BeGood();
  evil.Greet();
  CallTail tail{};
  tail.staging_slot = kNoStaging;
  tail.bulk_capacity = UINT32_MAX;
  tail.bulk_offset = UINT64_MAX - 5;
  tail.sequence = 1;
  for (auto& byte : tail.bulk_name) byte = 0x77;
  evil.Call(1, tail);
}

TEST(EvilServerTest, AnswersWithNonsense) {
  TestWire wire;
  auto server_nic = wire.MakeNic(0, "server");
  auto client_nic = wire.MakeNic(1, "client");
  auto context = server_nic->CreateContext();
  ASSERT_TRUE(context->Listen("rpc").ok());
  std::vector<uint8_t> calls(CallAreaBytes(kSlots, kMessageBytes));
  std::thread evil([&] {
    LinkId link;
    Aperture aperture;
    RemoteAperture replies;
    Event event;
    while (context->Wait({&event, 1}, Soon(*server_nic)) == 1) {
      if (event.kind == EventKind::kLinkDown) return;
      if (event.kind == EventKind::kConnectRequest) {
        link = event.link;
        aperture = context->Export(calls, Access::kWrite, link);
        ConnectAnswer answer;
        answer.slots = kSlots;
        answer.message_bytes = kMessageBytes;
        answer.call_area = aperture.name();
        ASSERT_TRUE(context->Accept(link, Serialize(answer)).ok());
      }
      while (const auto message = context->TakeMessage(link)) {
        const auto hello = ParseHello(*message);
        if (!hello.has_value()) continue;
        replies = context->Import(link, hello->reply_area);
        Welcome welcome;
        welcome.incarnation = 1;
        welcome.sequences.assign(kSlots, 0);
        ASSERT_TRUE(context->SendMessage(link, Serialize(welcome)).ok());
        // Answers in advance, to whatever may come first, in every slot.
        for (uint32_t slot = 0; slot < kSlots; ++slot) {
          ReplyTail tail{};
          tail.message_bytes = UINT32_MAX;
          tail.bulk_bytes = UINT32_MAX;
          tail.sequence = 1;
          const uint64_t end = ReplySlotOffset(slot + 1, kMessageBytes);
          ASSERT_TRUE(context
                          ->Write(replies, end - sizeof tail, AsBytes(tail))
                          .ok());
        }
      }
    }
  });
  {
    ClientOptions options;
    options.node = "server";
    auto client = Client::Connect(*client_nic, options);
    ASSERT_TRUE(client.ok()) << client.status();
    Response response;
    EXPECT_EQ((*client)->Invoke({}, &response).code(),
              absl::StatusCode::kInternal);
  }
  evil.join();
}

// Every parser takes any bytes; what it accepts survives a round trip.
TEST(RpcControlTest, ParsersTakeAnything) {
  Hello hello;
  hello.incarnation = 1;
  hello.notify_slots = 16;
  hello.greeting = {1, 2, 3};
  Welcome welcome;
  welcome.incarnation = 7;
  welcome.sequences = {1, 2, 3};
  welcome.greeting_reply = {9};
  const std::vector<Octets> good = {
      Serialize(ConnectRequest{.session_id = 3}),
      Serialize(ConnectAnswer{.refused = "no"}),
      Serialize(hello),
      Serialize(welcome),
      Serialize(Refused{7, "why"}),
      Serialize(Cancel{1, 2}),
      Serialize(Bye{"x"})};
  const auto parse_all = [](OctetView bytes) {
    return ParseConnectRequest(bytes).has_value() +
           ParseConnectAnswer(bytes).has_value() +
           ParseHello(bytes).has_value() + ParseWelcome(bytes).has_value() +
           ParseRefused(bytes).has_value() + ParseCancel(bytes).has_value() +
           ParseBye(bytes).has_value();
  };
  Random random(3);
  for (const Octets& bytes : good) {
    EXPECT_GE(parse_all(bytes), 1);
    for (size_t length = 0; length < bytes.size(); ++length) {
      // In memory of its own, so that a read past the end is seen.
      const Octets shorter(bytes.begin(),
                           bytes.begin() + static_cast<ptrdiff_t>(length));
      parse_all(shorter);
    }
    for (int i = 0; i < 2000; ++i) {
      Octets mangled = bytes;
      for (uint64_t n = 1 + random.Below(4); n > 0; --n) {
        mangled[random.Below(mangled.size())] =
            static_cast<uint8_t>(random.Next());
      }
      parse_all(mangled);
    }
  }
  const auto back = ParseWelcome(Serialize(welcome));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->sequences, welcome.sequences);
  EXPECT_EQ(back->greeting_reply, welcome.greeting_reply);
  // Words from a peer do not reach a terminal raw.
  EXPECT_EQ(ParseBye(Serialize(Bye{"a\x1b[31m\n"}))->why, "a?[31m?");
}

}  // namespace
}  // namespace tripwire::rpc
