// SPDX-License-Identifier: BSD-3-Clause
// A context that wants more than it may have is told so, and gets more once it has
// given something back. Others notice nothing.
#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

using absl::StatusCode;

TEST(NicSim, QuotasOfAperturesAndTripwires) {
  SimNetwork net(1);
  Nic& nic = net.AddNode("one");
  ContextQuotas quotas;
  quotas.apertures = 3;
  quotas.tripwires = 5;
  auto context = nic.CreateContext(quotas);
  auto other = nic.CreateContext();
  std::vector<uint8_t> memory(4096);
  std::deque<Aperture> apertures;
  for (int i = 0; i < 3; ++i) {
    apertures.push_back(context->Export(memory, Access::kAny));
    ASSERT_TRUE(apertures.back());
  }
  EXPECT_EQ(context->TryExport(memory, Access::kAny).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_FALSE(context->Export(memory, Access::kAny));
  EXPECT_TRUE(other->Export(memory, Access::kAny));
  apertures.pop_back();
  EXPECT_TRUE(context->TryExport(memory, Access::kAny).ok());

  std::deque<Tripwire> tripwires;
  const auto watch = [&] {
    return context->Watch(apertures[0], 0, 8, TripwireOptions());
  };
  for (int i = 0; i < 5; ++i) {
    auto tripwire = watch();
    ASSERT_TRUE(tripwire.ok());
    tripwires.push_back(*std::move(tripwire));
  }
  EXPECT_EQ(watch().status().code(), StatusCode::kResourceExhausted);
  Tripwire none = context->Watch(apertures[0], 0, 8, Access::kWrite,
                                 TripwireMode::kOneShot);
  EXPECT_FALSE(none);
  none.Arm();
  EXPECT_EQ(none.Wait(0, kNever), 0u) << "returns: it can never fire";
  tripwires.pop_front();
  EXPECT_TRUE(watch().ok());
  EXPECT_TRUE(watch().ok()) << "the last one is gone again";
  tripwires.clear();
}

TEST(NicSim, QuotaOfLinks) {
  SimNetwork net(2);
  Nic& a = net.AddNode("a");
  Nic& b = net.AddNode("b");
  ContextQuotas quotas;
  quotas.links = 2;
  auto left = a.CreateContext(quotas);
  auto right = b.CreateContext(quotas);
  ASSERT_TRUE(right->Listen("svc").ok());
  uint64_t up = 0, requests = 0;
  const auto run = [&] {
    net.RunUntil(
        [&] {
          Event event;
          while (right->Poll({&event, 1}) > 0) {
            if (event.kind != EventKind::kConnectRequest) continue;
            ++requests;
            EXPECT_TRUE(right->Accept(event.link, {}).ok());
          }
          while (left->Poll({&event, 1}) > 0) {
            up += event.kind == EventKind::kLinkUp;
          }
          return false;
        },
        kSecond);
  };
  const LinkId first = *left->StartConnect("b", "svc", {});
  EXPECT_TRUE(left->StartConnect("b", "svc", {}).ok());
  EXPECT_EQ(left->StartConnect("b", "svc", {}).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(left->Connect("b", "svc", {}, kSecond).status().code(),
            StatusCode::kResourceExhausted);
  run();
  EXPECT_EQ(up, 2u);
  // The right side is full as well: others' requests find nobody.
  auto more = a.CreateContext();
  const LinkId waiting = *more->StartConnect("b", "svc", {});
  run();
  EXPECT_EQ(requests, 2u);
  EXPECT_FALSE(more->IsUp(waiting));
  left->Close(first);
  run();
  EXPECT_EQ(requests, 3u) << "there is room again, and it still asks";
  EXPECT_TRUE(more->IsUp(waiting));
  EXPECT_TRUE(left->StartConnect("b", "svc", {}).ok());
}

class QuotaSim : public ::testing::Test {
 protected:
  QuotaSim() : net_(3), pair_(net_) {
    ContextQuotas quotas;
    quotas.queued_bytes = 64 * 1024;
    pair_.left.reset();
    pair_.left = pair_.left_nic.CreateContext(quotas);
  }
  void SetUp() override {
    pair_.Connect();
    aperture_ = pair_.right->Export(memory_, Access::kAny);
    remote_ = pair_.left->Import(pair_.left_link, aperture_.name());
  }
  StatusCode WriteCopied(size_t bytes) {
    return pair_.left->Write(remote_, 0, std::span(data_).first(bytes)).code();
  }

  SimNetwork net_;
  Pair pair_;
  std::vector<uint8_t> memory_ = std::vector<uint8_t>(1 << 20);
  std::vector<uint8_t> data_ = std::vector<uint8_t>(1 << 20, 7);
  Aperture aperture_;
  RemoteAperture remote_;
};

// Data that is not copied does not count; the operations themselves do.
TEST_F(QuotaSim, QueuedBytesAreBoundedAndGivenBackWithTheOperations) {
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(WriteCopied(64 * 1024), StatusCode::kResourceExhausted);
    EXPECT_EQ(pair_.left->SendMessage(pair_.left_link, data_).code(),
              StatusCode::kResourceExhausted);
    std::deque<Completion> done;
    std::vector<uint8_t> into(64);
    absl::Status status;
    for (uint64_t i = 0; status.ok(); ++i) {
      done.emplace_back();
      Completion* completion = &done.back();
      switch (i % 4) {
        case 0: status = pair_.left->Write(remote_, 0, data_, completion); break;
        case 1: status = pair_.left->Read(remote_, 0, into, completion); break;
        case 2: status = pair_.left->FetchAdd(remote_, 0, 1, nullptr, completion); break;
        default: status = pair_.left->Flush(pair_.left_link, completion);
      }
    }
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
    done.pop_back();
    EXPECT_EQ(done.size(), 64u * 1024 / kQueuedOperationBytes);
    EXPECT_EQ(WriteCopied(8), StatusCode::kResourceExhausted);
    ASSERT_TRUE(net_.RunUntil([&] { return done.back().done(); }, 60 * kSecond));
    for (const Completion& c : done) EXPECT_EQ(c.status.load(), OpStatus::kOk);
    net_.RunFor(kSecond);
  }
  EXPECT_EQ(WriteCopied(60000), StatusCode::kOk) << "all of it is back";
}

TEST_F(QuotaSim, ALinkThatEndsGivesBackWhatItHad) {
  net_.port(1).SetStalled(true);
  for (int i = 0; WriteCopied(1000) == StatusCode::kOk; ++i) ASSERT_LT(i, 1000);
  pair_.left->Close(pair_.left_link);
  net_.RunFor(20 * kSecond);
  net_.port(1).SetStalled(false);
  net_.RunFor(20 * kSecond);
  Event event;
  while (pair_.right->Poll({&event, 1}) > 0) {
  }
  pair_.right->StopListening("svc");
  pair_.Connect();
  remote_ = pair_.left->Import(pair_.left_link, aperture_.name());
  EXPECT_EQ(WriteCopied(60000), StatusCode::kOk);
}

}  // namespace
}  // namespace tripwire
