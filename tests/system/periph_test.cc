// SPDX-License-Identifier: BSD-3-Clause
// Devices offered by one process and used by others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "tests/system/harness/devices.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr double kSoon = 60;

using PeriphTest = DeviceTest;

// One line that says it, and the exit code.
void ExpectError(const Result& result, int code, const std::string& what) {
  EXPECT_EQ(result.exit_code, code) << result.err;
  ExpectOneLine(result, what);
}

TEST_P(PeriphTest, LsAndInfoTellWhatThereIs) {
  server_.Start({"pat=pattern:bytes=64", "gone=chr:" + server_.Path("none")},
                {"--access", "pat=ro"});
  const Result plain = server_.Run({"ls"});
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_THAT(plain.out, HasSubstr("server:pat"));
  EXPECT_THAT(plain.out, HasSubstr("absent"));
  const Result json = server_.Run({"ls", "server", "--json"});
  EXPECT_THAT(json.out, HasSubstr("\"device\":\"pat\",\"kind\":\"pattern\""));
  EXPECT_THAT(json.out, HasSubstr("\"read_only\":true"));
  const Result info = server_.Run({"info", "server:pat"});
  EXPECT_EQ(info.exit_code, 0) << info.err;
  EXPECT_THAT(info.out, HasSubstr("application/octet-stream"));
}

TEST_P(PeriphTest, CatGivesEveryByteOfAProgram) {
  const std::string content = RandomBytes(7, 8 << 20);
  WriteFile(server_.Path("data"), content);
  server_.Start({"data=exec:cat " + server_.Path("data")});
  for (int round = 0; round < 2; ++round) {
    const Result result = server_.Run({"cat", ":data"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out.size(), content.size());
    EXPECT_TRUE(result.out == content);
    EXPECT_THAT(result.err, IsEmpty());
  }
}

TEST_P(PeriphTest, CatTakesStandardInputToAProgram) {
  const std::string content = RandomBytes(8, 1 << 20);
  const std::string from = server_.Path("from"), to = server_.Path("to");
  WriteFile(from, content);
  server_.Start({"data=exec:cat > " + to});
  const Result result =
      server_.RunLine("exec " + Quoted(server_.Command({"cat", "--to", ":data"})) + "< " + from);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(Eventually(kSoon, [&] { return Exists(to) && ReadFile(to) == content; }));
}

TEST_P(PeriphTest, ManyUsersGetTheSameFrames) {
  server_.Start({"pat=pattern:bytes=64,rate=200"});
  const Argv cat = {"cat", ":pat", "-n", "100", "--policy", "drop-oldest"};
  Process first = server_.Begin(cat, 0), second = server_.Begin(cat, 1);
  EXPECT_EQ(first.Wait(kSoon), 0) << first.err();
  EXPECT_EQ(second.Wait(kSoon), 0) << second.err();
  EXPECT_EQ(first.out().size(), 6400u);
  EXPECT_EQ(second.out().size(), 6400u);
}

TEST_P(PeriphTest, AReaderThatGoesEndsCatInSilence) {
  server_.Start({"pat=pattern:bytes=4096,rate=0"});
  const Result result = server_.RunLine(Quoted(server_.Command({"cat", ":pat"})) +
                                        "| head -c 100000 | wc -c; echo ${PIPESTATUS[0]}");
  EXPECT_EQ(result.out, "100000\n0\n");
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_P(PeriphTest, SignalsEndBothSidesCleanly) {
  server_.Start({"pat=pattern:bytes=64,rate=100"});
  for (const int signal : {SIGINT, SIGTERM}) {
    Process cat = server_.Begin({"cat", ":pat"});
    ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
    cat.Signal(signal);
    EXPECT_EQ(cat.Wait(kSoon), 0) << cat.err();
    EXPECT_THAT(cat.err(), IsEmpty());
  }
  Process cat = server_.Begin({"cat", ":pat"});
  ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
  server_.process().Signal(SIGTERM);
  EXPECT_EQ(server_.process().Wait(kSoon), 0) << server_.process().err();
}

TEST_P(PeriphTest, AUserRidesThroughACrashOfTheServer) {
  server_.Start({"pat=pattern:bytes=64,rate=100"});
  Process cat = server_.Begin({"cat", "server:pat", "-q"});
  ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
  server_.Crash();
  server_.Start({"pat=pattern:bytes=64,rate=100"});
  const size_t before = cat.out().size();
  EXPECT_TRUE(Eventually(kSoon, [&] { return cat.out().size() > before + 640; })) << cat.err();
  EXPECT_TRUE(cat.Running());
  EXPECT_EQ(cat.out().size() % 64, 0u);
}

// Somebody who is silent when the server goes has his device back before he has a word to say.
TEST_P(PeriphTest, ASilentUserOfASinkRidesThroughACrashOfTheServer) {
  const std::string from = server_.Path("from"), to = server_.Path("to");
  ASSERT_EQ(::mkfifo(from.c_str(), 0600), 0);
  const Argv device = {"data=exec:cat > " + to};
  server_.Start(device);
  Process cat = server_.BeginLine(
      "exec " + Quoted(server_.Command({"cat", "--to", "--exclusive", ":data"})) + " < " + from);
  const UniqueFd words(::open(from.c_str(), O_WRONLY | O_CLOEXEC));
  const auto is_used = [&] {
    return server_.Run({"info", ":data"}, kSoon, 1).out.find("tw-periph cat") != std::string::npos;
  };
  ASSERT_TRUE(Eventually(kSoon, is_used)) << cat.err();
  server_.Crash();
  server_.Start(device);
  ASSERT_TRUE(Eventually(kSoon, is_used)) << cat.err();
  const std::string content = RandomBytes(9, 10'000);
  ASSERT_EQ(::write(words.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  EXPECT_TRUE(Eventually(kSoon, [&] { return Exists(to) && ReadFile(to) == content; }));
  EXPECT_TRUE(cat.Running()) << cat.err();
}

TEST_P(PeriphTest, AUserThatCrashesFreesTheDevice) {
  server_.Start({"pat=pattern:bytes=64,rate=100"}, {"--access", "pat=exclusive"});
  Process cat = server_.Begin({"cat", ":pat"});
  ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
  ExpectError(server_.Run({"cat", ":pat", "-n", "1"}, kSoon, 1), 1, "busy");
  cat.Kill();
  Result next;
  EXPECT_TRUE(Eventually(kSoon, [&] {
    next = server_.Run({"cat", ":pat", "-n", "1"}, kSoon, 1);
    return next.exit_code == 0;
  })) << next.err;
}

TEST_P(PeriphTest, ControlsAndStatisticsAreShown) {
  server_.Start({"pat=pattern:bytes=64,rate=500"});
  const Result controls = server_.Run({"ctl", ":pat"});
  EXPECT_EQ(controls.exit_code, 0) << controls.err;
  EXPECT_THAT(controls.out, HasSubstr("checked"));
  ExpectError(server_.Run({"ctl", ":pat", "none=1"}), 1, "none");
  const Result stat = server_.Run({"stat", ":pat", "--json", "-n", "2", "-i", "0.5"});
  EXPECT_EQ(stat.exit_code, 0) << stat.err;
  EXPECT_THAT(stat.out, HasSubstr("\"latency\":{\"p50_ns\":"));
  EXPECT_THAT(stat.out, HasSubstr("\"lost\":0"));
  Process cat = server_.Begin({"cat", ":pat"});
  ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
  // It has the device for itself, so others only look.
  EXPECT_EQ(server_.Run({"ctl", ":pat"}, kSoon, 1).out.empty(), false);
  ExpectError(server_.Run({"ctl", ":pat", "checked=1"}, kSoon, 1), 1, "(tw-periph cat) has it for itself");
  const Result streams = server_.Run({"stat", "server:", "--json", "-n", "1"}, kSoon, 1);
  EXPECT_EQ(streams.exit_code, 0) << streams.err;
  EXPECT_THAT(streams.out, HasSubstr("\"program\":\"tw-periph cat\""));
  EXPECT_THAT(streams.out, HasSubstr("\"policy\":\"block\""));
}

TEST_P(PeriphTest, MistakesAreOneLine) {
  server_.Start({"pat=pattern:bytes=64", "other=pattern:"},
                {"--access", "pat=ro", "--access", "other=node=friend"});
  ExpectError(server_.Run({"cat", ":none"}), 1, "none");
  ExpectError(server_.Run({"cat", "nobody:pat"}), 1, "nobody");
  ExpectError(server_.Run({"cat", "pat"}), 2, "NODE:NAME");
  ExpectError(server_.Run({"cat", ":pat", "--format", "video/x-raw"}), 1, "octet-stream");
  ExpectError(server_.Run({"cat", ":other"}), 1, "not for node");
  ExpectError(server_.Run({"ctl", ":pat", "checked=1"}), 1, "read-only");
  ExpectError(server_.Run({"ctl", ":pat", "checked"}), 2, "NAME=VALUE");
  ExpectError(server_.Run({"info", ":none"}), 1, "none");
}

INSTANTIATE_TEST_SUITE_P(Over, PeriphTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth, Wire::kFaultyMemif), WireName);

TEST(PeriphServerTest, MistakesAreOneLine) {
  const auto serve = [](const Argv& arguments) {
    Argv command = {Program("tw-periphd")};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return Execute(command, kSoon);
  };
  ExpectError(serve({}), 2, "--device");
  ExpectError(serve({"--device", "cam"}), 2, "NAME=");
  ExpectError(serve({"--device", "a b=pattern:"}), 2, "a b");
  ExpectError(serve({"--device", "cam=nokind:x"}), 2, "nokind");
  ExpectError(serve({"--device", "cam=pattern:bytes=x"}), 2, "bytes=x");
  ExpectError(serve({"--device", "cam=pattern:", "--device", "cam=pattern:"}), 2, "cam");
  ExpectError(serve({"--device", "cam=pattern:", "--access", "other=ro"}), 2, "other");
  ExpectError(serve({"--device", "cam=pattern:", "--access", "cam=rw"}), 2, "rw");
  ExpectError(serve({"--device", "cam=pattern:", "--port", "nonsense"}), 2, "nonsense");
  const Result kinds = serve({"--list-kinds"});
  EXPECT_EQ(kinds.exit_code, 0);
  for (const char* kind : {"gst:", "x11:", "chr:", "tty:", "blk:", "exec:", "pattern:"}) {
    EXPECT_THAT(kinds.out, HasSubstr(kind));
  }
  EXPECT_THAT(serve({"--help"}).out, HasSubstr("exec:COMMAND"));
}

}  // namespace
}  // namespace tripwire::systest
