// SPDX-License-Identifier: BSD-3-Clause
// Owners, groups, modes and who may do what. The tree must be served without
// squashing root.
#include <linux/capability.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cstring>

#include "tests/posix/posix_env.h"

namespace tripwire::posix {
namespace {

constexpr uid_t kAlice = 12001, kBob = 12002;
constexpr gid_t kStaff = 13001, kOther = 13002, kExtra = 13003;

int OpenAs(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags, 0644);
  if (fd < 0) return errno;
  close(fd);
  return 0;
}

TEST_F(PrivilegedTest, NewObjectsBelongToTheirMaker) {
  ASSERT_OK(chmod(dir().c_str(), 0777));
  ASSERT_EQ(0, AsUser(kAlice, kStaff, {}, [&] {
              umask(022);
              if (OpenAs(P("f"), O_CREAT | O_RDWR) != 0) return 1;
              if (mkdir(P("d").c_str(), 0777) != 0) return 2;
              if (symlink("x", P("l").c_str()) != 0) return 3;
              if (mkfifo(P("p").c_str(), 0666) != 0) return 4;
              const int fd = open(dir().c_str(), O_TMPFILE | O_RDWR, 0600);
              struct stat st;
              if (fd < 0 || fstat(fd, &st) != 0 || st.st_uid != kAlice) return 5;
              return 0;
            }));
  for (const char* name : {"f", "d", "l", "p"}) {
    EXPECT_EQ(kAlice, LStat(P(name)).st_uid) << name;
    EXPECT_EQ(kStaff, LStat(P(name)).st_gid) << name;
  }
  EXPECT_EQ(0755u, Stat(P("d")).st_mode & 07777);
}

TEST_F(PrivilegedTest, ModesAreObeyed) {
  WriteFile(P("f"), "secret");
  ASSERT_OK(chown(P("f").c_str(), kAlice, kStaff));
  ASSERT_OK(chmod(P("f").c_str(), 0640));
  const auto try_open = [&](uid_t uid, gid_t gid, std::vector<gid_t> groups, int flags) {
    return AsUser(uid, gid, groups, [&] { return OpenAs(P("f"), flags); });
  };
  EXPECT_EQ(0, try_open(kAlice, kOther, {}, O_RDWR));
  EXPECT_EQ(0, try_open(kBob, kStaff, {}, O_RDONLY));
  EXPECT_EQ(EACCES, try_open(kBob, kStaff, {}, O_WRONLY));
  EXPECT_EQ(EACCES, try_open(kBob, kOther, {}, O_RDONLY));
  // Supplementary groups count.
  EXPECT_EQ(0, try_open(kBob, kOther, {kExtra, kStaff}, O_RDONLY));
  EXPECT_EQ(EACCES, try_open(kBob, kOther, {kExtra}, O_RDONLY));
  // The owner's bits bind the owner.
  ASSERT_OK(chmod(P("f").c_str(), 0066));
  EXPECT_EQ(EACCES, try_open(kAlice, kStaff, {}, O_RDONLY));
  EXPECT_EQ(0, try_open(kBob, kOther, {}, O_RDWR));
}

TEST_F(PrivilegedTest, DirectoriesGuardTheirContents) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  WriteFile(P("d/f"), "x");
  ASSERT_OK(chmod(P("d/f").c_str(), 0666));
  ASSERT_OK(chmod(P("d").c_str(), 0700));
  EXPECT_EQ(EACCES, AsUser(kBob, kOther, {}, [&] { return OpenAs(P("d/f"), O_RDONLY); }));
  ASSERT_OK(chmod(P("d").c_str(), 0711));
  EXPECT_EQ(0, AsUser(kBob, kOther, {}, [&] { return OpenAs(P("d/f"), O_RDONLY); }));
  EXPECT_EQ(EACCES, AsUser(kBob, kOther, {}, [&] { return OpenAs(P("d"), O_RDONLY); }));
  EXPECT_EQ(EACCES, AsUser(kBob, kOther, {}, [&] {
              return unlink(P("d/f").c_str()) == 0 ? 0 : errno;
            }));
  EXPECT_EQ(EACCES, AsUser(kBob, kOther, {}, [&] {
              return mkdir(P("d/new").c_str(), 0755) == 0 ? 0 : errno;
            }));
  ASSERT_OK(chown(P("d").c_str(), 0, kStaff));
  ASSERT_OK(chmod(P("d").c_str(), 0770));
  EXPECT_EQ(0, AsUser(kBob, kOther, {kStaff}, [&] {
              return mkdir(P("d/new").c_str(), 0755) == 0 ? 0 : errno;
            }));
}

TEST_F(PrivilegedTest, OnlyOwnersChangeModesAndTimes) {
  WriteFile(P("f"), "x");
  ASSERT_OK(chown(P("f").c_str(), kAlice, kStaff));
  ASSERT_OK(chmod(P("f").c_str(), 0666));
  EXPECT_EQ(EPERM, AsUser(kBob, kStaff, {}, [&] {
              return chmod(P("f").c_str(), 0777) == 0 ? 0 : errno;
            }));
  EXPECT_EQ(0, AsUser(kAlice, kOther, {}, [&] {
              return chmod(P("f").c_str(), 0644) == 0 ? 0 : errno;
            }));
  const timespec times[2] = {{1, 0}, {2, 0}};
  EXPECT_EQ(EPERM, AsUser(kBob, kOther, {}, [&] {
              return utimensat(AT_FDCWD, P("f").c_str(), times, 0) == 0 ? 0 : errno;
            }));
  EXPECT_EQ(EACCES, AsUser(kBob, kOther, {}, [&] {
              return utimensat(AT_FDCWD, P("f").c_str(), nullptr, 0) == 0 ? 0 : errno;
            }));
}

TEST_F(PrivilegedTest, ChownRules) {
  WriteFile(P("f"), "x");
  ASSERT_OK(chown(P("f").c_str(), kAlice, kStaff));
  EXPECT_EQ(kAlice, Stat(P("f")).st_uid);
  EXPECT_EQ(EPERM, AsUser(kAlice, kStaff, {}, [&] {
              return chown(P("f").c_str(), kBob, static_cast<gid_t>(-1)) == 0 ? 0 : errno;
            }));
  EXPECT_EQ(0, AsUser(kAlice, kStaff, {kExtra}, [&] {
              return chown(P("f").c_str(), static_cast<uid_t>(-1), kExtra) == 0 ? 0 : errno;
            }));
  EXPECT_EQ(kExtra, Stat(P("f")).st_gid);
  EXPECT_EQ(EPERM, AsUser(kAlice, kStaff, {}, [&] {
              return chown(P("f").c_str(), static_cast<uid_t>(-1), kOther) == 0 ? 0 : errno;
            }));
  ASSERT_OK(symlink("f", P("l").c_str()));
  ASSERT_OK(lchown(P("l").c_str(), kBob, kOther));
  EXPECT_EQ(kBob, LStat(P("l")).st_uid);
  EXPECT_EQ(kAlice, Stat(P("f")).st_uid);
}

TEST_F(PrivilegedTest, TheStickyBitKeepsOthersOut) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  ASSERT_OK(chmod(P("d").c_str(), 01777));
  WriteFile(P("d/f"), "x");
  ASSERT_OK(chown(P("d/f").c_str(), kAlice, kStaff));
  EXPECT_EQ(EPERM, AsUser(kBob, kOther, {}, [&] {
              return unlink(P("d/f").c_str()) == 0 ? 0 : errno;
            }));
  EXPECT_EQ(EPERM, AsUser(kBob, kOther, {}, [&] {
              return rename(P("d/f").c_str(), P("d/g").c_str()) == 0 ? 0 : errno;
            }));
  EXPECT_EQ(0, AsUser(kAlice, kStaff, {}, [&] {
              return unlink(P("d/f").c_str()) == 0 ? 0 : errno;
            }));
}

TEST_F(PrivilegedTest, DirectoriesPassTheirGroupOn) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  ASSERT_OK(chown(P("d").c_str(), 0, kExtra));
  ASSERT_OK(chmod(P("d").c_str(), 02777));
  EXPECT_EQ(0, AsUser(kAlice, kStaff, {}, [&] {
              if (OpenAs(P("d/f"), O_CREAT | O_RDWR) != 0) return 1;
              return mkdir(P("d/sub").c_str(), 0755) == 0 ? 0 : 2;
            }));
  EXPECT_EQ(kExtra, Stat(P("d/f")).st_gid);
  EXPECT_EQ(kExtra, Stat(P("d/sub")).st_gid);
  EXPECT_TRUE(Stat(P("d/sub")).st_mode & S_ISGID);
}

TEST_F(PrivilegedTest, WritingDropsSetUidAndSetGid) {
  const auto make = [&](mode_t mode) {
    unlink(P("f").c_str());
    WriteFile(P("f"), "x");
    ASSERT_OK(chown(P("f").c_str(), kAlice, kStaff));
    ASSERT_OK(chmod(P("f").c_str(), mode));
    ASSERT_EQ(mode, Stat(P("f")).st_mode & 07777);
  };
  make(06777);
  ASSERT_EQ(0, AsUser(kBob, kOther, {}, [&] {
              UniqueFd fd(open(P("f").c_str(), O_WRONLY));
              return write(fd.get(), "y", 1) == 1 ? 0 : 1;
            }));
  EXPECT_EQ(0777u, Stat(P("f")).st_mode & 07777);
  make(06777);
  ASSERT_EQ(0, AsUser(kBob, kOther, {}, [&] { return truncate(P("f").c_str(), 0); }));
  EXPECT_EQ(0777u, Stat(P("f")).st_mode & 07777);
  make(06777);
  ASSERT_EQ(0, AsUser(kBob, kOther, {}, [&] { return OpenAs(P("f"), O_WRONLY | O_TRUNC); }));
  EXPECT_EQ(0777u, Stat(P("f")).st_mode & 07777);
  make(06755);
  ASSERT_OK(chown(P("f").c_str(), kBob, kOther));
  EXPECT_EQ(0755u, Stat(P("f")).st_mode & 07777);
  // Root's writes do not.
  make(04755);
  UniqueFd fd = Open("f", O_WRONLY);
  ASSERT_EQ(1, write(fd.get(), "y", 1));
  EXPECT_EQ(04755u, Stat(P("f")).st_mode & 07777);
}

// That a file has no capabilities is remembered; that it has some must not be missed.
TEST_F(PrivilegedTest, CapabilitiesGivenLaterAreSeenAndDroppedByWriting) {
  const char* const kName = "security.capability";
  vfs_cap_data capability = {};
  capability.magic_etc = VFS_CAP_REVISION_2;
  capability.data[0].permitted = 1u << CAP_NET_RAW;
  char value[64];
  UniqueFd file = Open("f", O_CREAT | O_RDWR);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(1, pwrite(file.get(), "x", 1, i));
    ASSERT_EQ(-1, getxattr(P("f").c_str(), kName, value, sizeof value));
    ASSERT_EQ(ENODATA, errno);
    // By ourselves, and by another client if there is one.
    const bool by_other = i > 0 && !GetPlaces().second.empty();
    const std::string path = by_other ? Second("f") : P("f");
    ASSERT_OK(setxattr(path.c_str(), kName, &capability, XATTR_CAPS_SZ_2, 0));
    ASSERT_EQ(XATTR_CAPS_SZ_2, getxattr(P("f").c_str(), kName, value, sizeof value)) << i;
    ASSERT_EQ(1, pwrite(file.get(), "y", 1, i));
    const std::string truth = GetPlaces().origin.empty() ? P("f") : Origin("f");
    ASSERT_EQ(-1, getxattr(truth.c_str(), kName, value, sizeof value)) << i;
  }
}

TEST_F(PrivilegedTest, ModeChangesAreSeenByAllUsersAtOnce) {
  WriteFile(P("f"), "x");
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK(chmod(P("f").c_str(), 0600));
    EXPECT_EQ(EACCES, AsUser(kBob, kOther, {}, [&] { return OpenAs(P("f"), O_RDONLY); }));
    ASSERT_OK(chmod(P("f").c_str(), 0644));
    EXPECT_EQ(0, AsUser(kBob, kOther, {}, [&] { return OpenAs(P("f"), O_RDONLY); }));
  }
}

TEST_F(PrivilegedTest, DeviceNodesKeepTheirNumbers) {
  ASSERT_OK(mknod(P("null").c_str(), S_IFCHR | 0666, makedev(1, 3)));
  const struct stat st = Stat(P("null"));
  EXPECT_TRUE(S_ISCHR(st.st_mode));
  EXPECT_EQ(makedev(1, 3), st.st_rdev);
}

TEST_F(PrivilegedTest, OpenFilesStayOpenWhenModesChange) {
  WriteFile(P("f"), "open");
  ASSERT_OK(chown(P("f").c_str(), kAlice, kStaff));
  EXPECT_EQ(0, AsUser(kAlice, kStaff, {}, [&] {
              UniqueFd fd(open(P("f").c_str(), O_RDWR));
              if (!fd || chmod(P("f").c_str(), 0) != 0) return 1;
              char c;
              if (pread(fd.get(), &c, 1, 0) != 1 || c != 'o') return 2;
              if (pwrite(fd.get(), "O", 1, 0) != 1) return 3;
              if (ftruncate(fd.get(), 2) != 0) return 4;
              return OpenAs(P("f"), O_RDONLY) == EACCES ? 0 : 5;
            }));
}

}  // namespace
}  // namespace tripwire::posix
