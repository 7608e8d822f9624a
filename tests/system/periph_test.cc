// SPDX-License-Identifier: BSD-3-Clause
// Devices offered by one process and used by others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "tests/system/harness/network.h"
#include "tests/system/harness/process.h"
#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr double kSoon = 60;

class PeriphTest : public ::testing::TestWithParam<Wire> {
 protected:
  PeriphTest() : network_(GetParam(), temp_.path(), 2) {}
  ~PeriphTest() override {
    if (HasFailure()) std::cerr << "--- tw-periphd:\n" << Tail(server_.err());
  }

  void Start(const Argv& arguments) {
    Argv command = {Program("tw-periphd"), "--node", "lab", "--port", network_.ServerPort()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    server_ = Process(command, network_.ServerNode());
    ASSERT_TRUE(Eventually(kSoon, [&] {
      return server_.err().find("ready") != std::string::npos || !server_.Running();
    }));
    ASSERT_TRUE(server_.Running()) << server_.err();
  }
  Argv Command(Argv arguments, int client = 0) {
    arguments.insert(arguments.begin(), Program("tw-periph"));
    arguments.push_back("--port");
    arguments.push_back(network_.ClientPort(client));
    return arguments;
  }
  Result Use(const Argv& arguments, int client = 0) {
    return Execute(Command(arguments, client), kSoon, network_.ClientNode(client));
  }
  Process UseOn(const Argv& arguments, int client = 0) {
    return Process(Command(arguments, client), network_.ClientNode(client));
  }

  TempDir temp_;
  Network network_;
  Process server_;
};

// One line that says it, and the exit code.
void ExpectError(const Result& result, int code, const std::string& what) {
  EXPECT_EQ(result.exit_code, code) << result.err;
  EXPECT_THAT(result.err, HasSubstr(what));
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
}

TEST_P(PeriphTest, LsAndInfoTellWhatThereIs) {
  Start({"--device", "pat=pattern:bytes=64", "--device", "gone=chr:" + temp_.path() + "/none",
         "--access", "pat=ro"});
  const Result plain = Use({"ls"});
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_THAT(plain.out, HasSubstr("lab:pat"));
  EXPECT_THAT(plain.out, HasSubstr("absent"));
  const Result json = Use({"ls", "lab", "--json"});
  EXPECT_THAT(json.out, HasSubstr("\"device\":\"pat\",\"kind\":\"pattern\""));
  EXPECT_THAT(json.out, HasSubstr("\"read_only\":true"));
  const Result info = Use({"info", "lab:pat"});
  EXPECT_EQ(info.exit_code, 0) << info.err;
  EXPECT_THAT(info.out, HasSubstr("application/octet-stream"));
}

TEST_P(PeriphTest, CatGivesEveryByteOfAProgram) {
  const std::string content = RandomBytes(7, 8 << 20);
  WriteFile(temp_.path() + "/data", content);
  Start({"--device", "data=exec:cat " + temp_.path() + "/data"});
  for (int round = 0; round < 2; ++round) {
    const Result result = Use({"cat", ":data"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out.size(), content.size());
    EXPECT_TRUE(result.out == content);
    EXPECT_THAT(result.err, IsEmpty());
  }
}

TEST_P(PeriphTest, CatTakesStandardInputToAProgram) {
  const std::string content = RandomBytes(8, 1 << 20);
  const std::string from = temp_.path() + "/from", to = temp_.path() + "/to";
  WriteFile(from, content);
  Start({"--device", "data=exec:cat > " + to});
  const Argv cat = Command({"cat", "--to", ":data"});
  std::string line = "exec";
  for (const std::string& word : cat) line += " '" + word + "'";
  const Result result = Execute({"sh", "-c", line + " < " + from}, kSoon, network_.ClientNode(0));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(Eventually(kSoon, [&] { return Exists(to) && ReadFile(to) == content; }));
}

TEST_P(PeriphTest, ManyUsersGetTheSameFrames) {
  Start({"--device", "pat=pattern:bytes=64,rate=200"});
  const Argv cat = {"cat", ":pat", "-n", "100", "--policy", "drop-oldest"};
  Process first = UseOn(cat, 0), second = UseOn(cat, 1);
  EXPECT_EQ(first.Wait(kSoon), 0) << first.err();
  EXPECT_EQ(second.Wait(kSoon), 0) << second.err();
  EXPECT_EQ(first.out().size(), 6400u);
  EXPECT_EQ(second.out().size(), 6400u);
}

TEST_P(PeriphTest, AReaderThatGoesEndsCatInSilence) {
  Start({"--device", "pat=pattern:bytes=4096,rate=0"});
  std::string line;
  for (const std::string& word : Command({"cat", ":pat"})) line += " '" + word + "'";
  const Result result = Execute({"bash", "-c",
                                 line + " | head -c 100000 | wc -c; "
                                        "echo ${PIPESTATUS[0]}"},
                                kSoon, network_.ClientNode(0));
  EXPECT_EQ(result.out, "100000\n0\n");
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_P(PeriphTest, SignalsEndBothSidesCleanly) {
  Start({"--device", "pat=pattern:bytes=64,rate=100"});
  for (const int signal : {SIGINT, SIGTERM}) {
    Process cat = UseOn({"cat", ":pat"});
    ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
    cat.Signal(signal);
    EXPECT_EQ(cat.Wait(kSoon), 0) << cat.err();
    EXPECT_THAT(cat.err(), IsEmpty());
  }
  Process cat = UseOn({"cat", ":pat"});
  ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
  server_.Signal(SIGTERM);
  EXPECT_EQ(server_.Wait(kSoon), 0) << server_.err();
}

TEST_P(PeriphTest, AUserRidesThroughACrashOfTheServer) {
  Start({"--device", "pat=pattern:bytes=64,rate=100"});
  Process cat = UseOn({"cat", "lab:pat", "-q"});
  ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
  server_.Kill();
  Start({"--device", "pat=pattern:bytes=64,rate=100"});
  const size_t before = cat.out().size();
  EXPECT_TRUE(Eventually(kSoon, [&] { return cat.out().size() > before + 640; })) << cat.err();
  EXPECT_TRUE(cat.Running());
  EXPECT_EQ(cat.out().size() % 64, 0u);
}

TEST_P(PeriphTest, AUserThatCrashesFreesTheDevice) {
  Start({"--device", "pat=pattern:bytes=64,rate=100", "--access", "pat=exclusive"});
  Process cat = UseOn({"cat", ":pat"});
  ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
  ExpectError(Use({"cat", ":pat", "-n", "1"}, 1), 1, "busy");
  cat.Kill();
  EXPECT_TRUE(Eventually(kSoon, [&] { return Use({"cat", ":pat", "-n", "1"}, 1).exit_code == 0; }));
}

TEST_P(PeriphTest, ControlsAndStatisticsAreShown) {
  Start({"--device", "pat=pattern:bytes=64,rate=500"});
  const Result controls = Use({"ctl", ":pat"});
  EXPECT_EQ(controls.exit_code, 0) << controls.err;
  EXPECT_THAT(controls.out, HasSubstr("checked"));
  ExpectError(Use({"ctl", ":pat", "none=1"}), 1, "none");
  const Result stat = Use({"stat", ":pat", "--json", "-n", "2", "-i", "0.5"});
  EXPECT_EQ(stat.exit_code, 0) << stat.err;
  EXPECT_THAT(stat.out, HasSubstr("\"latency\":{\"p50_ns\":"));
  EXPECT_THAT(stat.out, HasSubstr("\"lost\":0"));
  Process cat = UseOn({"cat", ":pat"});
  ASSERT_TRUE(Eventually(kSoon, [&] { return !cat.out().empty(); })) << cat.err();
  const Result streams = Use({"stat", "lab:", "--json", "-n", "1"}, 1);
  EXPECT_EQ(streams.exit_code, 0) << streams.err;
  EXPECT_THAT(streams.out, HasSubstr("\"program\":\"tw-periph cat\""));
  EXPECT_THAT(streams.out, HasSubstr("\"policy\":\"block\""));
}

TEST_P(PeriphTest, MistakesAreOneLine) {
  Start({"--device", "pat=pattern:bytes=64", "--device", "other=pattern:", "--access", "pat=ro",
         "--access", "other=node=friend"});
  ExpectError(Use({"cat", ":none"}), 1, "none");
  ExpectError(Use({"cat", "nobody:pat"}), 1, "nobody");
  ExpectError(Use({"cat", "pat"}), 2, "NODE:NAME");
  ExpectError(Use({"cat", ":pat", "--format", "video/x-raw"}), 1, "octet-stream");
  ExpectError(Use({"cat", ":other"}), 1, "not for node");
  ExpectError(Use({"ctl", ":pat", "checked=1"}), 1, "read-only");
  ExpectError(Use({"ctl", ":pat", "checked"}), 2, "NAME=VALUE");
  ExpectError(Use({"info", ":none"}), 1, "none");
}

INSTANTIATE_TEST_SUITE_P(Over, PeriphTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth, Wire::kFaultyMemif),
                         [](const auto& info) { return std::string(Name(info.param)); });

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
