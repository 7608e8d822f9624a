// SPDX-License-Identifier: BSD-3-Clause
// Starting, stopping, mounting and unmounting, as root and as anybody.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <stdexcept>

#include "nic/base/fd.h"
#include "tests/system/harness/share.h"
#include "tests/system/harness/tree.h"

namespace tripwire::systest {
namespace {

constexpr uid_t kNobody = 65534;

std::vector<std::string> Sockets(const std::string& directory) {
  std::vector<std::string> found;
  if (!std::filesystem::exists(directory)) return found;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_socket()) found.push_back(entry.path());
  }
  return found;
}

TEST(LifecycleTest, SigtermEndsBothAndLeavesNothing) {
  Share share(Wire::kMemif, 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  WriteFile(mount / "file", "text");
  EXPECT_FALSE(Sockets("/run/tripwire").empty()) << "no statistics sockets";
  EXPECT_EQ(mount.Stop(), 0);
  EXPECT_EQ(MountedType(mount.path()), "");
  EXPECT_TRUE(ListDirectory(mount.path()).empty());
  share.server().Signal(SIGTERM);
  EXPECT_EQ(share.server().Wait(20).value_or(-1), 0);
  EXPECT_TRUE(Sockets("/run/tripwire").empty());
  EXPECT_TRUE(Sockets(share.temp().path()).empty());
}

TEST(LifecycleTest, SigintEndsThemToo) {
  Share share(Wire::kMemif, 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  mount.process().Signal(SIGINT);
  EXPECT_EQ(mount.process().Wait(20).value_or(-1), 0);
  EXPECT_EQ(MountedType(mount.path()), "");
  share.server().Signal(SIGINT);
  EXPECT_EQ(share.server().Wait(20).value_or(-1), 0);
}

TEST(LifecycleTest, SigtermEndsAMountWhoseServerIsDead) {
  Share share(Wire::kMemif, 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  share.CrashServer();
  EXPECT_EQ(mount.Stop(), 0);
  EXPECT_EQ(MountedType(mount.path()), "");
}

TEST(LifecycleTest, SigtermEndsAMountInUse) {
  Share share(Wire::kMemif, 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  WriteFile(mount / "file", "text");
  UniqueFd open_file(::open((mount / "file").c_str(), O_RDWR));
  Process user({"sleep", "100"}, {.directory = mount.path()});
  ASSERT_EQ(::write(open_file.get(), "TEXT", 4), 4);
  EXPECT_EQ(mount.Stop(), 0);
  EXPECT_EQ(MountedType(mount.path()), "");
  EXPECT_EQ(ReadFile(share.InRoot("file")), "TEXT");
}

TEST(LifecycleTest, UnmountingABusyMountIsRefusedAndAnIdleOneEndsTheProgram) {
  Share share(Wire::kMemif, 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  WriteFile(mount / "file", "text");
  UniqueFd open_file(::open((mount / "file").c_str(), O_RDONLY));
  EXPECT_EQ(::umount2(mount.path().c_str(), 0), -1);
  EXPECT_EQ(errno, EBUSY);
  EXPECT_EQ(ReadFile(mount / "file"), "text");
  open_file.reset();
  EXPECT_TRUE(
      Eventually(10, [&] { return ::umount2(mount.path().c_str(), 0) == 0; }));
  EXPECT_EQ(mount.process().Wait(20).value_or(-1), 0);
}

TEST(LifecycleTest, DataWrittenJustBeforeUnmountingIsOnTheServer) {
  Share share(Wire::kMemif, 1);
  share.StartServer();
  Mount mount = share.MountAs(0);
  const std::string data = RandomBytes(9, 7'000'000);
  WriteFile(mount / "file", data);
  ASSERT_EQ(::umount2(mount.path().c_str(), 0), 0);
  EXPECT_EQ(mount.process().Wait(20).value_or(-1), 0);
  EXPECT_EQ(ReadFile(share.InRoot("file")), data);
}

TEST(LifecycleTest, DaemonisesOnceTheMountIsReady) {
  Share share(Wire::kMemif, 1);
  share.StartServer();
  const std::string point = share.temp().Make("point");
  Argv argv = share.MountCommand(0, point, "");
  std::erase(argv, "-f");
  const Result result = Execute(argv, 30);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(MountedType(point).rfind("fuse", 0), 0u);
  WriteFile(point + "/file", "at once");
  EXPECT_EQ(ReadFile(share.InRoot("file")), "at once");
  EXPECT_EQ(::umount2(point.c_str(), 0), 0);
}

TEST(LifecycleTest, AServerThatIsJustStartingIsFound) {
  Share share(Wire::kMemif, 1);
  const std::string home = share.temp().Make("home");
  SpawnOptions here;
  here.environment = {"XDG_RUNTIME_DIR=" + home, "XDG_STATE_HOME=" + home};
  Process looks({Program("tw"), "ls", "--wait", "2"}, here);
  Process server({Program("tw-fsd"), "--export", "data=" + share.root()}, here);
  EXPECT_EQ(looks.Wait(20).value_or(-1), 0) << looks.err() << server.err();
  // What it offers it may say later.
  EXPECT_NE(looks.out().find("-tw-fsd.sock"), std::string::npos) << looks.out();
}

TEST(LifecycleTest, AForeignUserMountsAndServes) {
  Share share(Wire::kMemif, 1);
  const std::string home = share.temp().Make("home");
  ASSERT_EQ(::chown(home.c_str(), kNobody, kNobody), 0);
  for (const char* name : {"data", "point", "run", "state"}) {
    ASSERT_EQ(::mkdir((home + "/" + name).c_str(), 0700), 0);
    ASSERT_EQ(::chown((home + "/" + name).c_str(), kNobody, kNobody), 0);
  }
  SpawnOptions as_nobody;
  as_nobody.uid = kNobody;
  as_nobody.environment = {"HOME=" + home, "XDG_RUNTIME_DIR=" + home + "/run",
                           "XDG_STATE_HOME=" + home + "/state"};
  // No --port: both find the one in the runtime directory.
  Process server({Program("tw-fsd"), "--export", "data=" + home + "/data"},
                 as_nobody);
  const auto listens = [&] {
    std::error_code none;
    for (const auto& entry :
         std::filesystem::directory_iterator(home + "/run/tripwire", none)) {
      if (entry.is_socket()) return true;
    }
    return false;
  };
  ASSERT_TRUE(Eventually(30, listens)) << server.err();
  Process mount({Program("tw-mount"), ":data", home + "/point", "-f"},
                as_nobody);
  ASSERT_TRUE(Eventually(30, [&] {
    return !MountedType(home + "/point").empty() || !mount.Running();
  }));
  ASSERT_TRUE(mount.Running()) << mount.err() << server.err();
  MustRun({"sh", "-c",
           "echo mine > file && mkdir sub && ln -s file link && cat link"},
          30, {.uid = kNobody, .directory = home});
  MustRun({"sh", "-c", "cd point && echo mine > file && mkdir sub && cat file"},
          30, {.uid = kNobody, .directory = home});
  EXPECT_EQ(ReadFile(home + "/data/file"), "mine\n");
  mount.Signal(SIGTERM);
  EXPECT_EQ(mount.Wait(20).value_or(-1), 0) << mount.err();
  EXPECT_EQ(MountedType(home + "/point"), "");
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(20).value_or(-1), 0) << server.err();
  EXPECT_TRUE(Sockets(home).empty());
}

TEST(LifecycleTest, TheServerActsAsTheCallerAndSquashesRoot) {
  Share share(Wire::kMemif, 1);
  ASSERT_EQ(::chmod(share.root().c_str(), 0777), 0);
  share.StartServer({}, "");
  // Who expects to be root is told.
  EXPECT_NE(share.server().err().find("root is nobody in"), std::string::npos);
  Mount mount = share.MountAs(0, "allow_other");
  MustRun({"sh", "-c", "echo x > theirs && mkdir dir && ln -s a link"}, 30,
          {.uid = 1234, .directory = mount.path()});
  for (const char* name : {"theirs", "dir", "link"}) {
    struct stat info {};
    ASSERT_EQ(::lstat(share.InRoot(name).c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 1234u) << name;
    EXPECT_EQ(info.st_gid, 1234u) << name;
  }
  WriteFile(mount / "roots", "x");
  struct stat info {};
  ASSERT_EQ(::lstat(share.InRoot("roots").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, kNobody);
  // Squashed, root may not read what only its owner may.
  ASSERT_EQ(::chmod(share.InRoot("theirs").c_str(), 0600), 0);
  EXPECT_EQ(::open((mount / "theirs").c_str(), O_RDWR), -1);
  EXPECT_EQ(errno, EACCES);
}

TEST(LifecycleTest, AReadOnlyExportRefusesChanges) {
  Share share(Wire::kMemif, 1);
  WriteFile(share.InRoot("file"), "text");
  share.StartServer({}, ",ro,squash=none");
  EXPECT_EQ(share.server().err().find("root is nobody"), std::string::npos);
  Mount mount = share.MountAs(0);
  EXPECT_EQ(ReadFile(mount / "file"), "text");
  EXPECT_EQ(::open((mount / "file").c_str(), O_RDWR), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::mkdir((mount / "dir").c_str(), 0755), -1);
  EXPECT_EQ(errno, EROFS);
}

// `mount -t tripwire` and /etc/fstab, in this test's own view of /usr/sbin and
// /etc (the sandbox has a mount namespace of its own).
class HelperTest : public ::testing::Test {
 protected:
  HelperTest() {
    Overlay("/usr/sbin");
    Overlay("/etc");
    std::filesystem::create_symlink(Program("tw-mount"),
                                    "/usr/sbin/mount.tripwire");
  }
  ~HelperTest() override {
    for (const std::string& path : overlaid_)
      ::umount2(path.c_str(), MNT_DETACH);
  }
  void Overlay(const std::string& path) {
    const std::string base = "/run/overlay" + std::to_string(overlaid_.size());
    for (const char* name : {"", "/upper", "/work"})
      ::mkdir((base + name).c_str(), 0755);
    const std::string options = "lowerdir=" + path + ",upperdir=" + base +
                                "/upper,workdir=" + base + "/work";
    if (::mount("overlay", path.c_str(), "overlay", 0, options.c_str()) != 0) {
      throw std::runtime_error("cannot lay an overlay over " + path);
    }
    overlaid_.push_back(path);
  }
  std::vector<std::string> overlaid_;
};

TEST_F(HelperTest, MountTypeTripwireAndFstabWork) {
  Share share(Wire::kMemif, 1);
  share.StartServer();
  WriteFile(share.InRoot("file"), "text");
  const std::string point = share.temp().Make("point");
  const std::string port = "port=" + share.network().ClientPort(0);
  MustRun({"mount", "-t", "tripwire", "-o", port, "server:data", point}, 40);
  EXPECT_EQ(ReadFile(point + "/file"), "text");
  MustRun({"umount", point}, 20);
  EXPECT_EQ(MountedType(point), "");

  WriteFile("/etc/fstab", "server:data " + point +
                              " tripwire noauto,_netdev,ro," + port + " 0 0\n");
  MustRun({"mount", point}, 40);
  EXPECT_EQ(ReadFile(point + "/file"), "text");
  EXPECT_EQ(::open((point + "/file").c_str(), O_RDWR), -1);
  EXPECT_EQ(errno, EROFS);
  MustRun({"umount", point}, 20);
  EXPECT_EQ(MountedType(point), "");
}

}  // namespace
}  // namespace tripwire::systest
