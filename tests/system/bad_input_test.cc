// SPDX-License-Identifier: BSD-3-Clause
// Every mistake a user makes gets one clear line and a non-zero exit.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

// Ends by itself with an error: one line on stderr, which mentions `about`.
void ExpectOneLine(const Argv& argv, const std::string& about,
                   const SpawnOptions& options = {}) {
  std::string command;
  for (const std::string& argument : argv)
    command += argument.substr(0, 60) + " ";
  SCOPED_TRACE(command);
  const Result result = Execute(argv, 40, options);
  EXPECT_NE(result.exit_code, -1) << "still running";
  EXPECT_NE(result.exit_code, 0);
  EXPECT_LT(result.exit_code, 126) << "crashed";
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err, "");
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1)
      << result.err;
  EXPECT_NE(result.err.find(about), std::string::npos)
      << "should mention " << about << ": " << result.err;
}

class BadInputTest : public ::testing::Test {
 protected:
  BadInputTest() { point_ = share_.temp().Make("point"); }
  Argv MountWith(const std::string& what, const std::string& where,
                 const std::string& port) {
    return {Program("tw-mount"), what, where, "-f", "--port", port};
  }
  std::string ClientPort() { return share_.network().ClientPort(0); }
  Share share_{Wire::kMemif, 1};
  std::string point_;
};

TEST_F(BadInputTest, OfTheMount) {
  share_.StartServer();
  ExpectOneLine(MountWith("nobody:data", point_, ClientPort()), "nobody");
  ExpectOneLine(MountWith("server:nothing", point_, ClientPort()), "nothing");
  ExpectOneLine(MountWith("server:data", point_ + "/missing", ClientPort()),
                "missing");
  ExpectOneLine(MountWith("no colon", point_, ClientPort()), "no colon");
  WriteFile(point_ + "-file", "");
  ExpectOneLine(MountWith("server:data", point_ + "-file", ClientPort()),
                point_ + "-file");
  ExpectOneLine({Program("tw-mount"), "server:data", point_, "-f", "--port",
                 ClientPort(), "-o", "nonsense=1"},
                "nonsense");
  ExpectOneLine({Program("tw-mount"), "server:data", point_, "-f", "--port",
                 ClientPort(), "-o", "timeo=soon"},
                "timeo");
  EXPECT_EQ(MountedType(point_), "");

  Mount mount = share_.MountAs(0);
  WriteFile(mount / "file", "kept");
  ExpectOneLine(MountWith("server:data", mount.path(), ClientPort()),
                mount.path());
  EXPECT_EQ(ReadFile(mount / "file"), "kept");
}

TEST_F(BadInputTest, OfTheServer) {
  const std::string root = share_.root();
  const std::string port = share_.network().ServerPort();
  const std::string fsd = Program("tw-fsd");
  ExpectOneLine({fsd, "--port", port}, "--export");
  ExpectOneLine({fsd, "--port", port, "--export", "data"}, "data");
  ExpectOneLine({fsd, "--port", port, "--export", "data=/no/such/directory"},
                "/no/such/directory");
  ExpectOneLine({fsd, "--port", port, "--export", "data=/etc/passwd"},
                "/etc/passwd");
  ExpectOneLine(
      {fsd, "--port", port, "--export", "data=" + root + ",squash=some"},
      "squash");
  ExpectOneLine(
      {fsd, "--port", port, "--export", "data=" + root + ",frobnicate"},
      "frobnicate");
  ExpectOneLine({fsd, "--port", port, "--export", "data=" + root, "--export",
                 "data=" + root},
                "data");
  ExpectOneLine({fsd, "--port", port, "--export", "data=" + root, "--bogus"},
                "bogus");
}

TEST_F(BadInputTest, OfThePorts) {
  const std::string fsd = Program("tw-fsd");
  const std::string data = "data=" + share_.root();
  const std::string missing = share_.temp().path() + "/missing/nic.sock";
  ExpectOneLine({fsd, "--export", data, "--port", "eth:nosuchif0"},
                "nosuchif0");
  ExpectOneLine({fsd, "--export", data, "--port", "xdp:nosuchif0"},
                "nosuchif0");
  ExpectOneLine({fsd, "--export", data, "--port", "carrier:pigeon"}, "carrier");
  ExpectOneLine(
      {fsd, "--export", data, "--port", "memif:" + missing + ",listen"},
      missing);
  const std::string long_path =
      share_.temp().path() + "/" + std::string(120, 'p');
  ExpectOneLine(
      {fsd, "--export", data, "--port", "memif:" + long_path + ",listen"},
      "107");
  ExpectOneLine(MountWith("server:data", point_, "memif:" + long_path), "107");
  ExpectOneLine(MountWith("server:data", point_, "eth:nosuchif0"), "nosuchif0");
  ExpectOneLine(MountWith("server:data", point_, "memif:" + missing), missing);
  // A raw socket needs a privilege that nobody has.
  ExpectOneLine({fsd, "--export", data, "--port", "eth:lo"}, "lo",
                {.uid = 65534});
  // Two listeners on one path: the second must not take it from the first.
  share_.StartServer();
  Mount mount = share_.MountAs(0);
  ExpectOneLine(
      {fsd, "--export", data, "--port", share_.network().ServerPort()},
      "nic.sock");
  WriteFile(mount / "file", "still served");
}

TEST_F(BadInputTest, VersionsAndHelpAreNoErrors) {
  for (const char* name : {"tw-fsd", "tw-mount", "tw"}) {
    for (const char* option : {"--help", "--version"}) {
      const Result result = Execute({Program(name), option}, 20);
      EXPECT_EQ(result.exit_code, 0) << name << " " << option << result.err;
      EXPECT_NE(result.out, "") << name << " " << option;
      EXPECT_EQ(result.err, "") << name << " " << option;
    }
  }
}

TEST_F(BadInputTest, OfTheTools) {
  const std::string tw = Program("tw");
  ExpectOneLine({tw}, "tw");
  ExpectOneLine({tw, "frobnicate"}, "frobnicate");
  ExpectOneLine({tw, "ping", "nobody", "--port", ClientPort() + ".none"},
                "none");
  share_.StartServer();
  ExpectOneLine({tw, "ping", "nobody", "--port", ClientPort()}, "nobody");
}

}  // namespace
}  // namespace tripwire::systest
