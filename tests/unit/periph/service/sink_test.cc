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

}  // namespace
}  // namespace tripwire::periph
