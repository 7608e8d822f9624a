// SPDX-License-Identifier: BSD-3-Clause
// The kind gst by itself: launch lines as sources and sinks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <thread>

#include "periph/device/device.h"
#include "tests/unit/periph/gst/collecting_taker.h"

namespace tripwire::periph {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr char kCamera[] =
    "gst:videotestsrc is-live=true num-buffers=12 ! "
    "video/x-raw,format=I420,width=64,height=48,framerate=50/1";

class GstKindTest : public testing::Test {
 protected:
  std::unique_ptr<Device> Make(const std::string& spec) {
    auto device = MakeDevice(spec, clock_);
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  }
  static bool IsOneLine(const absl::Status& status) {
    return !status.message().empty() &&
           status.message().find('\n') == std::string::npos;
  }
  SystemClock clock_;
};

TEST_F(GstKindTest, ALiveSourceGivesEveryFrameInItsOwnFormatAndThenEnds) {
  const auto camera = Make(kCamera);
  CollectingTaker taker;
  const uint64_t before_ns = clock_.NowNs();
  auto source = camera->StartSource("", taker);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT((*source)->format(),
              HasSubstr("video/x-raw, format=I420, width=64, height=48"));
  EXPECT_EQ((*source)->max_frame_bytes(), 64u * 48 * 3 / 2);
  EXPECT_EQ(taker.WaitEnd(), absl::OkStatus());
  const auto frames = taker.WaitFor(12);
  ASSERT_EQ(frames.size(), 12u);
  for (size_t i = 0; i < frames.size(); ++i) {
    EXPECT_EQ(frames[i].data.size(), 64u * 48 * 3 / 2);
    EXPECT_NE(frames[i].owner, nullptr);
    EXPECT_EQ(frames[i].duration_ns, 20 * kMillisecond);
    EXPECT_EQ(frames[i].overrun, 0u);
    EXPECT_GE(frames[i].capture_ns + 100 * kMillisecond, before_ns);
    EXPECT_LE(frames[i].capture_ns, clock_.NowNs());
    if (i > 0) {
      EXPECT_EQ(frames[i].pts_ns - frames[i - 1].pts_ns, 20 * kMillisecond);
      EXPECT_GT(frames[i].capture_ns, frames[i - 1].capture_ns);
    }
  }
}

TEST_F(GstKindTest, AnotherRawFormatIsMadeByConversion) {
  const auto camera = Make(kCamera);
  CollectingTaker taker;
  auto source = camera->StartSource(
      "video/x-raw, format=RGB, width=32, height=24", taker);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(taker.WaitEnd(), absl::OkStatus());
  const auto frames = taker.WaitFor(12);
  ASSERT_EQ(frames.size(), 12u);
  EXPECT_EQ(frames[0].data.size(), 32u * 24 * 3);
}

TEST_F(GstKindTest, FormatsRunSideBySideAndOneMayStopBeforeTheOther) {
  const auto camera = Make(
      "gst:videotestsrc is-live=true ! "
      "video/x-raw,format=I420,width=64,height=48,framerate=50/1");
  CollectingTaker plain_taker, grey_taker;
  auto plain = camera->StartSource("", plain_taker);
  ASSERT_TRUE(plain.ok()) << plain.status();
  auto grey = camera->StartSource(
      "video/x-raw, format=GRAY8, width=32, height=24, framerate=25/1",
      grey_taker);
  ASSERT_TRUE(grey.ok()) << grey.status();
  const auto greys = grey_taker.WaitFor(5);
  ASSERT_GE(greys.size(), 5u);
  EXPECT_EQ(greys[0].data.size(), 32u * 24);
  EXPECT_EQ(greys[4].pts_ns - greys[3].pts_ns, 40 * kMillisecond);
  plain->reset();
  const size_t seen = grey_taker.WaitFor(1).size();
  EXPECT_GE(grey_taker.WaitFor(seen + 5).size(), seen + 5);
  grey->reset();
  // All gone: it can be started anew, in another format.
  CollectingTaker again_taker;
  auto again = camera->StartSource("video/x-raw, format=RGB", again_taker);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_GE(again_taker.WaitFor(2).size(), 2u);
}

TEST_F(GstKindTest, SoundIsConverted) {
  const auto microphone = Make(
      "gst:audiotestsrc num-buffers=5 ! audio/x-raw,rate=48000,channels=1");
  CollectingTaker taker;
  auto source = microphone->StartSource(
      "audio/x-raw, format=S16LE, rate=8000, channels=2", taker);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(taker.WaitEnd(), absl::OkStatus());
  uint64_t bytes = 0;
  for (const Frame& frame : taker.WaitFor(5)) bytes += frame.data.size();
  const uint64_t expected = 5 * 1024 / 6 * 4;
  EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(expected), 256);
}

TEST_F(GstKindTest, WhatTheSourceLeavesOutIsCountedAsOverrun) {
  const auto camera = Make(
      "gst:videotestsrc num-buffers=60 ! "
      "video/x-raw,width=16,height=16,framerate=500/1 ! "
      "identity drop-probability=0.4");
  CollectingTaker taker;
  auto source = camera->StartSource("", taker);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(taker.WaitEnd(), absl::OkStatus());
  const auto frames = taker.WaitFor(60);
  ASSERT_LT(frames.size(), 60u);
  // The first that came has no number before it to compare with, nor the last
  // after.
  const uint64_t gone = frames.back().overrun;
  EXPECT_GT(gone, 0u);
  EXPECT_LE(frames.size() + gone, 60u);
  const uint64_t first_ms = frames.front().pts_ns / (2 * kMillisecond);
  const uint64_t last_ms = frames.back().pts_ns / (2 * kMillisecond);
  EXPECT_EQ(gone, last_ms - first_ms + 1 - frames.size());
}

TEST_F(GstKindTest, AnElementThatFailsEndsTheStreamWithItsName) {
  const auto camera = Make(
      "gst:videotestsrc is-live=true ! "
      "video/x-raw,framerate=100/1,width=16,height=16 ! "
      "identity name=bad error-after=6");
  CollectingTaker taker;
  auto source = camera->StartSource("", taker);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto end = taker.WaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->code(), absl::StatusCode::kUnavailable) << *end;
  EXPECT_THAT(std::string(end->message()), HasSubstr("bad: "));
  EXPECT_TRUE(IsOneLine(*end));
}

TEST_F(GstKindTest, MistakesAreOneClearLine) {
  const auto missing = MakeDevice("gst:foosrc ! videoconvert", clock_);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(missing.status().message(),
            "no element \"foosrc\": is its plug-in installed?");
  for (const char* spec :
       {"gst:videotestsrc ! fakesink", "gst:videoconvert", "gst:", "gst:!!",
        "gst:videotestsrc patern=ball", "gst:audiotestsrc ! videoconvert"}) {
    const auto device = MakeDevice(spec, clock_);
    EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument)
        << spec;
    EXPECT_TRUE(IsOneLine(device.status())) << device.status();
  }
  const auto camera = Make(kCamera);
  CollectingTaker taker;
  const auto sound = camera->StartSource("audio/x-raw", taker);
  EXPECT_EQ(sound.status().code(), absl::StatusCode::kUnimplemented)
      << sound.status();
  EXPECT_THAT(std::string(sound.status().message()), HasSubstr("audio/x-raw"));
  EXPECT_EQ(camera->StartSource("!!", taker).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(camera->StartSink("").status().code(),
            absl::StatusCode::kUnimplemented);
}

TEST_F(GstKindTest, AnAbsentDeviceIsMadeAndSaysWhyItIsAbsent) {
  const auto file = Make("gst:filesrc location=/nonexistent/tripwire");
  CollectingTaker taker;
  const auto source = file->StartSource("", taker);
  EXPECT_EQ(source.status().code(), absl::StatusCode::kUnavailable)
      << source.status();
  EXPECT_TRUE(IsOneLine(source.status()));
  const auto camera = Make("gst:v4l2src device=/nonexistent/video");
  const DeviceInfo info = camera->Describe();
  EXPECT_FALSE(info.present);
  EXPECT_FALSE(info.why_absent.empty());
  EXPECT_FALSE(info.source_formats.empty());
}

TEST_F(GstKindTest, FormatsAreWhatCanBeAskedFor) {
  const DeviceInfo info = Make(kCamera)->Describe();
  EXPECT_TRUE(info.present);
  EXPECT_TRUE(info.many_formats);
  EXPECT_TRUE(info.sink_formats.empty());
  EXPECT_THAT(info.source_formats,
              Contains(HasSubstr("format=I420, width=64")));
  EXPECT_THAT(info.source_formats, Contains("video/x-raw"));
}

TEST_F(GstKindTest, OnlyElementsWithANameHaveControls) {
  EXPECT_TRUE(Make("gst:videotestsrc")->Controls()->empty());
  const auto camera = Make("gst:videotestsrc name=camera");
  const auto controls = *camera->Controls();
  const auto pattern = std::find_if(
      controls.begin(), controls.end(),
      [](const Control& control) { return control.name == "camera.pattern"; });
  ASSERT_NE(pattern, controls.end());
  EXPECT_EQ(pattern->value, "smpte");
  EXPECT_THAT(pattern->choices, Contains("ball"));
  EXPECT_TRUE(camera->SetControl("camera.pattern", "ball").ok());
  EXPECT_TRUE(camera->SetControl("camera.horizontal-speed", "3").ok());
  const auto after = *camera->Controls();
  EXPECT_EQ(after[static_cast<size_t>(pattern - controls.begin())].value,
            "ball");
  EXPECT_EQ(camera->SetControl("camera.pattern", "none such").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(camera->SetControl("camera.horizontal-speed", "99999999999").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(camera->SetControl("camera.none", "1").code(),
            absl::StatusCode::kNotFound);
}

TEST_F(GstKindTest, UsersCannotSendADeviceToAnotherFile) {
  const auto file = Make("gst:filesrc name=file location=/etc/hostname");
  EXPECT_EQ(file->SetControl("file.location", "/etc/shadow").code(),
            absl::StatusCode::kInvalidArgument);
  const auto descriptor = Make("gst:fdsrc name=descriptor fd=0");
  EXPECT_EQ(descriptor->SetControl("descriptor.fd", "3").code(),
            absl::StatusCode::kInvalidArgument);
}

Frame BytesFrame(const std::string& bytes) {
  Frame frame;
  frame.data = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  return frame;
}

TEST_F(GstKindTest, ASinkPlaysAllThatWasPutBeforeItDrained) {
  const std::string path =
      testing::TempDir() + "gst_kind_sink_" + std::to_string(getpid());
  const auto file = Make("gst:filesink location=" + path);
  auto sink = file->StartSink("");
  ASSERT_TRUE(sink.ok()) << sink.status();
  EXPECT_EQ((*sink)->format(), kByteStream);
  EXPECT_EQ(file->StartSink("").status().code(),
            absl::StatusCode::kFailedPrecondition);
  std::string expected;
  for (int i = 0; i < 200; ++i) {
    const std::string piece(1000, static_cast<char>('a' + i % 26));
    ASSERT_TRUE((*sink)->Put(BytesFrame(piece)).ok());
    expected += piece;
  }
  EXPECT_TRUE((*sink)->Drain().ok());
  sink->reset();
  std::ifstream in(path, std::ios::binary);
  const std::string written((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(written, expected);
  std::remove(path.c_str());
  EXPECT_TRUE(file->StartSink("").ok());
  std::remove(path.c_str());
}

TEST_F(GstKindTest, APictureSinkTakesWhatItMustConvert) {
  const auto screen = Make("gst:video/x-raw,format=RGB ! fakesink");
  auto sink = screen->StartSink(
      "video/x-raw, format=I420, width=32, height=24, framerate=30/1");
  ASSERT_TRUE(sink.ok()) << sink.status();
  EXPECT_EQ((*sink)->max_frame_bytes(), 32u * 24 * 3 / 2);
  const std::string picture(32 * 24 * 3 / 2, 'x');
  for (int i = 0; i < 5; ++i)
    EXPECT_TRUE((*sink)->Put(BytesFrame(picture)).ok());
  EXPECT_TRUE((*sink)->Drain().ok());
  EXPECT_EQ((*sink)->Put(BytesFrame(picture + "x")).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(screen->StartSource("", *std::make_unique<CollectingTaker>())
                .status()
                .code(),
            absl::StatusCode::kUnimplemented);
}

TEST_F(GstKindTest, APutThatWaitsForTheSinkCanBeCancelled) {
  const auto screen = Make("gst:fakesink sync=true");
  auto sink = screen->StartSink("application/octet-stream");
  ASSERT_TRUE(sink.ok()) << sink.status();
  const std::string bytes = "frame";
  std::thread canceller;
  absl::Status status;
  for (uint64_t i = 0; i < 100 && status.ok(); ++i) {
    Frame frame = BytesFrame(bytes);
    frame.pts_ns = i * 3600 * kSecond;  // an hour from each to the next
    if (i == 3) canceller = std::thread([&] { (*sink)->Cancel(); });
    status = (*sink)->Put(frame);
  }
  canceller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ((*sink)->Drain().code(), absl::StatusCode::kCancelled);
}

TEST_F(GstKindTest, ASinkThatFailsSaysSo) {
  const auto file = Make("gst:filesink location=/nonexistent/tripwire");
  auto sink = file->StartSink("");
  EXPECT_EQ(sink.status().code(), absl::StatusCode::kUnavailable)
      << sink.status();
  EXPECT_TRUE(IsOneLine(sink.status()));
}

}  // namespace
}  // namespace tripwire::periph
