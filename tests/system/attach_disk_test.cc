// SPDX-License-Identifier: BSD-3-Clause
// A remote disk as people use one: attached, on a loop device, with a file system on it;
// and again while programs are killed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "nic/base/fd.h"
#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// A server of one image and what is attached of it.
class AttachDiskTest : public ::testing::Test {
 protected:
  AttachDiskTest() { MakeImage(128 * kMiB); }
  ~AttachDiskTest() override {
    if (MountedType(on_loop_) != "") ::umount2(on_loop_.c_str(), MNT_DETACH);
    if (!loop_.empty()) Execute({"losetup", "-d", loop_}, 20);
    if (attach_.Running()) {
      attach_.Signal(SIGTERM);
      attach_.Wait(20);
    }
    if (HasFailure()) {
      ADD_FAILURE() << "server: " << Tail(server_.err()) << "\nattach: " << Tail(attach_.err());
    }
  }

  void MakeImage(uint64_t bytes) {
    const UniqueFd fd(::open(image_.c_str(), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
      throw std::runtime_error("cannot make an image");
    }
  }
  void StartServer(const std::string& options = "") {
    server_ = Process({Program("tw-periphd"), "--device", "disk=blk:" + image_ + options, "--node",
                       "far", "--port", "memif:" + socket_ + ",listen"});
    ASSERT_TRUE(Eventually(30, [&] {
      return server_.err().find("ready") != std::string::npos || !server_.Running();
    }));
    ASSERT_TRUE(server_.Running()) << server_.err();
  }
  Argv AttachCommand(const Argv& more = {}) const {
    Argv argv = {Program("tw-periph"), "attach", "far:disk", point_, "--port", "memif:" + socket_};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  void Attach(const Argv& more = {}) {
    attach_ = Process(AttachCommand(more));
    ASSERT_TRUE(Eventually(30, [&] { return attach_.out() != "" || !attach_.Running(); }));
    ASSERT_TRUE(attach_.Running()) << attach_.err();
    ASSERT_EQ(attach_.out(), file_ + "\n");
  }
  void Detach() {
    attach_.Signal(SIGTERM);
    EXPECT_EQ(attach_.Wait(30).value_or(-1), 0) << attach_.err();
    EXPECT_EQ(MountedType(point_), "");
  }
  void SetLoop(const Argv& more = {}) {
    Argv argv = {"losetup", "--show", "-f"};
    argv.insert(argv.end(), more.begin(), more.end());
    argv.push_back(file_);
    loop_ = MustRun(argv);
    loop_.pop_back();  // newline
  }
  void UnsetLoop() {
    MustRun({"losetup", "-d", loop_});
    loop_.clear();
  }
  void MountLoop() { MustRun({"mount", "-t", "ext4", "-o", "discard", loop_, on_loop_}); }
  void UnmountLoop() { MustRun({"umount", on_loop_}); }
  void ExpectClean(const std::string& device) {
    const Result result = Execute({"e2fsck", "-f", "-n", device}, 120);
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  }
  uint64_t AllocatedBytes() const {
    struct stat st = {};
    ::stat(image_.c_str(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }

  TempDir temp_;
  const std::string image_ = temp_.path() + "/image";
  const std::string socket_ = temp_.path() + "/nic.sock";
  const std::string point_ = temp_.Make("point");
  const std::string on_loop_ = temp_.Make("mounted");
  const std::string tree_ = temp_.Make("tree");
  const std::string file_ = point_ + "/disk";
  std::string loop_;
  Process server_, attach_;
};

TEST_F(AttachDiskTest, AFileSystemIsMadeFilledAndClean) {
  StartServer();
  for (const Argv& way : {Argv{}, Argv{"--direct-io=on"}}) {
    for (const Argv& cache : {Argv{}, Argv{"--cache", "back"}, Argv{"--cache", "none"}}) {
      SCOPED_TRACE((way.empty() ? "" : way[0]) + (cache.empty() ? "" : " " + cache[1]));
      Attach(cache);
      EXPECT_EQ(ListDirectory(point_), std::vector<std::string>{"disk"});
      SetLoop(way);
      MustRun({"mkfs.ext4", "-q", "-F", loop_});
      MountLoop();
      MustRun({"cp", "-a", "/usr/include/linux", on_loop_ + "/copy"}, 300);
      UnmountLoop();
      ExpectClean(loop_);
      MountLoop();
      EXPECT_EQ(CompareTrees("/usr/include/linux", on_loop_ + "/copy"),
                std::vector<std::string>{});
      UnmountLoop();
      UnsetLoop();
      Detach();
      ExpectClean(image_);  // as the server's machine sees it
    }
  }
}

TEST_F(AttachDiskTest, ServersThatAreKilledLoseNothing) {
  StartServer();
  Attach();
  SetLoop();
  MustRun({"mkfs.ext4", "-q", "-F", loop_});
  MountLoop();
  for (int i = 0; i < 60; ++i) {
    WriteFile(tree_ + "/" + std::to_string(i), RandomBytes(100 + i, i * i * 400));
  }
  Process copy({"cp", "-a", tree_, on_loop_ + "/copy"});
  for (int i = 0; i < 4; ++i) {
    SleepMs(40);
    server_.Kill();
    SleepMs(20);
    StartServer();
    MustRun({"sync", "-f", on_loop_}, 120);
  }
  ASSERT_EQ(copy.Wait(120).value_or(-1), 0) << copy.err();
  UnmountLoop();
  ExpectClean(loop_);
  MountLoop();
  EXPECT_EQ(CompareTrees(tree_, on_loop_ + "/copy"), std::vector<std::string>{});
  UnmountLoop();
  UnsetLoop();
  Detach();
}

TEST_F(AttachDiskTest, AfterAKilledClientWhatWasFlushedIsThere) {
  StartServer();
  Attach();
  SetLoop();
  MustRun({"mkfs.ext4", "-q", "-F", loop_});
  MountLoop();
  WriteFile(on_loop_ + "/kept", RandomBytes(3, 3 * kMiB));
  MustRun({"sync", on_loop_ + "/kept"});
  MustRun({"sync", "-f", on_loop_});
  Process more({"cp", "-a", "/usr/include/linux", on_loop_ + "/copy"});
  SleepMs(100);
  attach_.Kill();
  more.Wait(60);
  ::umount2(on_loop_.c_str(), MNT_DETACH);
  Execute({"losetup", "-d", loop_}, 20);
  loop_.clear();
  // The dead mount is no obstacle, and neither is the session that is left at the server.
  ASSERT_TRUE(Eventually(40, [&] {
    attach_ = Process(AttachCommand());
    Eventually(30, [&] { return attach_.out() != "" || !attach_.Running(); });
    return attach_.Running();
  })) << attach_.err();
  SetLoop();
  const Result replay = Execute({"e2fsck", "-f", "-p", loop_}, 120);
  EXPECT_LE(replay.exit_code, 1) << replay.out << replay.err;
  ExpectClean(loop_);
  MountLoop();
  EXPECT_TRUE(ReadFile(on_loop_ + "/kept") == RandomBytes(3, 3 * kMiB));
  UnmountLoop();
  UnsetLoop();
  Detach();
}

TEST_F(AttachDiskTest, DiscardGivesSpaceBack) {
  StartServer();
  Attach();
  SetLoop();
  MustRun({"mkfs.ext4", "-q", "-F", loop_});
  MountLoop();
  WriteFile(on_loop_ + "/large", RandomBytes(1, 64 * kMiB));
  MustRun({"sync", "-f", on_loop_});
  const uint64_t before = AllocatedBytes();
  EXPECT_GT(before, 64 * kMiB);
  ::unlink((on_loop_ + "/large").c_str());
  MustRun({"sync", "-f", on_loop_});  // what is not committed cannot be given back
  MustRun({"fstrim", on_loop_});
  EXPECT_TRUE(Eventually(20, [&] { return AllocatedBytes() < before - 56 * kMiB; }))
      << AllocatedBytes() << " of " << before;
  UnmountLoop();
  ExpectClean(loop_);
  UnsetLoop();
  Detach();
}

TEST_F(AttachDiskTest, TheFileBehavesAsADisk) {
  StartServer();
  Attach();
  UniqueFd fd(::open(file_.c_str(), O_RDWR | O_TRUNC | O_CLOEXEC));
  ASSERT_TRUE(fd) << std::strerror(errno);
  struct stat st;
  ASSERT_EQ(::fstat(fd.get(), &st), 0);
  EXPECT_EQ(static_cast<uint64_t>(st.st_size), 128 * kMiB) << "it was truncated";
  EXPECT_EQ(::ftruncate(fd.get(), 5), -1);
  EXPECT_EQ(errno, EINVAL);
  const std::string text(6000, 'x');
  EXPECT_EQ(::pwrite(fd.get(), text.data(), 6000, 128 * kMiB - 4096), 4096) << "the end";
  EXPECT_EQ(::pwrite(fd.get(), text.data(), 1, 128 * kMiB), -1);
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(::pwrite(fd.get(), text.data(), 6000, 4000), 6000);
  EXPECT_EQ(::fsync(fd.get()), 0);
  EXPECT_EQ(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 1000), 0);
  EXPECT_EQ(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, 8000, 100), 0);
  std::string back(6000, '?');
  EXPECT_EQ(::pread(fd.get(), back.data(), 6000, 4000), 6000);
  std::string expected = text;
  std::memset(expected.data() + 1000, 0, 1000);
  std::memset(expected.data() + 4000, 0, 100);
  EXPECT_TRUE(back == expected);
  EXPECT_EQ(::unlink(file_.c_str()), -1);
  fd.reset();
  Detach();
  EXPECT_TRUE(ReadFile(image_).substr(4000, 6000) == expected) << "what was written is not there";
}

TEST_F(AttachDiskTest, ReadOnlyWhereItIs) {
  StartServer(",ro");
  Attach();
  EXPECT_EQ(::open(file_.c_str(), O_RDWR | O_CLOEXEC), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(ReadFile(file_).size(), 128 * kMiB);
  Detach();
}

TEST_F(AttachDiskTest, WhatCannotBeIsSaidInOneLine) {
  StartServer();
  Attach();
  const auto fails = [&](const Argv& argv, const std::string& why) {
    const Result result = Execute(argv, 60);
    EXPECT_NE(result.exit_code, 0);
    EXPECT_NE(result.err.find(why), std::string::npos) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  };
  const std::string other = temp_.Make("other");
  const std::string port = "memif:" + socket_;
  const std::string tool = Program("tw-periph");
  fails({tool, "attach", "far:disk", other, "--port", port}, "in use by");
  fails({tool, "attach", "far:disk", point_, "--port", port}, "mounted");
  fails({tool, "attach", "far:disk", other + "/no", "--port", port}, "mkdir");
  fails({tool, "attach", "far:disk", image_, "--port", port}, "directory");
  fails({tool, "attach", "far:none", other, "--port", port}, "none");
  // A second server of the same image.
  Process second({Program("tw-periphd"), "--device", "disk=blk:" + image_, "--node", "second",
                  "--port", "memif:" + socket_ + "2,listen"});
  ASSERT_TRUE(Eventually(30, [&] { return second.err().find("ready") != std::string::npos; }));
  fails({tool, "attach", "second:disk", other, "--port", port + "2"}, "locked");
  Detach();
}

TEST_F(AttachDiskTest, EndsAlthoughInUseAndAlthoughTheServerIsGone) {
  StartServer();
  Attach();
  const UniqueFd fd(::open(file_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::pwrite(fd.get(), "data", 4, 0), 4);
  Detach();
  char back[4];
  EXPECT_EQ(::pread(fd.get(), back, 4, 1 << 20), -1) << "whoever used it must hear of it";
  Attach();
  server_.Kill();
  Detach();
}

TEST_F(AttachDiskTest, GoesToTheBackground) {
  StartServer();
  const Result result = Execute(AttachCommand({"--daemon"}), 30);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, file_ + "\n");
  WriteFile(file_, "at once");
  EXPECT_EQ(::umount2(point_.c_str(), 0), 0);
  EXPECT_TRUE(Eventually(10, [&] { return ReadFile(image_).rfind("at once", 0) == 0; }));
}

}  // namespace
}  // namespace tripwire::systest
