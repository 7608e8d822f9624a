// SPDX-License-Identifier: BSD-3-Clause
// chr: character devices and FIFOs.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/unit/periph/kinds/byte_devices.h"

namespace tripwire::periph {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CharacterTest : public ByteDeviceTest {
 protected:
  std::string Fifo(const std::string& name) {
    const std::string path = Path(name);
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    return path;
  }
};

TEST_F(CharacterTest, RandomNumbersComeInFramesOfTheSizeAskedFor) {
  auto device = Make("chr:/dev/urandom,frame=1000");
  EXPECT_THAT(device->Describe().description, HasSubstr("random"));
  ByteTaker taker;
  const uint64_t before_ns = clock_.NowNs();
  auto source = Start(*device, taker);
  EXPECT_EQ(source->format(), kByteStream);
  EXPECT_EQ(source->max_frame_bytes(), 1000u);
  const std::string bytes = taker.WaitFor(100'000);
  source.reset();
  EXPECT_EQ(taker.longest(), 1000u);
  const std::vector<uint64_t> times = taker.times();
  EXPECT_GE(times.front(), before_ns);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  // Frames must not share memory: 1000 bytes that came twice are no accident.
  EXPECT_NE(bytes.substr(0, 1000), bytes.substr(1000, 1000));
}

TEST_F(CharacterTest, NothingIsTakenAfterTheSourceIsGone) {
  auto device = Make("chr:/dev/zero,frame=64");
  ByteTaker taker;
  auto source = Start(*device, taker);
  taker.WaitForFrames(10);
  source.reset();
  const size_t frames = taker.frames();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(taker.frames(), frames);
}

TEST_F(CharacterTest, TheNullDeviceIsAtItsEndAndTakesAll) {
  auto device = Make("chr:/dev/null");
  ByteTaker taker;
  auto source = Start(*device, taker);
  EXPECT_TRUE(taker.WaitEnd().ok());
  auto sink = StartSink(*device);
  EXPECT_TRUE(sink->Put(FrameOf(ManyBytes(sink->max_frame_bytes()))).ok());
  EXPECT_TRUE(sink->Drain().ok());
}

TEST_F(CharacterTest, AFullDeviceSaysSo) {
  auto device = Make("chr:/dev/full");
  auto sink = StartSink(*device);
  const absl::Status status = sink->Put(FrameOf("x"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("/dev/full"));
}

TEST_F(CharacterTest, BytesPassAFifoBothWays) {
  const std::string path = Fifo("fifo");
  auto device = Make("chr:" + path);
  EXPECT_TRUE(device->Describe().present);
  ByteTaker taker;
  auto source = Start(*device, taker);
  auto sink = StartSink(*device);
  const std::string sent = ManyBytes(300'000);
  PutAll(*sink, sent, 50'000);
  EXPECT_EQ(taker.WaitFor(sent.size()), sent);
}

TEST_F(CharacterTest, AFifoOutlivesItsWritersUnlessAskedToEnd) {
  const std::string path = Fifo("fifo");
  auto device = Make("chr:" + path + ",ro");
  EXPECT_THAT(device->Describe().sink_formats, IsEmpty());
  ByteTaker taker;
  auto source = Start(*device, taker);
  for (const char* word : {"one ", "two ", "three"}) {
    const UniqueFd writer(::open(path.c_str(), O_WRONLY));
    WriteBytes(writer.get(), word);
  }
  EXPECT_EQ(taker.WaitFor(13), "one two three");
  source.reset();

  auto ending = Make("chr:" + path + ",eof");
  ByteTaker ending_taker;
  source = Start(*ending, ending_taker);
  { WriteBytes(UniqueFd(::open(path.c_str(), O_WRONLY)).get(), "all"); }
  EXPECT_TRUE(ending_taker.WaitEnd().ok());
  EXPECT_EQ(ending_taker.WaitFor(3), "all");
}

TEST_F(CharacterTest, AFullTakerHoldsUpTheDeviceAndLosesNothing) {
  const std::string path = Fifo("fifo");
  auto device = Make("chr:" + path + ",frame=4096");
  ByteTaker taker;
  taker.SetGate(false);
  auto source = Start(*device, taker);
  const UniqueFd writer(::open(path.c_str(), O_WRONLY | O_NONBLOCK));
  // Fill it: the FIFO holds some, the source takes one frame at most.
  std::string sent;
  const std::string piece = ManyBytes(4096);
  for (int refusals = 0; refusals < 3;) {
    if (::write(writer.get(), piece.data(), piece.size()) > 0) {
      sent += piece;
      ASSERT_LT(sent.size(), 10'000'000u) << "nothing held it up";
    } else {
      ++refusals;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  taker.SetGate(true);
  EXPECT_EQ(taker.WaitFor(sent.size()), sent);
}

TEST_F(CharacterTest, ASinkWaitsForRoomUntilItIsCancelled) {
  const std::string path = Fifo("fifo");
  const UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK));
  auto device = Make("chr:" + path);
  auto sink = StartSink(*device);
  const std::string much = ManyBytes(1 << 20);
  absl::Status status;
  std::thread putter([&] { status = sink->Put(FrameOf(much)); });
  const std::string first = ReadBytes(reader.get(), 200'000);
  EXPECT_EQ(first, much.substr(0, first.size()));
  sink->Cancel();
  putter.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  sink->Cancel();
  EXPECT_EQ(sink->Put(FrameOf("x")).code(), absl::StatusCode::kCancelled);
}

TEST_F(CharacterTest, AReaderThatGoesIsTheDeviceGoing) {
  const std::string path = Fifo("fifo");
  auto device = Make("chr:" + path);
  EXPECT_EQ(device->StartSink("").status().code(),
            absl::StatusCode::kUnavailable);
  UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK));
  auto sink = StartSink(*device);
  EXPECT_TRUE(sink->Put(FrameOf("x")).ok());
  reader.reset();
  EXPECT_EQ(sink->Put(FrameOf("x")).code(), absl::StatusCode::kUnavailable);
}

TEST_F(CharacterTest, ADeviceMayGoAndComeBack) {
  const std::string path = Path("later");
  auto device = Make("chr:" + path);
  DeviceInfo info = device->Describe();
  EXPECT_FALSE(info.present);
  EXPECT_THAT(info.why_absent, HasSubstr("No such file"));
  ByteTaker taker;
  EXPECT_EQ(device->StartSource("", taker).status().code(),
            absl::StatusCode::kUnavailable);

  Fifo("later");
  EXPECT_TRUE(device->Describe().present);
  auto source = Start(*device, taker);
  std::filesystem::remove(path);
  EXPECT_EQ(taker.WaitEnd().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(device->Describe().present);
  source.reset();

  Fifo("later");
  ByteTaker again;
  source = Start(*device, again);
  WriteBytes(UniqueFd(::open(path.c_str(), O_WRONLY)).get(), "back");
  EXPECT_EQ(again.WaitFor(4), "back");
}

TEST_F(CharacterTest, ALogInTheKernelsFormCountsWhatIsMissing) {
  const std::string path = Fifo("log");
  auto device = Make("chr:" + path + ",records");
  ByteTaker taker;
  auto source = Start(*device, taker);
  const UniqueFd writer(::open(path.c_str(), O_WRONLY));
  size_t frames = 0;
  for (const char* record : {"6,10,1,-;a\n", "6,11,1,-;b\n", "6,20,1,-;c\n"}) {
    WriteBytes(writer.get(), record);
    taker.WaitForFrames(++frames);  // one read gives one record
  }
  EXPECT_EQ(taker.frames(), 3u);
  EXPECT_EQ(taker.overrun(), 8u);
}

TEST_F(CharacterTest, TheKernelsLogComesRecordByRecord) {
  if (::access("/dev/kmsg", R_OK) != 0)
    GTEST_SKIP() << "/dev/kmsg may not be read here";
  auto device = Make("chr:/dev/kmsg,ro");
  EXPECT_THAT(device->Describe().description, HasSubstr("kernel's log"));
  ByteTaker taker;
  auto source = Start(*device, taker);
  const std::string records = taker.WaitForFrames(1);
  source.reset();
  EXPECT_THAT(records, ::testing::MatchesRegex("[0-9]+,[0-9]+,[0-9]+,.*;.*\n"));
  EXPECT_EQ(taker.overrun(), 0u);
}

TEST_F(CharacterTest, TheHardwareGeneratorIsReadAndNeverWritten) {
  auto device = Make("chr:/dev/hwrng");
  if (!device->Describe().present)
    GTEST_SKIP() << device->Describe().why_absent;
  EXPECT_THAT(device->Describe().description,
              HasSubstr("hardware random generator"));
  EXPECT_THAT(device->Describe().sink_formats, IsEmpty());
  EXPECT_EQ(device->StartSink("").status().code(),
            absl::StatusCode::kUnimplemented);
  ByteTaker taker;
  auto source = Start(*device, taker);
  const std::string bytes = taker.WaitFor(2048);
  source.reset();
  EXPECT_GE(bytes.size(), 2048u);
  EXPECT_NE(bytes.substr(0, 512), bytes.substr(512, 512));
}

TEST_F(CharacterTest, BadSpecsAreRefusedInOneLine) {
  for (const std::string spec :
       {"chr:", "chr:/dev/null,frame=0", "chr:/dev/null,frame=many",
        "chr:/dev/null,frame=99999999", "chr:/dev/null,colour=red",
        "chr:/dev/null,ro,wo", "chr:/dev/null,", "chr:/etc/passwd",
        "chr:/tmp"}) {
    const absl::Status status = WhyNot(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << spec;
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
    EXPECT_FALSE(status.message().empty());
  }
}

TEST_F(CharacterTest, OnlyByteStreamsAreToBeHad) {
  auto device = Make("chr:/dev/zero");
  ByteTaker taker;
  EXPECT_EQ(device->StartSource("video/x-raw", taker).status().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(device->StartSource("nonsense", taker).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(device->StartSource(kByteStream, taker).ok());
  EXPECT_THAT(device->Describe().source_formats, ElementsAre(kByteStream));
  auto writes_only = Make("chr:/dev/zero,wo");
  EXPECT_EQ(writes_only->StartSource("", taker).status().code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace tripwire::periph
