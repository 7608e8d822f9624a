// SPDX-License-Identifier: BSD-3-Clause
// Lists of writes: the same as the writes one by one, in order, firings,
// refusals and ends, on good networks and bad.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

using absl::StatusCode;

constexpr uint64_t kBytes = 16384;

// A pair with a second link, and an aperture of the peer's for each.
struct TwoLinks : Pair {
  using Pair::Pair;

  void Connect() {
    Pair::Connect();
    if (::testing::Test::HasFatalFailure()) return;
    links = {left_link, *left->StartConnect("right", "svc", {})};
    bool up = false;
    ASSERT_TRUE(net.RunUntil(
        [&] {
          Event event;
          while (right->Poll({&event, 1}) > 0) {
            if (event.kind == EventKind::kConnectRequest) {
              EXPECT_TRUE(right->Accept(event.link, {}).ok());
            }
          }
          while (left->Poll({&event, 1}) > 0) {
            if (event.kind == EventKind::kLinkUp) up = true;
          }
          return up;
        },
        60 * kSecond));
    for (size_t i = 0; i < links.size(); ++i) {
      memory.emplace_back(kBytes);
      apertures.push_back(right->Export(memory[i], Access::kAny));
      remote.push_back(left->Import(links[i], apertures[i].name()));
    }
  }

  std::vector<LinkId> links;
  std::vector<std::vector<uint8_t>> memory;
  std::vector<Aperture> apertures;
  std::vector<RemoteAperture> remote;
};

FaultOptions FaultsOf(uint64_t seed) {
  if (seed % 3 == 0) return {};
  return {.loss = 0.05, .duplicate = 0.05, .reorder = 0.1};
}

TEST(NicSim, ListsAreTheirWritesInOrder) {
  ForPairs<TwoLinks>(60, FaultsOf, [](TwoLinks& pair) {
    Random& random = pair.net.random();
    std::vector<std::vector<uint8_t>> model(2, std::vector<uint8_t>(kBytes));
    uint64_t hits = 0;
    Tripwire watch = pair.right->Watch(
        pair.apertures[0], 100, 8, Access::kWrite, TripwireMode::kPersistent);
    watch.Arm();
    struct Written {
      std::vector<uint8_t> data;
      Completion completion;
    };
    std::deque<Written> written;
    std::vector<WriteRequest> list;
    for (int round = 0; round < 12; ++round) {
      list.clear();
      const uint64_t writes =
          random.Chance(0.1) ? 700 : random.Below(80);  // or beyond a window
      for (uint64_t i = 0; i < writes; ++i) {
        const size_t which = random.Chance(0.1) ? 1 : 0;
        const uint64_t most = random.Chance(0.8) ? 200 : 5000;
        const uint64_t length = random.Below(most);
        const uint64_t offset = random.Below(kBytes - length + 1);
        Written& write = written.emplace_back();
        write.data = RandomBytes(random, length);
        std::copy(write.data.begin(), write.data.end(),
                  model[which].begin() + static_cast<ptrdiff_t>(offset));
        hits +=
            which == 0 && length > 0 && offset < 108 && offset + length > 100;
        const bool copied = random.Chance(0.3);
        if (copied) write.completion.Finish(OpStatus::kOk);
        list.push_back({pair.remote[which], offset, write.data,
                        copied ? nullptr : &write.completion,
                        WriteOrder::kOrdered});
      }
      size_t begun = 0;
      ASSERT_TRUE(pair.left->WriteMany(list, &begun).ok());
      ASSERT_EQ(begun, list.size());
      for (const WriteRequest& write : list) {  // copied: ours again
        if (write.completion != nullptr) continue;
        std::fill_n(const_cast<uint8_t*>(write.data.data()), write.data.size(),
                    uint8_t{0xee});
      }
      if (random.Chance(0.5)) pair.net.RunFor(random.Below(kMillisecond));
      // Singles in between keep their place, too.
      const auto value = static_cast<uint8_t>(round);
      model[0][0] = value;
      ASSERT_TRUE(pair.left->Write(pair.remote[0], 0, {&value, 1}).ok());
    }
    Completion flushed[2];
    for (size_t i = 0; i < 2; ++i) {
      ASSERT_TRUE(pair.left->Flush(pair.links[i], &flushed[i]).ok());
    }
    ASSERT_TRUE(pair.net.RunUntil(
        [&] {
          return flushed[0].done() && flushed[1].done() &&
                 std::all_of(written.begin(), written.end(),
                             [](auto& w) { return w.completion.done(); });
        },
        120 * kSecond));
    EXPECT_TRUE(pair.memory == model);
    EXPECT_EQ(watch.count(), hits);
    for (Written& w : written) {
      EXPECT_EQ(w.completion.status.load(), OpStatus::kOk);
    }
    watch.Remove();
  });
}

// The first in the list that Write itself would not begin is where it ends.
TEST(NicSim, AListStopsAtTheFirstThatIsNotBegun) {
  SimNetwork net(1);
  TwoLinks pair(net);
  pair.Connect();
  ASSERT_FALSE(::testing::Test::HasFatalFailure());
  const std::vector<uint8_t> data(64, 7);
  Completion done[3];
  const auto list_with = [&](const WriteRequest& bad) {
    for (Completion& completion : done) completion.status = OpStatus::kOk;
    return std::vector<WriteRequest>{
        {pair.remote[0], 0, data, &done[0], WriteOrder::kOrdered},
        bad,
        {pair.remote[0], 64, data, &done[2], WriteOrder::kOrdered}};
  };
  const auto expect = [&](const WriteRequest& bad, StatusCode code) {
    pair.memory[0].assign(kBytes, 0);
    size_t begun = 99;
    EXPECT_EQ(pair.left->WriteMany(list_with(bad), &begun).code(), code);
    EXPECT_EQ(begun, 1u);
    pair.net.RunFor(20 * kMillisecond);
    EXPECT_EQ(pair.memory[0][0], 7);
    EXPECT_EQ(pair.memory[0][64], 0) << "what follows is not begun";
    for (Completion& completion : done) {  // two of them are not used
      EXPECT_EQ(completion.status.load(), OpStatus::kOk);
    }
  };
  expect({pair.remote[0], kBytes - 63, data, &done[1], WriteOrder::kOrdered},
         StatusCode::kOutOfRange);
  RemoteAperture nowhere = pair.remote[0];
  nowhere.link = LinkId{12345};
  expect({nowhere, 0, data, &done[1], WriteOrder::kOrdered},
         StatusCode::kUnavailable);
  auto stranger = pair.left_nic.CreateContext();
  EXPECT_EQ(stranger->WriteMany(list_with({})).code(), StatusCode::kUnavailable)
      << "another context's link";
  EXPECT_TRUE(pair.left->WriteMany({}).ok());
}

TEST(NicSim, AListEndsWhereTheQuotaDoes) {
  SimNetwork net(1);
  Nic& left_nic = net.AddNode("l");
  TwoLinks pair(net);
  pair.Connect();
  ASSERT_FALSE(::testing::Test::HasFatalFailure());
  ContextQuotas quotas;
  quotas.queued_bytes = 5 * kQueuedOperationBytes + 3 * 64;
  auto poor = left_nic.CreateContext(quotas);
  const LinkId link = *poor->StartConnect("right", "svc", {});
  ASSERT_TRUE(net.RunUntil(
      [&] {
        Event event;
        while (pair.right->Poll({&event, 1}) > 0) {
          if (event.kind == EventKind::kConnectRequest) {
            EXPECT_TRUE(pair.right->Accept(event.link, {}).ok());
          }
        }
        return poor->IsUp(link);
      },
      60 * kSecond));
  const RemoteAperture to = poor->Import(link, pair.apertures[0].name());
  const std::vector<uint8_t> data(64, 9);
  std::vector<WriteRequest> list(8);
  for (size_t i = 0; i < list.size(); ++i) {
    list[i].to = to;
    list[i].offset = 64 * i;
    list[i].data = data;
  }
  size_t begun = 0;
  EXPECT_EQ(poor->WriteMany(list, &begun).code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(begun, 4u) << "256 bytes each, and the copied 64";
  net.RunFor(20 * kMillisecond);
  EXPECT_TRUE(poor->WriteMany(std::span(list).subspan(begun)).ok())
      << "what ended counts no more";
  net.RunFor(20 * kMillisecond);
  EXPECT_EQ(pair.memory[0][7 * 64], 9);
}

// What the peer refuses is one operation's end, not the list's.
TEST(NicSim, ARefusedWriteOfAListIsRefusedAlone) {
  ForPairs<TwoLinks>(20, FaultsOf, [](TwoLinks& pair) {
    std::vector<uint8_t> shut_memory(64);
    Aperture shut = pair.right->Export(shut_memory, Access::kRead);
    const RemoteAperture to_shut =
        pair.left->Import(pair.links[0], shut.name());
    std::vector<uint8_t> data(40, 3);
    std::vector<Completion> done(100);
    std::vector<WriteRequest> list(done.size());
    for (size_t i = 0; i < list.size(); ++i) {
      list[i].to = i % 10 == 3 ? to_shut : pair.remote[0];
      list[i].offset = i % 10 == 3 ? 0 : 40 * i;
      list[i].data = data;
      list[i].completion = &done[i];
    }
    ASSERT_TRUE(pair.left->WriteMany(list).ok());
    ASSERT_TRUE(pair.net.RunUntil(
        [&] {
          return std::all_of(done.begin(), done.end(),
                             [](auto& c) { return c.done(); });
        },
        120 * kSecond));
    for (size_t i = 0; i < done.size(); ++i) {
      EXPECT_EQ(done[i].status.load(),
                i % 10 == 3 ? OpStatus::kNoRights : OpStatus::kOk)
          << i;
      if (i % 10 != 3) {
        EXPECT_EQ(pair.memory[0][40 * i], 3) << i;
      }
    }
    EXPECT_EQ(shut_memory[0], 0);
  });
}

}  // namespace
}  // namespace tripwire
