// SPDX-License-Identifier: BSD-3-Clause
// Calls between two NICs with real threads: what users of nic/comm/rpc.h rely on.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/comm/rpc_fixture.h"

namespace tripwire::rpc {
namespace {

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

}  // namespace
}  // namespace tripwire::rpc
