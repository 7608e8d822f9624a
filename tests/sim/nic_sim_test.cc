// SPDX-License-Identifier: BSD-3-Clause
// Single promises over whole networks from seeds: order, revocation, refusals,
// lost and restarted peers, errors of connecting.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "nic/control/body.h"
#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

// Data then pointer, one word over and over: whenever the pointer says n, the
// data of n is there; an armed-if-unchanged tripwire never sleeps through news.
TEST(NicSim, PointerNeverOvertakesData) {
  constexpr FaultOptions kFaults{
      .loss = 0.03, .duplicate = 0.05, .reorder = 0.1};
  ForPairs(100, kFaults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    struct alignas(8) Ring {
      uint64_t pointer = 0;
      uint64_t data[64] = {};
    } ring;
    Aperture aperture = pair.right->Export(
        {reinterpret_cast<uint8_t*>(&ring), sizeof ring}, Access::kWrite);
    const RemoteAperture remote =
        pair.left->Import(pair.left_link, aperture.name());
    Tripwire wire = pair.right->Watch(aperture, 0, 8, Access::kWrite,
                                      TripwireMode::kOneShot, 7);
    constexpr uint64_t kItems = 300;
    uint64_t sent = 0, seen = 0;
    bool armed = false;
    ASSERT_TRUE(net.RunUntil(
        [&] {
          if (sent < kItems && net.random().Chance(0.3) && sent < seen + 64) {
            ++sent;
            const uint64_t value = sent * 1000003;
            (void)pair.left->Write(
                remote, 8 + 8 * (sent % 64),
                {reinterpret_cast<const uint8_t*>(&value), 8});
            (void)pair.left->Write(
                remote, 0, {reinterpret_cast<const uint8_t*>(&sent), 8});
          }
          Event event;
          while (pair.right->Poll({&event, 1}) > 0) {
            EXPECT_EQ(event.kind, EventKind::kTripwire);
            EXPECT_TRUE(armed) << "a one-shot tripwire fired unarmed";
            EXPECT_EQ(event.count, 1u);
            EXPECT_GT(ring.pointer, seen) << "fired with nothing new";
            armed = false;
          }
          if (!armed) {
            while (seen < ring.pointer) {
              ++seen;
              EXPECT_EQ(ring.data[seen % 64], seen * 1000003);
            }
            armed = wire.Arm(seen);
          } else {
            EXPECT_EQ(ring.pointer, seen) << "slept through an arrival";
          }
          return seen == kItems;
        },
        300 * kSecond));
    wire.Remove();
  });
}

TEST(NicSim, RevokeIsExact) {
  constexpr FaultOptions kFaults{
      .loss = 0.05, .duplicate = 0.2, .reorder = 0.2};
  ForPairs(200, kFaults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    std::vector<uint8_t> memory(20000, 0x11);
    Aperture aperture =
        pair.right->Export(memory, Access::kWrite | Access::kRead);
    const RemoteAperture remote =
        pair.left->Import(pair.left_link, aperture.name());
    const std::vector<uint8_t> data(20000, 0x22);
    std::vector<uint8_t> into(20000);
    Completion write, read, after;
    ASSERT_TRUE(pair.left->Write(remote, 0, data, &write).ok());
    ASSERT_TRUE(pair.left->Read(remote, 0, into, &read).ok());
    net.RunFor(net.random().Below(200 * kMicrosecond));
    aperture.Revoke();
    std::fill(memory.begin(), memory.end(), 0x33);
    // The same slot, exported again: an old name must not reach it.
    Aperture again = pair.right->Export(memory, Access::kWrite);
    EXPECT_EQ(again.name().handle, remote.name.handle);
    ASSERT_TRUE(pair.left->Write(remote, 0, data, &after).ok());
    ASSERT_TRUE(net.RunUntil(
        [&] { return write.done() && read.done() && after.done(); },
        120 * kSecond));
    EXPECT_EQ(after.status.load(), OpStatus::kStaleGeneration);
    EXPECT_TRUE(std::all_of(memory.begin(), memory.end(),
                            [](uint8_t b) { return b == 0x33; }));
    if (write.status.load() != OpStatus::kOk) {
      EXPECT_EQ(write.status.load(), OpStatus::kStaleGeneration);
    }
  });
}

TEST(NicSim, RefusalsAreReportedAndExact) {
  constexpr FaultOptions kFaults{.loss = 0.1, .duplicate = 0.1, .reorder = 0.2};
  ForPairs(100, kFaults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    std::vector<uint8_t> memory(4096);
    Aperture write_only = pair.right->Export(memory, Access::kWrite);
    Aperture other_link =
        pair.right->Export(memory, Access::kWrite, LinkId{12345});
    const auto import = [&](ApertureName name) {
      return pair.left->Import(pair.left_link, name);
    };
    ApertureName longer = write_only.name();
    longer.length_bytes = 1 << 20;  // a lie the exporter must catch
    ApertureName wild = write_only.name();
    wild.handle = 4711;
    struct Kind {
      RemoteAperture to;
      uint64_t offset;
      bool read;
      OpStatus expected;
    };
    const Kind kinds[] = {
        {import(write_only.name()), 10, false, OpStatus::kOk},
        {import(write_only.name()), 10, true, OpStatus::kNoRights},
        {import(longer), 4000, false, OpStatus::kOutOfBounds},
        {import(wild), 0, false, OpStatus::kBadHandle},
        {import(other_link.name()), 0, false, OpStatus::kNoRights},
        {import(longer), 5000, true, OpStatus::kNoRights},
    };
    struct Case : Kind {
      explicit Case(const Kind& kind) : Kind(kind) {}
      std::vector<uint8_t> data = std::vector<uint8_t>(100);
      Completion completion;
    };
    std::deque<Case> cases;
    for (int i = 0; i < 40; ++i) {
      Case& c = cases.emplace_back(kinds[net.random().Below(std::size(kinds))]);
      if (c.read) {
        ASSERT_TRUE(pair.left->Read(c.to, c.offset, c.data, &c.completion).ok());
      } else {
        ASSERT_TRUE(pair.left->Write(c.to, c.offset, c.data, &c.completion).ok());
      }
    }
    ASSERT_TRUE(net.RunUntil(
        [&] {
          return std::all_of(cases.begin(), cases.end(),
                             [](Case& c) { return c.completion.done(); });
        },
        120 * kSecond));
    for (Case& c : cases) EXPECT_EQ(c.completion.status.load(), c.expected);
  });
}

// Each side has its window full of what the other refuses: neither may wait for
// the other before it says so.
TEST(NicSim, TwoFullWindowsOfRefusalsDoNotWaitForEachOther) {
  const auto faults = [](uint64_t seed) {
    return FaultOptions{.loss = seed % 2 == 0 ? 0.05 : 0};
  };
  ForPairs(40, faults, [](Pair& pair) {
    SimNetwork& net = pair.net;
    std::vector<uint8_t> memory(4096);
    Aperture of_left = pair.left->Export(memory, Access::kRead);
    Aperture of_right = pair.right->Export(memory, Access::kRead);
    const RemoteAperture to_right =
        pair.left->Import(pair.left_link, of_right.name());
    const RemoteAperture to_left =
        pair.right->Import(pair.right_link, of_left.name());
    std::vector<uint8_t> data(100);
    std::deque<Completion> completions(2 * 1500);
    for (size_t i = 0; i < completions.size(); i += 2) {
      ASSERT_TRUE(pair.left->Write(to_right, 0, data, &completions[i]).ok());
      ASSERT_TRUE(
          pair.right->Write(to_left, 0, data, &completions[i + 1]).ok());
    }
    ASSERT_TRUE(net.RunUntil(
        [&] {
          return std::all_of(completions.begin(), completions.end(),
                             [](Completion& c) { return c.done(); });
        },
        60 * kSecond));
    for (Completion& c : completions) {
      ASSERT_EQ(c.status.load(), OpStatus::kNoRights);
    }
    EXPECT_TRUE(pair.left->IsUp(pair.left_link));
    EXPECT_TRUE(pair.right->IsUp(pair.right_link));
  });
}

TEST(NicSim, PeerLossEndsEverything) {
  ForPairs(50, FaultOptions{}, [](Pair& pair) {
    SimNetwork& net = pair.net;
    std::vector<uint8_t> memory(4096), data(4096), into(100);
    Aperture aperture =
        pair.right->Export(memory, Access::kWrite | Access::kRead);
    const RemoteAperture remote =
        pair.left->Import(pair.left_link, aperture.name());
    Tripwire out = pair.left->Watch(remote, 0, 8, Access::kWrite,
                                    TripwireMode::kPersistent, 1);
    out.Arm();
    net.port(1).SetStalled(true);
    Completion write, read, flush;
    ASSERT_TRUE(pair.left->Write(remote, 0, data, &write).ok());
    ASSERT_TRUE(pair.left->Read(remote, 0, into, &read).ok());
    ASSERT_TRUE(pair.left->Flush(pair.left_link, &flush).ok());
    bool down = false;
    ASSERT_TRUE(net.RunUntil(
        [&] {
          Event event;
          while (pair.left->Poll({&event, 1}) > 0) {
            EXPECT_EQ(event.kind, EventKind::kLinkDown);
            EXPECT_EQ(event.end, LinkEnd::kTimedOut);
            down = true;
          }
          return down;
        },
        60 * kSecond));
    EXPECT_EQ(write.status.load(), OpStatus::kLinkLost);
    EXPECT_EQ(read.status.load(), OpStatus::kLinkLost);
    EXPECT_EQ(flush.status.load(), OpStatus::kLinkLost);
    EXPECT_EQ(out.count(), 0u);
    EXPECT_EQ(out.Wait(0, kNever), 0u);  // returns: the link is gone
    EXPECT_FALSE(pair.left->Write(remote, 0, data).ok());
    out.Remove();
  });
}

// The longest names fit the smallest frames a port may have, with a little
// data; what does not is refused at once.
TEST(NicSim, NamesAndDataThatFitNoFrameAreRefused) {
  SimNetwork net(6);
  const std::string service(200, 's');
  Nic& left_nic = net.AddNode(std::string(200, 'l'), 512);
  Nic& right_nic = net.AddNode(std::string(200, 'r'), 512);
  auto left = left_nic.CreateContext(), right = right_nic.CreateContext();
  ASSERT_TRUE(right->Listen(service).ok());
  const std::vector<uint8_t> little(35), more(40), most(300);
  EXPECT_TRUE(absl::IsInvalidArgument(
      left->Connect(std::string(200, 'r'), service, more, kSecond).status()));
  // Nor does it matter whether one waits.
  EXPECT_TRUE(absl::IsInvalidArgument(
      left->StartConnect(std::string(200, 'r'), service, more).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      left->StartConnect(std::string(256, 'r'), "svc", {}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      left->StartConnect("r", "svc", std::vector<uint8_t>(1025)).status()));
  ASSERT_TRUE(left->StartConnect(std::string(200, 'r'), service, little).ok());
  bool up = false;
  ASSERT_TRUE(net.RunUntil(
      [&] {
        Event event;
        while (right->Poll({&event, 1}) > 0) {
          if (event.kind != EventKind::kConnectRequest) continue;
          EXPECT_TRUE(absl::IsInvalidArgument(right->Accept(event.link, most)));
          EXPECT_TRUE(right->Accept(event.link, little).ok());
        }
        while (left->Poll({&event, 1}) > 0)
          up |= event.kind == EventKind::kLinkUp;
        return up;
      },
      60 * kSecond));
}

TEST(NicSim, RestartedPeerIsNotMistakenForItsPredecessor) {
  SimNetwork net(5);
  auto pair = std::make_unique<Pair>(net);
  pair->Connect();
  std::vector<uint8_t> memory(4096), data(64, 7);
  Aperture aperture = pair->right->Export(memory, Access::kWrite);
  const RemoteAperture remote =
      pair->left->Import(pair->left_link, aperture.name());
  // The right node crashes and comes back under the same name and MAC, with an
  // aperture under the same handle and generation.
  net.port(1).SetStalled(true);
  aperture = Aperture();
  Nic* crashed = &pair->right_nic;
  pair->right.reset();
  net.RemoveNode(*crashed);
  Nic& reborn = net.AddNode("right");
  auto context = reborn.CreateContext();
  std::vector<uint8_t> fresh(4096);
  Aperture same_name = context->Export(fresh, Access::kWrite);
  EXPECT_EQ(same_name.name().handle, remote.name.handle);
  EXPECT_EQ(same_name.name().generation, remote.name.generation);
  Completion write;
  ASSERT_TRUE(pair->left->Write(remote, 0, data, &write).ok());
  LinkEnd end = LinkEnd::kNone;
  ASSERT_TRUE(net.RunUntil(
      [&] {
        Event event;
        while (pair->left->Poll({&event, 1}) > 0) end = event.end;
        return end != LinkEnd::kNone;
      },
      10 * kSecond));
  EXPECT_EQ(end, LinkEnd::kPeerRestarted);
  EXPECT_EQ(write.status.load(), OpStatus::kLinkLost);
  EXPECT_EQ(fresh, std::vector<uint8_t>(4096));
}

TEST(NicSim, TheLongestNamesAndConnectionDataFitOneFrame) {
  SimNetwork net(1);
  const std::string from(kMaxNameBytes, 'f'), to(kMaxNameBytes, 't'),
      service(kMaxNameBytes, 's');
  auto left = net.AddNode(from).CreateContext();
  auto right = net.AddNode(to).CreateContext();
  ASSERT_TRUE(right->Listen(service).ok());
  EXPECT_EQ(right->Listen(service + "s").code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<uint8_t> data(kMaxPrivateBytes, 0xff);
  ASSERT_TRUE(left->StartConnect(to, service, data).ok());
  bool up = false;
  EXPECT_TRUE(net.RunUntil(
      [&] {
        Event event;
        while (right->Poll({&event, 1}) > 0) {
          if (event.kind != EventKind::kConnectRequest) continue;
          EXPECT_EQ(right->Describe(event.link)->private_data, data);
          EXPECT_TRUE(right->Accept(event.link, data).ok());
        }
        while (left->Poll({&event, 1}) > 0) {
          if (event.kind != EventKind::kLinkUp) continue;
          up = true;
          EXPECT_EQ(left->Describe(event.link)->private_data, data);
        }
        return up;
      },
      10 * kSecond));
}

TEST(NicSim, ConnectErrorsSayWhy) {
  SimNetwork net(9);
  Nic& a = net.AddNode("a");
  Nic& b = net.AddNode("b");
  Nic& c = net.AddNode("c");
  auto left = a.CreateContext();
  auto on_b = b.CreateContext();
  auto on_c = c.CreateContext();
  ASSERT_TRUE(on_b->Listen("both").ok());
  ASSERT_TRUE(on_c->Listen("both").ok());
  ASSERT_TRUE(on_c->Listen("one").ok());
  const auto outcome = [&](const char* node, const char* service,
                           bool reject) {
    const LinkId link = *left->StartConnect(node, service, {});
    LinkEnd end = LinkEnd::kNone;
    bool up = false;
    net.RunUntil(
        [&] {
          Event event;
          for (Context* context : {on_b.get(), on_c.get()}) {
            while (context->Poll({&event, 1}) > 0) {
              if (event.kind != EventKind::kConnectRequest) continue;
              if (reject) {
                context->Reject(event.link);
              } else {
                EXPECT_TRUE(context->Accept(event.link, {}).ok());
              }
            }
          }
          while (left->Poll({&event, 1}) > 0) {
            EXPECT_EQ(event.link, link);
            up = event.kind == EventKind::kLinkUp;
            end = event.end;
          }
          return up || end != LinkEnd::kNone;
        },
        3 * kSecond);
    return up ? LinkEnd::kNone : end;
  };
  EXPECT_EQ(outcome("c", "both", false), LinkEnd::kNone);
  EXPECT_EQ(outcome("", "one", false), LinkEnd::kNone);
  EXPECT_EQ(outcome("", "both", false), LinkEnd::kAmbiguous);
  EXPECT_EQ(outcome("b", "one", false), LinkEnd::kNoSuchService);
  EXPECT_EQ(outcome("c", "one", true), LinkEnd::kRefused);
}

}  // namespace
}  // namespace tripwire
