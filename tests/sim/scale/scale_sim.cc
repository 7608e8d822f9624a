// SPDX-License-Identifier: BSD-3-Clause
// scale_sim: the simulations of tests/sim/scale at any size; CSV to stdout.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <functional>
#include <initializer_list>

#include "tests/sim/scale/scenarios.h"

namespace tripwire {
namespace {

bool is_perfect = true;

void Judge(const Verdict& verdict) {
  if (verdict.is_perfect()) return;
  is_perfect = false;
  std::fprintf(stderr,
               "NOT AS THE MODEL SAYS: %llu missed, %llu false, %llu wrong "
               "events, %llu early, %llu wrong memories, %llu wrong answers, "
               "%llu failed\n",
               static_cast<unsigned long long>(verdict.missed),
               static_cast<unsigned long long>(verdict.false_firings),
               static_cast<unsigned long long>(verdict.wrong_events),
               static_cast<unsigned long long>(verdict.early_firings),
               static_cast<unsigned long long>(verdict.wrong_memory),
               static_cast<unsigned long long>(verdict.wrong_answers),
               static_cast<unsigned long long>(verdict.failed));
}

const char* Name(bool go_back_n) {
  return go_back_n ? "go-back-n" : "selective";
}

double Seconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void Whole(WholeNetwork network) {
  const double begin = Seconds();
  const WholeResult result = RunWhole(network);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "scenario,nodes,links,loss,finished,operations,firings,missed,false,"
      "retransmitted,early,duplicates,links_lost,simulated_ms,seconds,"
      "peak_mib\n");
  std::printf(
      "whole,%zu,%llu,%g,%d,%llu,%llu,%llu,%llu,%llu,%llu,%llu,%llu,"
      "%.1f,%.1f,%ld\n",
      network.nodes, static_cast<unsigned long long>(result.verdict.links),
      network.loss, result.is_finished,
      static_cast<unsigned long long>(result.verdict.operations),
      static_cast<unsigned long long>(result.verdict.firings),
      static_cast<unsigned long long>(result.verdict.missed),
      static_cast<unsigned long long>(result.verdict.false_firings),
      static_cast<unsigned long long>(result.totals.retransmitted_frames),
      static_cast<unsigned long long>(result.totals.early_frames),
      static_cast<unsigned long long>(result.totals.duplicate_frames),
      static_cast<unsigned long long>(result.totals.links_lost),
      static_cast<double>(result.simulated_ns) * 1e-6, Seconds() - begin,
      usage.ru_maxrss / 1024);
  is_perfect &= result.is_finished;
  Judge(result.verdict);
}

void Goodput(const char* what, uint64_t seed) {
  std::printf("scenario,way,x,gigabits_per_s,sent_to_needed,timeouts\n");
  for (const bool go_back_n : {false, true}) {
    for (const double x :
         {0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05}) {
      GoodputRun run;
      run.seed = seed;
      run.go_back_n = go_back_n;
      const std::string_view scenario = what;
      if (scenario == "loss") run.loss = x;
      if (scenario == "reorder") run.reorder = x;
      if (scenario == "stall" && x > 0) {  // part of the time that is stalled
        run.stall_every_ns =
            static_cast<uint64_t>(5.0 * static_cast<double>(kMillisecond) / x);
        run.measured_ns = 2 * kSecond;
      }
      const GoodputResult result = RunGoodput(run);
      std::printf("%s,%s,%g,%.3f,%.4f,%llu\n", what, Name(go_back_n), x,
                  result.gigabits_per_s, result.sent_to_needed,
                  static_cast<unsigned long long>(result.totals.timeouts));
      std::fflush(stdout);
      Judge(result.verdict);
    }
  }
}

// A run, both ways, with each number of senders.
template <typename Run>
void ForCrowds(uint64_t seed, std::initializer_list<size_t> crowds,
               const std::function<void(const Run&)>& measure) {
  for (const bool go_back_n : {false, true}) {
    for (const size_t senders : crowds) {
      Run run;
      run.seed = seed;
      run.senders = senders;
      run.go_back_n = go_back_n;
      measure(run);
      std::fflush(stdout);
    }
  }
}

void Incast(uint64_t seed) {
  std::printf("scenario,way,senders,last_ms,slowdown,dropped\n");
  ForCrowds<IncastRun>(
      seed, {1, 2, 4, 8, 16, 32, 64, 128, 256}, [](const IncastRun& run) {
        const IncastResult result = RunIncast(run);
        std::printf("incast,%s,%zu,%.3f,%.2f,%llu\n", Name(run.go_back_n),
                    run.senders, result.last_ms, result.slowdown,
                    static_cast<unsigned long long>(result.dropped));
        is_perfect &= result.is_finished;
        Judge(result.verdict);
      });
}

void Fairness(uint64_t seed) {
  std::printf("scenario,way,senders,jain,utilisation,dropped\n");
  ForCrowds<FairnessRun>(
      seed, {2, 4, 8, 16, 32, 64, 128}, [](const FairnessRun& run) {
        const FairnessResult result = RunFairness(run);
        std::printf("fairness,%s,%zu,%.4f,%.4f,%llu\n", Name(run.go_back_n),
                    run.senders, result.jain, result.utilisation,
                    static_cast<unsigned long long>(result.dropped));
        Judge(result.verdict);
      });
}

void Cost(size_t links, size_t tripwires) {
  const Costs costs = MeasureCosts(links, tripwires);
  std::printf("what,bytes\n");
  std::printf("link end that sent nothing,%.0f\n", costs.idle_link);
  std::printf("link end that sent,%.0f\n", costs.busy_link);
  std::printf("tripwire,%.1f\n", costs.tripwire);
  std::printf("aperture,%.1f\n", costs.aperture);
}

}  // namespace
}  // namespace tripwire

int main(int argc, char** argv) {
  CLI::App app("Whole Tripwire networks on a manual clock; CSV to stdout",
               "scale_sim");
  std::string scenario;
  tripwire::WholeNetwork network;
  app.add_option("SCENARIO", scenario,
                 "whole, loss, reorder, stall, incast, fairness or costs")
      ->required()
      ->check(CLI::IsMember({"whole", "loss", "reorder", "stall", "incast",
                             "fairness", "costs"}));
  app.add_option("--seed", network.seed, "The run is a function of it");
  app.add_option("--nodes", network.nodes, "whole: nodes")
      ->check(CLI::Range(2, 100'000))
      ->capture_default_str();
  app.add_option("--links", network.links, "whole, costs: links")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--operations", network.operations, "whole: of each link")
      ->capture_default_str();
  app.add_option("--loss", network.loss, "whole: each way of each frame")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_flag("--go-back-n", network.go_back_n, "whole");
  size_t tripwires = 100'000;
  app.add_option("--tripwires", tripwires, "costs: tripwires")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (scenario == "whole") tripwire::Whole(network);
  if (scenario == "loss" || scenario == "reorder" || scenario == "stall") {
    tripwire::Goodput(scenario.c_str(), network.seed);
  }
  if (scenario == "incast") tripwire::Incast(network.seed);
  if (scenario == "fairness") tripwire::Fairness(network.seed);
  if (scenario == "costs") tripwire::Cost(network.links, tripwires);
  return tripwire::is_perfect ? 0 : 1;
}
