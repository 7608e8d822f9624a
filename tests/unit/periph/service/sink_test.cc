// SPDX-License-Identifier: BSD-3-Clause
// Frames to a device.
#include "absl/strings/str_cat.h"
#include "tests/unit/periph/service/service_test.h"

namespace tripwire::periph {
namespace {

class SinkTest : public ServiceTest {
 protected:
  std::unique_ptr<FrameOutput> OpenSink(Peripherals& user, StreamOptions options = {}) {
    auto output = user.OpenSink("cam", std::move(options));
    EXPECT_TRUE(output.ok()) << output.status();
    return *std::move(output);
  }
  static Frame FrameOf(const std::string& text) {
    Frame frame;
    frame.data = {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
    return frame;
  }
};

TEST_F(SinkTest, TheDeviceGetsAllInOrder) {
  constexpr uint64_t kFrames = 500;
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  EXPECT_EQ(output->format(), "test/bytes");
  EXPECT_EQ(output->max_frame_bytes(), 256u);
  std::vector<std::string> sent;
  for (uint64_t i = 0; i < kFrames; ++i) {
    sent.push_back(absl::StrCat(i));
    ASSERT_TRUE(output->Put(FrameOf(sent.back()), Soon()).ok());
  }
  EXPECT_TRUE(output->Finish(Soon()).ok());
  EXPECT_EQ(cam_.taken, sent);
  EXPECT_TRUE(cam_.drained);
  EXPECT_EQ(output->counters().sent, kFrames);
}

TEST_F(SinkTest, AFrameThatIsTooLargeIsRefused) {
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  EXPECT_EQ(output->Put(FrameOf(std::string(257, 'x')), Soon()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(output->Put(FrameOf("fits"), Soon()).ok());
  EXPECT_TRUE(cam_.AwaitTaken(1));
}

TEST_F(SinkTest, AnErrorOfTheDeviceReachesWhoPuts) {
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  cam_.put = absl::DataLossError("paper jam");
  absl::Status status;
  while (status.ok()) status = output->Put(FrameOf("page"), Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "paper jam");
}

TEST_F(SinkTest, ADeviceThatFailsIsStartedAgain) {
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  {
    std::lock_guard lock(cam_.mutex);
    cam_.put_once = absl::UnavailableError("unplugged");
  }
  ASSERT_TRUE(output->Put(FrameOf("lost"), Soon()).ok());
  ASSERT_TRUE(output->Put(FrameOf("waits"), Soon()).ok());
  EXPECT_TRUE(output->Finish(Soon()).ok());
  EXPECT_THAT(cam_.taken, ::testing::ElementsAre("waits"));
}

TEST_F(SinkTest, AFormatThatCannotBePlayedIsRefused) {
  StartServer();
  auto user = Connect();
  const auto output = user->OpenSink("cam", {.format = "test/other"});
  EXPECT_EQ(output.status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(SinkTest, WhoVanishesLeavesTheDeviceFree) {
  StartServer();
  auto user = Connect(), other = Connect();
  for (int i = 0; i < 20; ++i) {
    auto output = OpenSink(*user);
    for (int n = 0; n < i % 3; ++n) EXPECT_TRUE(output->Put(FrameOf("x"), Soon()).ok());
  }
  while (!other->OpenSink("cam", {.exclusive = true}).ok()) std::this_thread::yield();
}

TEST_F(SinkTest, AServerThatIsStartedAgainIsFoundAgain) {
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  ASSERT_TRUE(output->Put(FrameOf("before"), Soon()).ok());
  ASSERT_TRUE(cam_.AwaitTaken(1));
  StopServer();
  StartServer();
  // Some may go into the ring that nobody reads any more, before the news is here.
  const auto taken = [this] {
    std::lock_guard lock(cam_.mutex);
    return cam_.taken.size();
  };
  while (taken() < 2) ASSERT_TRUE(output->Put(FrameOf("after"), Soon()).ok());
  output.reset();
  std::lock_guard lock(cam_.mutex);
  EXPECT_EQ(cam_.taken[1], "after");
}

TEST_F(SinkTest, ADeviceThatComesBackSmallerRefusesWhatIsTooLarge) {
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  StopServer();
  cam_.max_frame_bytes = 10;
  // Lost on the way into the old ring, as long as the news is not here.
  while (output->Put(FrameOf(std::string(20, 'x')), Soon() - kSoonNs).ok()) {
  }
  StartServer();
  EXPECT_EQ(output->Put(FrameOf(std::string(20, 'x')), Soon()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(output->Put(FrameOf("fits"), Soon()).ok());
  EXPECT_TRUE(output->Finish(Soon()).ok());
  EXPECT_THAT(cam_.taken, ::testing::ElementsAre("fits"));
}

// Nothing is put meanwhile.
TEST_F(SinkTest, AUserKeepsHisPlaceWhenTheServerIsStartedAgain) {
  StartServer();
  auto user = Connect(), other = Connect();
  auto output = OpenSink(*user, {.exclusive = true});
  ASSERT_TRUE(output->Put(FrameOf("before"), Soon()).ok());
  ASSERT_TRUE(cam_.AwaitTaken(1));
  for (int restarts = 0; restarts < 3; ++restarts) {
    StopServer();
    StartServer();
    const auto is_back = [&] {
      const auto info = other->Info("cam");
      return info.ok() && info->users_size() == 1 && info->users(0).what() == "sink";
    };
    const uint64_t until_ns = Soon();
    while (!is_back()) {
      ASSERT_LT(client_nic_->clock().NowNs(), until_ns);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(other->OpenSink("cam", {}).status().code(), absl::StatusCode::kFailedPrecondition);
  }
  // The next goes to the device that is there now.
  ASSERT_TRUE(output->Put(FrameOf("after"), Soon()).ok());
  EXPECT_TRUE(output->Finish(Soon()).ok());
  EXPECT_THAT(cam_.taken, ::testing::ElementsAre("before", "after"));
}

TEST_F(SinkTest, WhatWasDeliveredIsLetGoOfAlsoIfNoMoreIsPut) {
  cam_.max_frame_bytes = 100'000;
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  auto bytes = std::make_shared<std::vector<uint8_t>>(cam_.max_frame_bytes);
  Frame frame;
  frame.data = *bytes;
  frame.owner = bytes;
  ASSERT_TRUE(output->Put(frame, Soon()).ok());
  frame.owner.reset();
  const uint64_t until_ns = Soon();
  while (bytes.use_count() > 1) {
    ASSERT_LT(client_nic_->clock().NowNs(), until_ns);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST_F(SinkTest, PutsAreTakenWheneverTheyCome) {
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  // Some come while the output looks after itself.
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(i % 2 == 0 ? 300 : 1));
    ASSERT_TRUE(output->Put(FrameOf(absl::StrCat(i)), Soon()).ok());
  }
  EXPECT_TRUE(output->Finish(Soon()).ok());
  EXPECT_THAT(cam_.taken, ::testing::ElementsAre("0", "1", "2", "3", "4"));
}

TEST_F(SinkTest, CancelEndsAPutThatWaits) {
  StartServer();
  auto user = Connect();
  auto output = OpenSink(*user);
  StopServer();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    output->Cancel();
  });
  absl::Status status;
  while (status.ok()) status = output->Put(FrameOf("x"), kNever);
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  other.join();
}

}  // namespace
}  // namespace tripwire::periph
