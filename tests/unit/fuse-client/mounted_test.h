// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_FUSE_CLIENT_MOUNTED_TEST_H_
#define TRIPWIRE_TESTS_UNIT_FUSE_CLIENT_MOUNTED_TEST_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "fs-server/file_server.h"
#include "fs-server/testing/loopback.h"
#include "fuse-client/mount_runner.h"
#include "fuse-client/mount_table.h"
#include "nic/base/fd.h"

namespace tripwire::fuse {

// Real mounts of a server in this process.
class MountedTest : public ::testing::Test {
 protected:
  MountedTest() {
    char name[] = "/tmp/tw-mounted-XXXXXX";
    top_ = mkdtemp(name);
    for (const char* part : {"/tree", "/one", "/two", "/state"}) {
      mkdir((top_ + part).c_str(), 0755);
    }
  }
  ~MountedTest() override {
    net_.Heal();
    one_.reset();
    two_.reset();
    StopServer();
    std::error_code error;
    std::filesystem::remove_all(top_, error);
  }

  void StartServer(uint64_t verifier = 1, const std::string& squash = "none") {
    fs::ServerConfig config;
    auto exported = fs::ParseExport("data=" + top_ + "/tree,squash=" + squash);
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
  // A server, mounted.
  void Begin(uint64_t verifier = 1, const std::string& options = "rw") {
    StartServer(verifier);
    Mount(options);
  }
  // A server, mounted twice; of the file "f" that both see, the first has an
  // exclusive lock, by the descriptor returned.
  UniqueFd BeginWithLock() {
    Begin();
    MountSecond();
    Write(P("f"), "x");
    UniqueFd mine(open(P("f").c_str(), O_RDWR));
    EXPECT_EQ(0, flock(mine.get(), LOCK_EX)) << strerror(errno);
    return mine;
  }
  // Until the server has that many waiting for locks.
  void AwaitWaiters(size_t count) {
    for (int i = 0; i < 3000 && files_->locks().waiting() < count; ++i) usleep(10000);
    ASSERT_EQ(files_->locks().waiting(), count);
  }
  // A new file on the first mount.
  UniqueFd Create(const std::string& name) const {
    UniqueFd fd(open(P(name).c_str(), O_CREAT | O_RDWR, 0644));
    EXPECT_TRUE(fd) << strerror(errno);
    return fd;
  }

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
  // Starts a process that runs `f`. Of our descriptors it has only `keep`: with the
  // others it would keep mounts and servers alive that are gone here.
  static pid_t Fork(const std::function<int()>& f, int keep = 2) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    if (keep > 3) close_range(3, static_cast<unsigned>(keep) - 1, 0);
    close_range(static_cast<unsigned>(keep) + 1, ~0u, 0);
    _exit(f());
  }
  // Lets the signal end this process, as where it was not started by a test.
  static void TakeSignal(int number) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(number, SIG_DFL);
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

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_TESTS_UNIT_FUSE_CLIENT_MOUNTED_TEST_H_
