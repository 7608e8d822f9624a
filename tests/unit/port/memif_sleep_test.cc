// SPDX-License-Identifier: BSD-3-Clause
// The memif ports asleep: who is woken, by what, and how often.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "nic/port/faulty_port.h"
#include "nic/port/memif_port.h"
#include "tests/unit/port/frames.h"
#include "tests/unit/port/memif_fixture.h"

namespace tripwire {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::ReceiveTexts;
using testing::SendText;

bool Readable(const Port& port, int timeout_ms) {
  pollfd waiting{port.wake_fd(), POLLIN, 0};
  return poll(&waiting, 1, timeout_ms) == 1;
}

TEST_F(MemifTest, ADoorbellIsRungOnceAndOnlyForASleeper) {
  Listen();
  auto client = Join();
  Until([&] { return !Readable(*listener_, 0); });
  SendText(*client, listener_->info().mac, "polled");
  EXPECT_FALSE(Readable(*listener_, 0));
  EXPECT_EQ(client->counters().doorbells_rung, 0u);
  EXPECT_FALSE(listener_->ArmWakeup());  // the frame is there already
  EXPECT_THAT(ReceiveTexts(*listener_), ElementsAre("polled"));

  ASSERT_TRUE(listener_->ArmWakeup());
  SendText(*client, listener_->info().mac, "one");
  SendText(*client, listener_->info().mac, "two");
  EXPECT_EQ(client->counters().doorbells_rung, 1u);
  EXPECT_TRUE(Readable(*listener_, 1000));
  listener_->DisarmWakeup();
  listener_->Service(clock_.NowNs());
  EXPECT_EQ(listener_->counters().wakeups, 1u);
  EXPECT_FALSE(Readable(*listener_, 0));
  EXPECT_THAT(ReceiveTexts(*listener_), ElementsAre("one", "two"));
}

// The way of the driver: one call to sleep, and none to learn why it ended.
TEST_F(MemifTest, AnOwnerMaySleepInThePortsDescriptor) {
  Listen();
  auto client = Join();
  Until([&] { return !Readable(*listener_, 0); });
  UniqueFd own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ASSERT_TRUE(listener_->Adopt(own.get()));
  const auto sleep_and_hear = [&] {
    std::array<epoll_event, 8> events;
    const int count = epoll_wait(listener_->wake_fd(), events.data(),
                                 static_cast<int>(events.size()), 1000);
    EXPECT_GT(count, 0);
    return listener_->Hear({events.data(), static_cast<size_t>(count)});
  };
  ASSERT_TRUE(listener_->ArmWakeup());
  SendText(*client, MacAddress::Broadcast(), "one");
  EXPECT_EQ(sleep_and_hear(), Heard::kFrames);
  EXPECT_EQ(listener_->counters().wakeups, 1u);
  EXPECT_FALSE(Readable(*listener_, 0)) << "told once";
  listener_->DisarmWakeup();
  EXPECT_THAT(ReceiveTexts(*listener_), ElementsAre("one"));

  eventfd_write(own.get(), 1);
  EXPECT_EQ(sleep_and_hear(), Heard::kNothing);
  eventfd_t count;
  eventfd_read(own.get(), &count);

  // A member that left stays worth waking for until it is served.
  client.reset();
  EXPECT_EQ(sleep_and_hear(), Heard::kSlowWork);
  EXPECT_TRUE(Readable(*listener_, 0));
  listener_->Service(clock_.NowNs());
  EXPECT_FALSE(Readable(*listener_, 0));
}

TEST_F(MemifTest, QuietFramesWakeNobodyUnlessTheRingIsFull) {
  Listen();
  auto client = Join();
  Until([&] { return !Readable(*listener_, 0); });
  ASSERT_TRUE(listener_->ArmWakeup());
  auto send_quietly = [&] {
    Frame frame;
    EXPECT_EQ(client->Allocate({&frame, 1}), 1u);
    memset(frame.data, 0xff, 60);
    frame.length_bytes = 60;
    if (client->Transmit(0, {&frame, 1}, Ring::kQuietly) == 1) return true;
    client->Release({&frame, 1});
    return false;
  };
  EXPECT_TRUE(send_quietly());
  EXPECT_FALSE(Readable(*listener_, 0));
  while (send_quietly()) {
  }
  EXPECT_TRUE(Readable(*listener_, 1000));
}

void Spin(int turns) {
  for (int i = 0; i < turns; ++i) asm volatile("");
}

// Two processes, each asleep until the other has sent: one lost wake-up and
// they sleep for ever.
TEST_F(MemifTest, NoWakeUpIsLost) {
  constexpr int kRounds = 50'000;
  Listen();
  const pid_t child = Fork();
  auto wait_for_frame = [](Port& port) {
    SystemClock clock;
    Frame frame;
    while (port.Receive({&frame, 1}) == 0) {
      if (!port.ArmWakeup()) continue;
      const bool is_awake = Readable(port, 20'000);
      port.DisarmWakeup();
      if (!is_awake) return false;
      port.Service(clock.NowNs());
    }
    port.Release({&frame, 1});
    return true;
  };
  if (child == 0) {
    auto port = MemifClientPort::Open(Options());
    for (int i = 0; i < kRounds; ++i) {
      // Sometimes early, sometimes late: the window is a few instructions.
      Spin((i * 7) % 400);
      SendText(**port, MacAddress::Broadcast(), "ping");
      if (!wait_for_frame(**port)) _exit(2);
    }
    _exit(0);
  }
  int rounds = 0;
  while (rounds < kRounds && wait_for_frame(*listener_)) {
    Spin((rounds * 13) % 300);
    SendText(*listener_, MacAddress::Broadcast(), "pong");
    ++rounds;
  }
  EXPECT_EQ(rounds, kRounds);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(MemifTest, TheWakeDescriptorIsQuietWhenNothingHappens) {
  Listen();
  auto client = Join();
  for (Port* port : {listener_.get(), client.get()}) {
    port->Service(clock_.NowNs());
    ASSERT_TRUE(port->ArmWakeup());
    EXPECT_FALSE(Readable(*port, 50));
    EXPECT_EQ(port->Service(clock_.NowNs()), kNever);
    port->DisarmWakeup();
  }
}

// A frame that a faulty port holds back wakes its receiver when it is let go.
TEST_F(MemifTest, AHeldBackFrameRingsWhenItIsDue) {
  Listen();
  FaultOptions options;
  options.reorder = 1;
  options.reorder_hold_ns = 20 * kMillisecond;
  options.on_transmit = false;
  FaultyPort client(Join(), clock_, options, 1);
  client.Service(clock_.NowNs());
  SendText(*listener_, client.info().mac, "late");
  EXPECT_THAT(ReceiveTexts(client), IsEmpty());
  ASSERT_TRUE(client.ArmWakeup());
  EXPECT_TRUE(Readable(client, 5000));
  client.DisarmWakeup();
  client.Service(clock_.NowNs());
  EXPECT_THAT(ReceiveTexts(client), ElementsAre("late"));
  EXPECT_TRUE(client.ArmWakeup());
  EXPECT_FALSE(Readable(client, 30));
}

}  // namespace
}  // namespace tripwire
