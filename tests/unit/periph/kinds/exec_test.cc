// SPDX-License-Identifier: BSD-3-Clause
// exec: programs as devices.
#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "tests/unit/periph/kinds/byte_devices.h"

namespace tripwire::periph {
namespace {

using ::testing::HasSubstr;

class ExecTest : public ByteDeviceTest {
 protected:
  // Whether the process with the number in a file still runs (a zombie does
  // not).
  static bool Runs(pid_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string text;
    std::getline(file, text);
    const size_t name_end = text.rfind(')');
    return name_end != std::string::npos && text.substr(name_end + 2, 1) != "Z";
  }
};

TEST_F(ExecTest, WhatGoesInComesOut) {
  auto device = Make("exec:cat");
  ByteTaker taker;
  auto source = Start(*device, taker);
  auto sink = StartSink(*device);
  const std::string bytes = ManyBytes(1'000'000);
  PutAll(*sink, bytes, 65'000);
  EXPECT_EQ(taker.WaitFor(bytes.size()), bytes);
  // Its input ends with the writer; then cat ends, and so does the stream.
  EXPECT_TRUE(sink->Drain().ok());
  EXPECT_TRUE(taker.WaitEnd().ok()) << taker.WaitEnd();
}

TEST_F(ExecTest, AProgramThatFailsEndsTheStreamWithItsStatus) {
  ByteTaker taker;
  auto device = Make("exec:echo some; exit 3");
  auto source = Start(*device, taker);
  EXPECT_EQ(taker.WaitEnd().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(taker.WaitEnd().message(), HasSubstr("exited with 3"));
  EXPECT_EQ(taker.WaitFor(5), "some\n");
  ByteTaker killed_taker;
  auto killed = Make("exec:kill -SEGV $$");
  auto killed_source = Start(*killed, killed_taker);
  EXPECT_THAT(killed_taker.WaitEnd().message(), HasSubstr("signal 11"));
}

TEST_F(ExecTest, AProgramRunsOnceForAllItsUsersAndAnewForTheNext) {
  auto device = Make("exec:echo run >> " + Path("log") + "; cat");
  const auto runs = [&] {
    std::ifstream file(Path("log"));
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  };
  EXPECT_EQ(runs(), 0) << "nobody uses it";
  ByteTaker taker;
  {
    auto source = Start(*device, taker);
    auto sink = StartSink(*device), other = StartSink(*device);
    ASSERT_TRUE(sink->Put(FrameOf("a")).ok());
    EXPECT_EQ(taker.WaitFor(1), "a");
    // One writer's end is not the others'.
    ASSERT_TRUE(sink->Drain().ok());
    sink.reset();
    ASSERT_TRUE(other->Put(FrameOf("b")).ok());
    EXPECT_EQ(taker.WaitFor(2), "ab");
  }
  EXPECT_EQ(runs(), 1);
  ByteTaker again;
  auto source = Start(*device, again);
  auto sink = StartSink(*device);
  ASSERT_TRUE(sink->Put(FrameOf("c")).ok());
  EXPECT_EQ(again.WaitFor(1), "c");
  EXPECT_EQ(runs(), 2);
}

TEST_F(ExecTest, ItsWholeGroupEndsWithTheLastUserAlsoIfItWillNot) {
  // The shell and the child both ignore SIGTERM.
  auto device = Make("exec:trap '' TERM; sleep 1000 & echo $$ $!; wait");
  ByteTaker taker;
  auto source = Start(*device, taker);
  ASSERT_TRUE(Eventually([&] { return taker.WaitFor(1).back() == '\n'; }));
  std::istringstream numbers(taker.WaitFor(1));
  pid_t shell = 0, child = 0;
  numbers >> shell >> child;
  ASSERT_TRUE(Runs(shell) && Runs(child));
  source.reset();
  EXPECT_TRUE(Eventually([&] { return !Runs(shell) && !Runs(child); }));
}

TEST_F(ExecTest, AProgramMayTidyUpWhenItIsEnded) {
  auto device = Make("exec:trap 'echo tidy > " + Path("tidy") +
                     "; exit' TERM; echo ready; while :; do sleep 0.05; done");
  ByteTaker taker;
  auto source = Start(*device, taker);
  taker.WaitFor(6);
  source.reset();
  EXPECT_TRUE(
      Eventually([&] { return std::filesystem::exists(Path("tidy")); }));
}

TEST_F(ExecTest, WhenAWriterFinishesTheProgramIsLeftToEnd) {
  auto device = Make("exec:cat > " + Path("copy") +
                     "; sleep 0.2; echo done >> " + Path("copy"));
  auto sink = StartSink(*device);
  ASSERT_TRUE(sink->Put(FrameOf("text ")).ok());
  EXPECT_TRUE(sink->Drain().ok());
  std::ifstream file(Path("copy"));
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), "text done\n");
}

TEST_F(ExecTest, AWriterLearnsThatTheProgramHasEnded) {
  auto device = Make("exec:exit 4");
  auto sink = StartSink(*device);
  absl::Status status;
  EXPECT_TRUE(
      Eventually([&] { return !(status = sink->Put(FrameOf("x"))).ok(); }));
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(Eventually([&] {
    status = sink->Drain();
    return absl::StrContains(status.message(), "exited with 4");
  })) << status;
}

TEST_F(ExecTest, AFullTakerHoldsUpTheProgram) {
  auto device = Make("exec:echo $$ > " + Path("pid") + "; exec yes");
  ByteTaker taker;
  taker.SetGate(false);
  auto source = Start(*device, taker);
  const auto written = [&] {
    std::ifstream pid_file(Path("pid"));
    std::string pid, word;
    pid_file >> pid;
    std::ifstream io("/proc/" + pid + "/io");
    uint64_t bytes = 0;
    while (io >> word) {
      if (word == "wchar:") io >> bytes;
    }
    return bytes;
  };
  uint64_t before = 0;
  EXPECT_TRUE(Eventually([&] {
    const uint64_t now = written();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return std::exchange(before, now) == now && now > 1000;
  })) << "nothing held it up";
  // What a pipe holds, and a frame or two.
  EXPECT_LT(before, 4 * 65536u);
  taker.SetGate(true);
  EXPECT_TRUE(Eventually([&] { return written() > before; }));
}

TEST_F(ExecTest, OutputNobodyReadsIsThrownAway) {
  auto device = Make("exec:head -c 1000000 /dev/zero; cat > " + Path("copy"));
  auto sink = StartSink(*device);
  ASSERT_TRUE(sink->Put(FrameOf("text")).ok());
  EXPECT_TRUE(sink->Drain().ok());
  std::ifstream file(Path("copy"));
  std::string text;
  file >> text;
  EXPECT_EQ(text, "text");
}

TEST_F(ExecTest, ErrorsGoToTheLogLineByLine) {
  const auto before = spdlog::default_logger();
  std::ostringstream log;
  auto to_string = std::make_shared<spdlog::sinks::ostream_sink_mt>(log);
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("test", to_string));
  {
    auto device = Make(R"(exec:printf 'one\n\033[31mtwo\nthree' >&2)");
    ByteTaker taker;
    auto source = Start(*device, taker);
    EXPECT_TRUE(taker.WaitEnd().ok());
    source.reset();
  }
  spdlog::set_default_logger(before);
  EXPECT_THAT(log.str(), HasSubstr(": one\n"));
  EXPECT_THAT(log.str(), HasSubstr(": ?[31mtwo\n"));
  EXPECT_THAT(log.str(), HasSubstr(": three\n"));
}

TEST_F(ExecTest, AProgramStartsWithSignalsAsUsualAndNoStrangeDescriptors) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  auto device =
      Make("exec:ls /proc/self/fd; grep -E 'SigBlk|SigIgn' /proc/self/status");
  ByteTaker taker;
  auto source = Start(*device, taker);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_TRUE(taker.WaitEnd().ok());
  // 3 is what ls itself opened.
  // The C library keeps signals 32 and 33 to itself.
  EXPECT_THAT(taker.WaitFor(1),
              ::testing::MatchesRegex("0\n1\n2\n3\nSigBlk:\t0+\n"
                                      "SigIgn:\t0+[0-9]?[08]0000000\n"));
}

TEST_F(ExecTest, ACommandMustBeThere) {
  EXPECT_EQ(WhyNot("exec:").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WhyNot("exec:  ").code(), absl::StatusCode::kInvalidArgument);
  auto device = Make("exec:no-such-command-here");
  ByteTaker taker;
  auto source = Start(*device, taker);
  EXPECT_THAT(taker.WaitEnd().message(), HasSubstr("exited with 127"));
}

}  // namespace
}  // namespace tripwire::periph
