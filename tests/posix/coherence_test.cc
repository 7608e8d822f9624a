// SPDX-License-Identifier: BSD-3-Clause
// Two mounts of one tree, and the tree itself: what is done in one place is seen in
// the others at once.
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/posix/posix_env.h"

namespace tripwire::posix {
namespace {

TEST_F(CoherenceTest, NamesAppearAndDisappear) {
  for (int i = 0; i < 30; ++i) {
    ASSERT_FALSE(Exists(Second("f"))) << i;  // the other side knows it is not there
    WriteFile(P("f"), std::to_string(i));
    ASSERT_TRUE(Exists(Second("f"))) << i;
    ASSERT_EQ(std::to_string(i), ReadFile(Second("f")));
    ASSERT_EQ((std::vector<std::string>{"f"}), List(Second()));
    ASSERT_OK(unlink(Second("f").c_str()));
    ASSERT_FALSE(Exists(P("f"))) << i;
    ASSERT_TRUE(List(dir()).empty());
  }
}

TEST_F(CoherenceTest, ContentsFollow) {
  WriteFile(P("f"), "v0");
  for (int i = 1; i < 40; ++i) {
    const std::string text = "v" + std::to_string(i) + Pattern(100, i);
    WriteFile(i % 2 ? P("f") : Second("f"), text);
    ASSERT_EQ(text, ReadFile(i % 2 ? Second("f") : P("f"))) << i;
    ASSERT_EQ(text, ReadFile(P("f"))) << i;
    ASSERT_EQ(text, ReadFile(Origin("f"))) << i;
  }
}

TEST_F(CoherenceTest, OverwritesOfTheSameLengthAreSeenByOpenFiles) {
  WriteFile(P("f"), std::string(8192, 'a'));
  UniqueFd writer = Open("f", O_RDWR);
  UniqueFd reader(open(Second("f").c_str(), O_RDONLY));
  ASSERT_TRUE(reader);
  char buffer[16];
  for (int i = 0; i < 100; ++i) {
    const char c = static_cast<char>('a' + i % 26);
    ASSERT_EQ(1, pwrite(writer.get(), &c, 1, i * 80));
    ASSERT_EQ(1, pread(reader.get(), buffer, 1, i * 80));
    ASSERT_EQ(c, buffer[0]) << i;
  }
}

TEST_F(CoherenceTest, AnIdleReaderStillHearsOfChanges) {
  WriteFile(P("f"), "before");
  UniqueFd reader(open(Second("f").c_str(), O_RDONLY));
  char buffer[8] = {};
  ASSERT_EQ(6, pread(reader.get(), buffer, 6, 0));
  usleep(2500000);  // longer than any promise made without an open file
  UniqueFd writer = Open("f", O_WRONLY);
  ASSERT_EQ(6, pwrite(writer.get(), "after!", 6, 0));
  ASSERT_EQ(6, pread(reader.get(), buffer, 6, 0));
  EXPECT_STREQ("after!", buffer);
}

TEST_F(CoherenceTest, AppendsFromBothSides) {
  WriteFile(P("f"), "");
  UniqueFd a = Open("f", O_WRONLY | O_APPEND);
  UniqueFd b(open(Second("f").c_str(), O_WRONLY | O_APPEND));
  std::string expected;
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(1, write(a.get(), "a", 1));
    ASSERT_EQ(1, write(b.get(), "b", 1));
    expected += "ab";
  }
  EXPECT_EQ(expected, ReadFile(P("f")));
  EXPECT_EQ(expected, ReadFile(Second("f")));
}

TEST_F(CoherenceTest, SizesAndModesAndTimes) {
  WriteFile(P("f"), "12345");
  ASSERT_EQ(5, Stat(Second("f")).st_size);
  for (int i = 0; i < 20; ++i) {
    ASSERT_OK(truncate(P("f").c_str(), i * 10));
    ASSERT_EQ(i * 10, Stat(Second("f")).st_size);
    ASSERT_OK(chmod(Second("f").c_str(), i % 2 ? 0600 : 0644));
    ASSERT_EQ(i % 2 ? 0600u : 0644u, Stat(P("f")).st_mode & 07777);
    const timespec times[2] = {{i, 0}, {i + 1000, 0}};
    ASSERT_OK(utimensat(AT_FDCWD, P("f").c_str(), times, 0));
    ASSERT_EQ(i + 1000, Stat(Second("f")).st_mtim.tv_sec);
  }
}

// Replies to changes tell a mount the attributes that its kernel then asks for.
TEST_F(CoherenceTest, WhatRepliesToldDoesNotHideOthersChanges) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  WriteFile(P("f"), "");
  UniqueFd ours = Open("f", O_RDWR);
  UniqueFd theirs(open(Second("f").c_str(), O_RDWR));
  ASSERT_TRUE(theirs);
  for (int i = 0; i < 20; ++i) {
    const std::string name = "d/" + std::to_string(i);
    ASSERT_OK(mkdir(P(name).c_str(), 0755));
    ASSERT_OK(mkdir(Second(name + "x").c_str(), 0755));
    ASSERT_EQ(2u * i + 4, Stat(P("d")).st_nlink);
    ASSERT_EQ(2u * i + 4, Stat(Second("d")).st_nlink);
    ASSERT_EQ(1, pwrite(ours.get(), "o", 1, 10 * i));
    ASSERT_EQ(1, pwrite(theirs.get(), "t", 1, 10 * i + 5));
    struct stat st;
    ASSERT_OK(fstat(ours.get(), &st));
    ASSERT_EQ(10 * i + 6, st.st_size);
    ASSERT_EQ(1, pwrite(ours.get(), "o", 1, 10 * i + 7));
    ASSERT_OK(chmod(Second("f").c_str(), i % 2 ? 0600 : 0644));
    ASSERT_OK(fstat(ours.get(), &st));
    ASSERT_EQ(i % 2 ? 0600u : 0644u, st.st_mode & 07777);
    ASSERT_EQ(10 * i + 8, st.st_size);
  }
}

// Listings and replies tell which objects have no extended attribute.
TEST_F(CoherenceTest, ExtendedAttributesAppearAndDisappear) {
  char value[16];
  const auto has = [&](const std::string& path) {
    return getxattr(path.c_str(), "user.tripwire", value, sizeof value) == 1;
  };
  WriteFile(P("f"), "");
  for (int i = 0; i < 10; ++i) {
    ASSERT_FALSE(has(P("f"))) << i;
    ASSERT_EQ(std::vector<std::string>{"f"}, List(dir()));
    struct stat st;
    ASSERT_OK(lstat(P("f").c_str(), &st));
    ASSERT_FALSE(has(P("f"))) << i;
    const std::string& path = i % 2 ? P("f") : Second("f");
    ASSERT_OK(setxattr(path.c_str(), "user.tripwire", "x", 1, XATTR_CREATE));
    ASSERT_TRUE(has(P("f"))) << i;
    ASSERT_TRUE(has(Second("f"))) << i;
    ASSERT_OK(removexattr(path.c_str(), "user.tripwire"));
  }
}

TEST_F(CoherenceTest, ChangesAtOnceLeaveTheLastAttributes) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  WriteFile(P("f"), "");
  constexpr int kThreads = 4, kEach = 30;
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      UniqueFd file(open(P("f").c_str(), O_RDWR));
      for (int i = 0; i < kEach; ++i) {
        const std::string name = "d/" + std::to_string(t) + "." + std::to_string(i);
        if (mkdir(P(name).c_str(), 0755) != 0) ++failed;
        if (pwrite(file.get(), "x", 1, t * kEach + i) != 1) ++failed;
        if (link(P("f").c_str(), P(name + "/l").c_str()) != 0) ++failed;
        struct stat st;
        if (stat(P("d").c_str(), &st) != 0) ++failed;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(0, failed.load());
  EXPECT_EQ(2u + kThreads * kEach, Stat(P("d")).st_nlink);
  EXPECT_EQ(kThreads * kEach, Stat(P("f")).st_size);
  EXPECT_EQ(1u + kThreads * kEach, Stat(P("f")).st_nlink);
  ASSERT_OK(unlink(P("d/0.0/l").c_str()));
  EXPECT_EQ(0u + kThreads * kEach, Stat(P("f")).st_nlink);
}

TEST_F(CoherenceTest, BothOfTwoThatChangePlacesAreSeenChanged) {
  WriteFile(P("a"), "");
  WriteFile(P("b"), "");
  UniqueFd a = Open("a", O_RDWR), b = Open("b", O_RDWR);
  ASSERT_EQ(1, pwrite(a.get(), "a", 1, 0));
  ASSERT_EQ(1, pwrite(b.get(), "b", 1, 0));
  usleep(20'000);  // the file system's clock ticks
  ASSERT_OK(renameat2(AT_FDCWD, P("a").c_str(), AT_FDCWD, P("b").c_str(), RENAME_EXCHANGE));
  for (const char* name : {"a", "b"}) {
    EXPECT_EQ(Stat(Origin(name)).st_ctim.tv_nsec, Stat(P(name)).st_ctim.tv_nsec) << name;
  }
}

TEST_F(CoherenceTest, RenamesAcrossDirectories) {
  ASSERT_OK(mkdir(P("a").c_str(), 0755));
  ASSERT_OK(mkdir(P("b").c_str(), 0755));
  WriteFile(P("a/f"), "moving");
  for (int i = 0; i < 20; ++i) {
    const std::string from = i % 2 ? "b/f" : "a/f", to = i % 2 ? "a/f" : "b/f";
    ASSERT_TRUE(Exists(Second(from)));
    ASSERT_FALSE(Exists(Second(to)));
    ASSERT_OK(rename(P(from).c_str(), P(to).c_str()));
    ASSERT_FALSE(Exists(Second(from)));
    ASSERT_EQ("moving", ReadFile(Second(to)));
  }
  // A directory that moves takes what is in it along.
  ASSERT_OK(rename(P("a").c_str(), P("b/a").c_str()));
  EXPECT_EQ("moving", ReadFile(Second("b/a/f")));
  EXPECT_FALSE(Exists(Second("a")));
}

// A name that is recalled takes none of the others along that the other side believes.
TEST_F(CoherenceTest, OneNameChangesAfterAnother) {
  for (int i = 0; i < 30; ++i) {
    const std::string n = std::to_string(i);
    WriteFile(P("there" + n), "x");
    ASSERT_FALSE(Exists(P("free" + n)));
    for (int other = 0; other < i; ++other) {
      ASSERT_OK(symlink("x", Second("other" + n + "." + std::to_string(other)).c_str()));
    }
    ASSERT_OK(rename(Second("there" + n).c_str(), Second("free" + n).c_str()));
    ASSERT_FALSE(Exists(P("there" + n))) << i;
    ASSERT_TRUE(Exists(P("free" + n))) << i;
  }
}

TEST_F(CoherenceTest, ReplacedFilesShowTheirNewContent) {
  WriteFile(P("config"), "old");
  for (int i = 0; i < 20; ++i) {
    ASSERT_FALSE(ReadFile(Second("config")).empty());
    WriteFile(P("config.tmp"), "new" + std::to_string(i));
    ASSERT_OK(rename(P("config.tmp").c_str(), P("config").c_str()));
    ASSERT_EQ("new" + std::to_string(i), ReadFile(Second("config")));
  }
}

TEST_F(CoherenceTest, LinkCountsAndAttributesOfSharedInodes) {
  WriteFile(P("f"), "x");
  ASSERT_EQ(1u, Stat(Second("f")).st_nlink);
  ASSERT_OK(link(P("f").c_str(), P("g").c_str()));
  EXPECT_EQ(2u, Stat(Second("f")).st_nlink);
  EXPECT_EQ(Stat(Second("f")).st_ino, Stat(Second("g")).st_ino);
  ASSERT_OK(unlink(Second("f").c_str()));
  EXPECT_EQ(1u, Stat(P("g")).st_nlink);
}

TEST_F(CoherenceTest, DirectoriesRemovedElsewhereAreGone) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  ASSERT_TRUE(Exists(Second("d")));
  ASSERT_OK(rmdir(P("d").c_str()));
  EXPECT_ERRNO(ENOENT, open(Second("d/f").c_str(), O_CREAT | O_RDWR, 0644));
  EXPECT_FALSE(Exists(Second("d")));
}

TEST_F(CoherenceTest, OpenFilesOutliveRemovalByOthers) {
  WriteFile(P("f"), "mine");
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(unlink(Second("f").c_str()));
  char buffer[5] = {};
  EXPECT_EQ(4, pread(fd.get(), buffer, 4, 0));
  EXPECT_STREQ("mine", buffer);
  EXPECT_EQ(4, pwrite(fd.get(), "MINE", 4, 0));
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(0u, st.st_nlink);
}

TEST_F(CoherenceTest, MappedReadersSeeWrites) {
  WriteFile(P("f"), std::string(8192, 'a'));
  UniqueFd fd(open(Second("f").c_str(), O_RDONLY));
  volatile char* map = static_cast<volatile char*>(
      mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(MAP_FAILED, const_cast<char*>(map));
  UniqueFd writer = Open("f", O_RDWR);
  for (int i = 0; i < 20; ++i) {
    const char c = static_cast<char>('b' + i);
    EXPECT_EQ('a', map[4096 + i]);
    ASSERT_EQ(1, pwrite(writer.get(), &c, 1, 4096 + i));
    EXPECT_EQ(c, map[4096 + i]) << i;
  }
  munmap(const_cast<char*>(map), 8192);
}

TEST_F(CoherenceTest, MappedWritersAreSeenAfterMsync) {
  WriteFile(P("f"), std::string(4096, 'a'));
  UniqueFd fd = Open("f", O_RDWR);
  char* map = static_cast<char*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(MAP_FAILED, static_cast<void*>(map));
  for (int i = 0; i < 10; ++i) {
    map[i * 10] = static_cast<char>('A' + i);
    ASSERT_OK(msync(map, 4096, MS_SYNC));
    EXPECT_EQ('A' + i, ReadFile(Second("f"))[static_cast<size_t>(i) * 10]);
  }
  munmap(map, 4096);
}

TEST_F(CoherenceTest, LocksExcludeAcrossMounts) {
  WriteFile(P("f"), "x");
  UniqueFd a = Open("f", O_RDWR);
  UniqueFd b(open(Second("f").c_str(), O_RDWR));
  ASSERT_OK(flock(a.get(), LOCK_EX));
  EXPECT_ERRNO(EWOULDBLOCK, flock(b.get(), LOCK_EX | LOCK_NB));
  std::atomic<bool> got{false};
  std::thread waiter([&] {
    EXPECT_EQ(0, flock(b.get(), LOCK_EX));
    got = true;
  });
  usleep(100000);
  EXPECT_FALSE(got);
  ASSERT_OK(flock(a.get(), LOCK_UN));
  waiter.join();
  EXPECT_TRUE(got);
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  ASSERT_OK(fcntl(a.get(), F_OFD_SETLK, &lock));
  lock = {};
  lock.l_type = F_WRLCK;
  EXPECT_ERRNO(EAGAIN, fcntl(b.get(), F_OFD_SETLK, &lock));
  a.reset();
  EXPECT_TRUE(Eventually(10, [&] {
    struct flock again = {};
    again.l_type = F_WRLCK;
    return fcntl(b.get(), F_OFD_SETLK, &again) == 0;
  }));
}

TEST_F(CoherenceTest, ACounterUnderALockIsNeverWrong) {
  WriteFile(P("counter"), "0");
  const auto add = [](const std::string& path, int times) {
    UniqueFd fd(open(path.c_str(), O_RDWR));
    for (int i = 0; i < times; ++i) {
      flock(fd.get(), LOCK_EX);
      char text[16] = {};
      EXPECT_GE(pread(fd.get(), text, 15, 0), 1);
      const std::string next = std::to_string(atoi(text) + 1);
      EXPECT_GE(pwrite(fd.get(), next.data(), next.size(), 0), 1);
      flock(fd.get(), LOCK_UN);
    }
  };
  std::thread a([&] { add(P("counter"), 150); });
  std::thread b([&] { add(Second("counter"), 150); });
  a.join();
  b.join();
  EXPECT_EQ("300", ReadFile(P("counter")));
  EXPECT_EQ("300", ReadFile(Origin("counter")));
}

TEST_F(CoherenceTest, BothChangeOneDirectoryAtOnce) {
  std::atomic<int> failures{0};
  const auto work = [&](const std::string& where, const std::string& prefix) {
    for (int i = 0; i < 100; ++i) {
      const std::string path = where + prefix + std::to_string(i);
      UniqueFd fd(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644));
      if (!fd) ++failures;
      fd.reset();
      if (i % 2 && unlink(path.c_str()) != 0) ++failures;
    }
  };
  std::thread a([&] { work(P(), "a"); });
  std::thread b([&] { work(Second(), "b"); });
  a.join();
  b.join();
  EXPECT_EQ(0, failures);
  EXPECT_EQ(100u, List(dir()).size());
  EXPECT_EQ(List(dir()), List(Second()));
  EXPECT_EQ(List(dir()), List(Origin()));
}

TEST_F(CoherenceTest, BothWriteOneFileAtOnce) {
  WriteFile(P("f"), std::string(200000, '.'));
  const auto work = [](const std::string& path, off_t first, char c) {
    UniqueFd fd(open(path.c_str(), O_RDWR));
    // Odd ranges: pages are written in part, and shared between the writers.
    for (off_t at = first; at < 200000; at += 2000) {
      const std::string part(1000, c);
      EXPECT_EQ(1000, pwrite(fd.get(), part.data(), part.size(), at));
    }
  };
  std::thread a([&] { work(P("f"), 0, 'a'); });
  std::thread b([&] { work(Second("f"), 1000, 'b'); });
  a.join();
  b.join();
  std::string expected;
  for (int i = 0; i < 100; ++i) expected += std::string(1000, 'a') + std::string(1000, 'b');
  EXPECT_TRUE(expected == ReadFile(P("f")));
  EXPECT_TRUE(expected == ReadFile(Second("f")));
  EXPECT_TRUE(expected == ReadFile(Origin("f")));
}

TEST_F(CoherenceTest, ChangesOnTheServerItselfAreSeenSoon) {
  WriteFile(P("f"), "by a client");
  EXPECT_EQ("by a client", ReadFile(Origin("f")));
  WriteFile(Origin("f"), "by the server");
  EXPECT_TRUE(Eventually(10, [&] { return ReadFile(P("f")) == "by the server"; }));
  WriteFile(Origin("new"), "x");
  EXPECT_TRUE(Eventually(10, [&] { return Exists(P("new")); }));
  ASSERT_OK(unlink(Origin("new").c_str()));
  EXPECT_TRUE(Eventually(10, [&] { return !Exists(P("new")); }));
  ASSERT_OK(mkdir(Origin("d").c_str(), 0755));
  EXPECT_TRUE(Eventually(10, [&] { return Exists(Second("d")); }));
}

}  // namespace
}  // namespace tripwire::posix
