// SPDX-License-Identifier: BSD-3-Clause
// Programs go on while their writes are on the way, and nobody can tell.
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "tests/unit/fuse-client/mounted_test.h"

namespace tripwire::fuse {
namespace {

class WriteBehindTest : public MountedTest {
 protected:
  // A file of one byte that the mount has a write lease on.
  UniqueFd Writing(const std::string& name = "f", int flags = 0) {
    UniqueFd fd(open(P(name).c_str(), O_CREAT | O_RDWR | flags, 0644));
    for (int i = 0; i < 2; ++i) EXPECT_EQ(1, pwrite(fd.get(), "1", 1, 0)) << strerror(errno);
    return fd;
  }
  // A server that cannot be reached, and a write on its way there: the file will be
  // "1 more".
  UniqueFd BeginBehind() {
    Begin();
    UniqueFd fd = Writing();
    net_.Cut();
    EXPECT_EQ(5, pwrite(fd.get(), " more", 5, 1));
    return fd;
  }
  static bool IsDone(const std::future<void>& future) {
    return future.wait_for(std::chrono::milliseconds(200)) == std::future_status::ready;
  }
};

TEST_F(WriteBehindTest, AWriteReturnsBeforeItIsThere) {
  Begin();
  UniqueFd fd = Writing();
  net_.Cut();
  EXPECT_EQ(2, pwrite(fd.get(), "23", 2, 1));
  EXPECT_EQ(2, pwrite(fd.get(), "45", 2, 3));
  EXPECT_EQ("1", Read(Tree("f")));
  // No more than that.
  auto third = std::async(std::launch::async, [&] { EXPECT_EQ(2, pwrite(fd.get(), "67", 2, 5)); });
  EXPECT_FALSE(IsDone(third));
  net_.Heal();
  third.get();
  EXPECT_EQ(0, fsync(fd.get()));
  EXPECT_EQ("1234567", Read(Tree("f")));
}

TEST_F(WriteBehindTest, NotIfTheProgramAsksForMore) {
  Begin();
  struct Kind {
    const char* name;
    int flags;
  };
  for (const Kind& kind : {Kind{"sync", O_SYNC}, Kind{"dsync", O_DSYNC}, Kind{"append", O_APPEND},
                           Kind{"direct", O_DIRECT}}) {
    UniqueFd fd = Writing(kind.name);
    UniqueFd other(open(P(kind.name).c_str(), O_RDWR | kind.flags));
    ASSERT_TRUE(other) << kind.name << strerror(errno);
    alignas(4096) static char block[4096];
    net_.Cut();
    auto write = std::async(std::launch::async, [&] {
      EXPECT_EQ(4096, pwrite(other.get(), block, sizeof(block), 0)) << strerror(errno);
    });
    EXPECT_FALSE(IsDone(write)) << kind.name;
    net_.Heal();
  }
}

// Whatever this host does with the file comes after.
TEST_F(WriteBehindTest, WhatComesNextSeesIt) {
  Begin();
  const std::pair<const char*, std::function<void(int fd, const std::string& path)>> looks[] = {
      {"fstat",
       [](int fd, const std::string&) {
         struct stat st;
         EXPECT_EQ(0, fstat(fd, &st));
         EXPECT_EQ(6, st.st_size);
       }},
      {"open",
       [](int, const std::string& path) {
         UniqueFd fd(open(path.c_str(), O_RDONLY));
         EXPECT_EQ(6, lseek(fd.get(), 0, SEEK_END));
       }},
      {"read",
       [](int fd, const std::string&) {
         char text[7] = {};
         EXPECT_EQ(6, pread(fd, text, sizeof(text), 0));
         EXPECT_STREQ("1 more", text);
       }},
      {"truncate",
       [](int fd, const std::string& path) {
         EXPECT_EQ(0, ftruncate(fd, 3));
         EXPECT_EQ("1 m", Read(path));
       }},
      {"seek", [](int fd, const std::string&) { EXPECT_EQ(6, lseek(fd, 1, SEEK_HOLE)); }},
      {"allocate", [](int fd, const std::string& path) {
         EXPECT_EQ(0, fallocate(fd, 0, 0, 10)) << strerror(errno);
         EXPECT_EQ(std::string("1 more") + std::string(4, '\0'), Read(path));
       }}};
  for (const auto& [name, look] : looks) {
    UniqueFd fd = Writing(name);
    net_.Cut();
    ASSERT_EQ(5, pwrite(fd.get(), " more", 5, 1)) << name;
    auto looking = std::async(std::launch::async, [&] { look(fd.get(), P(name)); });
    EXPECT_FALSE(IsDone(looking)) << name;
    net_.Heal();
    looking.get();
    EXPECT_EQ(0, fsync(fd.get()));
  }
}

TEST_F(WriteBehindTest, ANameLookedUpAnewTellsOfIt) {
  Begin();
  UniqueFd fd = Writing();
  ASSERT_EQ(0, mkdir(P("d").c_str(), 0755));
  net_.Cut();
  ASSERT_EQ(5, pwrite(fd.get(), " more", 5, 1));
  auto looking = std::async(std::launch::async, [&] {
    // A name that the kernel does not know yet.
    EXPECT_EQ(0, link(P("f").c_str(), P("d/other").c_str()));
    struct stat st;
    EXPECT_EQ(0, stat(P("d/other").c_str(), &st));
    EXPECT_EQ(6, st.st_size);
  });
  EXPECT_FALSE(IsDone(looking));
  net_.Heal();
  looking.get();
}

TEST_F(WriteBehindTest, ClosingWaitsForIt) {
  UniqueFd fd = BeginBehind();
  auto closing = std::async(std::launch::async, [&] { fd.reset(); });
  EXPECT_FALSE(IsDone(closing));
  net_.Heal();
  closing.get();
  EXPECT_EQ("1 more", Read(Tree("f")));
}

// A large write takes its time; who looks meanwhile sees all of it.
TEST_F(WriteBehindTest, ThisMountSeesItAtOnce) {
  Begin();
  const std::string block(1 << 20, 'b');
  constexpr off_t kSize = (1 << 20) + 1;
  for (int i = 0; i < 120; ++i) {
    const std::string name = "f" + std::to_string(i);
    UniqueFd fd = Writing(name);
    // A name that the kernel does not know yet.
    ASSERT_EQ(0, link(Tree(name).c_str(), Tree("other-" + name).c_str()));
    ASSERT_EQ(1 << 20, pwrite(fd.get(), block.data(), block.size(), 1));
    struct stat st;
    switch (i % 4) {
      case 0:
        ASSERT_EQ(0, fstat(fd.get(), &st));
        EXPECT_EQ(kSize, st.st_size);
        break;
      case 1:
        ASSERT_EQ(0, stat(P("other-" + name).c_str(), &st));
        EXPECT_EQ(kSize, st.st_size);
        ASSERT_EQ(0, fstat(fd.get(), &st));
        EXPECT_EQ(kSize, st.st_size);
        break;
      case 2:
        ASSERT_EQ(0, ftruncate(fd.get(), 10));
        ASSERT_EQ(0, fsync(fd.get()));
        EXPECT_EQ(10, static_cast<off_t>(std::filesystem::file_size(Tree(name))));
        break;
      default:
        for (const auto& entry : std::filesystem::directory_iterator(P(""))) {
          if (entry.path().filename() != name) continue;
          EXPECT_EQ(kSize, static_cast<off_t>(entry.file_size()));
        }
    }
    ASSERT_EQ(0, unlink(Tree("other-" + name).c_str()));
    ASSERT_EQ(0, unlink(P(name).c_str()));
  }
}

TEST_F(WriteBehindTest, AnotherMountSeesItAtOnce) {
  Begin();
  MountSecond();
  const std::string block(1 << 20, 'b');
  for (int i = 0; i < 60; ++i) {
    const std::string name = "f" + std::to_string(i);
    UniqueFd fd = Writing(name);
    ASSERT_EQ(1 << 20, pwrite(fd.get(), block.data(), block.size(), 1));
    if (i % 3 == 0) {
      struct stat st;
      ASSERT_EQ(0, stat(Second(name).c_str(), &st));
      EXPECT_EQ((1 << 20) + 1, st.st_size);
    } else if (i % 3 == 1) {
      EXPECT_EQ("1" + block, Read(Second(name)));
    } else {
      UniqueFd cut(open(Second(name).c_str(), O_WRONLY | O_TRUNC));
      ASSERT_TRUE(cut);
      EXPECT_EQ(0, std::filesystem::file_size(Tree(name)));
      EXPECT_EQ(0, std::filesystem::file_size(P(name)));
    }
  }
}

TEST_F(WriteBehindTest, WritesOverEachOtherKeepTheirOrder) {
  Begin();
  UniqueFd fd = Writing();
  const std::string blocks[] = {std::string(300000, 'a'), std::string(200000, 'b')};
  for (int i = 0; i < 300; ++i) {
    const std::string& block = blocks[i % 2];
    ASSERT_EQ(static_cast<ssize_t>(block.size()),
              pwrite(fd.get(), block.data(), block.size(), 100 * (i % 3)));
  }
  ASSERT_EQ(0, fsync(fd.get()));
  // The last: 'a' from 200 to 300200 and, two later, from 100; at the end 'b' from 200.
  const std::string text = Read(Tree("f"));
  EXPECT_TRUE(text.substr(100, 100) == std::string(100, 'a'));
  EXPECT_TRUE(text.substr(200, 200000) == blocks[1]);
  EXPECT_TRUE(text.substr(200200) == std::string(100000, 'a'));
}

TEST_F(WriteBehindTest, ARestartLosesNothing) {
  UniqueFd fd = BeginBehind();
  KillServer();
  net_.Heal();
  StartServer();
  EXPECT_EQ(0, fsync(fd.get()));
  EXPECT_EQ("1 more", Read(Tree("f")));
}

TEST_F(WriteBehindTest, AnErrorIsToldByTheNextWriteSyncOrClose) {
  Begin();
  // The server, which is this process, may not make files longer than this.
  signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  ASSERT_EQ(0, getrlimit(RLIMIT_FSIZE, &old));
  const rlimit less = {1 << 20, old.rlim_max};
  ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &less));
  const char* const kLater[] = {"write", "fsync", "close"};
  for (int later = 0; later < 3; ++later) {
    const std::string path = P(kLater[later]);
    EXPECT_EQ(0, Join(Fork([&]() -> int {
                const rlimit all = {less.rlim_max, less.rlim_max};
                if (setrlimit(RLIMIT_FSIZE, &all) != 0) return 1;
                const int fd = open(path.c_str(), O_CREAT | O_RDWR, 0644);
                for (int i = 0; i < 2; ++i) {
                  if (pwrite(fd, "1", 1, 0) != 1) return 2;
                }
                const std::string block(8192, 'b');
                // Half of it has room: what cannot be had is said all the same.
                if (pwrite(fd, block.data(), 8192, (1 << 20) - 4096) != 8192) return 3;
                errno = 0;
                bool failed = false;
                if (later == 0) {  // one that comes after it has failed
                  for (int i = 0; i < 2000 && !failed; ++i) {
                    failed = pwrite(fd, "2", 1, 1) != 1;
                    if (!failed) usleep(5000);
                  }
                } else {
                  failed = later == 1 ? fsync(fd) != 0 : close(fd) != 0;
                }
                if (!failed || errno != EFBIG) return 10 + errno;
                if (later < 2 && fsync(fd) != 0) return 4;  // once
                struct stat st;
                if (stat(path.c_str(), &st) != 0 || st.st_size != 1 << 20) return 5;
                return 0;
              })))
        << kLater[later];
  }
  setrlimit(RLIMIT_FSIZE, &old);
}

TEST_F(WriteBehindTest, SignalsEndWhoWaitsForItsTurn) {
  Begin();
  UniqueFd fd = Writing();
  net_.Cut();
  const std::string path = P("f");
  for (const bool reads : {false, true}) {
    const pid_t waiter = Fork([&] {
      TakeSignal(SIGTERM);
      for (int i = 0; i < 3; ++i) {
        char text[8];
        if (reads) {
          if (pread(fd.get(), text, 1, 100 + i) < 0) return 1;
        } else if (pwrite(fd.get(), "w", 1, 10 + i) != 1) {
          return 2;
        }
      }
      return 3;
    }, fd.get());
    usleep(200000);
    EXPECT_EQ(0, waitpid(waiter, nullptr, WNOHANG));
    kill(waiter, SIGTERM);
    EXPECT_EQ(256 + SIGTERM, Join(waiter));
  }
  net_.Heal();
}

TEST_F(WriteBehindTest, UnmountingWaitsForIt) {
  UniqueFd fd = BeginBehind();
  auto ending = std::async(std::launch::async, [&] {
    fd.reset();
    one_.reset();
  });
  EXPECT_FALSE(IsDone(ending));
  net_.Heal();
  ending.get();
  EXPECT_EQ("1 more", Read(Tree("f")));
}

}  // namespace
}  // namespace tripwire::fuse
