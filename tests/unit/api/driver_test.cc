// SPDX-License-Identifier: BSD-3-Clause
// The driver over an engine without ports: who is woken for whose timers.
#include "nic/api/driver.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

namespace tripwire {
namespace {

// Wants to be called again when the test says.
class TimedControl final : public ControlPlane {
 public:
  void OnControlFrame(size_t, PathId, const wire::FrameView&) override {}
  void OnLinkEnded(Link&) override {}
  uint64_t OnTime(uint64_t) override {
    ++calls;
    return next_ns.load();
  }
  std::atomic<uint64_t> next_ns{kNever};
  std::atomic<int> calls{0};
};

bool Soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 10000; ++i) {
    if (condition()) return true;
    usleep(1000);
  }
  return false;
}

TEST(DriverTest, ASleeperIsWokenForATimerThatAPollSet) {
  SystemClock clock;
  Random random(1);
  Engine engine({}, clock, random, {});
  TimedControl control;
  engine.set_control(&control);
  Driver driver(engine, clock, /*max_spin_ns=*/0, /*can_block=*/true);
  bool is_over = false;  // under the driver's lock
  std::thread sleeper([&] {
    driver.WaitUntil([&] { return is_over; }, kNever);
  });
  const auto sleeps = [&] {
    std::lock_guard lock(driver.mutex());
    return driver.sleeps();
  };
  EXPECT_TRUE(Soon([&] { return sleeps() > 0; }));

  // Somebody else polls, and from now on there is something to do in 20 ms.
  control.next_ns = clock.NowNs() + 20 * kMillisecond;
  {
    std::lock_guard lock(driver.mutex());
    engine.WakeControl();
  }
  const int calls = control.calls;
  driver.Poll();
  EXPECT_EQ(control.calls, calls + 1);
  control.next_ns = kNever;
  EXPECT_TRUE(Soon([&] { return control.calls > calls + 1; }))
      << "nobody woke when it was time";

  {
    std::lock_guard lock(driver.mutex());
    is_over = true;
  }
  driver.Notify();
  sleeper.join();
}

// The test and one that never rests, on one processor.
TEST(DriverTest, WhoWaitsWhereOthersWantTheProcessorSleepsAtOnce) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i) {
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  std::atomic<bool> done{false};
  std::thread busy([&] {
    while (!done.load(std::memory_order_relaxed)) {
    }
  });

  SystemClock clock;
  Random random(1);
  Engine engine({}, clock, random, {});
  Driver driver(engine, clock, /*max_spin_ns=*/kSecond, /*can_block=*/true);
  const auto wait = [&] {
    driver.WaitUntil([] { return false; }, clock.NowNs() + 20 * kMillisecond);
  };
  for (int i = 0; i < 1000 && driver.contended() == 0; ++i) wait();
  EXPECT_GT(driver.contended(), 0u);
  // One whose time has passed before it comes to that does not sleep.
  const uint64_t sleeps = driver.sleeps();
  for (int i = 0; i < 1000 && driver.sleeps() == sleeps; ++i) wait();
  EXPECT_GT(driver.sleeps(), sleeps);

  done = true;
  busy.join();
  sched_setaffinity(0, sizeof before, &before);
}

}  // namespace
}  // namespace tripwire
