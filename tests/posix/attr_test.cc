// SPDX-License-Identifier: BSD-3-Clause
// Attributes: modes, times, sizes, statfs; and extended attributes.
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <utime.h>

#include <cstring>
#include <set>
#include <thread>

#include "tests/posix/posix_env.h"

namespace tripwire::posix {
namespace {

class AttrTest : public PosixTest {};

bool Earlier(const timespec& a, const timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}
bool Same(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}
void Tick() { std::this_thread::sleep_for(std::chrono::milliseconds(15)); }

TEST_F(AttrTest, Chmod) {
  WriteFile(P("f"), "x");
  for (const mode_t mode : {0000, 0777, 0640, 04755, 02755, 01777, 07777}) {
    ASSERT_OK(chmod(P("f").c_str(), mode));
    EXPECT_EQ(mode, Stat(P("f")).st_mode & 07777);
  }
  UniqueFd fd = Open(".", O_RDONLY);
  EXPECT_OK(fchmodat(fd.get(), "f", 0600, 0));
  EXPECT_EQ(0600u, Stat(P("f")).st_mode & 07777);
  EXPECT_ERRNO(ENOENT, chmod(P("none").c_str(), 0600));
}

TEST_F(AttrTest, SetTimes) {
  WriteFile(P("f"), "x");
  const timespec times[2] = {{1000000001, 123456789}, {-5, 999999999}};
  ASSERT_OK(utimensat(AT_FDCWD, P("f").c_str(), times, 0));
  struct stat st = Stat(P("f"));
  EXPECT_TRUE(Same(times[0], st.st_atim)) << st.st_atim.tv_nsec;
  EXPECT_TRUE(Same(times[1], st.st_mtim)) << st.st_mtim.tv_sec;
  const timespec omit[2] = {{0, UTIME_OMIT}, {4102444800, 1}};  // the year 2100
  ASSERT_OK(utimensat(AT_FDCWD, P("f").c_str(), omit, 0));
  st = Stat(P("f"));
  EXPECT_TRUE(Same(times[0], st.st_atim));
  EXPECT_TRUE(Same(omit[1], st.st_mtim));
  const timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
  timespec before, after;
  clock_gettime(CLOCK_REALTIME_COARSE, &before);
  ASSERT_OK(utimensat(AT_FDCWD, P("f").c_str(), now, 0));
  clock_gettime(CLOCK_REALTIME, &after);
  st = Stat(P("f"));
  EXPECT_FALSE(Earlier(st.st_mtim, before));
  EXPECT_FALSE(Earlier(after, st.st_mtim));
  ASSERT_OK(symlink("f", P("l").c_str()));
  ASSERT_OK(utimensat(AT_FDCWD, P("l").c_str(), times, AT_SYMLINK_NOFOLLOW));
  EXPECT_TRUE(Same(times[1], LStat(P("l")).st_mtim));
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(futimens(fd.get(), times));
  struct stat after_fd;
  ASSERT_OK(fstat(fd.get(), &after_fd));
  EXPECT_TRUE(Same(times[1], after_fd.st_mtim));
}

TEST_F(AttrTest, TimesFollowWhatIsDone) {
  WriteFile(P("f"), "x");
  struct stat a = Stat(P("f"));
  Tick();
  UniqueFd fd = Open("f", O_WRONLY);
  ASSERT_EQ(1, write(fd.get(), "y", 1));
  struct stat b = Stat(P("f"));
  EXPECT_TRUE(Earlier(a.st_mtim, b.st_mtim));
  EXPECT_TRUE(Earlier(a.st_ctim, b.st_ctim));
  Tick();
  ASSERT_OK(chmod(P("f").c_str(), 0600));
  struct stat c = Stat(P("f"));
  EXPECT_TRUE(Same(b.st_mtim, c.st_mtim));
  EXPECT_TRUE(Earlier(b.st_ctim, c.st_ctim));
  Tick();
  ASSERT_OK(link(P("f").c_str(), P("g").c_str()));
  EXPECT_TRUE(Earlier(c.st_ctim, Stat(P("f")).st_ctim));
  // A directory's time is that of its last change.
  const struct stat d = Stat(dir());
  Tick();
  WriteFile(P("h"), "");
  EXPECT_TRUE(Earlier(d.st_mtim, Stat(dir()).st_mtim));
  const struct stat e = Stat(dir());
  Tick();
  ASSERT_OK(unlink(P("h").c_str()));
  EXPECT_TRUE(Earlier(e.st_mtim, Stat(dir()).st_mtim));
}

TEST_F(AttrTest, TimesSetAfterWritingStay) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  ASSERT_EQ(5, write(fd.get(), "hello", 5));
  const timespec times[2] = {{100, 0}, {200, 0}};
  ASSERT_OK(futimens(fd.get(), times));
  ASSERT_OK(close(fd.release()));
  EXPECT_EQ(200, Stat(P("f")).st_mtim.tv_sec);
}

TEST_F(AttrTest, Truncate) {
  WriteFile(P("f"), "0123456789");
  ASSERT_OK(truncate(P("f").c_str(), 4));
  EXPECT_EQ("0123", ReadFile(P("f")));
  EXPECT_EQ(4, Stat(P("f")).st_size);
  ASSERT_OK(truncate(P("f").c_str(), 8));
  EXPECT_EQ(std::string("0123\0\0\0\0", 8), ReadFile(P("f")));
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(ftruncate(fd.get(), 2));
  EXPECT_EQ("01", ReadFile(P("f")));
  ASSERT_OK(ftruncate(fd.get(), 0));
  EXPECT_EQ("", ReadFile(P("f")));
  UniqueFd reader = Open("f", O_RDONLY);
  EXPECT_ERRNO(EINVAL, ftruncate(reader.get(), 1));
  EXPECT_ERRNO(EINVAL, truncate(P("f").c_str(), -1));
  EXPECT_ERRNO(EISDIR, truncate(dir().c_str(), 0));
  EXPECT_ERRNO(ENOENT, truncate(P("none").c_str(), 0));
}

TEST_F(AttrTest, OpenTruncates) {
  WriteFile(P("f"), "long content");
  UniqueFd fd = Open("f", O_WRONLY | O_TRUNC);
  EXPECT_EQ(0, Stat(P("f")).st_size);
  EXPECT_EQ(3, write(fd.get(), "new", 3));
  EXPECT_EQ("new", ReadFile(P("f")));
}

TEST_F(AttrTest, InodeNumbersIdentify) {
  WriteFile(P("a"), "");
  WriteFile(P("b"), "");
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  const std::set<ino_t> numbers = {Stat(P("a")).st_ino, Stat(P("b")).st_ino,
                                   Stat(P("d")).st_ino, Stat(dir()).st_ino};
  EXPECT_EQ(4u, numbers.size());
  EXPECT_EQ(Stat(P("a")).st_dev, Stat(P("d")).st_dev);
  EXPECT_EQ(Stat(P("a")).st_ino, Stat(P("d/../a")).st_ino);
}

TEST_F(AttrTest, BlocksAndSizes) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  ASSERT_OK(ftruncate(fd.get(), 10 << 20));
  EXPECT_EQ(10 << 20, Stat(P("f")).st_size);
  EXPECT_LT(Stat(P("f")).st_blocks, 1000);
  const std::string data = Pattern(1 << 20, 1);
  ASSERT_EQ(1 << 20, pwrite(fd.get(), data.data(), data.size(), 0));
  ASSERT_OK(fsync(fd.get()));
  EXPECT_GE(Stat(P("f")).st_blocks, 1024);
  EXPECT_GE(Stat(P("f")).st_blksize, 512);
}

TEST_F(AttrTest, Access) {
  WriteFile(P("f"), "x");
  EXPECT_OK(access(P("f").c_str(), F_OK));
  EXPECT_OK(access(P("f").c_str(), R_OK | W_OK));
  EXPECT_ERRNO(EACCES, access(P("f").c_str(), X_OK));
  EXPECT_ERRNO(ENOENT, access(P("none").c_str(), F_OK));
  ASSERT_OK(chmod(P("f").c_str(), 0755));
  EXPECT_OK(access(P("f").c_str(), X_OK));
}

TEST_F(AttrTest, StatVfs) {
  struct statvfs fs;
  ASSERT_OK(statvfs(dir().c_str(), &fs));
  EXPECT_GT(fs.f_blocks, 0u);
  EXPECT_GE(fs.f_blocks, fs.f_bfree);
  EXPECT_GE(fs.f_namemax, 255u);
  EXPECT_GE(fs.f_bsize, 512u);
}

TEST_F(AttrTest, StatxTellsWhenAFileWasBorn) {
  WriteFile(P("f"), "x");
  struct statx sx;
  ASSERT_OK(statx(AT_FDCWD, P("f").c_str(), 0, STATX_BASIC_STATS | STATX_BTIME, &sx));
  EXPECT_EQ(STATX_BASIC_STATS, sx.stx_mask & STATX_BASIC_STATS);
  EXPECT_EQ(1u, sx.stx_size);
  EXPECT_EQ(Stat(P("f")).st_ino, sx.stx_ino);
  if (sx.stx_mask & STATX_BTIME) {
    const struct stat st = Stat(P("f"));
    EXPECT_LE(sx.stx_btime.tv_sec, st.st_mtim.tv_sec);
    EXPECT_GE(sx.stx_btime.tv_sec, st.st_mtim.tv_sec - 10);
  }
}

TEST_F(AttrTest, FilesAreNoTerminals) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  struct winsize size;
  EXPECT_ERRNO(ENOTTY, ioctl(fd.get(), TIOCGWINSZ, &size));
  EXPECT_ERRNO(ENOTTY, ioctl(fd.get(), _IOWR('?', 1, int), &size));
}

class XattrTest : public PosixTest {
 protected:
  std::string Get(const std::string& path, const char* name) {
    char buffer[70000];
    const ssize_t n = getxattr(path.c_str(), name, buffer, sizeof(buffer));
    return n < 0 ? std::string("<") + strerror(errno) + ">"
                 : std::string(buffer, static_cast<size_t>(n));
  }
};

TEST_F(XattrTest, SetGetListRemove) {
  WriteFile(P("f"), "x");
  const std::string binary("\0\xff\n,\0", 5);
  ASSERT_OK(setxattr(P("f").c_str(), "user.one", "1", 1, 0));
  ASSERT_OK(setxattr(P("f").c_str(), "user.bin", binary.data(), binary.size(), 0));
  ASSERT_OK(setxattr(P("f").c_str(), "user.empty", "", 0, 0));
  EXPECT_EQ("1", Get(P("f"), "user.one"));
  EXPECT_EQ(binary, Get(P("f"), "user.bin"));
  EXPECT_EQ("", Get(P("f"), "user.empty"));
  EXPECT_EQ(1, getxattr(P("f").c_str(), "user.one", nullptr, 0));
  char list[1024];
  const ssize_t n = listxattr(P("f").c_str(), list, sizeof(list));
  ASSERT_GT(n, 0);
  EXPECT_EQ(n, listxattr(P("f").c_str(), nullptr, 0));
  std::set<std::string> names;
  for (ssize_t i = 0; i < n; i += static_cast<ssize_t>(strlen(list + i)) + 1) {
    names.insert(list + i);
  }
  for (const char* name : {"user.one", "user.bin", "user.empty"}) {
    EXPECT_EQ(1u, names.count(name)) << name;
  }
  EXPECT_OK(removexattr(P("f").c_str(), "user.one"));
  EXPECT_ERRNO(ENODATA, getxattr(P("f").c_str(), "user.one", nullptr, 0));
  EXPECT_ERRNO(ENODATA, removexattr(P("f").c_str(), "user.one"));
}

TEST_F(XattrTest, FlagsAndErrors) {
  WriteFile(P("f"), "x");
  EXPECT_ERRNO(ENODATA, setxattr(P("f").c_str(), "user.a", "1", 1, XATTR_REPLACE));
  EXPECT_OK(setxattr(P("f").c_str(), "user.a", "1", 1, XATTR_CREATE));
  EXPECT_ERRNO(EEXIST, setxattr(P("f").c_str(), "user.a", "2", 1, XATTR_CREATE));
  EXPECT_OK(setxattr(P("f").c_str(), "user.a", "22", 2, XATTR_REPLACE));
  EXPECT_EQ("22", Get(P("f"), "user.a"));
  char small[1];
  EXPECT_ERRNO(ERANGE, getxattr(P("f").c_str(), "user.a", small, 1));
  EXPECT_ERRNO(ERANGE, listxattr(P("f").c_str(), small, 1));
  EXPECT_ERRNO(EOPNOTSUPP, setxattr(P("f").c_str(), "nonsense.a", "1", 1, 0));
  EXPECT_ERRNO(ENOENT, getxattr(P("none").c_str(), "user.a", nullptr, 0));
}

TEST_F(XattrTest, OfDirectoriesAndOpenFilesAndLargeValues) {
  ASSERT_OK(setxattr(dir().c_str(), "user.d", "dir", 3, 0));
  EXPECT_EQ("dir", Get(dir(), "user.d"));
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  ASSERT_OK(fsetxattr(fd.get(), "user.f", "fd", 2, 0));
  char buffer[8];
  EXPECT_EQ(2, fgetxattr(fd.get(), "user.f", buffer, sizeof(buffer)));
  EXPECT_OK(fremovexattr(fd.get(), "user.f"));
  const std::string large = Pattern(3000, 7);
  ASSERT_OK(setxattr(P("f").c_str(), "user.large", large.data(), large.size(), 0));
  EXPECT_EQ(large, Get(P("f"), "user.large"));
}

TEST_F(XattrTest, SurviveRenameAndGoWithTheFile) {
  WriteFile(P("f"), "x");
  ASSERT_OK(setxattr(P("f").c_str(), "user.a", "kept", 4, 0));
  ASSERT_OK(rename(P("f").c_str(), P("g").c_str()));
  EXPECT_EQ("kept", Get(P("g"), "user.a"));
  ASSERT_OK(unlink(P("g").c_str()));
  WriteFile(P("g"), "x");
  EXPECT_EQ(-1, getxattr(P("g").c_str(), "user.a", nullptr, 0));
}

}  // namespace
}  // namespace tripwire::posix
