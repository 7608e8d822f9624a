// SPDX-License-Identifier: BSD-3-Clause
// What users do in a mount, over every kind of wire.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <system_error>
#include <thread>

#include "nic/base/fd.h"
#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

class FilesTest : public ::testing::TestWithParam<Wire> {
 protected:
  bool IsFaulty() const {
    return GetParam() == Wire::kFaultyMemif || GetParam() == Wire::kFaultyEth;
  }
};

std::string Join(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST_P(FilesTest, ATreeCopiedInAndOutIsTheSameInEveryByte) {
  Share share(GetParam(), 1);
  share.StartServer();
  const std::string original = share.temp().Make("original");
  MakeTree(original, 1, IsFaulty() ? 150 : 600);
  Mount mount = share.MountAs(0);
  MustRun({"cp", "-a", original, mount / "copy"}, 240);
  EXPECT_EQ(Join(CompareTrees(original, share.InRoot("copy"))), "")
      << "on the server";
  EXPECT_EQ(Join(CompareTrees(original, mount / "copy")), "")
      << "through the mount";
  const std::string back = share.temp().path() + "/back";
  MustRun({"cp", "-a", mount / "copy", back}, 240);
  EXPECT_EQ(Join(CompareTrees(original, back)), "") << "copied back";
  EXPECT_EQ(mount.Stop(), 0);

  // A new mount has nothing cached.
  Mount fresh = share.MountAs(0);
  EXPECT_EQ(Join(CompareTrees(original, fresh / "copy")), "")
      << "mounted again";
  MustRun({"rm", "-r", fresh / "copy"}, 120);
  EXPECT_TRUE(ListDirectory(share.root()).empty());
}

TEST_P(FilesTest, ARealTreeSurvivesTarBothWays) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  const std::string source =
      IsFaulty() ? "/usr/include/linux/netfilter" : "/usr/include/linux";
  const std::string pipe = "tar -C " + source + " -cf - . | tar -C " +
                           mount.path() + " -xf - && tar -C " + mount.path() +
                           " -cf - . | tar -C " + source + " -df -";
  MustRun({"bash", "-o", "pipefail", "-c", pipe}, 240);
  EXPECT_EQ(Join(CompareTrees(source, share.root())), "");
}

TEST_P(FilesTest, WhatOneClientChangesAnotherSeesAtOnce) {
  Share share(GetParam());
  share.StartServer();
  Mount a = share.MountAs(0);
  Mount b = share.MountAs(1);
  const int rounds = IsFaulty() ? 15 : 40;
  for (int i = 0; i < rounds; ++i) {
    Mount& from = i % 2 == 0 ? a : b;
    Mount& to = i % 2 == 0 ? b : a;
    const std::string text = "round " + std::to_string(i);
    SCOPED_TRACE(text);
    // A name the other looked for in vain appears; its content follows writes.
    ASSERT_FALSE(Exists(to / "new"));
    WriteFile(from / "new", text);
    ASSERT_EQ(ReadFile(to / "new"), text);
    AppendFile(from / "new", " more");
    ASSERT_EQ(ReadFile(to / "new"), text + " more");
    ASSERT_EQ(::truncate((from / "new").c_str(), 3), 0);
    struct stat info {};
    ASSERT_EQ(::stat((to / "new").c_str(), &info), 0);
    ASSERT_EQ(info.st_size, 3);
    // Attributes.
    ASSERT_EQ(::chmod((from / "new").c_str(), i % 2 == 0 ? 0600 : 0640), 0);
    ASSERT_EQ(::stat((to / "new").c_str(), &info), 0);
    ASSERT_EQ(info.st_mode & 07777, i % 2 == 0 ? 0600u : 0640u);
    // Names: rename over, list, remove.
    ASSERT_EQ(::rename((from / "new").c_str(), (from / "renamed").c_str()), 0);
    ASSERT_FALSE(Exists(to / "new"));
    ASSERT_EQ(ListDirectory(to.path()), std::vector<std::string>{"renamed"});
    ASSERT_EQ(::unlink((to / "renamed").c_str()), 0);
    ASSERT_FALSE(Exists(from / "renamed"));
    ASSERT_TRUE(ListDirectory(from.path()).empty());
  }
}

TEST_P(FilesTest, AnOpenFileShowsWhatOthersWrite) {
  Share share(GetParam());
  share.StartServer();
  Mount a = share.MountAs(0);
  Mount b = share.MountAs(1);
  WriteFile(a / "file", std::string(10000, '0'));
  UniqueFd writer(::open((a / "file").c_str(), O_RDWR));
  UniqueFd reader(::open((b / "file").c_str(), O_RDONLY));
  ASSERT_TRUE(writer && reader);
  for (int i = 0; i < 30; ++i) {
    const char value = static_cast<char>('a' + i % 26);
    ASSERT_EQ(::pwrite(writer.get(), &value, 1, i * 300), 1);
    char seen = 0;
    ASSERT_EQ(::pread(reader.get(), &seen, 1, i * 300), 1);
    ASSERT_EQ(seen, value) << "write " << i;
  }
}

TEST_P(FilesTest, ChangesOnTheServersOwnDiskAreSeenSoon) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  WriteFile(mount / "file", "by the client");
  EXPECT_EQ(ReadFile(share.InRoot("file")), "by the client");
  WriteFile(share.InRoot("file"), "by the server, longer");
  EXPECT_TRUE(Eventually(
      15, [&] { return ReadFile(mount / "file") == "by the server, longer"; }));
  WriteFile(share.InRoot("another"), "x");
  EXPECT_TRUE(Eventually(15, [&] { return Exists(mount / "another"); }));
  std::filesystem::remove(share.InRoot("file"));
  EXPECT_TRUE(Eventually(15, [&] { return !Exists(mount / "file"); }));
}

// Adds 1 to the number in a file, under a lock of the given kind.
void AddOne(const std::string& path, bool use_flock) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) throw std::system_error(errno, std::generic_category(), "open");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  const int rc = use_flock ? ::flock(fd.get(), LOCK_EX)
                           : ::fcntl(fd.get(), F_OFD_SETLKW, &lock);
  if (rc != 0) throw std::system_error(errno, std::generic_category(), "lock");
  char text[32] = {};
  if (::pread(fd.get(), text, sizeof text - 1, 0) < 0) {
    throw std::system_error(errno, std::generic_category(), "read");
  }
  const std::string next = std::to_string(std::atoi(text) + 1);
  if (::pwrite(fd.get(), next.data(), next.size(), 0) !=
      static_cast<ssize_t>(next.size())) {
    throw std::system_error(errno, std::generic_category(), "write");
  }
}

TEST_P(FilesTest, EightClientsAtOnce) {
  constexpr int kClients = 8;
  Share share(GetParam(), kClients);
  share.StartServer();
  std::vector<Mount> mounts;
  for (int i = 0; i < kClients; ++i) mounts.push_back(share.MountAs(i));
  WriteFile(mounts[0] / "posix", "0");
  WriteFile(mounts[0] / "flock", "0");
  const std::string original = share.temp().Make("original");
  MakeTree(original, 2, IsFaulty() ? 20 : 60);
  const int additions = IsFaulty() ? 5 : 25;

  std::atomic<int> wrong{0};
  std::vector<std::string> errors(kClients);
  std::vector<std::thread> threads;
  for (int i = 0; i < kClients; ++i) {
    threads.emplace_back([&, i] {
      try {
        for (int j = 0; j < additions; ++j) {
          AddOne(mounts[i] / "posix", false);
          AddOne(mounts[i] / "flock", true);
        }
        const std::string mine = mounts[i] / ("tree" + std::to_string(i));
        MustRun({"cp", "-a", original, mine}, 240);
        // Read another's tree while its owner may still be writing it.
        const int other = (i + 1) % kClients;
        Execute({"find", mounts[i] / ("tree" + std::to_string(other)), "-type",
                 "f"},
                120);
      } catch (const std::exception& e) {
        errors[i] = e.what();
        ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0) << Join(errors);
  const std::string total = std::to_string(kClients * additions);
  EXPECT_EQ(ReadFile(share.InRoot("posix")), total);
  EXPECT_EQ(ReadFile(share.InRoot("flock")), total);
  for (int i = 0; i < kClients; ++i) {
    const std::string tree = "tree" + std::to_string(i);
    EXPECT_EQ(Join(CompareTrees(original, share.InRoot(tree), 5)), "");
    EXPECT_EQ(
        Join(CompareTrees(original, mounts[(i + 3) % kClients] / tree, 5)), "");
  }
}

TEST_P(FilesTest, FilesBeyondFourGigabytesAndLargeDirectories) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  UniqueFd fd(::open((mount / "sparse").c_str(), O_CREAT | O_RDWR, 0644));
  ASSERT_TRUE(fd);
  constexpr off_t kFar = (off_t{5} << 30) + 12345;
  ASSERT_EQ(::pwrite(fd.get(), "far", 3, kFar), 3);
  ASSERT_EQ(::fsync(fd.get()), 0);
  char text[4] = {};
  ASSERT_EQ(::pread(fd.get(), text, 3, kFar), 3);
  EXPECT_STREQ(text, "far");
  EXPECT_EQ(std::filesystem::file_size(share.InRoot("sparse")),
            static_cast<uint64_t>(kFar) + 3);

  const std::string wide = share.InRoot("wide");
  ASSERT_EQ(::mkdir(wide.c_str(), 0755), 0);
  const int names = IsFaulty() ? 3000 : 20000;
  for (int i = 0; i < names; ++i) {
    ASSERT_EQ(::mknod((wide + "/entry" + std::to_string(i)).c_str(),
                      S_IFREG | 0644, 0),
              0);
  }
  EXPECT_EQ(ListDirectory(mount / "wide"), ListDirectory(wide));
}

class SharedInterfaceTest : public ::testing::TestWithParam<Wire> {};

TEST_P(SharedInterfaceTest, TwoProgramsShareAnInterface) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount one = share.MountAs(0);
  Mount other = share.MountAs(0);
  for (int i = 0; i < 20; ++i) {
    WriteFile(one / "file", "from one " + std::to_string(i));
    EXPECT_EQ(ReadFile(other / "file"), "from one " + std::to_string(i));
    WriteFile(other / "file", "from the other " + std::to_string(i));
    EXPECT_EQ(ReadFile(one / "file"), "from the other " + std::to_string(i));
  }
  EXPECT_EQ(one.Stop(), 0);
  EXPECT_EQ(ReadFile(other / "file"), "from the other 19");
}

INSTANTIATE_TEST_SUITE_P(Over, FilesTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth, Wire::kXdp,
                                           Wire::kFaultyMemif,
                                           Wire::kFaultyEth),
                         WireName);
// Not XDP, which takes its queue of the interface for itself.
INSTANTIATE_TEST_SUITE_P(Over, SharedInterfaceTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth,
                                           Wire::kFaultyEth),
                         WireName);

}  // namespace
}  // namespace tripwire::systest
