// SPDX-License-Identifier: BSD-3-Clause
// The POSIX table (tests/posix) against real mounts, two of one tree.
#include <gtest/gtest.h>

#include "tests/system/harness/share.h"

#ifndef TRIPWIRE_POSIX_TABLE
#error "TRIPWIRE_POSIX_TABLE must be the path of the posix_table program"
#endif

namespace tripwire::systest {
namespace {

class PosixTest : public ::testing::TestWithParam<Wire> {};

TEST_P(PosixTest, TheWholeTablePasses) {
  Share share(GetParam());
  share.StartServer();
  Mount one = share.MountAs(0);
  Mount two = share.MountAs(1);
  Process table({TRIPWIRE_POSIX_TABLE, "--mountpoint", one.path(), "--second",
                 two.path(), "--origin", share.root()},
                {.environment = {"GTEST_OUTPUT="}});
  const auto code = table.Wait(400);
  EXPECT_EQ(code.value_or(-1), 0)
      << Tail(table.out(), 6000) << Tail(table.err());
  EXPECT_EQ(table.out().find("[  SKIPPED ]"), std::string::npos)
      << Tail(table.out(), 6000);
  EXPECT_TRUE(share.server().Running());
  EXPECT_TRUE(one.process().Running());
  EXPECT_TRUE(two.process().Running());
}

INSTANTIATE_TEST_SUITE_P(Over, PosixTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth, Wire::kXdp,
                                           Wire::kFaultyEth),
                         WireName);

}  // namespace
}  // namespace tripwire::systest
