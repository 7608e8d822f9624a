// SPDX-License-Identifier: BSD-3-Clause
// A real mount of a server in this process that is cut off, killed and restarted.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "fs-server/file_server.h"
#include "fs-server/testing/loopback.h"
#include "fuse-client/mount_runner.h"
#include "fuse-client/mount_table.h"
#include "nic/base/fd.h"

namespace tripwire::fuse {
namespace {

class RecoveryTest : public ::testing::Test {
 protected:
  RecoveryTest() {
    char name[] = "/tmp/tw-recovery-XXXXXX";
    top_ = mkdtemp(name);
    for (const char* part : {"/tree", "/one", "/two", "/state"}) {
      mkdir((top_ + part).c_str(), 0755);
    }
  }
  ~RecoveryTest() override {
    net_.Heal();
    one_.reset();
    two_.reset();
    StopServer();
    std::error_code error;
    std::filesystem::remove_all(top_, error);
  }

  void StartServer(uint64_t verifier = 1) {
    fs::ServerConfig config;
    auto exported = fs::ParseExport("data=" + top_ + "/tree,squash=none");
    ASSERT_TRUE(exported.ok());
    config.exports.push_back(*exported);
    config.state_dir = top_ + "/state";
    config.grace_ms = 3000;
    config.boot_verifier = verifier;
    auto files = fs::FileServer::Create(config);
    ASSERT_TRUE(files.ok()) << files.status();
    files_ = *std::move(files);
    server_ = net_.Serve(fs::FileServer::RpcOptions(), files_->Callbacks());
  }
  void StopServer() {
    if (!files_) return;
    files_->Shutdown();
    server_.reset();
    files_.reset();
  }
  // As kill -9, and gone.
  void KillServer() {
    net_.Kill();
    StopServer();
  }
  std::unique_ptr<MountRunner> MountOn(const std::string& point,
                                       const std::string& options = "rw") {
    const std::vector<const char*> words = {"tw-mount", ":data", point.c_str(), "-o",
                                            options.c_str()};
    MountOptions parsed;
    EXPECT_TRUE(ParseCommandLine(static_cast<int>(words.size()), words.data(),
                                 geteuid() == 0, &parsed)
                    .ok());
    auto checked = CheckMountPoint(point);
    EXPECT_TRUE(checked.ok()) << checked.status();
    auto runner = std::make_unique<MountRunner>(parsed, *checked);
    const absl::Status status = runner->Start(
        [&](rpc::ClientOptions o) { return net_.Connect(std::move(o)); });
    EXPECT_TRUE(status.ok()) << status;
    return runner;
  }
  void Mount(const std::string& options = "rw") { one_ = MountOn(top_ + "/one", options); }
  void MountSecond() { two_ = MountOn(top_ + "/two"); }

  std::string P(const std::string& name) const { return top_ + "/one/" + name; }
  std::string Second(const std::string& name) const { return top_ + "/two/" + name; }
  std::string Tree(const std::string& name) const { return top_ + "/tree/" + name; }
  static std::string Read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  // Starts a process that runs `f`.
  static pid_t Fork(const std::function<int()>& f) {
    const pid_t pid = fork();
    if (pid == 0) _exit(f());
    return pid;
  }
  static int Join(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
  }

  std::string top_;
  rpc::Loopback net_;
  std::unique_ptr<fs::FileServer> files_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<MountRunner> one_, two_;
};

TEST_F(RecoveryTest, OpenFilesAndPendingCallsSurviveARestart) {
  StartServer();
  Mount();
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
  StartServer(1);
  Mount();
  UniqueFd fd(open(P("f").c_str(), O_CREAT | O_RDWR, 0644));
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

TEST_F(RecoveryTest, CommittedAndTruncatedDataIsNotSentAgain) {
  StartServer(1);
  Mount();
  UniqueFd fd(open(P("f").c_str(), O_CREAT | O_RDWR, 0644));
  ASSERT_EQ(9, pwrite(fd.get(), "committed", 9, 0));
  ASSERT_EQ(0, fsync(fd.get()));
  UniqueFd cut(open(P("cut").c_str(), O_CREAT | O_RDWR, 0644));
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
  StartServer();
  Mount();
  MountSecond();
  Write(P("f"), "x");
  UniqueFd mine(open(P("f").c_str(), O_RDWR));
  UniqueFd theirs(open(Second("f").c_str(), O_RDWR));
  ASSERT_EQ(0, flock(mine.get(), LOCK_EX));
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

TEST_F(RecoveryTest, ARemovedOpenFileIsLostAloneInARestart) {
  StartServer();
  Mount();
  Write(P("gone"), "x");
  Write(P("kept"), "kept");
  UniqueFd gone(open(P("gone").c_str(), O_RDONLY));
  UniqueFd kept(open(P("kept").c_str(), O_RDONLY));
  ASSERT_EQ(0, unlink(P("gone").c_str()));
  KillServer();
  StartServer();
  char c = 0;
  EXPECT_EQ(1, pread(kept.get(), &c, 1, 0));
  struct stat st;
  EXPECT_EQ(-1, fstat(gone.get(), &st));
  EXPECT_EQ(ESTALE, errno);
}

TEST_F(RecoveryTest, CallsWaitOutACutLink) {
  StartServer();
  Mount();
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
  StartServer();
  Mount("soft,timeo=3");
  Write(P("f"), "x");
  net_.Cut();
  struct stat st;
  EXPECT_EQ(-1, stat(P("other").c_str(), &st));
  EXPECT_EQ(EIO, errno);
  net_.Heal();
  EXPECT_EQ(0, stat(P("f").c_str(), &st)) << strerror(errno);
}

TEST_F(RecoveryTest, SignalsEndWaitingProcesses) {
  StartServer();
  Mount();
  net_.Cut();
  struct Case {
    int signal;
    int result;
  };
  for (const Case& c : {Case{SIGKILL, 256 + SIGKILL}, Case{SIGINT, 256 + SIGINT},
                        Case{SIGTERM, 256 + SIGTERM}}) {
    const pid_t waiter = Fork([&] {
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      signal(c.signal, SIG_DFL);
      return mkdir(P("never" + std::to_string(c.signal)).c_str(), 0755) == 0 ? 0 : 1;
    });
    usleep(200000);
    EXPECT_EQ(0, waitpid(waiter, nullptr, WNOHANG));
    kill(waiter, c.signal);
    EXPECT_EQ(c.result, Join(waiter));
  }
}

TEST_F(RecoveryTest, StoppingWhileTheServerIsGoneLeavesNoMount) {
  StartServer();
  Mount();
  Write(P("f"), "x");
  KillServer();
  one_.reset();
  EXPECT_EQ("", DeviceOfMount(top_ + "/one"));
}

}  // namespace
}  // namespace tripwire::fuse
