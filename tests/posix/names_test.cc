// SPDX-License-Identifier: BSD-3-Clause
// Making, removing, renaming and linking names.
#include <limits.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <cstring>

#include "tests/posix/posix_env.h"

namespace tripwire::posix {
namespace {

class NamesTest : public PosixTest {};

TEST_F(NamesTest, CreateMakesAnEmptyFileWithTheModeAndUmask) {
  umask(027);
  UniqueFd fd = Open("f", O_CREAT | O_RDWR, 0666);
  umask(022);
  const struct stat st = Stat(P("f"));
  EXPECT_TRUE(S_ISREG(st.st_mode));
  EXPECT_EQ(0640u, st.st_mode & 07777);
  EXPECT_EQ(0, st.st_size);
  EXPECT_EQ(1u, st.st_nlink);
  EXPECT_EQ(geteuid(), st.st_uid);
}

TEST_F(NamesTest, ExclusiveCreateFailsWhenThereIsOne) {
  WriteFile(P("f"), "x");
  EXPECT_ERRNO(EEXIST, open(P("f").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644));
  EXPECT_EQ("x", ReadFile(P("f")));
  EXPECT_OK(symlink("nowhere", P("l").c_str()));
  EXPECT_ERRNO(EEXIST, open(P("l").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644));
}

TEST_F(NamesTest, CreateThroughADanglingLinkMakesItsTarget) {
  ASSERT_OK(symlink("target", P("l").c_str()));
  WriteFile(P("l"), "via");
  EXPECT_EQ("via", ReadFile(P("target")));
}

TEST_F(NamesTest, LookupErrors) {
  WriteFile(P("f"), "x");
  struct stat st;
  EXPECT_ERRNO(ENOENT, stat(P("none").c_str(), &st));
  EXPECT_ERRNO(ENOENT, stat(P("none/deeper").c_str(), &st));
  EXPECT_ERRNO(ENOTDIR, stat(P("f/deeper").c_str(), &st));
  EXPECT_ERRNO(ENAMETOOLONG, stat(P(std::string(256, 'n')).c_str(), &st));
  EXPECT_ERRNO(EISDIR, open(dir().c_str(), O_RDWR));
  EXPECT_ERRNO(ENOTDIR, open(P("f").c_str(), O_RDONLY | O_DIRECTORY));
}

TEST_F(NamesTest, NamesOfAnyBytes) {
  const std::vector<std::string> names = {
      " ", "  leading", "trailing ", "-dash", "a\nb", "tab\tname", "\x01\x02\x7f",
      "\xff\xfe", "\xc3\x28", "\xe2\x82\xac", "quote'\"\\", "*?[]", "...", ".hidden",
      std::string(255, 'x'), std::string(255, '\xe4'), "name:with:colons", "a,b=c"};
  for (const std::string& name : names) WriteFile(P(name), "in " + name);
  auto sorted = names;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(sorted, List(dir()));
  for (const std::string& name : names) {
    EXPECT_EQ("in " + name, ReadFile(P(name)));
    EXPECT_OK(unlink(P(name).c_str()));
  }
  EXPECT_TRUE(List(dir()).empty());
}

TEST_F(NamesTest, NamesDifferByCase) {
  WriteFile(P("name"), "lower");
  WriteFile(P("Name"), "upper");
  EXPECT_EQ("lower", ReadFile(P("name")));
  EXPECT_EQ("upper", ReadFile(P("Name")));
}

TEST_F(NamesTest, MkdirAndRmdir) {
  umask(0);
  EXPECT_OK(mkdir(P("d").c_str(), 0751));
  umask(022);
  const struct stat st = Stat(P("d"));
  EXPECT_TRUE(S_ISDIR(st.st_mode));
  EXPECT_EQ(0751u, st.st_mode & 07777);
  EXPECT_ERRNO(EEXIST, mkdir(P("d").c_str(), 0755));
  EXPECT_ERRNO(ENOENT, mkdir(P("none/d").c_str(), 0755));
  WriteFile(P("d/f"), "x");
  EXPECT_ERRNO(ENOTEMPTY, rmdir(P("d").c_str()));
  EXPECT_OK(unlink(P("d/f").c_str()));
  EXPECT_OK(rmdir(P("d").c_str()));
  EXPECT_ERRNO(ENOENT, rmdir(P("d").c_str()));
  WriteFile(P("f"), "x");
  EXPECT_ERRNO(ENOTDIR, rmdir(P("f").c_str()));
  EXPECT_ERRNO(ENOTDIR, mkdir(P("f/d").c_str(), 0755));
}

TEST_F(NamesTest, DirectoryLinkCountsFollowTheirChildren) {
  const nlink_t before = Stat(dir()).st_nlink;
  ASSERT_OK(mkdir(P("a").c_str(), 0755));
  ASSERT_OK(mkdir(P("b").c_str(), 0755));
  const nlink_t with_two = Stat(dir()).st_nlink;
  ASSERT_OK(rmdir(P("a").c_str()));
  ASSERT_OK(rmdir(P("b").c_str()));
  EXPECT_EQ(before, Stat(dir()).st_nlink);
  // Some file systems count, others always say 1.
  EXPECT_TRUE(with_two == before + 2 || before == 1) << with_two;
}

TEST_F(NamesTest, DeepPaths) {
  std::string path = dir();
  for (int i = 0; i < 40; ++i) {
    path += "/level-" + std::to_string(i);
    ASSERT_OK(mkdir(path.c_str(), 0755));
  }
  WriteFile(path + "/leaf", "deep");
  EXPECT_EQ("deep", ReadFile(path + "/leaf"));
  EXPECT_EQ("deep", ReadFile(path + "/../../level-38/level-39/./leaf"));
}

TEST_F(NamesTest, DotDotAtTheTopLeadsOut) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  EXPECT_EQ(Stat(dir()).st_ino, Stat(P("d/..")).st_ino);
  EXPECT_EQ(Stat(GetPlaces().mountpoint).st_ino, Stat(P("..")).st_ino);
}

TEST_F(NamesTest, SymbolicLinks) {
  for (const std::string& target :
       {std::string("f"), std::string("/absolute/path"), std::string("../.."),
        std::string(" odd \n target\xff"), std::string(4095, 't')}) {
    ASSERT_OK(symlink(target.c_str(), P("l").c_str())) << target.size();
    char buffer[PATH_MAX + 1];
    const ssize_t n = readlink(P("l").c_str(), buffer, sizeof(buffer));
    ASSERT_EQ(static_cast<ssize_t>(target.size()), n);
    EXPECT_EQ(target, std::string(buffer, static_cast<size_t>(n)));
    const struct stat st = LStat(P("l"));
    EXPECT_TRUE(S_ISLNK(st.st_mode));
    EXPECT_EQ(static_cast<off_t>(target.size()), st.st_size);
    EXPECT_OK(unlink(P("l").c_str()));
  }
  EXPECT_ERRNO(ENOENT, symlink("", P("empty").c_str()));
  WriteFile(P("f"), "x");
  EXPECT_ERRNO(EEXIST, symlink("t", P("f").c_str()));
  char buffer[10];
  EXPECT_ERRNO(EINVAL, readlink(P("f").c_str(), buffer, sizeof(buffer)));
}

TEST_F(NamesTest, SymbolicLinksAreFollowedAndLoopsFound) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  WriteFile(P("d/f"), "x");
  ASSERT_OK(symlink("d", P("l").c_str()));
  EXPECT_EQ("x", ReadFile(P("l/f")));
  ASSERT_OK(symlink("loop2", P("loop1").c_str()));
  ASSERT_OK(symlink("loop1", P("loop2").c_str()));
  struct stat st;
  EXPECT_ERRNO(ELOOP, stat(P("loop1").c_str(), &st));
  EXPECT_ERRNO(ELOOP, open(P("l").c_str(), O_RDONLY | O_NOFOLLOW));
  // A link read twice in a row is the same, also after it was replaced.
  ASSERT_OK(unlink(P("l").c_str()));
  ASSERT_OK(symlink("elsewhere", P("l").c_str()));
  char buffer[64];
  EXPECT_EQ(9, readlink(P("l").c_str(), buffer, sizeof(buffer)));
}

TEST_F(NamesTest, SpecialFiles) {
  EXPECT_OK(mkfifo(P("fifo").c_str(), 0640));
  EXPECT_TRUE(S_ISFIFO(Stat(P("fifo")).st_mode));
  EXPECT_EQ(0640u, Stat(P("fifo")).st_mode & 07777);
  EXPECT_OK(mknod(P("file").c_str(), S_IFREG | 0600, 0));
  EXPECT_TRUE(S_ISREG(Stat(P("file")).st_mode));
  UniqueFd socket_fd(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = P("s");
  if (path.size() < sizeof(address.sun_path)) {
    strcpy(address.sun_path, path.c_str());
    EXPECT_OK(bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address),
                   sizeof(address)));
    EXPECT_TRUE(S_ISSOCK(Stat(path).st_mode));
  }
  // A fifo on the mount connects processes of this host.
  Child writer([&] {
    UniqueFd fd(open(P("fifo").c_str(), O_WRONLY));
    return write(fd.get(), "through", 7) == 7 ? 0 : 1;
  });
  EXPECT_EQ("through", ReadFile(P("fifo")));
  EXPECT_EQ(0, writer.Wait());
}

TEST_F(NamesTest, HardLinks) {
  WriteFile(P("a"), "shared");
  ASSERT_OK(link(P("a").c_str(), P("b").c_str()));
  EXPECT_EQ(Stat(P("a")).st_ino, Stat(P("b")).st_ino);
  EXPECT_EQ(2u, Stat(P("a")).st_nlink);
  EXPECT_EQ(2u, Stat(P("b")).st_nlink);
  WriteFile(P("b"), "changed");
  EXPECT_EQ("changed", ReadFile(P("a")));
  EXPECT_OK(unlink(P("a").c_str()));
  EXPECT_EQ(1u, Stat(P("b")).st_nlink);
  EXPECT_EQ("changed", ReadFile(P("b")));
  EXPECT_ERRNO(ENOENT, link(P("a").c_str(), P("c").c_str()));
  WriteFile(P("c"), "x");
  EXPECT_ERRNO(EEXIST, link(P("b").c_str(), P("c").c_str()));
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  EXPECT_ERRNO(EPERM, link(P("d").c_str(), P("e").c_str()));
  ASSERT_OK(symlink("b", P("l").c_str()));
  EXPECT_OK(link(P("l").c_str(), P("l2").c_str()));
  EXPECT_TRUE(S_ISLNK(LStat(P("l2")).st_mode));
}

TEST_F(NamesTest, UnlinkErrors) {
  EXPECT_ERRNO(ENOENT, unlink(P("none").c_str()));
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  EXPECT_ERRNO(EISDIR, unlink(P("d").c_str()));
  WriteFile(P("f"), "x");
  EXPECT_ERRNO(ENOTDIR, unlink(P("f/x").c_str()));
}

TEST_F(NamesTest, ANameComesAndGoesManyTimes) {
  for (int i = 0; i < 50; ++i) {
    ASSERT_FALSE(Exists(P("n"))) << i;
    WriteFile(P("n"), std::to_string(i));
    ASSERT_EQ(std::to_string(i), ReadFile(P("n")));
    ASSERT_OK(unlink(P("n").c_str()));
    ASSERT_OK(mkdir(P("n").c_str(), 0755));
    ASSERT_TRUE(S_ISDIR(Stat(P("n")).st_mode));
    ASSERT_OK(rmdir(P("n").c_str()));
  }
}

TEST_F(NamesTest, RenameReplacesAtomically) {
  WriteFile(P("a"), "A");
  WriteFile(P("b"), "B");
  const ino_t ino = Stat(P("a")).st_ino;
  EXPECT_OK(rename(P("a").c_str(), P("b").c_str()));
  EXPECT_FALSE(Exists(P("a")));
  EXPECT_EQ("A", ReadFile(P("b")));
  EXPECT_EQ(ino, Stat(P("b")).st_ino);
}

TEST_F(NamesTest, RenameOfDirectories) {
  ASSERT_OK(mkdir(P("a").c_str(), 0755));
  ASSERT_OK(mkdir(P("b").c_str(), 0755));
  WriteFile(P("a/f"), "x");
  EXPECT_OK(rename(P("a").c_str(), P("b").c_str()));  // over an empty one
  EXPECT_EQ("x", ReadFile(P("b/f")));
  ASSERT_OK(mkdir(P("c").c_str(), 0755));
  EXPECT_ERRNO(ENOTEMPTY, rename(P("c").c_str(), P("b").c_str()));
  WriteFile(P("f"), "x");
  EXPECT_ERRNO(ENOTDIR, rename(P("c").c_str(), P("f").c_str()));
  EXPECT_ERRNO(EISDIR, rename(P("f").c_str(), P("c").c_str()));
  EXPECT_ERRNO(EINVAL, rename(P("b").c_str(), P("b/inside").c_str()));
  EXPECT_ERRNO(ENOENT, rename(P("none").c_str(), P("x").c_str()));
  // Across directories, with what is in them.
  ASSERT_OK(mkdir(P("c/sub").c_str(), 0755));
  EXPECT_OK(rename(P("b").c_str(), P("c/sub/b").c_str()));
  EXPECT_EQ("x", ReadFile(P("c/sub/b/f")));
  EXPECT_EQ(Stat(P("c/sub")).st_ino, Stat(P("c/sub/b/..")).st_ino);
}

TEST_F(NamesTest, RenameToOneselfOrAnotherLinkDoesNothing) {
  WriteFile(P("a"), "x");
  EXPECT_OK(rename(P("a").c_str(), P("a").c_str()));
  ASSERT_OK(link(P("a").c_str(), P("b").c_str()));
  EXPECT_OK(rename(P("a").c_str(), P("b").c_str()));
  EXPECT_TRUE(Exists(P("a")));
  EXPECT_TRUE(Exists(P("b")));
}

TEST_F(NamesTest, RenameFlags) {
  WriteFile(P("a"), "A");
  WriteFile(P("b"), "B");
  EXPECT_ERRNO(EEXIST, renameat2(AT_FDCWD, P("a").c_str(), AT_FDCWD, P("b").c_str(),
                                 RENAME_NOREPLACE));
  EXPECT_OK(renameat2(AT_FDCWD, P("a").c_str(), AT_FDCWD, P("c").c_str(),
                      RENAME_NOREPLACE));
  EXPECT_OK(renameat2(AT_FDCWD, P("c").c_str(), AT_FDCWD, P("b").c_str(),
                      RENAME_EXCHANGE));
  EXPECT_EQ("B", ReadFile(P("c")));
  EXPECT_EQ("A", ReadFile(P("b")));
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  WriteFile(P("d/in"), "in");
  EXPECT_OK(renameat2(AT_FDCWD, P("d").c_str(), AT_FDCWD, P("b").c_str(),
                      RENAME_EXCHANGE));
  EXPECT_EQ("in", ReadFile(P("b/in")));
  EXPECT_EQ("A", ReadFile(P("d")));
  EXPECT_ERRNO(ENOENT, renameat2(AT_FDCWD, P("d").c_str(), AT_FDCWD,
                                 P("none").c_str(), RENAME_EXCHANGE));
}

TEST_F(NamesTest, OpenFilesOutliveTheirNames) {
  WriteFile(P("f"), "still here");
  UniqueFd fd = Open("f", O_RDWR);
  ASSERT_OK(unlink(P("f").c_str()));
  EXPECT_FALSE(Exists(P("f")));
  char buffer[16] = {};
  EXPECT_EQ(10, pread(fd.get(), buffer, sizeof(buffer), 0));
  EXPECT_STREQ("still here", buffer);
  EXPECT_EQ(5, pwrite(fd.get(), "STILL", 5, 0));
  struct stat st;
  EXPECT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(0u, st.st_nlink);
  EXPECT_EQ(10, st.st_size);
  EXPECT_OK(ftruncate(fd.get(), 3));
  EXPECT_OK(fchmod(fd.get(), 0600));
  EXPECT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(3, st.st_size);
  EXPECT_EQ(0600u, st.st_mode & 07777);
  EXPECT_OK(fsync(fd.get()));
}

TEST_F(NamesTest, OpenFilesOutliveBeingRenamedOver) {
  WriteFile(P("old"), "old");
  WriteFile(P("new"), "new");
  UniqueFd fd = Open("old", O_RDONLY);
  ASSERT_OK(rename(P("new").c_str(), P("old").c_str()));
  char buffer[8] = {};
  EXPECT_EQ(3, read(fd.get(), buffer, sizeof(buffer)));
  EXPECT_STREQ("old", buffer);
  EXPECT_EQ("new", ReadFile(P("old")));
}

TEST_F(NamesTest, RemovedDirectoriesCanStillBeLookedAt) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  UniqueFd fd = Open("d", O_RDONLY | O_DIRECTORY);
  ASSERT_OK(rmdir(P("d").c_str()));
  EXPECT_ERRNO(ENOENT, openat(fd.get(), "f", O_CREAT | O_RDWR, 0644));
}

TEST_F(NamesTest, TmpFile) {
  UniqueFd fd(open(dir().c_str(), O_TMPFILE | O_RDWR, 0640));
  ASSERT_TRUE(fd) << strerror(errno);
  EXPECT_EQ(7, write(fd.get(), "unnamed", 7));
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(0u, st.st_nlink);
  EXPECT_EQ(7, st.st_size);
  EXPECT_EQ(0640u, st.st_mode & 07777);
  EXPECT_TRUE(List(dir()).empty());
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  ASSERT_OK(linkat(AT_FDCWD, self.c_str(), AT_FDCWD, P("named").c_str(),
                   AT_SYMLINK_FOLLOW));
  EXPECT_EQ("unnamed", ReadFile(P("named")));
  EXPECT_EQ(1u, Stat(P("named")).st_nlink);
  EXPECT_EQ(3, write(fd.get(), " no", 3));
  EXPECT_EQ("unnamed no", ReadFile(P("named")));
  UniqueFd gone(open(dir().c_str(), O_TMPFILE | O_RDWR | O_EXCL, 0600));
  ASSERT_TRUE(gone) << strerror(errno);
  EXPECT_EQ(1, write(gone.get(), "x", 1));
}

TEST_F(NamesTest, ExecutesPrograms) {
  WriteFile(P("script"), "#!/bin/sh\nexit 7\n");
  ASSERT_OK(chmod(P("script").c_str(), 0755));
  EXPECT_EQ(7, InChild([&] {
              execl(P("script").c_str(), "script", nullptr);
              return 99;
            }));
  ASSERT_OK(chmod(P("script").c_str(), 0644));
  EXPECT_ERRNO(EACCES, execl(P("script").c_str(), "script", nullptr));
}

}  // namespace
}  // namespace tripwire::posix
