// SPDX-License-Identifier: BSD-3-Clause
// Sessions: greetings, notifications, cut wires, restarted servers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/comm/rpc_fixture.h"

namespace tripwire::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(RpcTest, NotificationsComeInOrderAndAreAnswered) {
  constexpr int kCount = 100;
  std::shared_ptr<ServerSession> session;
  Latch acknowledged;
  std::atomic<int> answered{0};
  StartServer({.call = [&](Call call) {
    for (int i = 0; i < kCount; ++i) {
      call.session()->Notify(View(std::to_string(i)), [&](absl::Status status) {
        if (status.ok() && ++answered == kCount) acknowledged.Open();
      });
    }
    call.Reply(View("told"));
  }});
  std::vector<std::string> heard;
  Latch all;
  ClientOptions options;
  options.on_notify = [&](Bytes message) {
    heard.push_back(Text(message));
    if (heard.size() == kCount) all.Open();
  };
  ASSERT_TRUE(StartClient(options).ok());
  std::string answer;
  ASSERT_TRUE(Ask("tell", &answer).ok());
  all.Wait();
  acknowledged.Wait();
  for (int i = 0; i < kCount; ++i) {
    EXPECT_EQ(heard[static_cast<size_t>(i)], std::to_string(i));
  }
  Stop();
}

TEST_F(RpcTest, TheGreetingIsAnsweredAndMayBeRefused) {
  std::shared_ptr<ServerSession> opened, closed;
  Latch gone;
  StartServer(
      {.call = Echo,
       .open = [&](const std::shared_ptr<ServerSession>& session,
                   Bytes greeting) -> absl::StatusOr<std::vector<uint8_t>> {
         if (Text(greeting) != "please") {
           return absl::PermissionDeniedError("say please");
         }
         EXPECT_EQ(session->peer(), "client");
         opened = session;
         return Vector("welcome");
       },
       .close =
           [&](const std::shared_ptr<ServerSession>& session) {
             closed = session;
             gone.Open();
           }});
  const absl::Status refused = StartClient();
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("say please"));
  ClientOptions options;
  options.greeting = Vector("please");
  ASSERT_TRUE(StartClient(options).ok());
  EXPECT_EQ(Text(client_->greeting_reply()), "welcome");
  EXPECT_EQ(opened->id(), client_->session_id());
  client_.reset();
  gone.Wait();
  EXPECT_EQ(closed, opened);
  Stop();
}

TEST_F(RpcTest, NobodyThereIsSaidClearly) {
  client_nic_ = wire_.MakeNic(1, "client");
  ClientOptions options;
  options.connect_timeout_ns = 300 * kMillisecond;
  const absl::Status status = StartClient(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
}

TEST_F(RpcTest, AnExpelledClientHearsWhyAndStaysOut) {
  std::atomic<int> opened{0};
  StartServer({.call =
                   [](Call call) {
                     auto session = call.session();
                     Echo(std::move(call));
                     session->Expel("you know why");
                   },
               .open = [&](const auto&, Bytes)
                   -> absl::StatusOr<std::vector<uint8_t>> {
                 ++opened;
                 return std::vector<uint8_t>{};
               }});
  ASSERT_TRUE(StartClient().ok());
  std::string answer;
  // The answer went out before the end.
  EXPECT_TRUE(Ask("bad", &answer).ok());
  absl::Status status = Ask("more", &answer);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("you know why"));
  EXPECT_EQ(opened, 1);
  Stop();
}

// Counts how often each call ran.
class Counting {
 public:
  void Serve(Call call) {
    {
      std::lock_guard lock(mutex_);
      ++runs_[Text(call.request())];
    }
    Echo(std::move(call));
  }
  int Runs(const std::string& call) {
    std::lock_guard lock(mutex_);
    return runs_[call];
  }

 private:
  std::mutex mutex_;
  std::map<std::string, int> runs_;
};

TEST_F(RpcTest, CallsRideThroughACutWireAndRunOnce) {
  Counting counting;
  std::atomic<int> opened{0};
  StartServer({.call = [&](Call call) { counting.Serve(std::move(call)); },
               .open = [&](const auto&, Bytes)
                   -> absl::StatusOr<std::vector<uint8_t>> {
                 ++opened;
                 return std::vector<uint8_t>{};
               }});
  std::atomic<int> losses{0};
  ClientOptions options;
  options.on_connection = [&](bool connected, const std::string&) {
    if (!connected) ++losses;
  };
  ASSERT_TRUE(StartClient(options).ok());
  std::atomic<int> wrong{0};
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; !stop; ++i) {
        const std::string question =
            std::to_string(t) + "/" + std::to_string(i);
        std::string answer;
        if (!Ask(question, &answer).ok() || answer != question ||
            counting.Runs(question) != 1) {
          ++wrong;
        }
        ++calls;
      }
    });
  }
  while (calls < 50) std::this_thread::yield();
  wire_.SetCut(true);
  while (losses == 0) std::this_thread::yield();
  wire_.SetCut(false);
  const int before = calls;
  while (calls < before + 50) std::this_thread::yield();
  stop = true;
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(opened, 1);
  Stop();
}

TEST_F(RpcTest, ATimeoutPassesEvenWithoutALink) {
  StartServer({.call = Echo});
  ASSERT_TRUE(StartClient().ok());
  wire_.SetCut(true);
  std::string answer;
  EXPECT_EQ(Ask("anyone?", &answer, 50 * kMillisecond).code(),
            absl::StatusCode::kDeadlineExceeded);
  wire_.SetCut(false);
  EXPECT_TRUE(Ask("back?", &answer).ok());
}

TEST_F(RpcTest, AServerRestartIsRecoveredFrom) {
  Latch stuck;
  StartServer({.call = [&](Call call) {
    // Parked for ever: this server dies before it answers.
    static std::vector<Call>* parked = new std::vector<Call>;
    if (Text(call.request()) == "stuck") {
      parked->push_back(std::move(call));
      stuck.Open();
      return;
    }
    call.Reply(View("first server"));
  }});
  std::atomic<int> recovered{0};
  std::string in_recovery;
  ClientOptions options;
  options.greeting = Vector("it is me");
  options.on_recovered = [&](Bytes reply) {
    EXPECT_EQ(Text(reply), "second");
    const std::string reclaim = "reclaim";
    Request request;
    request.message = View(reclaim);
    request.during_recovery = true;
    Response response;
    EXPECT_TRUE(client_->Invoke(request, &response).ok());
    in_recovery = Text(response.message);
    ++recovered;
  };
  ASSERT_TRUE(StartClient(options).ok());
  std::string stuck_answer, answer;
  std::thread caller([&] { EXPECT_TRUE(Ask("stuck", &stuck_answer).ok()); });
  stuck.Wait();
  server_.reset();
  std::vector<std::string> order;
  std::mutex mutex;
  StartServer(
      {.call =
           [&](Call call) {
             std::lock_guard lock(mutex);
             order.push_back(Text(call.request()));
             call.Reply(View("second server"));
           },
       .open = [&](const auto&, Bytes greeting)
           -> absl::StatusOr<std::vector<uint8_t>> {
         EXPECT_EQ(Text(greeting), "it is me");
         return Vector("second");
       }});
  caller.join();
  EXPECT_EQ(stuck_answer, "second server");
  EXPECT_EQ(in_recovery, "second server");
  EXPECT_EQ(recovered, 1);
  std::lock_guard lock(mutex);
  EXPECT_THAT(order, ElementsAre("reclaim", "stuck"));
  Stop();
}

TEST_F(RpcTest, ARestoredReplyAnswersTheRepeatedCall) {
  Latch stuck;
  uint64_t id = 0, sequence = 0;
  uint32_t slot = 0;
  std::vector<Call> parked;
  StartServer({.call = [&](Call call) {
    id = call.session()->id();
    slot = call.slot();
    sequence = call.sequence();
    parked.push_back(std::move(call));
    stuck.Open();
  }});
  ASSERT_TRUE(StartClient().ok());
  std::string answer;
  std::thread caller([&] { EXPECT_TRUE(Ask("mkdir", &answer).ok()); });
  stuck.Wait();
  server_.reset();
  std::atomic<int> runs{0};
  // Restored before the client may return: not yet connected to the segment.
  wire_.SetCut(true);
  StartServer({.call = [&](Call call) {
    ++runs;
    Echo(std::move(call));
  }});
  server_->RestoreReply(id, slot, sequence, View("done before the crash"));
  wire_.SetCut(false);
  caller.join();
  EXPECT_EQ(answer, "done before the crash");
  EXPECT_EQ(runs, 0);
  ASSERT_TRUE(Ask("next", &answer).ok());
  EXPECT_EQ(answer, "next");
  Stop();
}

TEST_F(RpcTest, ClosingTheClientCancelsItsCalls) {
  Latch arrived;
  std::mutex mutex;
  std::vector<Call> parked;
  StartServer({.call = [&](Call call) {
    std::lock_guard lock(mutex);
    parked.push_back(std::move(call));
    arrived.Open();
  }});
  ASSERT_TRUE(StartClient().ok());
  absl::Status status;
  Request request;
  client_->InvokeAsync(request,
                       [&](absl::Status s, Response) { status = s; });
  arrived.Wait();
  client_.reset();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  std::vector<Call> taken;
  std::lock_guard lock(mutex);
  std::swap(taken, parked);
  Stop();
}

TEST_F(RpcTest, TwoServersOfOneNameOnOneNicAreRefused) {
  StartServer({.call = Echo});
  EXPECT_EQ(Server::Start(*server_nic_, {}, {.call = Echo}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Server::Start(*server_nic_, {.service = "x", .slots = 1},
                          {.call = Echo})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tripwire::rpc
