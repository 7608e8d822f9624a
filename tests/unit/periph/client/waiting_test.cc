// SPDX-License-Identifier: BSD-3-Clause
// The ways a program may wait for frames.
#include <poll.h>

#include <coroutine>

#include "absl/strings/str_cat.h"
#include "nic/api/await.h"
#include "tests/unit/periph/service/service_test.h"

namespace tripwire::periph {
namespace {

constexpr int kFrames = 200;

using WaitingTest = ServiceTest;

bool Readable(int fd, int timeout_ms) {
  pollfd wait{fd, POLLIN, 0};
  return ::poll(&wait, 1, timeout_ms) == 1;
}

TEST_F(WaitingTest, TheDescriptorIsReadableWhenThereIsNews) {
  auto stream = StartStream({.slots = 4});
  const auto fd = stream->EventFd();
  ASSERT_TRUE(fd.ok()) << fd.status();
  std::thread source([&] {
    for (int i = 0; i < kFrames; ++i) {
      cam_.Emit(absl::StrCat(i));
      if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    cam_.Emit("last");
  });
  // Once Next(0) says that nothing is there, the descriptor says when to ask again.
  std::string last;
  uint64_t got = 0;
  while (last != "last") {
    auto view = stream->Next(0);
    if (view.ok()) {
      last = Text(view);
      ++got;
      continue;
    }
    ASSERT_EQ(view.status().code(), absl::StatusCode::kDeadlineExceeded) << view.status();
    ASSERT_TRUE(Readable(*fd, 60'000));
  }
  source.join();
  EXPECT_EQ(got + stream->counters().dropped, kFrames + 1u);
}

TEST_F(WaitingTest, TheDescriptorTellsOfLinksThatWereLostAndCancel) {
  StartServer();
  auto user = Connect();
  auto stream = Open(*user);
  const auto fd = stream->EventFd();
  ASSERT_TRUE(fd.ok()) << fd.status();
  const auto await = [&](auto ready) {
    while (!ready()) {
      const auto view = stream->Next(0);
      ASSERT_EQ(view.status().code(), absl::StatusCode::kDeadlineExceeded) << view.status();
      if (ready()) return;
      ASSERT_TRUE(Readable(*fd, 60'000));
    }
  };
  await([&] { return stream->device_present(); });
  StopServer();
  await([&] { return !stream->device_present(); });
  StartServer();
  await([&] { return stream->device_present(); });
  std::thread other([&] { stream->Cancel(); });
  ASSERT_TRUE(Readable(*fd, 60'000));
  other.join();
  EXPECT_EQ(stream->Next(0).status().code(), absl::StatusCode::kCancelled);
}

struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::abort(); }
  };
};

// Takes frames until `last`, suspended between them.
Detached TakeAll(FrameStream& stream, std::vector<std::string>& taken, bool& ended) {
  for (;;) {
    auto view = stream.Next(0);
    if (view.ok()) {
      taken.emplace_back(view->data().begin(), view->data().end());
      continue;
    }
    if (!absl::IsDeadlineExceeded(view.status())) break;
    co_await NextEvent(stream.context());
  }
  ended = true;
}

TEST_F(WaitingTest, ACoroutineTakesFrames) {
  auto stream = StartStream(Block());
  std::thread source([&] {
    for (int i = 0; i < kFrames; ++i) cam_.Emit(absl::StrCat(i));
    cam_.End(absl::OkStatus());
  });
  std::vector<std::string> taken;
  bool ended = false;
  TakeAll(*stream, taken, ended);
  EXPECT_TRUE(stream->context().Drive([&] { return ended; }, Soon()));
  source.join();
  ASSERT_EQ(taken.size(), static_cast<size_t>(kFrames));
  for (int i = 0; i < kFrames; ++i) EXPECT_EQ(taken[i], absl::StrCat(i));
}

TEST_F(WaitingTest, ClocksAreKnownAndLateFramesCounted) {
  auto stream = StartStream({.late_ns = 50 * kMillisecond});
  while (!stream->clock().known()) {
    (void)stream->Next(client_nic_->clock().NowNs() + kMillisecond);
  }
  // One machine, one clock: what was measured is off by no more than it says.
  EXPECT_LE(std::abs(stream->clock().offset_ns()),
            static_cast<int64_t>(stream->clock().error_ns()));
  cam_.Emit("old");
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_EQ(Next(*stream), "old");
  EXPECT_EQ(stream->counters().late, 1u);
}

TEST_F(WaitingTest, ARingLargerThanAllowedIsNotMade) {
  cam_.max_frame_bytes = uint64_t{1} << 40;
  StartServer();
  auto user = Connect();
  const auto stream = user->OpenSource("cam", {});
  EXPECT_EQ(stream.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(WaitingTest, ViewsOutliveTheirStream) {
  auto stream = StartStream();
  cam_.Emit("kept");
  auto view = stream->Next(Soon());
  ASSERT_TRUE(view.ok());
  stream.reset();
  EXPECT_EQ(Text(view), "kept");
}

TEST(DeviceNameTest, NodeAndNameAreToldApart) {
  const auto both = ParseDeviceName("node:cam");
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->node, "node");
  EXPECT_EQ(both->device, "cam");
  const auto only = ParseDeviceName(":cam");
  ASSERT_TRUE(only.ok());
  EXPECT_EQ(only->node, "");
  for (const char* bad : {"", "cam", "node:", ":"}) {
    EXPECT_EQ(ParseDeviceName(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace tripwire::periph
