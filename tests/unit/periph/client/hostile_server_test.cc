// SPDX-License-Identifier: BSD-3-Clause
// What a server answers to calls may be anything: users get one clear error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nic/comm/rpc.h"
#include "periph/client/peripherals.h"
#include "periph/proto/messages.h"
#include "tests/unit/comm/test_wire.h"

namespace tripwire::periph {
namespace {

// A server that answers what the test says.
class HostileServerTest : public ::testing::Test {
 protected:
  using Answers = std::function<std::string(const proto::Request&)>;

  void Start(Answers answers, uint32_t staging_slots = 2) {
    answers_ = std::move(answers);
    rpc::ServerOptions options;
    options.service = kControlService;
    options.bulk_bytes = 4096;
    options.staging_slots = staging_slots;
    rpc::Server::Callbacks callbacks;
    callbacks.open = [](const auto&, rpc::Bytes) { return std::vector<uint8_t>(); };
    callbacks.close = [](const auto&) {};
    callbacks.call = [this](rpc::Call call) {
      proto::Request request;
      const rpc::Bytes bytes = call.request();
      ASSERT_TRUE(request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
      ++calls_;
      const std::string answer = answers_(request);
      call.Reply({reinterpret_cast<const uint8_t*>(answer.data()), answer.size()});
    };
    auto server = rpc::Server::Start(*there_, std::move(options), std::move(callbacks));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    Peripherals::Options wanted;
    wanted.program = "test";
    auto user = Peripherals::Connect(*here_, std::move(wanted));
    ASSERT_TRUE(user.ok()) << user.status();
    user_ = *std::move(user);
  }
  static std::string Bytes(const proto::Reply& reply) { return reply.SerializeAsString(); }
  // What all calls that ask for something return.
  std::vector<absl::Status> AskAll() {
    return {user_->List().status(),           user_->Info("a").status(),
            user_->Controls("a").status(),    user_->Stat("a").status(),
            user_->OpenDisk("a", false, true).status()};
  }
  static void ExpectOneLine(const absl::Status& status) {
    EXPECT_FALSE(status.ok());
    for (const char c : status.message()) EXPECT_TRUE(c >= ' ' && c != 0x7f) << status;
  }

  TestWire wire_;
  std::unique_ptr<Nic> there_ = wire_.MakeNic(0, "there"), here_ = wire_.MakeNic(1, "here");
  std::atomic<int> calls_{0};
  Answers answers_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<Peripherals> user_;
};

TEST_F(HostileServerTest, AnAnswerThatIsNoneIsAnError) {
  Start([](const auto&) { return std::string("\xff\xff\xff\xff"); });
  for (const absl::Status& status : AskAll()) {
    ExpectOneLine(status);
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  }
}

TEST_F(HostileServerTest, AnAnswerToSomethingElseIsAnError) {
  Start([](const proto::Request& request) {
    proto::Reply reply;
    if (request.has_list()) {
      reply.mutable_info();
    } else {
      reply.mutable_list();
    }
    return Bytes(reply);
  });
  for (const absl::Status& status : AskAll()) {
    ExpectOneLine(status);
    EXPECT_TRUE(absl::IsInternal(status)) << status;
  }
}

TEST_F(HostileServerTest, ErrorsAreOneLineWhateverIsInThem) {
  Start([](const auto&) {
    proto::Reply reply;
    reply.set_code(std::numeric_limits<int32_t>::min());
    reply.set_error("one\ntwo\x1b[2J\x07");
    return Bytes(reply);
  });
  for (const absl::Status& status : AskAll()) ExpectOneLine(status);
}

TEST_F(HostileServerTest, ADiskLargerThanAnyFileIsRefused) {
  Start([](const proto::Request& request) {
    proto::Reply reply;
    reply.mutable_disk_opened()->set_disk(request.disk_open().disk());
    reply.mutable_disk_opened()->set_size_bytes(uint64_t{1} << 63);
    return Bytes(reply);
  });
  ExpectOneLine(user_->OpenDisk("a", false, true).status());
}

TEST_F(HostileServerTest, ADiskThatTakesNoDataIsRefused) {
  Start(
      [](const proto::Request& request) {
        proto::Reply reply;
        reply.mutable_disk_opened()->set_disk(request.disk_open().disk());
        reply.mutable_disk_opened()->set_size_bytes(1 << 20);
        return Bytes(reply);
      },
      0);
  ExpectOneLine(user_->OpenDisk("a", false, true).status());
}

TEST_F(HostileServerTest, ADiskWithoutANumberIsGivenUp) {
  Start([](const auto&) {
    proto::Reply reply;
    reply.set_code(static_cast<int>(absl::StatusCode::kAlreadyExists));
    reply.set_error("that number is taken");
    return Bytes(reply);
  });
  ExpectOneLine(user_->OpenDisk("a", false, true).status());
  EXPECT_LT(calls_, 20);
}

TEST_F(HostileServerTest, ReadsWithoutDataFailOthersAreTheServersWord) {
  Start([](const proto::Request& request) {
    proto::Reply reply;
    if (request.has_disk_open()) {
      reply.mutable_disk_opened()->set_disk(request.disk_open().disk());
      reply.mutable_disk_opened()->set_size_bytes(1 << 20);
    }
    return Bytes(reply);
  });
  auto disk = user_->OpenDisk("a", false, true);
  ASSERT_TRUE(disk.ok()) << disk.status();
  std::vector<uint8_t> into(3 * 4096 + 17);
  ExpectOneLine((*disk)->Read(0, into));
  ExpectOneLine((*disk)->Read(0, std::span(into).first(512)));
  EXPECT_TRUE((*disk)->Write(0, into, true).ok());
  EXPECT_TRUE((*disk)->Flush().ok());
  EXPECT_TRUE(absl::IsOutOfRange((*disk)->Write(1 << 20, into, true)));
}

}  // namespace
}  // namespace tripwire::periph
