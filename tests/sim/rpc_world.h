// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_RPC_WORLD_H_
#define TRIPWIRE_TESTS_SIM_RPC_WORLD_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tests/sim/rpc_ends.h"
#include "tests/sim/rpc_orders.h"
#include "tests/sim/sim_network.h"

// A server and two clients on a simulated network.
namespace tripwire::rpc {

class World {
 public:
  World(uint64_t seed, const Plan& plan)
      : plan_(plan),
        net_(seed, plan.faults, {.propagation_ns = plan.propagation_ns}),
        server_(net_, plan_, journal_) {
    server_.Start();
    for (uint32_t i = 0; i < 2; ++i) {
      clients_.push_back(
          std::make_unique<SimClient>(net_, plan_, journal_, i, kCalls));
    }
  }

  bool Step() {
    bool any = server_.Step();
    for (auto& client : clients_) any |= client->Step();
    return any;
  }

  // Steps everybody, with the cores' timers among the network's.
  bool Run(const std::function<bool()>& done, uint64_t limit_ns) {
    const uint64_t end_ns = net_.clock().NowNs() + limit_ns;
    while (net_.clock().NowNs() < end_ns) {
      uint64_t next_ns =
          std::min(server_.NextDeadlineNs(), net_.clock().NowNs() + kSecond);
      for (auto& client : clients_) {
        next_ns = std::min(next_ns, client->NextDeadlineNs());
      }
      const uint64_t now_ns = net_.clock().NowNs();
      const uint64_t slice_ns =
          next_ns > now_ns ? next_ns - now_ns : kMicrosecond;
      if (net_.RunUntil(
              [&] {
                while (Step()) {
                }
                return done();
              },
              slice_ns)) {
        return true;
      }
    }
    return false;
  }

  // Runs until calls of all clients have been made up to a random one of the
  // `part`th of so many parts, and a little longer.
  void RunIntoPart(int part, int parts) {
    const uint64_t all = clients_.size() * kCalls;
    const uint64_t size = all / static_cast<uint64_t>(parts);
    const uint64_t target =
        static_cast<uint64_t>(part) * size + net_.random().Below(size);
    const auto made = [&] {
      uint64_t sum = 0;
      for (const auto& client : clients_) sum += client->made();
      return sum >= target;
    };
    Run(made, 300 * kSecond);
    Run([] { return false; }, net_.random().Below(4 * plan_.propagation_ns));
  }

  bool AllDone() const {
    for (const auto& client : clients_) {
      if (!client->done()) return false;
    }
    return true;
  }

  void Cut(bool long_enough_to_lose_the_link) {
    server_.SetWire(false);
    const uint64_t long_ns = (plan_.forgets ? 20 : 8) * kSecond;
    Run([] { return false; },
        long_enough_to_lose_the_link ? long_ns : 100 * kMillisecond);
    server_.SetWire(true);
  }

  void CrashServer() {
    server_.SetWire(false);
    server_.Crash();
    server_.Start();
  }

  const Plan plan_;
  SimNetwork net_;
  Journal journal_;
  SimServer server_;
  std::vector<std::unique_ptr<SimClient>> clients_;
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_TESTS_SIM_RPC_WORLD_H_
