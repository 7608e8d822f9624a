// SPDX-License-Identifier: BSD-3-Clause
// A real mount of a server in this process that is cut off, killed and restarted.
#include <atomic>
#include <iterator>
#include <thread>

#include "tests/unit/fuse-client/mounted_test.h"

namespace tripwire::fuse {
namespace {

class RecoveryTest : public MountedTest {};

TEST_F(RecoveryTest, OpenFilesAndPendingCallsSurviveARestart) {
  Begin();
  Write(P("f"), "before");
  UniqueFd fd(open(P("f").c_str(), O_RDWR));
  ASSERT_TRUE(fd);
  KillServer();
  std::atomic<bool> done{false};
  std::thread caller([&] {
    EXPECT_EQ(5, pwrite(fd.get(), "AFTER", 5, 0));
    EXPECT_EQ(0, mkdir(P("made-while-down").c_str(), 0755));
    done = true;
  });
  usleep(300000);
  EXPECT_FALSE(done);
  StartServer();
  caller.join();
  EXPECT_EQ("AFTERe", Read(Tree("f")));
  EXPECT_TRUE(std::filesystem::is_directory(Tree("made-while-down")));
  char buffer[8] = {};
  EXPECT_EQ(6, pread(fd.get(), buffer, 6, 0));
  EXPECT_STREQ("AFTERe", buffer);
}

TEST_F(RecoveryTest, UnstableDataIsSentAgainWhenTheServerLostIt) {
  Begin(1);
  UniqueFd fd = Create("f");
  const std::string data(300000, 'd');
  ASSERT_EQ(300000, pwrite(fd.get(), data.data(), data.size(), 0));
  Write(P("closed"), "closed but not committed");
  KillServer();
  // The server's machine crashed, with what had not been written to its disk.
  ASSERT_EQ(0, truncate(Tree("f").c_str(), 10));
  ASSERT_EQ(0, truncate(Tree("closed").c_str(), 0));
  StartServer(2);
  EXPECT_EQ(0, fsync(fd.get()));
  EXPECT_TRUE(data == Read(Tree("f")));
  EXPECT_EQ("closed but not committed", Read(Tree("closed")));
}

// The server's kernel is ours: it has the data, so we keep no copy to send again.
TEST_F(RecoveryTest, WhatOurOwnKernelHasOutlivesTheServerWithoutACopy) {
  Begin(0);
  UniqueFd fd = Create("f");
  const std::string data(300000, 'd');
  ASSERT_EQ(300000, pwrite(fd.get(), data.data(), data.size(), 0));
  KillServer();
  Write(Tree("f"), "others");  // would be overwritten by sending it again
  StartServer(0);
  EXPECT_EQ(0, fsync(fd.get()));
  EXPECT_EQ("others", Read(Tree("f")));
}

TEST_F(RecoveryTest, DataThatWasLostAndCannotBeSentAgainIsToldToFsyncOnce) {
  Begin(0);
  UniqueFd fd = Create("f");
  ASSERT_EQ(3, pwrite(fd.get(), "one", 3, 0));
  files_->DataLost();  // the disk failed
  EXPECT_EQ(-1, fsync(fd.get()));
  EXPECT_EQ(EIO, errno);
  EXPECT_EQ(0, fsync(fd.get()));
  ASSERT_EQ(3, pwrite(fd.get(), "two", 3, 0));
  EXPECT_EQ(0, fsync(fd.get()));
  EXPECT_EQ("two", Read(Tree("f")));
}

TEST_F(RecoveryTest, CommittedAndTruncatedDataIsNotSentAgain) {
  Begin(1);
  UniqueFd fd = Create("f");
  ASSERT_EQ(9, pwrite(fd.get(), "committed", 9, 0));
  ASSERT_EQ(0, fsync(fd.get()));
  UniqueFd cut = Create("cut");
  ASSERT_EQ(9, pwrite(cut.get(), "truncated", 9, 0));
  ASSERT_EQ(0, ftruncate(cut.get(), 5));
  KillServer();
  Write(Tree("f"), "by others");
  StartServer(2);
  EXPECT_EQ(0, fsync(fd.get()));
  EXPECT_EQ(0, fsync(cut.get()));
  EXPECT_EQ("by others", Read(Tree("f")));
  EXPECT_EQ("trunc", Read(Tree("cut")));
}

TEST_F(RecoveryTest, LocksAreReclaimed) {
  UniqueFd mine = BeginWithLock();
  UniqueFd theirs(open(Second("f").c_str(), O_RDWR));
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_start = 10;
  lock.l_len = 5;
  ASSERT_EQ(0, fcntl(mine.get(), F_OFD_SETLK, &lock));
  KillServer();
  StartServer();
  EXPECT_EQ(-1, flock(theirs.get(), LOCK_EX | LOCK_NB));
  EXPECT_EQ(EWOULDBLOCK, errno);
  lock = {};
  lock.l_type = F_RDLCK;
  EXPECT_EQ(-1, fcntl(theirs.get(), F_OFD_SETLK, &lock));
  ASSERT_EQ(0, flock(mine.get(), LOCK_UN));
  EXPECT_EQ(0, flock(theirs.get(), LOCK_EX));
}

size_t ThreadsOfThisProcess() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                                           std::filesystem::directory_iterator()));
}

// In a process of its own: `count` threads that each wait for the lock and let it go.
// Says on `ready` that all are about to ask.
int WaitByTheThousand(const std::string& path, int count, int ready) {
  std::atomic<int> got{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&] {
      UniqueFd fd(open(path.c_str(), O_RDWR));
      if (flock(fd.get(), LOCK_EX) == 0 && flock(fd.get(), LOCK_UN) == 0) ++got;
    });
  }
  if (write(ready, "r", 1) != 1) return 2;
  for (auto& thread : threads) thread.join();
  return got == count ? 0 : 1;
}

TEST_F(RecoveryTest, ThousandsWaitForALockAndHoldNothing) {
  UniqueFd mine = BeginWithLock();
  int pipes[2];
  ASSERT_EQ(0, pipe(pipes));
  constexpr int kEach = 1500;
  const pid_t one = Fork([&] { return WaitByTheThousand(P("f"), kEach, pipes[1]); },
                         pipes[1]);
  const pid_t two = Fork([&] { return WaitByTheThousand(Second("f"), kEach, pipes[1]); },
                         pipes[1]);
  char c;
  ASSERT_EQ(1, read(pipes[0], &c, 1));
  ASSERT_EQ(1, read(pipes[0], &c, 1));
  AwaitWaiters(2 * kEach);
  // Neither mount nor server keeps a thread for each, and both go on serving.
  EXPECT_LT(ThreadsOfThisProcess(), size_t{200});
  Write(Second("meanwhile"), "work");
  EXPECT_EQ("work", Read(P("meanwhile")));
  ASSERT_EQ(0, flock(mine.get(), LOCK_UN));
  EXPECT_EQ(0, Join(one));
  EXPECT_EQ(0, Join(two));
  EXPECT_EQ(0, flock(mine.get(), LOCK_EX | LOCK_NB));
  close(pipes[0]);
  close(pipes[1]);
}

TEST_F(RecoveryTest, WaitersForALockRideThroughARestart) {
  for (const bool in_order : {true, false}) {
    UniqueFd mine = BeginWithLock();
    std::vector<pid_t> waiters;
    for (const auto& path : {P("f"), Second("f"), Second("f")}) {
      waiters.push_back(Fork([&] {
        UniqueFd fd(open(path.c_str(), O_RDWR));
        return flock(fd.get(), LOCK_EX) == 0 ? 0 : errno;
      }));
    }
    AwaitWaiters(3);
    if (in_order) {
      StopServer();
    } else {
      KillServer();
    }
    usleep(100000);
    StartServer();
    AwaitWaiters(3);
    for (const pid_t waiter : waiters) EXPECT_EQ(0, waitpid(waiter, nullptr, WNOHANG));
    ASSERT_EQ(0, flock(mine.get(), LOCK_UN));
    for (const pid_t waiter : waiters) EXPECT_EQ(0, Join(waiter));
    mine.reset();
    one_.reset();
    two_.reset();
    StopServer();
  }
}

TEST_F(RecoveryTest, WaitingForALockIsInterruptedWithoutAServer) {
  UniqueFd mine = BeginWithLock();
  const pid_t waiter = Fork([&] {
    TakeSignal(SIGINT);
    UniqueFd fd(open(Second("f").c_str(), O_RDWR));
    return flock(fd.get(), LOCK_EX) == 0 ? 0 : 1;
  });
  AwaitWaiters(1);
  net_.Cut();
  kill(waiter, SIGINT);
  EXPECT_EQ(256 + SIGINT, Join(waiter));
  net_.Heal();
  // Nobody is left who would be given the lock.
  ASSERT_EQ(0, flock(mine.get(), LOCK_UN));
  UniqueFd theirs(open(Second("f").c_str(), O_RDWR));
  bool free = false;
  for (int i = 0; i < 1000 && !free; ++i) {
    free = flock(theirs.get(), LOCK_EX | LOCK_NB) == 0;
    if (!free) usleep(10000);
  }
  EXPECT_TRUE(free);
}

TEST_F(RecoveryTest, OpenFilesWithoutANameSurviveARestart) {
  Begin();
  Write(P("gone"), "gone");
  Write(P("replaced"), "replaced");
  Write(P("new"), "new");
  UniqueFd gone(open(P("gone").c_str(), O_RDWR));
  UniqueFd replaced(open(P("replaced").c_str(), O_RDONLY));
  UniqueFd nameless(open((top_ + "/one").c_str(), O_TMPFILE | O_RDWR, 0600));
  ASSERT_EQ(0, unlink(P("gone").c_str()));
  ASSERT_EQ(0, rename(P("new").c_str(), P("replaced").c_str()));
  ASSERT_TRUE(nameless) << strerror(errno);
  ASSERT_EQ(8, pwrite(nameless.get(), "nameless", 8, 0));
  KillServer();
  StartServer();
  char buffer[16] = {};
  EXPECT_EQ(4, pread(gone.get(), buffer, sizeof(buffer), 0));
  EXPECT_STREQ("gone", buffer);
  EXPECT_EQ(2, pwrite(gone.get(), "ne", 2, 4));
  struct stat st;
  ASSERT_EQ(0, fstat(gone.get(), &st));
  EXPECT_EQ(0u, st.st_nlink);
  EXPECT_EQ(6, st.st_size);
  EXPECT_EQ(8, pread(replaced.get(), buffer, sizeof(buffer), 0));
  EXPECT_STREQ("replaced", buffer);
  EXPECT_EQ(8, pread(nameless.get(), buffer, sizeof(buffer), 0));
  EXPECT_STREQ("nameless", buffer);
  EXPECT_EQ("new", Read(Tree("replaced")));
}

TEST_F(RecoveryTest, CallsWaitOutACutLink) {
  Begin();
  Write(P("f"), "x");
  net_.Cut();
  std::atomic<bool> done{false};
  std::thread caller([&] {
    // Exactly once: a repeated exclusive create or remove would fail.
    UniqueFd fd(open(P("new").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644));
    EXPECT_TRUE(fd) << strerror(errno);
    EXPECT_EQ(0, unlink(P("f").c_str())) << strerror(errno);
    done = true;
  });
  usleep(300000);
  EXPECT_FALSE(done);
  net_.Heal();
  caller.join();
  EXPECT_FALSE(std::filesystem::exists(Tree("f")));
}

TEST_F(RecoveryTest, SoftMountsGiveUp) {
  Begin(1, "soft,timeo=3");
  Write(P("f"), "x");
  net_.Cut();
  struct stat st;
  EXPECT_EQ(-1, stat(P("other").c_str(), &st));
  EXPECT_EQ(EIO, errno);
  net_.Heal();
  EXPECT_EQ(0, stat(P("f").c_str(), &st)) << strerror(errno);
}

TEST_F(RecoveryTest, SignalsEndWaitingProcesses) {
  Begin();
  net_.Cut();
  struct Case {
    int signal;
    int result;
  };
  for (const Case& c : {Case{SIGKILL, 256 + SIGKILL}, Case{SIGINT, 256 + SIGINT},
                        Case{SIGTERM, 256 + SIGTERM}}) {
    const pid_t waiter = Fork([&] {
      TakeSignal(c.signal);
      return mkdir(P("never" + std::to_string(c.signal)).c_str(), 0755) == 0 ? 0 : 1;
    });
    usleep(200000);
    EXPECT_EQ(0, waitpid(waiter, nullptr, WNOHANG));
    kill(waiter, c.signal);
    EXPECT_EQ(c.result, Join(waiter));
  }
}

TEST_F(RecoveryTest, StoppingWhileTheServerIsGoneLeavesNoMount) {
  Begin();
  Write(P("f"), "x");
  KillServer();
  one_.reset();
  EXPECT_EQ("", DeviceOfMount(top_ + "/one"));
}

}  // namespace
}  // namespace tripwire::fuse
