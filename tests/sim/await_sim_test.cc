// SPDX-License-Identifier: BSD-3-Clause
// Coroutines that wait for tripwires and events, driven by whoever polls.
#include "nic/api/await.h"

#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <vector>

#include "tests/sim/sim_pair.h"

namespace tripwire {
namespace {

// A coroutine that begins at once and lives as long as this does.
class Task {
 public:
  struct promise_type {
    Task get_return_object() {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::abort(); }
  };
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  ~Task() { Cancel(); }
  void Cancel() {
    if (handle_) std::exchange(handle_, {}).destroy();
  }
  bool done() const { return handle_ && handle_.done(); }

 private:
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

class AwaitSim : public ::testing::Test {
 protected:
  explicit AwaitSim(FaultOptions faults = {}) : net_(11, faults), pair_(net_) {}
  void SetUp() override {
    pair_.Connect();
    left_aperture_ = pair_.left->Export(Span(left_words_), Access::kAny);
    right_aperture_ = pair_.right->Export(Span(right_words_), Access::kAny);
    to_right_ = pair_.left->Import(pair_.left_link, right_aperture_.name());
    to_left_ = pair_.right->Import(pair_.right_link, left_aperture_.name());
  }
  static std::span<uint8_t> Span(std::vector<uint64_t>& words) {
    return {reinterpret_cast<uint8_t*>(words.data()), words.size() * 8};
  }
  static void Store(Context& context, const RemoteAperture& to, uint64_t index,
                    uint64_t value) {
    EXPECT_TRUE(
        context
            .Write(to, 8 * index, {reinterpret_cast<const uint8_t*>(&value), 8})
            .ok());
  }
  Tripwire Watch(Context& context, const Aperture& aperture, uint64_t index,
                 bool events = false) {
    Tripwire tripwire =
        context.Watch(aperture, 8 * index, 8, Access::kWrite,
                      TripwireMode::kPersistent, index, events);
    tripwire.Arm();
    return tripwire;
  }
  // Lets everything happen; what the contexts tell is dropped, but both are polled.
  void Run(uint64_t ns = kMillisecond) {
    net_.RunUntil(
        [&] {
          Event event;
          while (pair_.left->Poll({&event, 1}) > 0) ++left_over_;
          while (pair_.right->Poll({&event, 1}) > 0) ++left_over_;
          return false;
        },
        ns);
  }

  SimNetwork net_;
  Pair pair_;
  std::vector<uint64_t> left_words_ = std::vector<uint64_t>(64);
  std::vector<uint64_t> right_words_ = std::vector<uint64_t>(64);
  Aperture left_aperture_, right_aperture_;
  RemoteAperture to_right_, to_left_;
  int left_over_ = 0;  // events nobody awaited
};

class LossyAwaitSim : public AwaitSim {
 protected:
  static FaultOptions Faults() {
    FaultOptions faults;
    faults.loss = 0.05;
    faults.duplicate = 0.1;
    faults.reorder = 0.1;
    return faults;
  }
  LossyAwaitSim() : AwaitSim(Faults()) {}
};

Task Echo(Context& context, const RemoteAperture& to, Tripwire& tripwire,
          const std::vector<uint64_t>& words, uint64_t rounds) {
  for (uint64_t seen = 0; seen < rounds;) {
    seen = co_await Fired(tripwire, seen);
    const uint64_t value = words[0];
    EXPECT_TRUE(
        context.Write(to, 0, {reinterpret_cast<const uint8_t*>(&value), 8})
            .ok());
  }
}

Task Ask(Context& context, const RemoteAperture& to, Tripwire& tripwire,
         const std::vector<uint64_t>& words, uint64_t rounds) {
  for (uint64_t i = 1; i <= rounds; ++i) {
    EXPECT_TRUE(
        context.Write(to, 0, {reinterpret_cast<const uint8_t*>(&i), 8}).ok());
    EXPECT_EQ(co_await Fired(tripwire, i - 1), i);
    EXPECT_EQ(words[0], i);
  }
}

TEST_F(LossyAwaitSim, TwoCoroutinesTalk) {
  Tripwire on_right = Watch(*pair_.right, right_aperture_, 0);
  Tripwire on_left = Watch(*pair_.left, left_aperture_, 0);
  const Task echo = Echo(*pair_.right, to_left_, on_right, right_words_, 300);
  const Task ask = Ask(*pair_.left, to_right_, on_left, left_words_, 300);
  EXPECT_FALSE(ask.done());
  ASSERT_TRUE(net_.RunUntil(
      [&] {
        pair_.right->Drive([] { return true; }, 0);
        return pair_.left->Drive([&] { return ask.done(); }, 0);
      },
      300 * kSecond));
  EXPECT_TRUE(echo.done());
  EXPECT_EQ(on_right.count(), 300u);
}

Task NoteFired(const Tripwire& tripwire, uint64_t seen,
               std::optional<uint64_t>& count) {
  count = co_await Fired(tripwire, seen);
}

TEST_F(AwaitSim, ResumesOnlyThoseThatHaveNews) {
  Tripwire one = Watch(*pair_.right, right_aperture_, 1);
  Tripwire two = Watch(*pair_.right, right_aperture_, 2);
  std::optional<uint64_t> of_one, of_two, later, at_once;
  const Task a = NoteFired(one, 0, of_one);
  const Task b = NoteFired(two, 0, of_two);
  const Task c = NoteFired(one, 1, later);
  Run();
  EXPECT_FALSE(of_one || of_two || later);
  Store(*pair_.left, to_right_, 1, 5);
  Run();
  EXPECT_EQ(of_one, std::optional<uint64_t>(1));
  EXPECT_FALSE(of_two || later);
  const Task d = NoteFired(one, 0, at_once);
  EXPECT_TRUE(d.done()) << "it has fired before";
  Store(*pair_.left, to_right_, 1, 5);
  Run();
  EXPECT_EQ(later, std::optional<uint64_t>(2));
  EXPECT_FALSE(of_two);
}

TEST_F(AwaitSim, TheLossOfTheLinkAndRemovalEndTheWait) {
  Tripwire out = pair_.left->Watch(to_right_, 0, 8, Access::kWrite,
                                   TripwireMode::kPersistent, 0, false);
  out.Arm();
  Tripwire removed = Watch(*pair_.left, left_aperture_, 3);
  std::optional<uint64_t> of_out, of_removed;
  const Task a = NoteFired(out, 0, of_out);
  const Task b = NoteFired(removed, 7, of_removed);
  Run();
  removed.Remove();
  Tripwire successor = Watch(*pair_.left, left_aperture_, 3);
  Run();
  EXPECT_EQ(of_removed, std::optional<uint64_t>(7));
  EXPECT_FALSE(of_out);
  pair_.right->Close(pair_.right_link);
  Run();
  EXPECT_EQ(of_out, std::optional<uint64_t>(0));
  out.Remove();
}

Task TakeEvents(Context& context, int events, std::vector<uint64_t>& cookies) {
  for (int i = 0; i < events; ++i) {
    const Event event = co_await NextEvent(context);
    EXPECT_EQ(event.kind, EventKind::kTripwire);
    cookies.push_back(event.cookie);
  }
}

TEST_F(AwaitSim, EventsGoToWhoAskedFirstThenToThePoller) {
  std::vector<Tripwire> tripwires;
  for (uint64_t i = 0; i < 6; ++i) {
    tripwires.push_back(Watch(*pair_.right, right_aperture_, i, true));
  }
  std::vector<uint64_t> first, second;
  const Task a = TakeEvents(*pair_.right, 1, first);
  const Task b = TakeEvents(*pair_.right, 2, second);
  for (const uint64_t i : {4, 2, 5, 0}) Store(*pair_.left, to_right_, i, 1);
  Run();
  EXPECT_EQ(first, std::vector<uint64_t>{4});
  EXPECT_EQ(second, (std::vector<uint64_t>{2, 5}));
  EXPECT_EQ(left_over_, 1);
  EXPECT_TRUE(a.done() && b.done());
}

// An event that was queued by a tripwire since removed is no event.
TEST_F(AwaitSim, ARemovedTripwiresEventIsNotAwaited) {
  Tripwire gone = Watch(*pair_.right, right_aperture_, 1, true);
  Store(*pair_.left, to_right_, 1, 1);
  net_.RunFor(kMillisecond);
  gone.Remove();
  std::vector<uint64_t> cookies;
  const Task a = TakeEvents(*pair_.right, 1, cookies);
  Run();
  EXPECT_TRUE(cookies.empty());
  Tripwire next = Watch(*pair_.right, right_aperture_, 2, true);
  Store(*pair_.left, to_right_, 2, 1);
  Run();
  EXPECT_EQ(cookies, std::vector<uint64_t>{2});
  next.Remove();
}

Task CancelOther(const Tripwire& tripwire, Task** other, bool& ran) {
  co_await Fired(tripwire);
  (*other)->Cancel();
  ran = true;
}

TEST_F(AwaitSim, WhoIsDestroyedIsNotResumed) {
  Tripwire tripwire = Watch(*pair_.right, right_aperture_, 0);
  std::optional<uint64_t> count, of_victim;
  bool ran = false;
  {
    const Task gone = NoteFired(tripwire, 0, count);
    Run();
  }
  // Both have news at once; the first destroys the second.
  std::vector<Task> tasks;
  tasks.reserve(2);
  Task* second = nullptr;
  tasks.push_back(CancelOther(tripwire, &second, ran));
  tasks.push_back(NoteFired(tripwire, 0, of_victim));
  second = &tasks[1];
  Store(*pair_.left, to_right_, 0, 1);
  Run();
  EXPECT_TRUE(ran);
  EXPECT_FALSE(of_victim);
  EXPECT_FALSE(count);
}

TEST_F(AwaitSim, AfterTheContextIsGoneNobodyIsResumed) {
  std::optional<uint64_t> count;
  std::vector<uint64_t> cookies;
  Tripwire tripwire = Watch(*pair_.right, right_aperture_, 0);
  std::optional<Task> a(NoteFired(tripwire, 0, count));
  std::optional<Task> b(TakeEvents(*pair_.right, 1, cookies));
  Run();
  tripwire.Remove();
  right_aperture_ = Aperture();
  pair_.right.reset();
  Event event;
  net_.RunUntil(
      [&] {
        while (pair_.left->Poll({&event, 1}) > 0) {
        }
        return false;
      },
      kMillisecond);
  EXPECT_FALSE(count);
  EXPECT_TRUE(cookies.empty());
  a.reset();
  b.reset();
}

}  // namespace
}  // namespace tripwire
