// SPDX-License-Identifier: BSD-3-Clause
// Byte-range and whole-file locks between processes.
#include <sys/file.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "tests/posix/posix_env.h"

namespace tripwire::posix {
namespace {

struct flock Range(short type, off_t start, off_t length) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

int SetLock(int fd, short type, off_t start = 0, off_t length = 0) {
  struct flock lock = Range(type, start, length);
  return fcntl(fd, F_SETLK, &lock);
}

int WaitLock(int fd, short type, off_t start = 0, off_t length = 0) {
  struct flock lock = Range(type, start, length);
  return fcntl(fd, F_SETLKW, &lock);
}

class LockTest : public PosixTest {
 protected:
  void SetUp() override { WriteFile(P("f"), std::string(1000, 'x')); }

  // Whether another process could lock the range now.
  bool OtherCanLock(short type, off_t start = 0, off_t length = 0) {
    return InChild([&] {
             UniqueFd fd(open(P("f").c_str(), O_RDWR));
             return SetLock(fd.get(), type, start, length) == 0 ? 1 : 0;
           }) == 1;
  }
  bool OtherCanFlock(int operation) {
    return InChild([&] {
             UniqueFd fd(open(P("f").c_str(), O_RDWR));
             return flock(fd.get(), operation | LOCK_NB) == 0 ? 1 : 0;
           }) == 1;
  }
};

TEST_F(LockTest, WriteLocksExclude) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(SetLock(fd.get(), F_WRLCK, 100, 50));
  EXPECT_FALSE(OtherCanLock(F_WRLCK, 120, 1));
  EXPECT_FALSE(OtherCanLock(F_RDLCK, 0, 101));
  EXPECT_TRUE(OtherCanLock(F_WRLCK, 0, 100));
  EXPECT_TRUE(OtherCanLock(F_WRLCK, 150, 0));
  ASSERT_OK(SetLock(fd.get(), F_UNLCK, 100, 50));
  EXPECT_TRUE(OtherCanLock(F_WRLCK));
}

TEST_F(LockTest, ReadLocksAreShared) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(SetLock(fd.get(), F_RDLCK));
  EXPECT_TRUE(OtherCanLock(F_RDLCK));
  EXPECT_FALSE(OtherCanLock(F_WRLCK, 5, 1));
}

TEST_F(LockTest, RangesAreSplitAndJoined) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(SetLock(fd.get(), F_WRLCK, 0, 100));
  ASSERT_OK(SetLock(fd.get(), F_UNLCK, 40, 20));
  EXPECT_TRUE(OtherCanLock(F_WRLCK, 40, 20));
  EXPECT_FALSE(OtherCanLock(F_WRLCK, 39, 1));
  EXPECT_FALSE(OtherCanLock(F_WRLCK, 60, 1));
  ASSERT_OK(SetLock(fd.get(), F_RDLCK, 10, 10));  // a part becomes shared
  EXPECT_TRUE(OtherCanLock(F_RDLCK, 10, 10));
  EXPECT_FALSE(OtherCanLock(F_RDLCK, 9, 1));
  ASSERT_OK(SetLock(fd.get(), F_UNLCK));
  EXPECT_TRUE(OtherCanLock(F_WRLCK));
}

TEST_F(LockTest, GetLockTellsWhoIsInTheWay) {
  int pipes[2];
  ASSERT_EQ(0, pipe(pipes));
  Child holder([&] {
    UniqueFd fd(open(P("f").c_str(), O_RDWR));
    if (SetLock(fd.get(), F_WRLCK, 10, 20) != 0) return 1;
    if (write(pipes[1], "r", 1) != 1) return 1;
    pause();
    return 0;
  });
  char c;
  ASSERT_EQ(1, read(pipes[0], &c, 1));
  UniqueFd fd = Open("f", O_RDWR);
  struct flock lock = Range(F_RDLCK, 0, 0);
  ASSERT_OK(fcntl(fd.get(), F_GETLK, &lock));
  EXPECT_EQ(F_WRLCK, lock.l_type);
  EXPECT_EQ(10, lock.l_start);
  EXPECT_EQ(20, lock.l_len);
  EXPECT_EQ(holder.pid(), lock.l_pid);
  lock = Range(F_WRLCK, 30, 0);
  ASSERT_OK(fcntl(fd.get(), F_GETLK, &lock));
  EXPECT_EQ(F_UNLCK, lock.l_type);
  // Locks end with their process.
  kill(holder.pid(), SIGKILL);
  holder.Wait();
  EXPECT_TRUE(Eventually(10, [&] { return SetLock(fd.get(), F_WRLCK) == 0; }));
  close(pipes[0]);
  close(pipes[1]);
}

TEST_F(LockTest, ClosingAnyDescriptorDropsByteRangeLocks) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(SetLock(fd.get(), F_WRLCK));
  EXPECT_FALSE(OtherCanLock(F_WRLCK));
  UniqueFd other = Open("f", O_RDONLY);
  other.reset();
  EXPECT_TRUE(OtherCanLock(F_WRLCK));
}

TEST_F(LockTest, OpenFileDescriptionLocksStay) {
  UniqueFd fd = Open("f", O_RDWR);
  struct flock lock = Range(F_WRLCK, 0, 0);
  ASSERT_OK(fcntl(fd.get(), F_OFD_SETLK, &lock));
  UniqueFd other = Open("f", O_RDWR);
  lock = Range(F_WRLCK, 0, 0);
  EXPECT_ERRNO(EAGAIN, fcntl(other.get(), F_OFD_SETLK, &lock));
  other.reset();
  EXPECT_FALSE(OtherCanLock(F_WRLCK));
  fd.reset();
  EXPECT_TRUE(Eventually(10, [&] { return OtherCanLock(F_WRLCK); }));
}

TEST_F(LockTest, AccessModesMatter) {
  UniqueFd reader = Open("f", O_RDONLY);
  EXPECT_ERRNO(EBADF, SetLock(reader.get(), F_WRLCK));
  EXPECT_OK(SetLock(reader.get(), F_RDLCK));
  UniqueFd writer = Open("f", O_WRONLY);
  EXPECT_ERRNO(EBADF, SetLock(writer.get(), F_RDLCK));
}

TEST_F(LockTest, WaitersAreGrantedWhenTheHolderLetsGo) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(SetLock(fd.get(), F_WRLCK));
  std::vector<std::unique_ptr<Child>> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.push_back(std::make_unique<Child>([&] {
      UniqueFd mine(open(P("f").c_str(), O_RDWR));
      if (WaitLock(mine.get(), F_WRLCK) != 0) return 1;
      return SetLock(mine.get(), F_UNLCK) == 0 ? 0 : 2;
    }));
  }
  usleep(100000);
  for (auto& waiter : waiters) EXPECT_TRUE(waiter->Running());
  ASSERT_OK(SetLock(fd.get(), F_UNLCK));
  for (auto& waiter : waiters) EXPECT_EQ(0, waiter->Wait());
}

void OnAlarm(int) {}

TEST_F(LockTest, WaitingIsInterrupted) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(SetLock(fd.get(), F_WRLCK));
  Child waiter([&] {
    struct sigaction action = {};
    action.sa_handler = &OnAlarm;
    sigaction(SIGALRM, &action, nullptr);
    UniqueFd mine(open(P("f").c_str(), O_RDWR));
    itimerval timer = {};
    timer.it_value.tv_usec = 200000;
    setitimer(ITIMER_REAL, &timer, nullptr);
    if (WaitLock(mine.get(), F_WRLCK) == 0) return 1;
    return errno == EINTR ? 0 : 2;
  });
  EXPECT_EQ(0, waiter.Wait());
  Child killed([&] {
    UniqueFd mine(open(P("f").c_str(), O_RDWR));
    return WaitLock(mine.get(), F_WRLCK);
  });
  usleep(100000);
  kill(killed.pid(), SIGKILL);
  EXPECT_EQ(256 + SIGKILL, killed.Wait());
  // What was given up is not held.
  ASSERT_OK(SetLock(fd.get(), F_UNLCK));
  EXPECT_TRUE(Eventually(10, [&] { return OtherCanLock(F_WRLCK); }));
}

TEST_F(LockTest, DeadlocksAreFound) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(SetLock(fd.get(), F_WRLCK, 0, 1));
  int pipes[2];
  ASSERT_EQ(0, pipe(pipes));
  Child other([&] {
    UniqueFd mine(open(P("f").c_str(), O_RDWR));
    if (SetLock(mine.get(), F_WRLCK, 1, 1) != 0) return 1;
    if (write(pipes[1], "r", 1) != 1) return 1;
    return WaitLock(mine.get(), F_WRLCK, 0, 1) == 0 ? 0 : 2;
  });
  char c;
  ASSERT_EQ(1, read(pipes[0], &c, 1));
  usleep(200000);  // it waits for us by now
  EXPECT_ERRNO(EDEADLK, WaitLock(fd.get(), F_WRLCK, 1, 1));
  ASSERT_OK(SetLock(fd.get(), F_UNLCK));
  EXPECT_EQ(0, other.Wait());
  close(pipes[0]);
  close(pipes[1]);
}

TEST_F(LockTest, Flock) {
  UniqueFd fd = Open("f", O_RDONLY);
  ASSERT_OK(flock(fd.get(), LOCK_EX));
  EXPECT_FALSE(OtherCanFlock(LOCK_EX));
  EXPECT_FALSE(OtherCanFlock(LOCK_SH));
  UniqueFd same_process = Open("f", O_RDONLY);
  EXPECT_ERRNO(EWOULDBLOCK, flock(same_process.get(), LOCK_EX | LOCK_NB));
  ASSERT_OK(flock(fd.get(), LOCK_SH));
  EXPECT_TRUE(OtherCanFlock(LOCK_SH));
  EXPECT_FALSE(OtherCanFlock(LOCK_EX));
  ASSERT_OK(flock(fd.get(), LOCK_UN));
  EXPECT_TRUE(OtherCanFlock(LOCK_EX));
  // Ends with the last descriptor.
  ASSERT_OK(flock(fd.get(), LOCK_EX));
  UniqueFd copy(dup(fd.get()));
  fd.reset();
  EXPECT_FALSE(OtherCanFlock(LOCK_EX));
  copy.reset();
  EXPECT_TRUE(Eventually(10, [&] { return OtherCanFlock(LOCK_EX); }));
}

TEST_F(LockTest, FlockWaits) {
  UniqueFd fd = Open("f", O_RDONLY);
  ASSERT_OK(flock(fd.get(), LOCK_EX));
  Child waiter([&] {
    UniqueFd mine(open(P("f").c_str(), O_RDONLY));
    return flock(mine.get(), LOCK_EX) == 0 ? 0 : 1;
  });
  usleep(100000);
  EXPECT_TRUE(waiter.Running());
  ASSERT_OK(flock(fd.get(), LOCK_UN));
  EXPECT_EQ(0, waiter.Wait());
}

TEST_F(LockTest, ManyWaitersLeaveRoomForTheHolder) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(flock(fd.get(), LOCK_EX));
  std::vector<std::unique_ptr<Child>> waiters;
  for (int i = 0; i < 80; ++i) {
    waiters.push_back(std::make_unique<Child>([&] {
      UniqueFd mine(open(P("f").c_str(), O_RDWR));
      return flock(mine.get(), LOCK_EX) == 0 ? 0 : 1;
    }));
  }
  usleep(200000);
  WriteFile(P("meanwhile"), "others work on");
  EXPECT_EQ("others work on", ReadFile(P("meanwhile")));
  ASSERT_OK(flock(fd.get(), LOCK_UN));
  for (auto& waiter : waiters) EXPECT_EQ(0, waiter->Wait());
}

TEST_F(LockTest, AThousandWaitAndAllAreServed) {
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(flock(fd.get(), LOCK_EX));
  int pipes[2];
  ASSERT_EQ(0, pipe(pipes));
  Child waiters([&] {
    std::atomic<int> served{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 1000; ++i) {
      threads.emplace_back([&] {
        UniqueFd mine(open(P("f").c_str(), O_RDWR));
        if (flock(mine.get(), LOCK_EX) == 0 && flock(mine.get(), LOCK_UN) == 0) ++served;
      });
    }
    if (write(pipes[1], "r", 1) != 1) return 1;
    for (auto& thread : threads) thread.join();
    return served == 1000 ? 0 : 2;
  });
  char c;
  ASSERT_EQ(1, read(pipes[0], &c, 1));
  WriteFile(P("meanwhile"), "others work on");
  EXPECT_EQ("others work on", ReadFile(P("meanwhile")));
  EXPECT_TRUE(waiters.Running());
  ASSERT_OK(flock(fd.get(), LOCK_UN));
  EXPECT_EQ(0, waiters.Wait());
  close(pipes[0]);
  close(pipes[1]);
}

}  // namespace
}  // namespace tripwire::posix
