// SPDX-License-Identifier: BSD-3-Clause
// Calls that nobody waits for, or not for ever: timeouts, cancellation, asynchronous calls.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/comm/rpc_fixture.h"

namespace tripwire::rpc {
namespace {

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

// Far more than there are slots: with nobody to take their answers but the calls
// behind them, each must still be made, once, and the last ones too.
TEST_F(RpcTest, CallsNobodyHearsAreAllMade) {
  constexpr size_t kCalls = 500;
  std::mutex mutex;
  std::vector<int> made(kCalls);
  StartServer({.call =
                   [&](Call call) {
                     const std::string text = Text(call.request());
                     if (text != "heard") {
                       std::lock_guard lock(mutex);
                       ++made[static_cast<size_t>(std::stoi(text))];
                     }
                     Echo(std::move(call));
                   }},
              {.slots = 8});
  ASSERT_TRUE(StartClient().ok());
  std::string answer;
  for (size_t i = 0; i < kCalls; ++i) {
    std::string question = std::to_string(i);
    Request request;
    request.message = View(question);
    client_->InvokeAsync(request, nullptr);
    question.assign(question.size(), 'x');  // it was copied
    if (i % 100 == 50) {
      ASSERT_TRUE(Ask("heard", &answer).ok());
      EXPECT_EQ(answer, "heard");
    }
  }
  for (int wait = 0; wait < 1000; ++wait) {
    {
      std::lock_guard lock(mutex);
      if (made.back() == 1) break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_TRUE(Ask("heard", &answer).ok());
  Stop();
  EXPECT_EQ(made, std::vector<int>(kCalls, 1));
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

// Waits until asynchronous calls have said how they ended, once each.
class Ends {
 public:
  std::function<void(absl::Status, Response)> Next() {
    std::lock_guard lock(mutex_);
    const size_t index = ends_.size();
    ends_.emplace_back();
    return [this, index](absl::Status status, Response) {
      std::lock_guard lock(mutex_);
      ends_[index].push_back(std::move(status));
      changed_.notify_all();
    };
  }
  // The one end of the call started as number `index`.
  absl::StatusCode Of(size_t index) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return !ends_[index].empty(); });
    return ends_[index].size() == 1 ? ends_[index][0].code() : absl::StatusCode::kDataLoss;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::vector<absl::Status>> ends_;
};

TEST_F(RpcTest, AsynchronousCallsAreCancelled) {
  Latch arrived;
  StartServer({.call = [&](Call call) {
    if (Text(call.request()) == "echo") return Echo(std::move(call));
    auto kept = std::make_shared<Call>(std::move(call));
    kept->OnCancel([kept] { kept->Reply({}); });
    arrived.Open();
  }});
  ASSERT_TRUE(StartClient().ok());
  Ends ends;
  CancelToken early, middle, late;
  const std::string wait_text = "wait", echo_text = "echo";
  Request wait, echo;
  wait.message = View(wait_text);
  echo.message = View(echo_text);
  early.Cancel();
  client_->InvokeAsync(wait, ends.Next(), &early);
  EXPECT_EQ(ends.Of(0), absl::StatusCode::kCancelled);
  client_->InvokeAsync(wait, ends.Next(), &middle);
  arrived.Wait();
  middle.Cancel();
  EXPECT_EQ(ends.Of(1), absl::StatusCode::kOk);  // its answer came, and tells all
  client_->InvokeAsync(echo, ends.Next(), &late);
  EXPECT_EQ(ends.Of(2), absl::StatusCode::kOk);
  late.Cancel();
  Stop();
  late.Cancel();
}

TEST_F(RpcTest, CancellingReachesCallsWithoutASlotAndWithoutAnAnswer) {
  std::mutex mutex;
  std::vector<Call> kept;
  Latch arrived;
  StartServer({.call = [&](Call call) {
                std::lock_guard lock(mutex);
                kept.push_back(std::move(call));
                if (kept.size() == 3) arrived.Open();
              }},
              {.slots = 4});
  ASSERT_TRUE(StartClient().ok());
  Ends ends;
  CancelToken token, waiting;
  const std::string text = "wait";
  Request request;
  request.message = View(text);
  // Slot 0 is recovery's: three calls fill the others.
  client_->InvokeAsync(request, ends.Next(), &token);
  client_->InvokeAsync(request, ends.Next());
  client_->InvokeAsync(request, ends.Next());
  arrived.Wait();
  client_->InvokeAsync(request, ends.Next(), &waiting);
  waiting.Cancel();
  EXPECT_EQ(ends.Of(3), absl::StatusCode::kCancelled);
  token.Cancel();  // its handler does not mind
  EXPECT_EQ(ends.Of(0), absl::StatusCode::kCancelled);
  {
    std::lock_guard lock(mutex);
    for (Call& call : kept) call.Reply({});
  }
  EXPECT_EQ(ends.Of(1), absl::StatusCode::kOk);
  EXPECT_EQ(ends.Of(2), absl::StatusCode::kOk);
  Stop();
}

TEST_F(RpcTest, CancellingRacesWithTheAnswer) {
  StartServer({.call = Echo});
  ASSERT_TRUE(StartClient().ok());
  constexpr size_t kCalls = 500;
  Ends ends;
  std::vector<CancelToken> tokens(kCalls);
  std::thread canceller([&] {
    for (CancelToken& token : tokens) token.Cancel();
  });
  const std::string text = "now or never";
  Request request;
  request.message = View(text);
  for (CancelToken& token : tokens) client_->InvokeAsync(request, ends.Next(), &token);
  canceller.join();
  for (size_t i = 0; i < kCalls; ++i) {
    const absl::StatusCode code = ends.Of(i);
    EXPECT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kCancelled);
  }
  Stop();
}

}  // namespace
}  // namespace tripwire::rpc
