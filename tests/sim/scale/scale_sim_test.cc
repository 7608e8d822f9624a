// SPDX-License-Identifier: BSD-3-Clause
// Networks of many nodes and links against the reference model, and what the
// protocol promises when it is crowded. scale_sim runs the same at any size.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/sim/scale/scenarios.h"

namespace tripwire {
namespace {

void ExpectPerfect(const Verdict& verdict) {
  EXPECT_EQ(verdict.missed, 0u);
  EXPECT_EQ(verdict.false_firings, 0u);
  EXPECT_EQ(verdict.wrong_events, 0u);
  EXPECT_EQ(verdict.early_firings, 0u);
  EXPECT_EQ(verdict.wrong_memory, 0u);
  EXPECT_EQ(verdict.wrong_answers, 0u);
  EXPECT_EQ(verdict.failed, 0u);
}

// TRIPWIRE_SCALE=NODES,LINKS runs it at another size: "1000,100000" for the
// whole.
WholeNetwork Size() {
  WholeNetwork size;
  if (const char* text = std::getenv("TRIPWIRE_SCALE")) {
    std::sscanf(text, "%zu,%zu", &size.nodes, &size.links);
  }
  return size;
}

TEST(ScaleSim, AWholeNetworkDoesWhatTheModelSays) {
  WholeNetwork network = Size();
  const WholeResult result = RunWhole(network);
  ASSERT_TRUE(result.is_finished);
  EXPECT_EQ(result.verdict.links, network.links);
  EXPECT_GT(result.verdict.firings, network.links);
  EXPECT_GT(result.totals.retransmitted_frames, 0u);  // it was a bad network
  EXPECT_GT(result.totals.early_frames, 0u);
  EXPECT_GT(result.totals.duplicate_frames, 0u);
  EXPECT_EQ(result.totals.links_lost, 0u);
  ExpectPerfect(result.verdict);
}

TEST(ScaleSim, SoItDoesWithGoBackN) {
  WholeNetwork network;
  network.nodes = 10;
  network.links = 60;
  network.go_back_n = true;
  const WholeResult result = RunWhole(network);
  ASSERT_TRUE(result.is_finished);
  ExpectPerfect(result.verdict);
}

TEST(ScaleSim, ARunIsAFunctionOfItsSeed) {
  WholeNetwork network;
  network.nodes = 8;
  network.links = 30;
  const WholeResult one = RunWhole(network), same = RunWhole(network);
  EXPECT_EQ(one.totals.tx_frames, same.totals.tx_frames);
  EXPECT_EQ(one.simulated_ns, same.simulated_ns);
  network.seed = 2;
  EXPECT_NE(RunWhole(network).simulated_ns, one.simulated_ns);
}

TEST(ScaleSim, EqualSendersGetEqualShares) {
  const FairnessResult result = RunFairness({.senders = 8});
  EXPECT_GT(result.jain, 0.9);
  EXPECT_GT(result.utilisation, 0.9);
  ExpectPerfect(result.verdict);
}

// One of two whose whole window was dropped finds its way back.
TEST(ScaleSim, OneOfTwoIsNotShutOut) {
  const FairnessResult result = RunFairness({.senders = 2});
  EXPECT_GT(result.jain, 0.9);
  EXPECT_GT(result.utilisation, 0.9);
}

TEST(ScaleSim, GoingBackNLeavesAGapWithOneTimeOut) {
  EXPECT_GT(RunFairness({.senders = 2, .go_back_n = true}).utilisation, 0.8);
}

TEST(ScaleSim, IncastEndsSoonAfterTheWireCouldHaveCarriedIt) {
  const IncastResult result = RunIncast({.senders = 32});
  ASSERT_TRUE(result.is_finished);
  EXPECT_GT(result.dropped, 0u);  // the switch could not hold it all
  EXPECT_LT(result.slowdown, 4);
  ExpectPerfect(result.verdict);
}

// Who lost together does not send again together, to lose together again.
TEST(ScaleSim, ACrowdThatLostTogetherGetsThrough) {
  const IncastResult result = RunIncast({.senders = 256});
  ASSERT_TRUE(result.is_finished);
  EXPECT_LT(result.slowdown, 7);
}

TEST(ScaleSim, SelectiveRepeatOutdoesGoBackNWhereFramesAreLost) {
  GoodputRun run;
  run.loss = 0.01;
  const double selective = RunGoodput(run).gigabits_per_s;
  run.go_back_n = true;
  const double all_again = RunGoodput(run).gigabits_per_s;
  EXPECT_GT(selective, 2 * all_again);
  EXPECT_GT(selective, 8);
  run.loss = 0;
  EXPECT_GT(RunGoodput(run).gigabits_per_s, 9);
}

TEST(ScaleSim, StallsOfTheProcessorLoseNoLink) {
  GoodputRun run;
  run.stall_every_ns = 20 * kMillisecond;
  const GoodputResult result = RunGoodput(run);
  EXPECT_EQ(result.totals.links_lost, 0u);
  EXPECT_GT(result.gigabits_per_s, 1);
  ExpectPerfect(result.verdict);
}

}  // namespace
}  // namespace tripwire
