// SPDX-License-Identifier: BSD-3-Clause
// An idle mount and an idle server leave the processor alone.
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

class IdleTest : public ::testing::TestWithParam<Wire> {};

TEST_P(IdleTest, UnderOnePercentOfACoreEach) {
  Share share(GetParam());
  share.StartServer();
  Mount mount = share.MountAs(0);
  Mount second = share.MountAs(1);
  // Idle after work, not before any: caches, leases and timers exist.
  const std::string original = share.temp().Make("original");
  MakeTree(original, 4, 50);
  MustRun({"cp", "-a", original, mount / "copy"}, 120);
  MustRun({"ls", "-lR", second.path()}, 60);
  SleepMs(3000);  // leases run out, write-back ends

  const double ticks_per_second = static_cast<double>(::sysconf(_SC_CLK_TCK));
  const double begin = NowSeconds();
  const uint64_t server_before = share.server().CpuTicks();
  const uint64_t mount_before = mount.process().CpuTicks();
  const uint64_t second_before = second.process().CpuTicks();
  SleepMs(10000);
  const double ticks = (NowSeconds() - begin) * ticks_per_second;
  const auto percent = [&](uint64_t before, uint64_t after) {
    return 100.0 * static_cast<double>(after - before) / ticks;
  };
  const double server = percent(server_before, share.server().CpuTicks());
  const double first = percent(mount_before, mount.process().CpuTicks());
  const double other = percent(second_before, second.process().CpuTicks());
  printf("%s: idle server %.2f %%, mounts %.2f %% and %.2f %% of a core\n",
         std::string(Name(GetParam())).c_str(), server, first, other);
  EXPECT_LT(server, 1.0);
  EXPECT_LT(first, 1.0);
  EXPECT_LT(other, 1.0);
}

INSTANTIATE_TEST_SUITE_P(
    Over, IdleTest, ::testing::Values(Wire::kMemif, Wire::kEth, Wire::kXdp),
    WireName);

}  // namespace
}  // namespace tripwire::systest
