// SPDX-License-Identifier: BSD-3-Clause
// Starting DPDK leaves the program that does it as it was. A program of its
// own: DPDK starts only once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>

#include <filesystem>
#include <string>

#include "nic/port/port_spec.h"

namespace tripwire {
namespace {

int CountThreads() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

TEST(EalTest, StartingDpdkLeavesTheCallerAsItWas) {
  // A failure to open for a reason that is the user's does not start it.
  EXPECT_FALSE(OpenPort("eth:nosuchif0").ok());
  EXPECT_EQ(CountThreads(), 1);

  cpu_set_t cpus_before, cpus_after;
  sched_getaffinity(0, sizeof cpus_before, &cpus_before);
  sigset_t mask_before, mask_after;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask_before);
  auto port = OpenPort("vdev:net_null0");
  ASSERT_TRUE(port.ok()) << port.status();
  sched_getaffinity(0, sizeof cpus_after, &cpus_after);
  pthread_sigmask(SIG_BLOCK, nullptr, &mask_after);
  EXPECT_TRUE(CPU_EQUAL(&cpus_before, &cpus_after));
  EXPECT_EQ(sigismember(&mask_before, SIGTERM),
            sigismember(&mask_after, SIGTERM));
  EXPECT_GT(CountThreads(), 1);
}

}  // namespace
}  // namespace tripwire
