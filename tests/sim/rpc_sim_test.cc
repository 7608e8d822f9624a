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

namespace tripwire::rpc {
namespace {

void RunPlan(uint64_t seed, const Plan& plan) {
  SCOPED_TRACE(::testing::Message() << "TRIPWIRE_SIM_SEED=" << seed);
  World world(seed, plan);
  Random random(seed * 77 + 1);
  const auto wait = [&] {
    world.Run([] { return false; }, 1 + random.Below(400 * kMicrosecond));
  };
  for (int i = 0; i < plan.cuts; ++i) {
    wait();
    world.Cut(random.Chance(0.7));
  }
  for (int i = 0; i < plan.server_crashes; ++i) {
    wait();
    world.CrashServer();
    if (random.Chance(0.3)) world.Cut(true);
  }
  if (plan.client_crash) {
    wait();
    world.net_.fabric().SetLinkUp(world.net_.port(1).info().mac, false);
    world.clients_.erase(world.clients_.begin());
  }
  ASSERT_TRUE(world.Run([&] { return world.AllDone(); }, 300 * kSecond))
      << "calls are stuck";
  for (const auto& client : world.clients_) client->Check(world.journal_);
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

void RunSeeds(const Plan& plan, uint64_t runs) {
  if (const char* seed = std::getenv("TRIPWIRE_SIM_SEED")) {
    return RunPlan(std::strtoull(seed, nullptr, 0), plan);
  }
  if (const char* n = std::getenv("TRIPWIRE_SIM_RUNS")) {
    runs = std::strtoull(n, nullptr, 0);
  }
  for (uint64_t seed = 1; seed <= runs; ++seed) {
    RunPlan(seed, plan);
    if (::testing::Test::HasFailure()) return;
  }
}

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

TEST(RpcSimTest, ServerCrashes) {
  RunSeeds({.server_crashes = 3}, 60);
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
