// SPDX-License-Identifier: BSD-3-Clause
// Calls between two NICs with real threads: what users of nic/comm/rpc.h rely on.
#include "nic/comm/rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/comm/test_wire.h"

namespace tripwire::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Text(Bytes bytes) { return {bytes.begin(), bytes.end()}; }
Bytes View(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
std::vector<uint8_t> Vector(const std::string& text) {
  return {text.begin(), text.end()};
}

// A gate that opens once.
class Latch {
 public:
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

class RpcTest : public ::testing::Test {
 protected:
  void StartServer(Server::Callbacks callbacks, ServerOptions options = {}) {
    if (server_nic_ == nullptr) server_nic_ = wire_.MakeNic(0, "server");
    auto server = Server::Start(*server_nic_, options, std::move(callbacks));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  absl::Status StartClient(ClientOptions options = {}) {
    if (client_nic_ == nullptr) client_nic_ = wire_.MakeNic(1, "client");
    options.node = "server";
    auto client = Client::Connect(*client_nic_, std::move(options));
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
    return absl::OkStatus();
  }
  // The callbacks of both name locals of the test, and are called to the end.
  void Stop() {
    client_.reset();
    server_.reset();
  }
  absl::Status Ask(const std::string& question, std::string* answer,
                   uint64_t timeout_ns = kNever, CancelToken* token = nullptr) {
    Request request;
    request.message = View(question);
    request.timeout_ns = timeout_ns;
    Response response;
    const absl::Status status = client_->Invoke(request, &response, token);
    *answer = Text(response.message);
    return status;
  }

  TestWire wire_;
  std::unique_ptr<Nic> server_nic_, client_nic_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Client> client_;
};

void Echo(Call call) { call.Reply(call.request()); }

TEST_F(RpcTest, AnswersComeToTheCallsTheyBelongTo) {
  StartServer({.call = Echo});
  ASSERT_TRUE(StartClient().ok());
  EXPECT_EQ(client_->peer(), "server");
  EXPECT_TRUE(client_->connected());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const std::string question =
            std::string(static_cast<size_t>(i * 13), 'x') + std::to_string(t);
        std::string answer;
        if (!Ask(question, &answer).ok() || answer != question) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  Stop();
}

TEST_F(RpcTest, BulkDataGoesBothWays) {
  StartServer({.call = [](Call call) {
    const auto in = call.bulk_request();
    const size_t size = std::min(in.size(), call.bulk_reply_capacity());
    BulkBuffer out = call.AllocateBulk(size);
    for (size_t i = 0; i < size; ++i) out.data()[i] = in[i] ^ 0x5a;
    call.Reply(View(std::to_string(in.size())), std::move(out), size);
  }});
  ASSERT_TRUE(StartClient().ok());
  for (const size_t size : {size_t{1}, size_t{1000}, size_t{100'001},
                            size_t{1} << 20}) {
    std::vector<uint8_t> data(size);
    for (size_t i = 0; i < size; ++i) data[i] = static_cast<uint8_t>(i * 7);
    const iovec pieces[] = {{data.data(), size / 3},
                            {data.data() + size / 3, size - size / 3}};
    Request request;
    request.bulk = pieces;
    request.bulk_reply_capacity = size;
    Response response;
    ASSERT_TRUE(client_->Invoke(request, &response).ok());
    EXPECT_EQ(Text(response.message), std::to_string(size));
    ASSERT_EQ(response.bulk_bytes, size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(response.bulk.data()) % 4096, 0u);
    size_t wrong = 0;
    for (size_t i = 0; i < size; ++i) {
      wrong += response.bulk.data()[i] != (data[i] ^ 0x5a);
    }
    EXPECT_EQ(wrong, 0u);
  }
}

TEST_F(RpcTest, BulkBuffersOutliveTheClient) {
  StartServer({.call = [](Call call) {
    BulkBuffer out = call.AllocateBulk(5);
    std::memcpy(out.data(), "hello", 5);
    call.Reply({}, std::move(out), 5);
  }});
  ASSERT_TRUE(StartClient().ok());
  Request request;
  request.bulk_reply_capacity = 100;
  Response response;
  ASSERT_TRUE(client_->Invoke(request, &response).ok());
  client_.reset();
  EXPECT_EQ(Text({response.bulk.data(), response.bulk_bytes}), "hello");
}

TEST_F(RpcTest, AHandlerThatBlocksDoesNotHoldUpOthers) {
  Latch latch;
  StartServer({.call = [&](Call call) {
    if (Text(call.request()) == "wait") latch.Wait();
    if (Text(call.request()) == "go") latch.Open();
    Echo(std::move(call));
  }});
  ASSERT_TRUE(StartClient().ok());
  std::string first, second;
  std::thread waiter([&] { EXPECT_TRUE(Ask("wait", &first).ok()); });
  EXPECT_TRUE(Ask("go", &second).ok());
  waiter.join();
  EXPECT_EQ(first, "wait");
  EXPECT_EQ(second, "go");
  Stop();
}

TEST_F(RpcTest, ACallMayBeAnsweredLaterFromAnyThread) {
  std::mutex mutex;
  std::vector<Call> parked;
  StartServer({.call = [&](Call call) {
                 std::lock_guard lock(mutex);
                 if (Text(call.request()) == "park") {
                   parked.push_back(std::move(call));
                   return;
                 }
                 Echo(std::move(call));
               }},
              {.workers = 1});
  ASSERT_TRUE(StartClient().ok());
  std::string answer;
  std::thread caller([&] {
    std::string late;
    EXPECT_TRUE(Ask("park", &late).ok());
    EXPECT_EQ(late, "at last");
  });
  for (;;) {
    ASSERT_TRUE(Ask("other", &answer).ok());
    std::lock_guard lock(mutex);
    if (!parked.empty()) break;
  }
  std::vector<Call> taken;
  {
    std::lock_guard lock(mutex);
    taken = std::move(parked);
  }
  taken.front().Reply(View("at last"));
  caller.join();
  Stop();
}

TEST_F(RpcTest, ADroppedCallIsAborted) {
  StartServer({.call = [](Call) {}});
  ASSERT_TRUE(StartClient().ok());
  std::string answer;
  EXPECT_EQ(Ask("?", &answer).code(), absl::StatusCode::kAborted);
}

TEST_F(RpcTest, WhatIsTooLargeIsRefusedHere) {
  StartServer({.call = Echo}, {.message_bytes = 100, .bulk_bytes = 1000});
  ASSERT_TRUE(StartClient().ok());
  EXPECT_EQ(client_->message_bytes(), 100u);
  EXPECT_EQ(client_->bulk_bytes(), 1000u);
  std::string answer;
  EXPECT_TRUE(Ask(std::string(100, 'x'), &answer).ok());
  EXPECT_EQ(answer.size(), 100u);
  EXPECT_EQ(Ask(std::string(101, 'x'), &answer).code(),
            absl::StatusCode::kInvalidArgument);
  std::vector<uint8_t> data(1001);
  const iovec piece{data.data(), data.size()};
  Request request;
  request.bulk = {&piece, 1};
  Response response;
  EXPECT_EQ(client_->Invoke(request, &response).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(RpcTest, ATimeoutTellsTheServerAndFreesTheSlot) {
  Latch cancelled;
  StartServer({.call = [&](Call call) {
                 if (Text(call.request()) != "hang") return Echo(std::move(call));
                 auto kept = std::make_shared<Call>(std::move(call));
                 kept->OnCancel([kept, &cancelled]() mutable {
                   std::thread([kept, &cancelled] {
                     kept->Reply({});
                     cancelled.Open();
                   }).detach();
                 });
               }},
              {.slots = 2});
  ASSERT_TRUE(StartClient().ok());
  std::string answer;
  EXPECT_EQ(Ask("hang", &answer, 20 * kMillisecond).code(),
            absl::StatusCode::kDeadlineExceeded);
  cancelled.Wait();
  // Of the two slots one is recovery's: these need the other back.
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Ask("again", &answer).ok());
    EXPECT_EQ(answer, "again");
  }
  Stop();
}

TEST_F(RpcTest, ACancelledCallReturnsWhatBecameOfIt) {
  Latch arrived;
  StartServer({.call = [&](Call call) {
    auto kept = std::make_shared<Call>(std::move(call));
    kept->OnCancel([kept] { kept->Reply(View("interrupted")); });
    arrived.Open();
  }});
  ASSERT_TRUE(StartClient().ok());
  CancelToken token;
  std::thread canceller([&] {
    arrived.Wait();
    token.Cancel();
  });
  std::string answer;
  EXPECT_TRUE(Ask("lock", &answer, kNever, &token).ok());
  EXPECT_EQ(answer, "interrupted");
  canceller.join();
  // Cancelled beforehand: never sent.
  EXPECT_EQ(Ask("lock", &answer, kNever, &token).code(),
            absl::StatusCode::kCancelled);
  Stop();
}

TEST_F(RpcTest, ManyAsynchronousCallsMoreThanSlots) {
  StartServer({.call = Echo}, {.slots = 8});
  ASSERT_TRUE(StartClient().ok());
  constexpr int kCalls = 500;
  std::vector<std::string> questions;
  for (int i = 0; i < kCalls; ++i) questions.push_back(std::to_string(i));
  std::atomic<int> right{0}, done{0};
  Latch all;
  for (int i = 0; i < kCalls; ++i) {
    Request request;
    request.message = View(questions[static_cast<size_t>(i)]);
    client_->InvokeAsync(request, [&, i](absl::Status status, Response response) {
      right += status.ok() &&
               Text(response.message) == questions[static_cast<size_t>(i)];
      if (++done == kCalls) all.Open();
    });
  }
  all.Wait();
  EXPECT_EQ(right, kCalls);
  Stop();
}

TEST_F(RpcTest, AsynchronousCallsTimeOut) {
  std::mutex mutex;
  std::vector<Call> parked;
  StartServer({.call = [&](Call call) {
    std::lock_guard lock(mutex);
    parked.push_back(std::move(call));
  }});
  ASSERT_TRUE(StartClient().ok());
  Latch done;
  absl::Status status;
  Request request;
  request.timeout_ns = 10 * kMillisecond;
  client_->InvokeAsync(request, [&](absl::Status s, Response) {
    status = s;
    done.Open();
  });
  done.Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  std::vector<Call> taken;
  std::lock_guard lock(mutex);
  std::swap(taken, parked);
  Stop();
}

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
