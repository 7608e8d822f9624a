// SPDX-License-Identifier: BSD-3-Clause
// Frames written to files and pipes, read back by their file types' rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "periph/media/media_writer.h"

namespace tripwire::periph {
namespace {

using testing::StartsWith;

constexpr char kVideo[] =
    "video/x-raw, format=I420, width=16, height=8, framerate=25/1";
constexpr char kSound[] =
    "audio/x-raw, format=S16LE, layout=interleaved, rate=8000, channels=1";
constexpr size_t kPictureBytes = 16 * 8 * 3 / 2;

class MediaWriterTest : public testing::Test {
 protected:
  MediaWriterTest()
      : directory_(testing::TempDir() + "media_writer_" +
                   std::to_string(getpid())) {
    std::filesystem::create_directories(directory_);
  }
  ~MediaWriterTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const {
    return directory_ + "/" + name;
  }
  static std::string Read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void PutAll(absl::StatusOr<std::unique_ptr<Sink>> sink, int count,
                     size_t bytes) {
    ASSERT_TRUE(sink.ok()) << sink.status();
    for (int i = 0; i < count; ++i) {
      const std::string data(bytes, static_cast<char>('0' + i));
      Frame frame;
      frame.data = {reinterpret_cast<const uint8_t*>(data.data()), data.size()};
      frame.pts_ns = 1'000'000'000 + static_cast<uint64_t>(i) * 40'000'000;
      frame.duration_ns = 40'000'000;
      frame.flags = kKeyFrame;
      ASSERT_TRUE((*sink)->Put(frame).ok());
    }
    EXPECT_TRUE((*sink)->Drain().ok());
  }

  const std::string directory_;
};

TEST_F(MediaWriterTest, VideoIsY4m) {
  PutAll(WriteToFile(kVideo, Path("v.y4m")), 3, kPictureBytes);
  const std::string file = Read(Path("v.y4m"));
  EXPECT_THAT(file, StartsWith("YUV4MPEG2 "));
  const std::string header = file.substr(0, file.find('\n'));
  EXPECT_THAT(header, testing::HasSubstr("W16 H8"));
  EXPECT_THAT(header, testing::HasSubstr("F25:1"));
  EXPECT_EQ(file.size(),
            header.size() + 1 + 3 * (std::strlen("FRAME\n") + kPictureBytes));
  EXPECT_EQ(file.substr(file.size() - kPictureBytes),
            std::string(kPictureBytes, '2'));
}

TEST_F(MediaWriterTest, SoundIsWavWithItsLength) {
  PutAll(WriteToFile(kSound, Path("s.wav")), 4, 1000);
  const std::string file = Read(Path("s.wav"));
  ASSERT_GT(file.size(), 4000u);
  EXPECT_THAT(file, StartsWith("RIFF"));
  uint32_t riff = 0;
  std::memcpy(&riff, file.data() + 4, 4);
  EXPECT_EQ(riff, file.size() - 8);
}

TEST_F(MediaWriterTest, BytesStayAsTheyAre) {
  PutAll(WriteToFile("application/octet-stream", Path("b.raw")), 3, 5);
  EXPECT_EQ(Read(Path("b.raw")), "000001111122222");
  PutAll(WriteToFile(kVideo, Path("v.raw")), 2, kPictureBytes);
  EXPECT_EQ(Read(Path("v.raw")).size(), 2 * kPictureBytes);
}

TEST_F(MediaWriterTest, ContainersHoldWhatWasPut) {
  PutAll(WriteToFile(kVideo, Path("v.mkv")), 5, kPictureBytes);
  EXPECT_THAT(Read(Path("v.mkv")), StartsWith("\x1a\x45\xdf\xa3"));
  EXPECT_GT(Read(Path("v.mkv")).size(), 5 * kPictureBytes);
  PutAll(WriteToFile(kVideo, Path("v.avi")), 5, kPictureBytes);
  EXPECT_THAT(Read(Path("v.avi")), StartsWith("RIFF"));
  PutAll(WriteToFile(kSound, Path("s.mkv")), 5, 1000);
  EXPECT_GT(Read(Path("s.mkv")).size(), 5000u);
}

TEST_F(MediaWriterTest, PicturesAreOneOrNumbered) {
  EXPECT_TRUE(TakesOnePicture("a.png"));
  EXPECT_FALSE(TakesOnePicture("a%03d.png"));
  EXPECT_FALSE(TakesOnePicture("a.mkv"));
  PutAll(WriteToFile(kVideo, Path("p.png")), 1, kPictureBytes);
  EXPECT_THAT(Read(Path("p.png")), StartsWith("\x89PNG"));
  PutAll(WriteToFile(kVideo, Path("n%02d.png")), 3, kPictureBytes);
  EXPECT_THAT(Read(Path("n02.png")), StartsWith("\x89PNG"));
  for (const char* name :
       {"%s.png", "%n.png", "%d%d.png", "%.png", "%99999d.png"}) {
    EXPECT_EQ(WriteToFile(kVideo, Path(name)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << name;
  }
}

TEST_F(MediaWriterTest, BytesAreY4mWhateverTheRawFormat) {
  std::string got;
  PutAll(WriteToBytes(
             "video/x-raw, format=RGB, width=16, height=8, framerate=25/1",
             [&got](std::span<const uint8_t> bytes) {
               got.append(bytes.begin(), bytes.end());
               return true;
             }),
         5, 16 * 8 * 3);
  EXPECT_THAT(got, StartsWith("YUV4MPEG2 "));
  size_t frames = 0;
  for (size_t at = 0; (at = got.find("FRAME\n", at)) != std::string::npos; ++at)
    ++frames;
  EXPECT_EQ(frames, 5u);
}

TEST_F(MediaWriterTest, AReaderThatHasGoneEndsItAndHoldsNobodyUp) {
  auto sink =
      WriteToBytes(kVideo, [](std::span<const uint8_t>) { return false; });
  ASSERT_TRUE(sink.ok()) << sink.status();
  const std::vector<uint8_t> picture(kPictureBytes);
  Frame frame;
  frame.data = picture;
  absl::Status status;
  for (int i = 0; i < 1000 && status.ok(); ++i) status = (*sink)->Put(frame);
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  auto full = WriteToBytes(kVideo, [](std::span<const uint8_t>) {
    return absl::StatusOr<bool>(absl::ResourceExhaustedError("no space"));
  });
  ASSERT_TRUE(full.ok()) << full.status();
  status = absl::OkStatus();
  for (int i = 0; i < 1000 && status.ok(); ++i) status = (*full)->Put(frame);
  EXPECT_EQ(status.message(), "no space");
}

TEST_F(MediaWriterTest, MistakesAreSaid) {
  EXPECT_EQ(WriteToFile(kSound, Path("s.png")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteToFile(kVideo, Path("v.wav")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteToFile("!!", Path("x")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(WriteToFile(kVideo, "/nonexistent/v.y4m").ok());
  // A name is a name, not elements.
  PutAll(
      WriteToFile("application/octet-stream", Path("a\" ! fakesink name=\"b")),
      1, 3);
  EXPECT_EQ(Read(Path("a\" ! fakesink name=\"b")), "000");
}

}  // namespace
}  // namespace tripwire::periph
