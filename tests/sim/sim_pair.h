// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_SIM_PAIR_H_
#define TRIPWIRE_TESTS_SIM_SIM_PAIR_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/sim/sim_network.h"

namespace tripwire {

inline std::vector<uint8_t> RandomBytes(Random& random, size_t n) {
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
    left_link = *left->StartConnect("right", "svc", {});
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

// Runs from seeds 1, 2, ...: TRIPWIRE_SIM_SEED=n runs only that one,
// TRIPWIRE_SIM_RUNS=n sets how many.
inline uint64_t Runs(uint64_t standard) {
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

// `run(pair)` for a connected pair on a network of its own, from each seed. The
// network's faults are `faults`, or what the function `faults` says for the
// seed.
template <typename SomePair = Pair, typename Faults, typename Run>
void ForPairs(uint64_t standard, const Faults& faults, Run run) {
  ForSeeds(standard, [&](uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    FaultOptions options;
    if constexpr (std::is_invocable_v<Faults, uint64_t>) {
      options = faults(seed);
    } else {
      options = faults;
    }
    SimNetwork net(seed, options);
    SomePair pair(net);
    pair.Connect();
    if (!::testing::Test::HasFatalFailure()) run(pair);
  });
}

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_SIM_SIM_PAIR_H_
