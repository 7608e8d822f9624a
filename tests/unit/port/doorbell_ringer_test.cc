// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/doorbell_ringer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace tripwire {
namespace {

uint64_t Count(int fd) {
  uint64_t count = 0;
  EXPECT_EQ(read(fd, &count, sizeof count),
            static_cast<ssize_t>(sizeof count));
  return count;
}

TEST(DoorbellRinger, AddsOneAndWakesEachTime) {
  DoorbellRinger ringer;
  UniqueFd bell(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, bell.get(), &event), 0);
  for (int i = 1; i <= 1000; ++i) {
    ASSERT_TRUE(ringer.RingBell(bell.get()));
    ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, 10000), 1) << i;
    ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, 0), 0) << i;
  }
  EXPECT_EQ(Count(bell.get()), 1000u);
}

TEST(DoorbellRinger, WritesToTheBellsOfThoseItTrusts) {
  DoorbellRinger ringer;
  UniqueFd bell(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  EXPECT_TRUE(ringer.RingBell(bell.get(), /*trusts_owner=*/true));
  EXPECT_EQ(Count(bell.get()), 1u);
  const uint64_t most = UINT64_MAX - 1;
  ASSERT_EQ(write(bell.get(), &most, sizeof most),
            static_cast<ssize_t>(sizeof most));
  EXPECT_TRUE(ringer.RingBell(bell.get(), /*trusts_owner=*/true)) << "full";
  EXPECT_FALSE(ringer.RingBell(-1, /*trusts_owner=*/true));
}

// The other owner of the bell has filled it and made it block.
TEST(DoorbellRinger, IsNotBlockedByAHostileOwner) {
  DoorbellRinger ringer;
  UniqueFd bell(eventfd(0, EFD_CLOEXEC));
  const uint64_t most = UINT64_MAX - 1;
  ASSERT_EQ(write(bell.get(), &most, sizeof most),
            static_cast<ssize_t>(sizeof most));
  ASSERT_EQ(fcntl(bell.get(), F_GETFL) & O_NONBLOCK, 0);
  alarm(20);  // instead of waiting for ever
  for (int i = 0; i < 100; ++i) ringer.RingBell(bell.get());
  alarm(0);
}

TEST(DoorbellRinger, SaysSoWhenThereIsNoBell) {
  DoorbellRinger ringer;
  EXPECT_FALSE(ringer.RingBell(-1));
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  EXPECT_FALSE(ringer.RingBell(ends[0]));
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace tripwire
