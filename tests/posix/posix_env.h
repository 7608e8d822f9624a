// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_POSIX_POSIX_ENV_H_
#define TRIPWIRE_TESTS_POSIX_POSIX_ENV_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "nic/base/fd.h"

// What any POSIX file system on Linux does, told as tests of a directory: run on a
// local directory they say what is true, run on a mount whether the mount is.
namespace tripwire::posix {

// Where to test; from the command line.
struct Places {
  std::string mountpoint;
  std::string second;  // another mount of the same tree; empty: none
  std::string origin;  // the tree itself, on the server; empty: not at hand
};
const Places& GetPlaces();

// A directory of its own for each test, made and removed through the mount.
class PosixTest : public ::testing::Test {
 protected:
  PosixTest();
  ~PosixTest() override;
  // Paths within the test's directory: as is, through the second mount, on the
  // server.
  std::string P(const std::string& name = "") const { return dir_ + "/" + name; }
  std::string Second(const std::string& name = "") const;
  std::string Origin(const std::string& name = "") const;
  const std::string& dir() const { return dir_; }

  UniqueFd Open(const std::string& name, int flags, mode_t mode = 0644);

 private:
  std::string name_;
  std::string dir_;
};

// Tests that change user; need root.
class PrivilegedTest : public PosixTest {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root, to become others";
  }
};
// Tests of two mounts of one tree.
class CoherenceTest : public PosixTest {};

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& text);
bool Exists(const std::string& path);
struct stat Stat(const std::string& path);
struct stat LStat(const std::string& path);
std::vector<std::string> List(const std::string& path);  // sorted, no dots
std::string Pattern(size_t size, unsigned seed);

// Runs `f` in a child process as another user; returns what `f` returns (0 to 255),
// or 256 + signal.
int AsUser(uid_t uid, gid_t gid, const std::vector<gid_t>& groups,
           const std::function<int()>& f);
// The same as ourselves.
int InChild(const std::function<int()>& f);

// A child process that runs `f` and ends with what it returns; another can wait.
class Child {
 public:
  explicit Child(const std::function<int()>& f);
  ~Child();
  pid_t pid() const { return pid_; }
  int Wait();
  bool Running();

 private:
  pid_t pid_ = 0;
};

// Waits up to `seconds` for `ready`.
bool Eventually(double seconds, const std::function<bool()>& ready);

// For calls that return -1 and set errno.
#define EXPECT_ERRNO(wanted, call)                                \
  do {                                                            \
    errno = 0;                                                    \
    EXPECT_EQ(-1, (call)) << #call;                               \
    EXPECT_EQ(wanted, errno) << #call << ": " << strerror(errno); \
  } while (0)
#define EXPECT_OK(call) EXPECT_EQ(0, (call)) << #call << ": " << strerror(errno)
#define ASSERT_OK(call) ASSERT_EQ(0, (call)) << #call << ": " << strerror(errno)

}  // namespace tripwire::posix

#endif  // TRIPWIRE_TESTS_POSIX_POSIX_ENV_H_
