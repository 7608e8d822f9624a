// SPDX-License-Identifier: BSD-3-Clause
// Devices that come and go, change and end; servers that are started again.
#include "absl/strings/str_cat.h"
#include "tests/unit/periph/service/service_test.h"

namespace tripwire::periph {
namespace {

using ::testing::HasSubstr;

class LifetimeTest : public ServiceTest {
 protected:
  // Lets the stream move until it holds, with no frame coming.
  template <typename F>
  void Await(FrameStream& stream, F ready) {
    while (!ready()) {
      const auto view = stream.Next(client_nic_->clock().NowNs() + kMillisecond);
      ASSERT_EQ(view.status().code(), absl::StatusCode::kDeadlineExceeded) << view.status();
    }
  }
};

TEST_F(LifetimeTest, ADeviceThatFailsSaysSoAndComesBack) {
  auto stream = StartStream();
  EXPECT_TRUE(stream->device_present());
  cam_.Emit("before");
  cam_.SetStart(absl::UnavailableError("unplugged"));
  cam_.End(absl::UnavailableError("unplugged"));
  EXPECT_EQ(Next(*stream), "before");
  Await(*stream, [&] { return !stream->device_present(); });
  cam_.SetStart(absl::OkStatus());
  ASSERT_TRUE(cam_.AwaitSources(1));
  cam_.Emit("after");
  const auto view = stream->Next(Soon());
  EXPECT_EQ(Text(view), "after");
  EXPECT_TRUE(stream->device_present());
  EXPECT_NE(view->frame().flags & kDiscontinuity, 0u);
  EXPECT_EQ(view->frame().number, 1u);  // counted on
  EXPECT_EQ(stream->counters().lost, 0u);
}

TEST_F(LifetimeTest, ADeviceThatIsNotThereYetIsWaitedFor) {
  cam_.start = absl::UnavailableError("no such device");
  StartServer();
  auto user = Connect();
  auto stream = Open(*user);
  EXPECT_FALSE(stream->device_present());
  auto late = Open(*user);
  EXPECT_FALSE(late->device_present());
  const auto info = user->Info("cam");
  ASSERT_TRUE(info.ok());
  EXPECT_FALSE(info->present());
  EXPECT_EQ(info->why_absent(), "no such device");
  cam_.SetStart(absl::OkStatus());
  ASSERT_TRUE(cam_.AwaitSources(1));
  Await(*stream, [&] { return stream->device_present(); });
  Await(*late, [&] { return late->device_present(); });
  cam_.Emit("here");
  EXPECT_EQ(Next(*stream), "here");
  EXPECT_EQ(Next(*late), "here");
}

TEST_F(LifetimeTest, WhatCanNeverBeIsSaidAtOnce) {
  cam_.start = absl::PermissionDeniedError("you may not read it");
  StartServer();
  auto user = Connect();
  const auto stream = user->OpenSource("cam", {});
  EXPECT_EQ(stream.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(stream.status().message(), "you may not read it");
}

TEST_F(LifetimeTest, TheEndComesAfterTheLastFrame) {
  auto stream = StartStream({.queue_frames = 8, .slots = 2});
  for (int i = 0; i < 8; ++i) cam_.Emit(absl::StrCat(i));
  cam_.End(absl::OkStatus());
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Next(*stream), absl::StrCat(i));
  EXPECT_EQ(stream->Next(Soon()).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(stream->Next(Soon()).status().code(), absl::StatusCode::kOutOfRange);
  // Its place is free, and the next user starts the source anew.
  auto next = Open(*user_, {.exclusive = true});
  EXPECT_TRUE(cam_.AwaitSources(1));
}

TEST_F(LifetimeTest, AnErrorOfTheDeviceIsToldAsItIs) {
  auto stream = StartStream();
  cam_.End(absl::DataLossError("the lens\nis broken"));
  const auto view = stream->Next(Soon());
  EXPECT_EQ(view.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(view.status().message(), "the lens is broken");
}

TEST_F(LifetimeTest, AnotherFormatComesWithItsFrames) {
  auto stream = StartStream(Block(4));
  const std::string large(3000, 'x');
  std::thread source([&] {
    for (int round = 0; round < 10; ++round) {
      cam_.Emit("small");
      cam_.Emit("small too");
      cam_.ChangeFormat(absl::StrCat("test/large", round), large.size());
      cam_.Emit(large);
      cam_.ChangeFormat(absl::StrCat("test/small", round), 16);
    }
  });
  for (int round = 0; round < 10; ++round) {
    EXPECT_EQ(Next(*stream), "small");
    EXPECT_EQ(stream->format(), round == 0 ? "test/bytes" : absl::StrCat("test/small", round - 1));
    EXPECT_EQ(Next(*stream), "small too");
    EXPECT_EQ(Next(*stream), large);
    EXPECT_EQ(stream->format(), absl::StrCat("test/large", round));
    EXPECT_EQ(stream->max_frame_bytes(), large.size());
  }
  source.join();
  EXPECT_EQ(stream->counters().received, 30u);
  EXPECT_EQ(stream->counters().lost, 0u);
}

TEST_F(LifetimeTest, DropsAcrossAChangeOfFormatAreCounted) {
  auto stream = StartStream({.queue_frames = 2, .slots = 2});
  cam_.Emit("first");
  EXPECT_EQ(Next(*stream), "first");  // the ring is in use
  for (int i = 0; i < 10; ++i) cam_.Emit(absl::StrCat(i));
  cam_.ChangeFormat("test/other", 64);
  cam_.Emit("other");
  // Those that waited in the old format were dropped.
  for (std::string text; text != "other";) {
    text = Next(*stream);
    EXPECT_EQ(stream->format(), text == "other" ? "test/other" : "test/bytes");
  }
  const RingCounters counters = stream->counters();
  EXPECT_GT(counters.dropped, 0u);
  EXPECT_EQ(counters.received + counters.dropped, 12u);
  EXPECT_EQ(counters.lost, 0u);
}

TEST_F(LifetimeTest, AServerThatIsStartedAgainIsFoundAgain) {
  auto stream = StartStream({.exclusive = true});
  cam_.Emit("before");
  EXPECT_EQ(Next(*stream), "before");
  StopServer();
  Await(*stream, [&] { return !stream->device_present(); });
  StartServer();
  Await(*stream, [&] { return stream->device_present(); });
  ASSERT_TRUE(cam_.AwaitSources(1));
  cam_.Emit("after");
  EXPECT_EQ(Next(*stream), "after");
  EXPECT_EQ(stream->counters().received, 2u);
  // So are calls.
  EXPECT_TRUE(user_->Info("cam").ok());
}

TEST_F(LifetimeTest, WithoutReconnectALostLinkEndsTheStream) {
  auto stream = StartStream({.reconnect = false});
  cam_.Emit("before");
  StopServer();
  EXPECT_EQ(Next(*stream), "before");
  EXPECT_EQ(stream->Next(Soon()).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(LifetimeTest, ADeviceThatIsNotOfferedAnyMoreEndsTheStream) {
  StartServer();
  auto user = Connect();
  auto stream = Open(*user);
  StopServer();
  StartServer({.nodes = {"friend"}});
  EXPECT_EQ(stream->Next(Soon()).status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(LifetimeTest, CancelEndsAWait) {
  StartServer();
  auto user = Connect();
  auto stream = Open(*user);
  std::thread other([&] { stream->Cancel(); });
  EXPECT_EQ(stream->Next(Soon()).status().code(), absl::StatusCode::kCancelled);
  other.join();
  EXPECT_EQ(stream->Next(0).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(LifetimeTest, WatchersHearOfDevices) {
  StartServer();
  std::mutex mutex;
  std::condition_variable heard;
  std::vector<std::string> events;
  auto user = Connect([&](const proto::DeviceEvent& event) {
    std::lock_guard lock(mutex);
    events.push_back(
        absl::StrCat(event.device(), event.present() ? " there" : " gone: ", event.why()));
    heard.notify_all();
  });
  const auto await = [&](size_t count) {
    std::unique_lock lock(mutex);
    return heard.wait_for(lock, std::chrono::seconds(60), [&] { return events.size() >= count; });
  };
  ASSERT_TRUE(await(1));
  cam_.SetStart(absl::UnavailableError("unplugged"));
  ASSERT_TRUE(await(2));
  cam_.SetStart(absl::OkStatus());
  ASSERT_TRUE(await(3));
  StopServer();
  StartServer();  // it tells those who come back
  ASSERT_TRUE(await(4));
  std::lock_guard lock(mutex);
  EXPECT_THAT(events,
              ::testing::ElementsAre("cam there", "cam gone: unplugged", "cam there", "cam there"));
}

TEST_F(LifetimeTest, ControlsAreShownAndSet) {
  StartServer();
  auto user = Connect();
  EXPECT_TRUE(user->SetControl("cam", "gain", "2").ok());
  const auto controls = user->Controls("cam");
  ASSERT_TRUE(controls.ok());
  ASSERT_EQ(controls->size(), 1u);
  EXPECT_EQ((*controls)[0].name, "gain");
  EXPECT_EQ((*controls)[0].value, "2");
  EXPECT_THAT((*controls)[0].choices, ::testing::ElementsAre("1", "2"));
  EXPECT_EQ(user->SetControl("cam", "none", "2").code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace tripwire::periph
