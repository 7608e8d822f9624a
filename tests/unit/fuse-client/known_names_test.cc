// SPDX-License-Identifier: BSD-3-Clause
// A real mount that knows all names in a directory asks the server for no other.
#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include "tests/unit/fuse-client/mounted_test.h"

namespace tripwire::fuse {
namespace {

class KnownNamesTest : public MountedTest {
 protected:
  // Looks for so many names that are not there.
  void LookInVain(const std::string& dir, const std::string& prefix, int count) const {
    struct stat st;
    for (int i = 0; i < count; ++i) {
      const std::string path = P(dir) + "/" + prefix + std::to_string(i);
      ASSERT_EQ(-1, stat(path.c_str(), &st)) << path;
      ASSERT_EQ(ENOENT, errno) << path;
    }
  }
  uint64_t CallsOf(const std::function<void()>& work) const {
    const uint64_t before = files_->calls();
    work();
    return files_->calls() - before;
  }
  bool List(const std::string& dir) const {
    std::error_code error;
    std::filesystem::directory_iterator entry(P(dir), error), end;
    while (!error && entry != end) entry.increment(error);
    return !error;
  }
  static bool Eventually(const std::function<bool()>& ready) {
    for (int i = 0; i < 1000; ++i) {
      if (ready()) return true;
      usleep(10'000);
    }
    return false;
  }
};

TEST_F(KnownNamesTest, AListingTellsWhichNamesThereAreNot) {
  Begin();
  mkdir(Tree("d").c_str(), 0755);
  for (int i = 0; i < 3000; ++i) Write(Tree("d/f" + std::to_string(i)), "");
  List("d");
  LookInVain("d", "first", 1);  // tells that we may search there
  EXPECT_LE(CallsOf([&] { LookInVain("d", "none", 300); }), 10u);
  struct stat st;
  for (int i = 0; i < 3000; i += 100) {
    EXPECT_EQ(0, stat(P("d/f" + std::to_string(i)).c_str(), &st)) << i;
  }
}

TEST_F(KnownNamesTest, ANewDirectoryIsKnownToBeEmpty) {
  Begin();
  mkdir(P("d").c_str(), 0755);
  LookInVain("d", "first", 1);
  EXPECT_LE(CallsOf([&] { LookInVain("d", "none", 300); }), 10u);
  // What is made there takes one call less: its name is known to be free.
  const uint64_t calls = CallsOf([&] {
    for (int i = 0; i < 100; ++i) ASSERT_EQ(0, mkdir(P("d/" + std::to_string(i)).c_str(), 0755));
  });
  EXPECT_LE(calls, 150u);
  EXPECT_GE(calls, 100u);
}

TEST_F(KnownNamesTest, WhereManyAreMissedTheDirectoryIsListed) {
  Begin();
  mkdir(Tree("d").c_str(), 0755);
  for (int i = 0; i < 200; ++i) Write(Tree("d/f" + std::to_string(i)), "");
  LookInVain("d", "first", 20);
  EXPECT_TRUE(Eventually([&] {
    return CallsOf([&] { LookInVain("d", "some", 50); }) < 10;
  }));
}

TEST_F(KnownNamesTest, WhatWeMakeAndRemoveIsFollowed) {
  Begin();
  mkdir(P("d").c_str(), 0755);
  LookInVain("d", "first", 1);
  for (int i = 0; i < 50; ++i) {
    const std::string name = "d/" + std::to_string(i);
    Write(P(name), "x");
    EXPECT_EQ(0, access(P(name).c_str(), F_OK));
    EXPECT_EQ(0, rename(P(name).c_str(), P(name + "r").c_str()));
    EXPECT_EQ(0, access(P(name + "r").c_str(), F_OK));
    EXPECT_EQ(-1, access(P(name).c_str(), F_OK));
    EXPECT_EQ(0, symlink("x", P(name + "s").c_str()));
    EXPECT_EQ(0, link(P(name + "r").c_str(), P(name + "l").c_str()));
    EXPECT_EQ(0, unlink(P(name + "r").c_str()));
    EXPECT_EQ(0, access(P(name + "l").c_str(), F_OK));
    EXPECT_EQ(-1, access(P(name + "r").c_str(), F_OK));
  }
  EXPECT_LE(CallsOf([&] { LookInVain("d", "none", 300); }), 10u);
  usleep(1'200'000);  // the kernel believes none of its names any more
  for (int i = 0; i < 50; ++i) {
    const std::string name = "d/" + std::to_string(i);
    EXPECT_EQ(0, access(P(name + "l").c_str(), F_OK)) << name;
    EXPECT_EQ(-1, access(P(name + "r").c_str(), F_OK)) << name;
  }
}

// Ours keep the server's promise alive; they must not hide what comes about behind its back.
TEST_F(KnownNamesTest, OurOwnChangesDoNotHideThoseOnTheServersHost) {
  Begin();
  mkdir(P("d").c_str(), 0755);
  LookInVain("d", "first", 1);
  int made = 0;
  const auto keep_changing = [&] { Write(P("d/" + std::to_string(made++)), ""); };
  for (int i = 0; i < 5; ++i) keep_changing();
  EXPECT_EQ(-1, access(P("d/theirs").c_str(), F_OK));
  Write(Tree("d/theirs"), "here");
  EXPECT_TRUE(Eventually([&] {
    keep_changing();
    LookInVain("d", "none" + std::to_string(made), 1);
    return Read(P("d/theirs")) == "here";
  })) << "after " << made << " changes";
}

TEST_F(KnownNamesTest, WhatOthersMakeIsThereAtOnce) {
  Begin();
  MountSecond();
  mkdir(P("d").c_str(), 0755);
  for (int i = 0; i < 40; ++i) {
    List("d");
    const std::string name = "d/" + std::to_string(i);
    LookInVain("d", "none" + std::to_string(i), 6);
    ASSERT_EQ(-1, access(P(name).c_str(), F_OK));
    Write(Second(name), "x");
    ASSERT_EQ(0, access(P(name).c_str(), F_OK)) << i;
  }
}

TEST_F(KnownNamesTest, ManyAtOnceLoseNoName) {
  Begin();
  MountSecond();
  mkdir(P("d").c_str(), 0755);
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 5; ++t) {
    threads.emplace_back([&, t] {
      const auto path = [&](int i) {
        const std::string name = "d/" + std::to_string(t) + "." + std::to_string(i);
        return t < 4 ? P(name) : Second(name);
      };
      for (int i = 0; i < 100; ++i) {
        struct stat st;
        if (stat(path(i).c_str(), &st) == 0 || errno != ENOENT) ++failed;
        if (mkdir(path(i).c_str(), 0755) != 0) ++failed;
        if (stat(path(i).c_str(), &st) != 0) ++failed;
        if (i % 10 == 0) List("d");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(0, failed.load());
  struct stat st;
  for (int i = 0; i < 500; ++i) {
    const std::string name = "d/" + std::to_string(i % 5) + "." + std::to_string(i / 5);
    EXPECT_EQ(0, stat(P(name).c_str(), &st)) << name;
    EXPECT_EQ(0, stat(Second(name).c_str(), &st)) << name;
  }
}

// The server squashes root, so that it may not search there, whatever its own kernel thinks.
TEST_F(KnownNamesTest, WhoMayNotSearchIsNotToldWhatThereIsNot) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  constexpr uid_t kAlice = 12001;
  chmod(top_.c_str(), 0755);
  StartServer(1, "root");
  Mount();
  mkdir(Tree("d").c_str(), 0700);
  ASSERT_EQ(0, chown(Tree("d").c_str(), kAlice, kAlice));
  const pid_t alice = Fork([&] {
    if (setgid(kAlice) != 0 || setuid(kAlice) != 0) return 1;
    if (!List("d")) return 3;
    struct stat st;
    for (int i = 0; i < 10; ++i) {
      if (stat(P("d/" + std::to_string(i)).c_str(), &st) == 0 || errno != ENOENT) return 2;
    }
    return 0;
  });
  const uint64_t calls = CallsOf([&] { EXPECT_EQ(0, Join(alice)); });
  EXPECT_LE(calls, 8u) << "nothing is known";
  struct stat st;
  EXPECT_EQ(-1, stat(P("d/20").c_str(), &st));
  EXPECT_EQ(EACCES, errno);
}

TEST_F(KnownNamesTest, ARestartedServerIsAskedAgain) {
  Begin();
  mkdir(P("d").c_str(), 0755);
  LookInVain("d", "first", 2);
  KillServer();
  Write(Tree("d/new"), "x");
  StartServer();
  EXPECT_TRUE(Eventually([&] { return access(P("d/new").c_str(), F_OK) == 0; }));
}

}  // namespace
}  // namespace tripwire::fuse
