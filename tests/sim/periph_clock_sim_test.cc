// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>

#include "periph/stream/clock_offset.h"
#include "tests/sim/sim_streams.h"

namespace tripwire::periph {
namespace {

// Two clocks that differ by any offset and drift apart, compared over a network
// whose delays differ from one message to the next and between the directions.
TEST(ClockSimTest, TheClocksOffsetIsWithinItsBound) {
  ForSeeds(300, [](uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    SimNetwork net(seed);
    Pair pair(net);
    pair.Connect();
    if (::testing::Test::HasFatalFailure()) return;
    Random& random = net.random();
    FaultOptions faults = SomeFaults(random);
    faults.corrupt = 0;
    net.SetFaults(faults);
    const int64_t ppm = static_cast<int64_t>(random.Below(201)) - 100;
    const int64_t ahead_ns =
        static_cast<int64_t>(random.Below(uint64_t{1} << 50)) - (1 << 30);
    const uint64_t start_ns = net.clock().NowNs() + (uint64_t{1} << 40);
    const auto ours = [&] { return net.clock().NowNs() + start_ns; };
    const auto theirs = [&] {
      const auto now = static_cast<int64_t>(net.clock().NowNs());
      return static_cast<uint64_t>(static_cast<int64_t>(start_ns) + now +
                                   now / 1'000'000 * ppm + ahead_ns);
    };
    ClockOffset clock;
    for (int i = 0; i < 30; ++i) {
      net.RunFor(1 + random.Below(kSecond));
      const uint64_t sent_ns = ours();
      ASSERT_TRUE(pair.left->SendMessage(pair.left_link, {}).ok());
      ASSERT_TRUE(net.RunUntil(
          [&] { return pair.right->TakeMessage(pair.right_link).has_value(); },
          10 * kSecond));
      const uint64_t there_ns = theirs();
      net.RunFor(random.Below(kMillisecond));
      const uint64_t answered_ns = theirs();
      ASSERT_TRUE(pair.right->SendMessage(pair.right_link, {}).ok());
      ASSERT_TRUE(net.RunUntil(
          [&] { return pair.left->TakeMessage(pair.left_link).has_value(); },
          10 * kSecond));
      // A clock that runs fast may make a short trip look negative: that is
      // ignored.
      (void)clock.Add(sent_ns, there_ns, answered_ns, ours());
      if (!clock.known()) continue;
      const auto truth = static_cast<int64_t>(ours() - theirs());
      const int64_t wrong = std::abs(truth - clock.offset_ns());
      ASSERT_LE(static_cast<uint64_t>(wrong), clock.error_ns())
          << "exchange " << i;
      EXPECT_LT(clock.error_ns(), 20 * kMillisecond);
    }
    EXPECT_TRUE(clock.known());
  });
}

}  // namespace
}  // namespace tripwire::periph
