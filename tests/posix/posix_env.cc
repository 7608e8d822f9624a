// SPDX-License-Identifier: BSD-3-Clause
#include "tests/posix/posix_env.h"

#include <dirent.h>
#include <grp.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

namespace tripwire::posix {
namespace {

Places places;
std::string scratch;  // a local directory of ours, when no mount was named

int WaitFor(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return 255;
  }
  return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

const Places& GetPlaces() { return places; }

PosixTest::PosixTest() {
  static std::atomic<int> next{0};
  name_ = "t" + std::to_string(getpid()) + "-" + std::to_string(next++);
  dir_ = places.mountpoint + "/" + name_;
  if (mkdir(dir_.c_str(), 0755) != 0) {
    ADD_FAILURE() << "mkdir " << dir_ << ": " << strerror(errno);
  }
}

PosixTest::~PosixTest() {
  std::error_code error;
  std::filesystem::remove_all(dir_, error);
  EXPECT_FALSE(error) << "removing " << dir_ << ": " << error.message();
}

std::string PosixTest::Second(const std::string& name) const {
  return places.second + "/" + name_ + "/" + name;
}

std::string PosixTest::Origin(const std::string& name) const {
  return places.origin + "/" + name_ + "/" + name;
}

UniqueFd PosixTest::Open(const std::string& name, int flags, mode_t mode) {
  UniqueFd fd(open(P(name).c_str(), flags | O_CLOEXEC, mode));
  EXPECT_TRUE(fd) << "open " << name << ": " << strerror(errno);
  return fd;
}

std::string ReadFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::string("<") + strerror(errno) + ">";
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t n = read(fd.get(), buffer, sizeof(buffer));
    if (n < 0) return std::string("<read: ") + strerror(errno) + ">";
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
  }
}

void WriteFile(const std::string& path, const std::string& text) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  ASSERT_TRUE(fd) << path << ": " << strerror(errno);
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = write(fd.get(), text.data() + done, text.size() - done);
    ASSERT_GT(n, 0) << path << ": " << strerror(errno);
    done += static_cast<size_t>(n);
  }
  ASSERT_EQ(0, close(fd.release())) << path << ": " << strerror(errno);
}

bool Exists(const std::string& path) {
  struct stat st;
  return lstat(path.c_str(), &st) == 0;
}

struct stat Stat(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(0, stat(path.c_str(), &st)) << path << ": " << strerror(errno);
  return st;
}

struct stat LStat(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(0, lstat(path.c_str(), &st)) << path << ": " << strerror(errno);
  return st;
}

std::vector<std::string> List(const std::string& path) {
  std::vector<std::string> names;
  DIR* dir = opendir(path.c_str());
  EXPECT_NE(nullptr, dir) << path << ": " << strerror(errno);
  if (!dir) return names;
  while (dirent* entry = readdir(dir)) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      names.push_back(entry->d_name);
    }
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

std::string Pattern(size_t size, unsigned seed) {
  std::string text(size, '\0');
  uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
  for (char& c : text) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    c = static_cast<char>(x >> 24);
  }
  return text;
}

Child::Child(const std::function<int()>& f) {
  fflush(nullptr);
  pid_ = fork();
  if (pid_ == 0) _exit(f());
}

Child::~Child() {
  if (pid_ > 0 && Running()) {
    kill(pid_, SIGKILL);
    WaitFor(pid_);
  }
}

int Child::Wait() {
  const int result = WaitFor(pid_);
  pid_ = 0;
  return result;
}

bool Child::Running() {
  if (pid_ <= 0) return false;
  siginfo_t info = {};
  waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
  return info.si_pid == 0;
}

int InChild(const std::function<int()>& f) { return Child(f).Wait(); }

int AsUser(uid_t uid, gid_t gid, const std::vector<gid_t>& groups,
           const std::function<int()>& f) {
  return InChild([&] {
    if (setgroups(groups.size(), groups.data()) != 0 || setgid(gid) != 0 ||
        setuid(uid) != 0) {
      return 254;
    }
    return f();
  });
}

bool Eventually(double seconds, const std::function<bool()>& ready) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!ready()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

namespace {

bool TakeValue(const std::string& name, int argc, char** argv, int* i,
               std::string* value) {
  const std::string word = argv[*i];
  if (word == name && *i + 1 < argc) {
    *value = argv[++*i];
    return true;
  }
  if (word.rfind(name + "=", 0) == 0) {
    *value = word.substr(name.size() + 1);
    return true;
  }
  return false;
}

int Run(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  std::string filter;
  for (int i = 1; i < argc; ++i) {
    if (TakeValue("--mountpoint", argc, argv, &i, &places.mountpoint) ||
        TakeValue("--second", argc, argv, &i, &places.second) ||
        TakeValue("--origin", argc, argv, &i, &places.origin) ||
        TakeValue("--filter", argc, argv, &i, &filter)) {
      continue;
    }
    fprintf(stderr,
            "usage: %s [--mountpoint DIR [--second DIR] [--origin DIR]] "
            "[--filter PATTERN]\n",
            argv[0]);
    return 2;
  }
  if (places.mountpoint.empty()) {
    const char* base = getenv("TMPDIR");
    scratch = std::string(base && *base ? base : "/tmp") + "/tw-posix-XXXXXX";
    if (!mkdtemp(scratch.data())) return 2;
    chmod(scratch.c_str(), 0755);
    places.mountpoint = scratch;
  }
  // Tests that have nothing to run on do not exist.
  if (filter.empty()) filter = ::testing::GTEST_FLAG(filter);
  filter += filter.find('-') == std::string::npos ? "-" : ":";
  if (places.second.empty() || places.origin.empty()) filter += "Coherence*:";
  ::testing::GTEST_FLAG(filter) = filter;
  umask(022);
  const int result = RUN_ALL_TESTS();
  if (!scratch.empty()) {
    std::error_code error;
    std::filesystem::remove_all(scratch, error);
  }
  return result;
}

}  // namespace
}  // namespace tripwire::posix

int main(int argc, char** argv) { return tripwire::posix::Run(argc, argv); }
