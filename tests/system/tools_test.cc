// SPDX-License-Identifier: BSD-3-Clause
// The tw program beside running servers and mounts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <string>

#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ToolsTest : public ::testing::TestWithParam<Wire> {
 protected:
  ToolsTest() { share_.StartServer(); }
  Result Tw(Argv arguments, bool with_port) {
    arguments.insert(arguments.begin(), Program("tw"));
    if (with_port) {
      arguments.push_back("--port");
      arguments.push_back(share_.network().ClientPort(1));
    }
    return Execute(arguments, 40, share_.network().ClientNode(1));
  }
  Share share_{GetParam(), 2};
};

TEST_P(ToolsTest, LsNamesNodesAndServices) {
  const Result plain = Tw({"ls"}, true);
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_THAT(plain.out, HasSubstr("server"));
  EXPECT_THAT(plain.out, HasSubstr("fs"));
  const Result json = Tw({"ls", "--json"}, true);
  EXPECT_EQ(json.exit_code, 0) << json.err;
  EXPECT_THAT(json.out, HasSubstr("\"node\":\"server\""));
  EXPECT_THAT(json.out, HasSubstr("\"services\":[\"fs\"]"));
}

TEST_P(ToolsTest, PingTimesEachAnswer) {
  const Result result = Tw({"ping", "server", "-c", "3"}, true);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 4)
      << result.out;
  EXPECT_THAT(result.out, HasSubstr("3 asked, 3 answered, 0 % lost; "
                                    "round trip min "));
  const Result json = Tw({"ping", "server", "-c", "2", "--json"}, true);
  EXPECT_THAT(json.out, HasSubstr("\"asked\":2,\"answered\":2,"
                                  "\"loss_percent\":0,\"min_ns\":"));
  const Result nobody = Tw({"ping", "nobody", "-W", "0.5"}, true);
  EXPECT_EQ(nobody.exit_code, 1);
  EXPECT_THAT(nobody.err, HasSubstr("nobody"));
}

TEST_P(ToolsTest, PingEndsWithASummaryWhenInterrupted) {
  Argv command = {Program("tw"), "ping",   "server",
                  "-c",          "0",      "-i",
                  "0.01",        "--port", share_.network().ClientPort(1)};
  Process ping(command, share_.network().ClientNode(1));
  EXPECT_TRUE(Eventually(
      40, [&] { return ping.out().find("answered in") != std::string::npos; }));
  ping.Signal(SIGINT);
  EXPECT_EQ(ping.Wait(20), 0) << ping.err();
  EXPECT_THAT(ping.out(), HasSubstr(" asked, "));
  EXPECT_THAT(ping.out(), HasSubstr("mdev"));
}

TEST_P(ToolsTest, StatShowsEveryProgramAndForgetsTheDead) {
  Mount mount = share_.MountAs(0);
  WriteFile(mount / "file", "text");
  const Result json = Tw({"stat", "--json"}, false);
  EXPECT_EQ(json.exit_code, 0) << json.err;
  EXPECT_THAT(json.out, HasSubstr("\"program\":\"tw-fsd\""));
  EXPECT_THAT(json.out, HasSubstr("\"program\":\"tw-mount\""));
  EXPECT_THAT(json.out, HasSubstr("\"tripwires_fired\":"));
  EXPECT_THAT(json.out, Not(HasSubstr("\"rx_frames\":0,")));
  EXPECT_EQ(Tw({"stat", "--brief"}, false).exit_code, 0);
  // Both ends of the link, and what the server offers and watches.
  const Result server = Tw({"stat", "--json", "tw-fsd"}, false);
  EXPECT_THAT(server.out, HasSubstr("\"links\":{\"all\":1,"));
  EXPECT_THAT(server.out, HasSubstr("\"service\":\"fs\""));
  EXPECT_THAT(server.out, HasSubstr("\"state\":\"open\""));
  EXPECT_THAT(server.out, HasSubstr("\"way\":\"in-bound\""));
  EXPECT_THAT(server.out, HasSubstr("\"accesses\":"));
  const Result links = Tw({"stat", "--only", "links", "tw-mount"}, false);
  EXPECT_EQ(links.exit_code, 0) << links.err;
  EXPECT_THAT(links.out, HasSubstr("  links: 1\n"));
  EXPECT_THAT(links.out, HasSubstr("rtt us"));
  EXPECT_THAT(links.out, Not(HasSubstr("rx_frames")));
  const Result some = Tw({"stat", "--json", "--limit", "0", "tw-fsd"}, false);
  EXPECT_THAT(some.out, HasSubstr("\"links\":{\"all\":1,\"rows\":[]}"));
  EXPECT_THAT(Tw({"stat", "tw-fsd"}, false).out, Not(HasSubstr("tw-mount")));
  share_.CrashServer();
  EXPECT_THAT(Tw({"stat"}, false).out, Not(HasSubstr("tw-fsd")));
  EXPECT_EQ(mount.Stop(), 0);
  EXPECT_EQ(Tw({"stat"}, false).exit_code, 1);
}

INSTANTIATE_TEST_SUITE_P(
    Over, ToolsTest, ::testing::Values(Wire::kMemif, Wire::kEth, Wire::kXdp),
    WireName);

}  // namespace
}  // namespace tripwire::systest
