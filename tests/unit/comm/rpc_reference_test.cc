// SPDX-License-Identifier: BSD-3-Clause
// Bulk requests that are not sent, because the server can read them where they lie.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/comm/rpc_fixture.h"

namespace tripwire::rpc {
namespace {

constexpr size_t kShown = 1 << 16;

class RpcReferenceTest : public RpcTest {
 protected:
  RpcReferenceTest() { wire_.Show(kShown); }

  // Answers with the bulk request's bytes; notes where they lay.
  void StartEchoOfBulk() {
    StartServer({.call = [this](Call call) {
      lay_at_ = call.bulk_request().data();
      if (Text(call.request()) == "wait") latch_.Wait();
      call.Reply(call.bulk_request());
    }});
  }
  std::span<uint8_t> Fill(std::span<uint8_t> bytes, uint8_t seed) {
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 31 + seed);
    return bytes;
  }
  // The answer to a call with this data, which is in the test's hands for good.
  std::vector<uint8_t> Send(std::span<const iovec> pieces, bool is_owned = true) {
    Request request;
    request.bulk = pieces;
    if (is_owned) request.bulk_owner = std::make_shared<int>();
    Response response;
    EXPECT_TRUE(client_->Invoke(request, &response).ok());
    return response.message;
  }
  bool LayInShownMemory() {
    const auto shown = client_->shown_memory();
    const uint8_t* at = lay_at_;
    return at >= shown.data() && at < shown.data() + shown.size();
  }

  std::atomic<const uint8_t*> lay_at_{nullptr};
  Latch latch_;
};

TEST_F(RpcReferenceTest, TheServerReadsShownMemoryWhereItLies) {
  StartEchoOfBulk();
  ASSERT_TRUE(StartClient().ok());
  const auto shown = client_->shown_memory();
  ASSERT_EQ(shown.size(), kShown);
  const std::span<uint8_t> places[] = {shown.first(5000), shown.last(1), shown.subspan(77, 8000)};
  for (const std::span<uint8_t> place : places) {
    Fill(place, 3);
    const iovec piece = {place.data(), place.size()};
    EXPECT_EQ(Send({&piece, 1}), std::vector<uint8_t>(place.begin(), place.end()));
    EXPECT_EQ(lay_at_, place.data());
  }
  EXPECT_EQ(server_->stats().by_reference, 3u);
  Stop();
}

TEST_F(RpcReferenceTest, WhatNobodyKeepsOrIsNotShownIsSent) {
  StartEchoOfBulk();
  ASSERT_TRUE(StartClient().ok());
  const auto shown = client_->shown_memory();
  std::vector<uint8_t> elsewhere(3000);
  Fill(elsewhere, 5);
  Fill(shown.first(3000), 5);
  const iovec outside = {elsewhere.data(), 3000};
  const iovec inside = {shown.data(), 3000};
  const iovec two[] = {{shown.data(), 1000}, {shown.data() + 1000, 2000}};
  EXPECT_EQ(Send({&outside, 1}), elsewhere);
  EXPECT_FALSE(LayInShownMemory());
  EXPECT_EQ(Send({&inside, 1}, /*is_owned=*/false), elsewhere);
  EXPECT_FALSE(LayInShownMemory());
  EXPECT_EQ(Send(two), elsewhere);
  EXPECT_FALSE(LayInShownMemory());
  EXPECT_EQ(server_->stats().by_reference, 0u);
  Stop();
}

TEST_F(RpcReferenceTest, ACallGivenUpKeepsItsDataUntilTheServerHasAnswered) {
  StartEchoOfBulk();
  ASSERT_TRUE(StartClient().ok());
  const auto shown = client_->shown_memory();
  auto owner = std::make_shared<int>();
  const std::weak_ptr<int> kept = owner;
  {
    const iovec piece = {shown.data(), 100};
    const std::string message = "wait";
    Request request;
    request.message = View(message);
    request.bulk = {&piece, 1};
    request.bulk_owner = std::move(owner);
    request.timeout_ns = 50 * kMillisecond;
    Response response;
    EXPECT_EQ(client_->Invoke(request, &response).code(), absl::StatusCode::kDeadlineExceeded);
  }
  while (lay_at_ == nullptr) std::this_thread::yield();
  EXPECT_FALSE(kept.expired());
  latch_.Open();
  while (!kept.expired()) std::this_thread::yield();  // or the test times out
  Stop();
}

TEST_F(RpcReferenceTest, OverALinkThatShowsNothingTheCallIsSentAgainInFull) {
  StartEchoOfBulk();
  ASSERT_TRUE(StartClient().ok());
  const auto place = Fill(client_->shown_memory().first(4000), 9);
  const std::vector<uint8_t> expected(place.begin(), place.end());
  wire_.SetCut(true);
  wire_.SetLook(false);
  std::vector<std::vector<uint8_t>> answers(3);
  std::vector<std::thread> callers;
  for (auto& answer : answers) {
    callers.emplace_back([&] {
      const iovec piece = {place.data(), place.size()};
      answer = Send({&piece, 1});
    });
  }
  while (client_->connected()) std::this_thread::yield();
  wire_.SetCut(false);
  for (auto& caller : callers) caller.join();
  for (const auto& answer : answers) EXPECT_EQ(answer, expected);
  EXPECT_FALSE(LayInShownMemory());
  EXPECT_EQ(server_->stats().by_reference, 0u);
  Stop();
}

TEST_F(RpcReferenceTest, MoreCallsThanStagingPlacesComeBackToALinkThatShowsNothing) {
  StartServer({.call = [](Call call) { call.Reply(call.bulk_request()); }},
              {.slots = 16, .staging_slots = 2});
  ASSERT_TRUE(StartClient().ok());
  const auto place = Fill(client_->shown_memory().first(4000), 1);
  const std::vector<uint8_t> expected(place.begin(), place.end());
  wire_.SetCut(true);
  wire_.SetLook(false);
  std::atomic<int> right{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      const iovec piece = {place.data(), place.size()};
      right += Send({&piece, 1}) == expected;
    });
  }
  while (client_->connected()) std::this_thread::yield();
  wire_.SetCut(false);
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(right, 8);
  Stop();
}

}  // namespace
}  // namespace tripwire::rpc
