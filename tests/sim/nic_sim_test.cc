// SPDX-License-Identifier: BSD-3-Clause
// Whole networks from seeds against a reference model: every byte, every count,
// every order, under loss, duplication, reordering and corruption. A failing
// run's seed is in its trace; TRIPWIRE_SIM_SEED=n runs only that one,
// TRIPWIRE_SIM_RUNS=n sets how many.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "tests/sim/sim_network.h"

namespace tripwire {
namespace {

std::vector<uint8_t> RandomBytes(Random& random, size_t n) {
  std::vector<uint8_t> bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Next());
  return bytes;
}

// A connected pair: `left` asks, `right` listens and exports an aperture.
struct Pair {
  explicit Pair(SimNetwork& network, uint32_t max_frame_bytes = 1514,
                NicOptions left_options = {}, NicOptions right_options = {})
      : net(network),
        left_nic(net.AddNode("left", max_frame_bytes, std::move(left_options))),
        right_nic(
            net.AddNode("right", max_frame_bytes, std::move(right_options))),
        left(left_nic.CreateContext()),
        right(right_nic.CreateContext()) {}

  void Connect() {
    ASSERT_TRUE(right->Listen("svc").ok());
    left_link = left->StartConnect("right", "svc", {});
    bool up = false, accepted = false;
    ASSERT_TRUE(net.RunUntil(
        [&] {
          Event event;
          while (right->Poll({&event, 1}) > 0) {
            if (event.kind != EventKind::kConnectRequest) continue;
            right_link = event.link;
            accepted = right->Accept(event.link, {}).ok();
          }
          while (left->Poll({&event, 1}) > 0) {
            if (event.kind == EventKind::kLinkUp) up = true;
          }
          return up && accepted;
        },
        60 * kSecond));
  }

  SimNetwork& net;
  Nic& left_nic;
  Nic& right_nic;
  std::unique_ptr<Context> left, right;
  LinkId left_link, right_link;
};

struct Watched {
  uint64_t offset, length;
  Access access;
  Tripwire tripwire;
  uint64_t expected = 0;   // accesses the model saw
  uint64_t from_events = 0;
};

bool Overlaps(const Watched& w, uint64_t offset, uint64_t length) {
  return length > 0 && offset < w.offset + w.length && w.offset < offset + length;
}

// One run: random traffic left -> right, model on the side.
void RandomTraffic(uint64_t seed, FaultOptions faults, bool go_back_n) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SimNetwork net(seed, faults);
  Random& random = net.random();
  NicOptions options;
  options.go_back_n = go_back_n;
  NicOptions same;
  same.go_back_n = go_back_n;
  Pair pair(net, random.Chance(0.3) ? 9018 : 1514, std::move(options),
            std::move(same));
  pair.Connect();
  if (::testing::Test::HasFatalFailure()) return;

  constexpr uint64_t kSize = 64 * 1024;
  std::vector<uint8_t> memory(kSize), model(kSize);
  Aperture aperture =
      pair.right->Export(memory, Access::kWrite | Access::kRead);
  const RemoteAperture remote =
      pair.left->Import(pair.left_link, aperture.name());

  std::deque<Watched> inbound, outbound;
  const auto random_watch = [&](std::deque<Watched>& list, bool out) {
    Watched w;
    w.length = 1 + (random.Chance(0.5) ? random.Below(16)
                                       : random.Below(kSize / 2));
    w.offset = random.Below(kSize - w.length + 1);
    w.access = random.Chance(0.6)   ? Access::kWrite
               : random.Chance(0.5) ? Access::kRead
                                    : Access::kAny;
    w.tripwire =
        out ? pair.left->Watch(remote, w.offset, w.length, w.access,
                               TripwireMode::kPersistent, list.size())
            : pair.right->Watch(aperture, w.offset, w.length, w.access,
                                TripwireMode::kPersistent, list.size());
    w.tripwire.Arm();
    list.push_back(std::move(w));
  };
  for (int i = 0; i < 20; ++i) random_watch(inbound, false);
  for (int i = 0; i < 10; ++i) random_watch(outbound, true);

  const auto touch_model = [&](uint64_t offset, uint64_t length, Access access) {
    for (auto* list : {&inbound, &outbound}) {
      for (Watched& w : *list) {
        if (Includes(w.access, access) && Overlaps(w, offset, length)) {
          ++w.expected;
        }
      }
    }
  };

  struct PendingRead {
    std::vector<uint8_t> into, expected;
    Completion completion;
  };
  struct PendingWrite {
    std::vector<uint8_t> data;
    Completion completion;
  };
  std::deque<PendingRead> reads;
  std::deque<PendingWrite> writes;
  std::deque<Completion> flushes;
  std::deque<std::vector<uint8_t>> sent_messages, got_messages;

  const int operations = 60 + static_cast<int>(random.Below(60));
  for (int i = 0; i < operations; ++i) {
    const uint64_t kind = random.Below(10);
    uint64_t length = random.Chance(0.4)   ? random.Below(17)
                      : random.Chance(0.7) ? random.Below(4000)
                                           : random.Below(kSize);
    const uint64_t offset = random.Below(kSize - length + 1);
    if (kind < 5) {
      writes.emplace_back();
      PendingWrite& write = writes.back();
      write.data = RandomBytes(random, length);
      std::copy(write.data.begin(), write.data.end(), model.begin() + offset);
      const bool by_reference = random.Chance(0.5);
      ASSERT_TRUE(pair.left
                      ->Write(remote, offset, write.data,
                              by_reference ? &write.completion : nullptr)
                      .ok());
      if (!by_reference) {
        write.completion.Finish(OpStatus::kOk);
        std::fill(write.data.begin(), write.data.end(), 0xEE);  // ours again
      }
      touch_model(offset, length, Access::kWrite);
    } else if (kind < 7) {
      reads.emplace_back();
      PendingRead& read = reads.back();
      read.into.resize(length);
      read.expected.assign(model.begin() + static_cast<ptrdiff_t>(offset),
                           model.begin() + static_cast<ptrdiff_t>(offset + length));
      ASSERT_TRUE(
          pair.left->Read(remote, offset, read.into, &read.completion).ok());
      touch_model(offset, length, Access::kRead);
      // The answer is taken from memory when it is sent, so later writes could
      // overtake it; the model wants to know exactly.
      ASSERT_TRUE(net.RunUntil([&] { return read.completion.done(); },
                               120 * kSecond));
    } else if (kind == 7) {
      flushes.emplace_back();
      ASSERT_TRUE(pair.left->Flush(pair.left_link, &flushes.back()).ok());
      if (random.Chance(0.5)) {
        ASSERT_TRUE(net.RunUntil([&] { return flushes.back().done(); },
                                 120 * kSecond));
        EXPECT_EQ(memory, model) << "after a flush";
      }
    } else if (kind == 8) {
      sent_messages.push_back(RandomBytes(random, random.Below(5000)));
      ASSERT_TRUE(
          pair.left->SendMessage(pair.left_link, sent_messages.back()).ok());
    } else {
      net.RunFor(random.Below(3 * kMillisecond));
    }
  }

  Completion last;
  ASSERT_TRUE(pair.left->Flush(pair.left_link, &last).ok());
  const auto drain = [&] {
    Event event;
    while (pair.right->Poll({&event, 1}) > 0) {
      if (event.kind == EventKind::kTripwire) {
        inbound[event.cookie].from_events += event.count;
      } else if (event.kind == EventKind::kMessage) {
        while (auto message = pair.right->TakeMessage(event.link)) {
          got_messages.push_back(std::move(*message));
        }
      } else {
        ADD_FAILURE() << "unexpected event " << static_cast<int>(event.kind);
      }
    }
    while (pair.left->Poll({&event, 1}) > 0) {
      if (event.kind == EventKind::kTripwire) {
        outbound[event.cookie].from_events += event.count;
      } else {
        ADD_FAILURE() << "unexpected event " << static_cast<int>(event.kind);
      }
    }
  };
  ASSERT_TRUE(net.RunUntil(
      [&] {
        drain();
        return last.done() &&
               std::all_of(writes.begin(), writes.end(), [](PendingWrite& w) {
                 return w.completion.done();
               });
      },
      120 * kSecond));
  drain();
  EXPECT_EQ(last.status.load(), OpStatus::kOk);
  EXPECT_EQ(memory, model);
  EXPECT_EQ(got_messages, sent_messages);
  for (PendingRead& read : reads) {
    EXPECT_EQ(read.completion.status.load(), OpStatus::kOk);
    EXPECT_EQ(read.into, read.expected);
  }
  for (PendingWrite& write : writes) {
    EXPECT_EQ(write.completion.status.load(), OpStatus::kOk);
  }
  // Out-bound completion may still wait for an acknowledgement of small writes.
  net.RunFor(kSecond);
  drain();
  for (auto* list : {&inbound, &outbound}) {
    for (Watched& w : *list) {
      EXPECT_EQ(w.tripwire.count(), w.expected)
          << (list == &inbound ? "in" : "out") << " [" << w.offset << ", +"
          << w.length << ")";
      EXPECT_EQ(w.from_events, w.expected);
    }
  }
  inbound.clear();
  outbound.clear();
}

uint64_t Runs(uint64_t standard) {
  const char* runs = std::getenv("TRIPWIRE_SIM_RUNS");
  return runs != nullptr ? std::strtoull(runs, nullptr, 10) : standard;
}

template <typename Run>
void ForSeeds(uint64_t standard, Run run) {
  if (const char* seed = std::getenv("TRIPWIRE_SIM_SEED")) {
    return run(std::strtoull(seed, nullptr, 10));
  }
  for (uint64_t seed = 1; seed <= Runs(standard); ++seed) {
    run(seed);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(NicSim, PerfectNetwork) {
  ForSeeds(200, [](uint64_t seed) { RandomTraffic(seed, {}, false); });
}

TEST(NicSim, EveryFault) {
  ForSeeds(600, [](uint64_t seed) {
    Random random(seed * 77);
    FaultOptions faults;
    faults.loss = random.Chance(0.5) ? 0.01 : 0.05;
    faults.duplicate = random.Chance(0.5) ? 0.01 : 0.1;
    faults.reorder = random.Chance(0.5) ? 0.01 : 0.2;
    faults.corrupt = random.Chance(0.5) ? 0.0 : 0.02;
    faults.stall = random.Chance(0.8) ? 0.0 : 0.002;
    RandomTraffic(seed, faults, false);
  });
}

TEST(NicSim, GoBackN) {
  ForSeeds(100, [](uint64_t seed) {
    FaultOptions faults;
    faults.loss = 0.02;
    faults.duplicate = 0.02;
    faults.reorder = 0.02;
    RandomTraffic(seed, faults, true);
  });
}

// Data then pointer, one word over and over: whenever the pointer says n, the
// data of n is there; an armed-if-unchanged tripwire never sleeps through news.
TEST(NicSim, PointerNeverOvertakesData) {
  ForSeeds(100, [](uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    FaultOptions faults;
    faults.loss = 0.03;
    faults.duplicate = 0.05;
    faults.reorder = 0.1;
    SimNetwork net(seed, faults);
    Pair pair(net);
    pair.Connect();
    if (::testing::Test::HasFatalFailure()) return;
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
  ForSeeds(200, [](uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    FaultOptions faults;
    faults.loss = 0.05;
    faults.duplicate = 0.2;
    faults.reorder = 0.2;
    SimNetwork net(seed, faults);
    Pair pair(net);
    pair.Connect();
    if (::testing::Test::HasFatalFailure()) return;
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
  ForSeeds(100, [](uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    FaultOptions faults;
    faults.loss = 0.1;
    faults.reorder = 0.2;
    faults.duplicate = 0.1;
    SimNetwork net(seed, faults);
    Pair pair(net);
    pair.Connect();
    if (::testing::Test::HasFatalFailure()) return;
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
    struct Case {
      RemoteAperture to;
      uint64_t offset;
      bool read;
      OpStatus expected;
      std::vector<uint8_t> data = std::vector<uint8_t>(100);
      Completion completion;
    };
    std::deque<Case> cases;
    for (int i = 0; i < 40; ++i) {
      cases.emplace_back();
      Case& c = cases.back();
      switch (net.random().Below(6)) {
        case 0: c.to = import(write_only.name()); c.offset = 10; c.read = false; c.expected = OpStatus::kOk; break;
        case 1: c.to = import(write_only.name()); c.offset = 10; c.read = true; c.expected = OpStatus::kNoRights; break;
        case 2: c.to = import(longer); c.offset = 4000; c.read = false; c.expected = OpStatus::kOutOfBounds; break;
        case 3: c.to = import(wild); c.offset = 0; c.read = false; c.expected = OpStatus::kBadHandle; break;
        case 4: c.to = import(other_link.name()); c.offset = 0; c.read = false; c.expected = OpStatus::kNoRights; break;
        default: c.to = import(longer); c.offset = 5000; c.read = true; c.expected = OpStatus::kNoRights; break;
      }
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

TEST(NicSim, PeerLossEndsEverything) {
  ForSeeds(50, [](uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    SimNetwork net(seed);
    Pair pair(net);
    pair.Connect();
    if (::testing::Test::HasFatalFailure()) return;
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
    const LinkId link = left->StartConnect(node, service, {});
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
