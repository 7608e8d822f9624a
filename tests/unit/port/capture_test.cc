// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "nic/port/capture_port.h"
#include "nic/port/fabric.h"
#include "nic/port/port_spec.h"
#include "tests/sim/lending_port.h"
#include "tests/unit/port/frames.h"
#include "tests/unit/port/pcapng.h"

namespace tripwire {
namespace {

using testing::Capture;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ReadCapture;
using testing::ReceiveTexts;
using testing::SendText;

std::string Text(const testing::CapturedFrame& frame) {
  return std::string(frame.bytes.begin() + testing::kHeaderBytes,
                     frame.bytes.end());
}

class CaptureTest : public ::testing::Test {
 protected:
  CaptureTest() {
    char name[] = "/tmp/tw-capture-XXXXXX";
    directory_ = ::mkdtemp(name);
    path_ = directory_ + "/frames.pcapng";
  }
  ~CaptureTest() override {
    captured_.reset();
    std::filesystem::remove_all(directory_);
  }
  // Port a of a fabric with a capture, and b without.
  void Make(size_t buffer_bytes = CaptureFile::kBufferBytes, bool lends = false,
            FabricOptions options = {}) {
    fabric_.emplace(clock_, options);
    std::unique_ptr<Port> port = fabric_->AddPort("a");
    if (lends) port = std::make_unique<LendingPort>(std::move(port));
    auto file = CaptureFile::Open(path_, port->info(), buffer_bytes);
    ASSERT_TRUE(file.ok()) << file.status();
    captured_ = std::make_unique<CapturePort>(std::move(port), *std::move(file),
                                              clock_, 1000);
    plain_ = fabric_->AddPort("b");
  }
  // For things that another thread does soon.
  template <typename F>
  bool Eventually(F ready) {
    for (int i = 0; i < 20000 && !ready(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return ready();
  }

  std::string directory_, path_;
  ManualClock clock_;
  std::optional<Fabric> fabric_;
  std::unique_ptr<Port> plain_;
  std::unique_ptr<CapturePort> captured_;
};

TEST_F(CaptureTest, WritesFramesBothWaysWithTimeAndDirection) {
  Make();
  clock_.AdvanceTo(5'000'000'123);
  SendText(*captured_, plain_->info().mac, "out");
  clock_.AdvanceBy(kSecond);
  SendText(*plain_, captured_->info().mac, "answer");
  clock_.AdvanceBy(kSecond);
  EXPECT_THAT(ReceiveTexts(*captured_), ElementsAre("answer"));
  EXPECT_EQ(captured_->counters().captured, 2u);
  captured_.reset();
  const Capture capture = ReadCapture(path_);
  EXPECT_EQ(capture.interface, "a");
  ASSERT_EQ(capture.frames.size(), 2u);
  EXPECT_EQ(Text(capture.frames[0]), "out");
  EXPECT_TRUE(capture.frames[0].is_outbound);
  EXPECT_EQ(capture.frames[0].time_ns, 5'000'001'123u);
  EXPECT_EQ(Text(capture.frames[1]), "answer");
  EXPECT_FALSE(capture.frames[1].is_outbound);
  EXPECT_EQ(capture.frames[1].time_ns, 7'000'001'123u);
  EXPECT_TRUE(capture.has_statistics);
  EXPECT_EQ(capture.seen, 2u);
  EXPECT_EQ(capture.dropped, 0u);
}

TEST_F(CaptureTest, BelongsToItsOwnerAlone) {
  Make();
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(CaptureTest, LentFramesAndGatheredFramesAreWhole) {
  Make(CaptureFile::kBufferBytes, /*lends=*/true);
  ASSERT_TRUE(captured_->info().gathers);
  Frame frame;
  ASSERT_EQ(captured_->Allocate({&frame, 1}), 1u);
  std::memcpy(frame.data, plain_->info().mac.bytes.data(), 6);
  std::memcpy(frame.data + 6, captured_->info().mac.bytes.data(), 6);
  std::memcpy(frame.data + 14, "head, ", 6);
  frame.length_bytes = 20;
  const std::string tail = "and a tail that lies elsewhere";
  frame.tail = reinterpret_cast<const uint8_t*>(tail.data());
  frame.tail_bytes = static_cast<uint32_t>(tail.size());
  ASSERT_EQ(captured_->Transmit(kAllPaths, {&frame, 1}, Ring::kDoorbell), 1u);
  SendText(*plain_, captured_->info().mac, "lent");
  clock_.AdvanceBy(kSecond);
  // The lending port scribbles over each frame as it is given back.
  EXPECT_THAT(ReceiveTexts(*captured_), ElementsAre("lent"));
  EXPECT_THAT(ReceiveTexts(*plain_), ElementsAre("head, " + tail));
  captured_.reset();
  const Capture capture = ReadCapture(path_);
  ASSERT_EQ(capture.frames.size(), 2u);
  EXPECT_EQ(Text(capture.frames[0]), "head, " + tail);
  EXPECT_EQ(Text(capture.frames[1]), "lent");
}

TEST_F(CaptureTest, FramesThatThePortDidNotTakeAreNotInIt) {
  FabricOptions options;
  options.bandwidth_bits_per_s = 1'000'000;
  options.tx_queue_frames = 2;
  Make(CaptureFile::kBufferBytes, false, options);
  int taken = 0;
  while (SendText(*captured_, plain_->info().mac, std::to_string(taken))) {
    ASSERT_LT(++taken, 10);
  }
  captured_.reset();
  const Capture capture = ReadCapture(path_);
  ASSERT_EQ(capture.frames.size(), static_cast<size_t>(taken));
  EXPECT_EQ(Text(capture.frames.back()), std::to_string(taken - 1));
}

TEST_F(CaptureTest, CanBeFollowedWhileItGrows) {
  Make();
  for (size_t i = 1; i <= 3; ++i) {
    SendText(*captured_, plain_->info().mac, "frame");
    EXPECT_TRUE(Eventually([&] {
      return ReadCapture(path_).frames.size() == i;
    })) << i;
  }
}

TEST_F(CaptureTest, AFullDiskStopsTheCaptureAndNothingElse) {
  path_ = "/dev/full";
  ::testing::internal::CaptureStdout();
  Make();
  EXPECT_TRUE(Eventually([&] {
    SendText(*captured_, plain_->info().mac, "frame");
    clock_.AdvanceBy(kSecond);
    return ReceiveTexts(*plain_).size() == 1 &&
           captured_->counters().capture_dropped > 0;
  }));
  const uint64_t before = captured_->counters().capture_dropped;
  for (int i = 0; i < 10; ++i) {
    SendText(*captured_, plain_->info().mac, "frame");
  }
  EXPECT_EQ(captured_->counters().capture_dropped, before + 10);
  EXPECT_EQ(captured_->counters().captured, 0u);
  clock_.AdvanceBy(kSecond);
  EXPECT_EQ(ReceiveTexts(*plain_).size(), 10u);
  captured_.reset();
  const std::string log = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(log, HasSubstr("capture /dev/full stops: No space left"));
  EXPECT_EQ(log.find("/dev/full"), log.rfind("/dev/full")) << "said once";
}

TEST_F(CaptureTest, AReaderThatDoesNotReadHoldsNobodyUp) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  Make(/*buffer_bytes=*/64 * 1024);
  const std::string text(1000, 'x');
  for (int i = 0; i < 2000; ++i) {
    SendText(*captured_, plain_->info().mac, text);
    clock_.AdvanceBy(kSecond);
    ASSERT_EQ(ReceiveTexts(*plain_).size(), 1u) << i;
  }
  const PortCounters counters = captured_->counters();
  EXPECT_GT(counters.capture_dropped, 0u);
  EXPECT_EQ(counters.captured + counters.capture_dropped, 2000u);
  captured_.reset();  // ends though nobody reads
}

TEST_F(CaptureTest, AFifoFeedsItsReader) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  Make();
  UniqueFd reader(::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  SendText(*captured_, plain_->info().mac, "through");
  std::string bytes;
  EXPECT_TRUE(Eventually([&] {
    char buffer[4096];
    const ssize_t n = ::read(reader.get(), buffer, sizeof buffer);
    if (n > 0) bytes.append(buffer, static_cast<size_t>(n));
    return testing::PcapngReader(bytes).Read().frames.size() == 1;
  }));
}

TEST_F(CaptureTest, TwoCapturesDoNotShareAFile) {
  Make();
  const auto second = CaptureFile::Open(path_, plain_->info());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(path_));
}

TEST_F(CaptureTest, AnyPortTakesOne) {
  const std::string socket = directory_ + "/port.sock";
  auto listener = OpenPort("memif:" + socket + ",listen,capture=" + path_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  auto client =
      OpenPort("faulty:loss=1:memif:" + socket +
               ".nobody,wait,capture=" + directory_ + "/client.pcapng");
  ASSERT_TRUE(client.ok()) << client.status();
  // What the NIC sent, also though it was lost.
  SendText(**client, (*listener)->info().mac, "lost");
  client->reset();
  EXPECT_EQ(ReadCapture(directory_ + "/client.pcapng").frames.size(), 1u);
  listener->reset();
  EXPECT_EQ(ReadCapture(path_).frames.size(), 0u);

  auto nowhere = OpenPort("memif:" + socket + ",listen,capture=/no/such/file");
  EXPECT_THAT(std::string(nowhere.status().message()),
              HasSubstr("/no/such/file"));
}

TEST(CaptureSpecTest, IsTakenOutOfWhatGoesToDpdk) {
  auto spec = ParsePortSpec("vdev:net_null0,capture=/tmp/x,size=64");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->target, "net_null0,size=64");
  EXPECT_EQ(spec->capture, "/tmp/x");
  EXPECT_FALSE(ParsePortSpec("vdev:net_null0,capture=").ok());
  EXPECT_FALSE(ParsePortSpec("memif:/tmp/s,capture").ok());
  EXPECT_EQ(ParsePortSpec("eth:e0,mtu=1500,capture=f")->capture, "f");
}

}  // namespace
}  // namespace tripwire
