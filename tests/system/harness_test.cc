// SPDX-License-Identifier: BSD-3-Clause
// The testers' own tools: a comparison that misses a difference proves nothing.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "tests/system/harness/network.h"
#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

TEST(HarnessTest, CompareTreesSeesEveryKindOfDifference) {
  TempDir temp;
  const std::string a = temp.Make("a");
  MakeTree(a, 7, 30);
  const std::string b = temp.path() + "/b";
  const std::string file = b + "/dir0/file3";
  const std::vector<std::pair<const char*, std::function<void()>>> changes = {
      {"content",
       [&] {
         struct stat s;
         ::stat((b + "/large").c_str(), &s);
         int fd = ::open((b + "/large").c_str(), O_WRONLY);
         ::pwrite(fd, "!", 1, 4'999'999);
         timespec t[2] = {s.st_mtim, s.st_mtim};
         ::futimens(fd, t);
         ::close(fd);
       }},
      {"size", [&] { AppendFile(file, "x"); }},
      {"mode", [&] { ::chmod(file.c_str(), 0601); }},
      {"owner", [&] { ::chown(file.c_str(), 1, 0); }},
      {"time",
       [&] {
         timespec t[2] = {{5, 5}, {5, 5}};
         ::utimensat(AT_FDCWD, file.c_str(), t, 0);
       }},
      {"missing", [&] { ::unlink(file.c_str()); }},
      {"extra", [&] { WriteFile(b + "/dir0/extra", ""); }},
      {"symlink",
       [&] {
         ::unlink((b + "/odd/dangling").c_str());
         ::symlink("/no/such/placf", (b + "/odd/dangling").c_str());
       }},
      {"xattr",
       [&] {
         ::setxattr((b + "/odd/attributes").c_str(), "user.note", "a\0c", 3, 0);
       }},
      {"links",
       [&] { ::link(file.c_str(), (temp.path() + "/other").c_str()); }},
  };
  for (const auto& [what, change] : changes) {
    std::filesystem::remove_all(b);
    MustRun({"cp", "-a", a, b});
    ASSERT_TRUE(CompareTrees(a, b).empty()) << CompareTrees(a, b)[0];
    change();
    EXPECT_FALSE(CompareTrees(a, b).empty()) << what;
  }
}

TEST(HarnessTest, NodesReachEachOtherUnlessTheCableIsOut) {
  TempDir temp;
  Network network(Wire::kEth, temp.path(), 2);
  MustRun({"ip", "addr", "add", "10.99.0.1/24", "dev", "tw0"}, 10,
          network.ServerNode());
  MustRun({"ip", "addr", "add", "10.99.0.2/24", "dev", "tw0"}, 10,
          network.ClientNode(1));
  const auto reaches = [&] {
    // A connection refused is an answer; no route and no answer are not.
    const Result result =
        Execute({"bash", "-c", "timeout 2 bash -c '</dev/tcp/10.99.0.1/9'"}, 10,
                network.ClientNode(1));
    return result.err.find("refused") != std::string::npos;
  };
  EXPECT_TRUE(Eventually(20, reaches));
  network.SetCable(false);
  EXPECT_FALSE(reaches());
  network.SetCable(true);
  EXPECT_TRUE(Eventually(20, reaches));
}

TEST(HarnessTest, ProcessesAreBoundedAndReported) {
  EXPECT_EQ(Execute({"false"}).exit_code, 1);
  EXPECT_EQ(Execute({"sh", "-c", "echo out; echo err >&2; exit 7"}).out,
            "out\n");
  EXPECT_EQ(Execute({"sleep", "100"}, 0.2).exit_code, -1);
  EXPECT_EQ(Execute({"/no/such/program"}).exit_code, 127);
  EXPECT_EQ(Execute({"sh", "-c", "kill -9 $$"}).exit_code, 137);
  EXPECT_EQ(Execute({"id", "-u"}, 10, {.uid = 65534}).out, "65534\n");
  Process busy({"sh", "-c", "while :; do :; done"});
  SleepMs(500);
  EXPECT_GT(busy.CpuTicks(), 5u);
}

}  // namespace
}  // namespace tripwire::systest
