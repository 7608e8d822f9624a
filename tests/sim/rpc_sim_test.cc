// SPDX-License-Identifier: BSD-3-Clause
// RPC over whole simulated networks: sessions under loss, duplication,
// reordering and corruption, cut wires, crashes of the server and of clients,
// all from seeds. Every call that must run once runs once, every byte of bulk
// data is right and stays right, every notification comes once and in order.
// TRIPWIRE_SIM_SEED=n runs only that seed, TRIPWIRE_SIM_RUNS=n sets how many.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/sim/rpc_world.h"
#include "tests/sim/sim_pair.h"

namespace tripwire::rpc {
namespace {

void RunPlan(uint64_t seed, const Plan& plan, Reached* reached) {
  SCOPED_TRACE(::testing::Message() << "TRIPWIRE_SIM_SEED=" << seed);
  World world(seed, plan);
  Random random(seed * 77 + 1);
  // All that goes wrong is spread over the calls, in random order.
  std::vector<bool> crashes(static_cast<size_t>(plan.cuts), false);
  crashes.resize(crashes.size() + static_cast<size_t>(plan.server_crashes),
                 true);
  for (size_t i = crashes.size(); i > 1; --i) {
    std::vector<bool>::swap(crashes[i - 1], crashes[random.Below(i)]);
  }
  const int parts = static_cast<int>(crashes.size()) + plan.client_crash;
  for (size_t i = 0; i < crashes.size(); ++i) {
    world.RunIntoPart(static_cast<int>(i), parts);
    if (crashes[i]) world.CrashServer();
    if (crashes[i] ? random.Chance(0.3) : true) {
      world.Cut(crashes[i] || random.Chance(0.7));
    }
  }
  if (plan.client_crash) {
    world.RunIntoPart(parts - 1, parts);
    world.clients_.front()->SetWire(false);
    world.clients_.erase(world.clients_.begin());
  }
  ASSERT_TRUE(world.Run([&] { return world.AllDone(); }, 300 * kSecond))
      << "calls are stuck";
  for (const auto& client : world.clients_) client->Check(reached);
  if (std::getenv("TRIPWIRE_SIM_VERBOSE") != nullptr) {
    for (const auto& client : world.clients_) {
      std::printf("seed %lu: recoveries %d, runs %zu, notified %d, %.3f s\n",
                  static_cast<unsigned long>(seed), client->recoveries,
                  world.journal_.runs.size(), world.server_.notified,
                  static_cast<double>(world.net_.clock().NowNs()) / 1e9);
    }
  }
  if (plan.client_crash) {
    EXPECT_TRUE(world.Run([&] { return world.server_.sessions() <= 1; },
                          200 * kSecond))
        << "the dead client's session does not end";
  }
  // What was notified and not lost with a server is acknowledged in the end.
  if (plan.server_crashes == 0) {
    EXPECT_TRUE(world.Run(
        [&] { return world.server_.notify_ended == world.server_.notified; },
        60 * kSecond));
  }
}

Reached RunSeeds(const Plan& plan, uint64_t runs) {
  Reached reached;
  ForSeeds(runs, [&](uint64_t seed) { RunPlan(seed, plan, &reached); });
  return reached;
}

// So often that it was tried in earnest; one seed alone need not come there.
void ExpectMany(int times) {
  if (std::getenv("TRIPWIRE_SIM_SEED") == nullptr && Runs(60) >= 60) {
    EXPECT_GT(times, 10);
  }
}

constexpr uint64_t kLongWire = 2 * kMillisecond;  // from end to end

FaultOptions Faulty() {
  FaultOptions faults;
  faults.loss = 0.02;
  faults.duplicate = 0.02;
  faults.reorder = 0.02;
  faults.corrupt = 0.01;
  return faults;
}

TEST(RpcSimTest, CleanNetwork) { RunSeeds({}, 20); }

TEST(RpcSimTest, FaultyNetwork) { RunSeeds({.faults = Faulty()}, 60); }

TEST(RpcSimTest, CutWires) { RunSeeds({.cuts = 3}, 60); }

TEST(RpcSimTest, CutWiresOnAFaultyNetwork) {
  RunSeeds({.faults = Faulty(), .cuts = 3}, 60);
}

// With wires so long that a cut finds many calls under way. Those that the
// server answers before it knows are answered from their slots over the next
// link.
TEST(RpcSimTest, CutLongWires) {
  const Reached reached =
      RunSeeds({.cuts = 3, .propagation_ns = kLongWire}, 60);
  ExpectMany(reached.from_slot);
}

// Cuts outlast the sessions. What had been answered in an opening that the
// server has forgotten is answered by what its program gives back in the next.
TEST(RpcSimTest, ForgottenSessions) {
  for (const FaultOptions& faults : {FaultOptions{}, Faulty()}) {
    const Reached reached = RunSeeds({.faults = faults,
                                      .cuts = 3,
                                      .forgets = true,
                                      .propagation_ns = kLongWire},
                                     60);
    ExpectMany(reached.given_back);
  }
}

TEST(RpcSimTest, ServerCrashes) {
  const Reached reached =
      RunSeeds({.server_crashes = 3, .propagation_ns = kLongWire}, 60);
  ExpectMany(reached.given_back);
}

TEST(RpcSimTest, EverythingGoesWrong) {
  RunSeeds({.faults = Faulty(),
            .cuts = 2,
            .server_crashes = 2,
            .client_crash = true},
           60);
}

}  // namespace
}  // namespace tripwire::rpc
