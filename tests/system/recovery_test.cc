// SPDX-License-Identifier: BSD-3-Clause
// Servers that die, cables that are pulled: mounts ride through, or give up if
// told to.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "nic/base/fd.h"
#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

class RecoveryTest : public ::testing::TestWithParam<Wire> {};

// Calls that fail, or succeed wrongly, when carried out twice or not at all.
// Every one must do exactly what it says, whatever happens to the server.
class OnceOnlyWork {
 public:
  OnceOnlyWork(const std::string& mount, int worker)
      : base_(mount + "/worker" + std::to_string(worker)) {
    Must(::mkdir(base_.c_str(), 0755), "mkdir", base_);
  }
  void Step() {
    const std::string name = base_ + "/" + std::to_string(steps_++);
    Must(::mkdir(name.c_str(), 0755), "mkdir", name);
    const std::string file = name + "/file", moved = name + "/moved";
    {
      UniqueFd fd(::open(file.c_str(), O_CREAT | O_EXCL | O_RDWR, 0644));
      Must(fd.get(), "create", file);
      const std::string text = Text();
      Must(::write(fd.get(), text.data(), text.size()) ==
                   static_cast<ssize_t>(text.size())
               ? 0
               : -1,
           "write", file);
      Must(steps_ % 4 == 0 ? ::fsync(fd.get()) : 0, "fsync", file);
    }
    Must(::link(file.c_str(), (name + "/second").c_str()), "link", file);
    Must(::rename(file.c_str(), moved.c_str()), "rename", file);
    Must(::symlink("moved", file.c_str()), "symlink", file);
    Must(::unlink((name + "/second").c_str()), "unlink", name);
    Must(::mkdir((name + "/short").c_str(), 0700), "mkdir", name);
    Must(::rmdir((name + "/short").c_str()), "rmdir", name);
    // An append carried out twice shows in the log's length.
    UniqueFd log(
        ::open((base_ + "/log").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0644));
    Must(log.get(), "open", base_);
    Must(::write(log.get(), "one line\n", 9) == 9 ? 0 : -1, "append", base_);
  }
  // What must be there in the end, below `root`.
  void Verify(const std::string& root, int worker) const {
    const std::string base = root + "/worker" + std::to_string(worker);
    EXPECT_EQ(ListDirectory(base).size(), static_cast<size_t>(steps_) + 1);
    for (int i = 0; i < steps_; ++i) {
      const std::string name = base + "/" + std::to_string(i);
      EXPECT_EQ(ListDirectory(name),
                (std::vector<std::string>{"file", "moved"}));
      EXPECT_EQ(ReadFile(name + "/moved"), Text(i + 1));
    }
    EXPECT_EQ(ReadFile(base + "/log").size(), static_cast<size_t>(steps_) * 9);
  }
  int steps() const { return steps_; }
  const std::vector<std::string>& errors() const { return errors_; }

 private:
  void Must(long rc, const char* what, const std::string& where) {
    if (rc < 0)
      errors_.push_back(std::string(what) + " " + where + ": " +
                        std::strerror(errno));
  }
  std::string Text() const { return Text(steps_); }
  static std::string Text(int step) {
    return RandomBytes(static_cast<uint64_t>(step), 5000);
  }

  const std::string base_;
  int steps_ = 0;
  std::vector<std::string> errors_;
};

class Workers {
 public:
  Workers(const std::string& mount, int count) {
    for (int i = 0; i < count; ++i)
      works_.push_back(std::make_unique<OnceOnlyWork>(mount, i));
    for (auto& work : works_) {
      threads_.emplace_back([this, &work = *work] {
        while (!stop_) {
          work.Step();
          ++steps_;
        }
      });
    }
  }
  // Ends with the test even if that failed: the work rides on.
  ~Workers() { Stop(); }
  void Stop() {
    stop_ = true;
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }
  bool Advances(double seconds) {
    const int before = steps_;
    return Eventually(seconds, [&] { return steps_ > before + 8; });
  }
  void Verify(const std::string& root) {
    for (size_t i = 0; i < works_.size(); ++i) {
      for (const std::string& error : works_[i]->errors())
        ADD_FAILURE() << error;
      works_[i]->Verify(root, static_cast<int>(i));
    }
  }

 private:
  std::vector<std::unique_ptr<OnceOnlyWork>> works_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stop_{false};
  std::atomic<int> steps_{0};
};

TEST_P(RecoveryTest, KilledServersComeBackUnderLoadAndNothingHappensTwice) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  Workers workers(mount.path(), 4);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(workers.Advances(60)) << "after restart " << i;
    SleepMs(30 * i);
    share.CrashServer();
    SleepMs(i == 2 ? 3000 : 200);
    share.StartServer();
  }
  ASSERT_TRUE(workers.Advances(60));
  workers.Stop();
  workers.Verify(mount.path());
  EXPECT_EQ(mount.Stop(), 0);
  workers.Verify(share.root());
}

// Whatever the mount's NIC counted under this name.
uint64_t MountCounter(const std::string& name) {
  const std::string stat =
      MustRun({Program("tw"), "stat", "--json", "tw-mount"});
  const std::string field = "\"" + name + "\":";
  const size_t at = stat.find(field);
  if (at == std::string::npos) throw std::runtime_error("no " + name);
  return std::stoull(stat.substr(at + field.size()));
}

// A mount need not wait until its dead server has been silent for long: the new
// one says that it knows nothing of the old links.
TEST_P(RecoveryTest, AKilledServersSuccessorSaysSoItself) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  // A server that takes so long to start that silence tells first proves
  // nothing, so it may try again.
  for (int i = 0; i < 5 && MountCounter("links_disowned") == 0; ++i) {
    const uint64_t lost = MountCounter("links_lost");
    share.CrashServer();
    share.StartServer();
    ASSERT_TRUE(Eventually(60, [&] { return MountCounter("links_lost") > lost; }));
    WriteFile(mount / "file", "text " + std::to_string(i));
    EXPECT_EQ(ReadFile(share.InRoot("file")), "text " + std::to_string(i));
  }
  EXPECT_GE(MountCounter("links_disowned"), 1u);
}

TEST_P(RecoveryTest, OpenFilesAndLocksSurviveTheServer) {
  Share share(GetParam());
  share.StartServer();
  Mount mount = share.MountAs(0);
  WriteFile(mount / "kept", "before");
  UniqueFd kept(::open((mount / "kept").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(kept);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(kept.get(), F_OFD_SETLK, &lock), 0);
  // Written, not yet stable: the client must bring it again.
  const std::string data = RandomBytes(3, 3'000'000);
  UniqueFd unstable(
      ::open((mount / "unstable").c_str(), O_CREAT | O_RDWR, 0644));
  ASSERT_TRUE(unstable);
  ASSERT_EQ(::write(unstable.get(), data.data(), data.size()),
            static_cast<ssize_t>(data.size()));
  // Nothing may be under way: the new server is a child of this process, which, as any
  // that is forked, closes the file first, and that waits for the old one.
  struct stat st;
  ASSERT_EQ(::fstat(unstable.get(), &st), 0);
  share.CrashServer();
  share.StartServer();
  ASSERT_EQ(::pwrite(kept.get(), "after!", 6, 0), 6);
  ASSERT_EQ(::fsync(kept.get()), 0);
  ASSERT_EQ(::fsync(unstable.get()), 0);
  EXPECT_EQ(ReadFile(share.InRoot("kept")), "after!");
  EXPECT_EQ(ReadFile(share.InRoot("unstable")), data);
  // The lock is still the first client's.
  Mount other = share.MountAs(1);
  UniqueFd rival(::open((other / "kept").c_str(), O_RDWR));
  ASSERT_TRUE(rival);
  EXPECT_EQ(::fcntl(rival.get(), F_OFD_SETLK, &lock), -1);
  EXPECT_TRUE(errno == EAGAIN || errno == EACCES) << std::strerror(errno);
  kept.reset();
  EXPECT_TRUE(Eventually(
      10, [&] { return ::fcntl(rival.get(), F_OFD_SETLK, &lock) == 0; }));
}

TEST_P(RecoveryTest, AServerStoppedCleanlyAndStartedAgainIsTheSame) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  WriteFile(mount / "file", "text");
  share.server().Signal(SIGTERM);
  EXPECT_EQ(share.server().Wait(20).value_or(-1), 0);
  std::atomic<bool> done{false};
  std::string read;
  std::thread reader([&] {
    UniqueFd fd(::open((mount / "file").c_str(), O_RDWR | O_APPEND));
    if (fd && ::write(fd.get(), " more", 5) == 5)
      read = ReadFile(mount / "file");
    done = true;
  });
  SleepMs(1500);
  EXPECT_FALSE(done) << "the call should wait for the server";
  share.StartServer();
  EXPECT_TRUE(Eventually(60, [&] { return done.load(); }));
  reader.join();
  EXPECT_EQ(read, "text more");
}

TEST_P(RecoveryTest, SoftMountsGiveUp) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount mount = share.MountAs(0, "soft,timeo=10");
  WriteFile(mount / "file", "text");
  share.CrashServer();
  // Not a name seen before: nothing can be cached.
  struct stat info {};
  EXPECT_EQ(::stat((mount / "unseen").c_str(), &info), -1);
  EXPECT_TRUE(errno == ETIMEDOUT || errno == EIO) << std::strerror(errno);
  EXPECT_EQ(::mkdir((mount / "directory").c_str(), 0755), -1);
  EXPECT_TRUE(errno == ETIMEDOUT || errno == EIO) << std::strerror(errno);
  share.StartServer();
  EXPECT_TRUE(Eventually(
      60, [&] { return ::mkdir((mount / "again").c_str(), 0755) == 0; }));
}

TEST_P(RecoveryTest, WaitingCallsCanBeInterrupted) {
  Share share(GetParam(), 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  share.CrashServer();
  Process waiting({"stat", mount / "anything"});
  SleepMs(500);
  EXPECT_TRUE(waiting.Running()) << waiting.err();
  waiting.Signal(SIGKILL);
  EXPECT_TRUE(waiting.Wait(20).has_value()) << "cannot be killed";
}

TEST_P(RecoveryTest, ACutCableComesBackUnderLoad) {
  Share share(GetParam(), 1);
  if (!share.network().HasCable()) {
    // Shared memory has no cable; the nearest is a server that stops for a
    // while.
    share.StartServer();
    Mount mount = share.MountAs(0);
    Workers workers(mount.path(), 3);
    for (int pause_ms : {1000, 9000}) {
      ASSERT_TRUE(workers.Advances(60));
      share.server().Signal(SIGSTOP);
      SleepMs(pause_ms);
      share.server().Signal(SIGCONT);
    }
    ASSERT_TRUE(workers.Advances(60));
    workers.Stop();
    workers.Verify(share.root());
    return;
  }
  share.StartServer();
  Mount mount = share.MountAs(0);
  Workers workers(mount.path(), 3);
  // Shorter and longer than it takes to declare the link lost.
  for (int pause_ms : {1000, 9000}) {
    ASSERT_TRUE(workers.Advances(60));
    share.network().SetCable(false);
    SleepMs(pause_ms);
    share.network().SetCable(true);
  }
  ASSERT_TRUE(workers.Advances(60));
  workers.Stop();
  workers.Verify(share.root());
}

INSTANTIATE_TEST_SUITE_P(Over, RecoveryTest,
                         ::testing::Values(Wire::kMemif, Wire::kEth, Wire::kXdp,
                                           Wire::kFaultyEth),
                         WireName);

}  // namespace
}  // namespace tripwire::systest
