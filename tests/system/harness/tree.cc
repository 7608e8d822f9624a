// SPDX-License-Identifier: BSD-3-Clause
#include "tests/system/harness/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <stdexcept>
#include <system_error>

#include "nic/base/fd.h"

namespace tripwire::systest {
namespace {

[[noreturn]] void Throw(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void Check(long rc, const std::string& what) {
  if (rc < 0) Throw(what);
}

std::string LinkTarget(const std::string& path) {
  char buffer[8192];
  const ssize_t n = ::readlink(path.c_str(), buffer, sizeof buffer);
  Check(n, "readlink " + path);
  return std::string(buffer, static_cast<size_t>(n));
}

std::vector<std::pair<std::string, std::string>> UserXattrs(
    const std::string& path) {
  std::string names(65536, 0);
  const ssize_t n = ::llistxattr(path.c_str(), names.data(), names.size());
  std::vector<std::pair<std::string, std::string>> result;
  if (n < 0) {
    if (errno == ENOTSUP) return result;
    Throw("llistxattr " + path);
  }
  for (const char* name = names.data(); name < names.data() + n;
       name += std::strlen(name) + 1) {
    if (std::strncmp(name, "user.", 5) != 0) continue;
    std::string value(65536, 0);
    const ssize_t size =
        ::lgetxattr(path.c_str(), name, value.data(), value.size());
    Check(size, "lgetxattr " + path);
    value.resize(static_cast<size_t>(size));
    result.emplace_back(name, value);
  }
  std::sort(result.begin(), result.end());
  return result;
}

// Byte for byte, without holding either in memory. Returns where they part, -1
// if nowhere.
int64_t FirstDifference(const std::string& a, const std::string& b) {
  UniqueFd fa(::open(a.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fa) Throw("open " + a);
  UniqueFd fb(::open(b.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fb) Throw("open " + b);
  std::string ba(1 << 18, 0), bb(1 << 18, 0);
  const auto fill = [](int fd, std::string& buffer) {
    size_t have = 0;
    while (have < buffer.size()) {
      const ssize_t n = ::read(fd, buffer.data() + have, buffer.size() - have);
      Check(n, "read");
      if (n == 0) break;
      have += static_cast<size_t>(n);
    }
    return have;
  };
  for (int64_t offset = 0;;) {
    const size_t na = fill(fa.get(), ba);
    const size_t nb = fill(fb.get(), bb);
    const size_t common = std::min(na, nb);
    if (std::memcmp(ba.data(), bb.data(), common) != 0) {
      return offset +
             (std::mismatch(ba.begin(), ba.begin() + static_cast<long>(common),
                            bb.begin())
                  .first -
              ba.begin());
    }
    if (na != nb) return offset + static_cast<int64_t>(common);
    if (na < ba.size()) return -1;
    offset += static_cast<int64_t>(na);
  }
}

class Comparer {
 public:
  explicit Comparer(size_t limit) : limit_(limit) {}

  void Compare(const std::string& a, const std::string& b) {
    if (Full()) return;
    struct stat sa {
    }, sb{};
    if (::lstat(a.c_str(), &sa) != 0) return Say(a, std::strerror(errno));
    if (::lstat(b.c_str(), &sb) != 0) return Say(b, std::strerror(errno));
    Number(b, "mode", sa.st_mode, sb.st_mode);
    Number(b, "uid", sa.st_uid, sb.st_uid);
    Number(b, "gid", sa.st_gid, sb.st_gid);
    Number(b, "mtime s", static_cast<uint64_t>(sa.st_mtim.tv_sec),
           static_cast<uint64_t>(sb.st_mtim.tv_sec));
    Number(b, "mtime ns", static_cast<uint64_t>(sa.st_mtim.tv_nsec),
           static_cast<uint64_t>(sb.st_mtim.tv_nsec));
    if ((sa.st_mode & S_IFMT) != (sb.st_mode & S_IFMT)) return;
    if (UserXattrs(a) != UserXattrs(b)) Say(b, "user xattrs differ");
    if (!S_ISDIR(sa.st_mode)) Number(b, "links", sa.st_nlink, sb.st_nlink);
    if (S_ISREG(sa.st_mode)) {
      Number(b, "size", static_cast<uint64_t>(sa.st_size),
             static_cast<uint64_t>(sb.st_size));
      const int64_t at = FirstDifference(a, b);
      if (at >= 0) Say(b, "content differs from byte " + std::to_string(at));
    } else if (S_ISLNK(sa.st_mode)) {
      if (LinkTarget(a) != LinkTarget(b)) Say(b, "symlink target differs");
    } else if (S_ISDIR(sa.st_mode)) {
      CompareDirectories(a, b);
    } else {
      Number(b, "device", sa.st_rdev, sb.st_rdev);
    }
  }

  std::vector<std::string> Take() { return std::move(differences_); }

 private:
  bool Full() const { return differences_.size() >= limit_; }
  void Say(const std::string& path, const std::string& what) {
    if (!Full()) differences_.push_back(path + ": " + what);
  }
  void Number(const std::string& path, const char* what, uint64_t a,
              uint64_t b) {
    if (a != b) {
      Say(path, std::string(what) + " " + std::to_string(b) + ", should be " +
                    std::to_string(a));
    }
  }
  void CompareDirectories(const std::string& a, const std::string& b) {
    const auto na = ListDirectory(a), nb = ListDirectory(b);
    for (const std::string& name : na) {
      if (!std::binary_search(nb.begin(), nb.end(), name)) {
        Say(b + "/" + name, "missing");
      } else {
        Compare(a + "/" + name, b + "/" + name);
      }
    }
    for (const std::string& name : nb) {
      if (!std::binary_search(na.begin(), na.end(), name))
        Say(b + "/" + name, "should not be there");
    }
  }

  const size_t limit_;
  std::vector<std::string> differences_;
};

void SetTime(const std::string& path, int64_t seconds, long nanoseconds) {
  const timespec times[2] = {{seconds, nanoseconds}, {seconds, nanoseconds}};
  Check(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW),
        "utimensat " + path);
}

void MakeOddities(const std::string& root) {
  const std::string odd = root + "/odd";
  Check(::mkdir(odd.c_str(), 0755), "mkdir");
  WriteFile(odd + "/new\nline", "n");
  WriteFile(odd + "/ lead and trail ", "s");
  WriteFile(odd + "/-rf", "d");
  WriteFile(odd + "/\xff\xfe\x80 not utf-8", "b");
  WriteFile(odd + "/" + std::string(255, 'x'), "long name");
  Check(::symlink("/no/such/place", (odd + "/dangling").c_str()), "symlink");
  Check(::symlink("loop", (odd + "/loop").c_str()), "symlink");
  Check(
      ::symlink(std::string(4000, 't').c_str(), (odd + "/long target").c_str()),
      "symlink");
  Check(::symlink("bytes \xff\n", (odd + "/byte target").c_str()), "symlink");
  Check(::mkfifo((odd + "/fifo").c_str(), 0640), "mkfifo");
  Check(::link((odd + "/-rf").c_str(), (odd + "/second name").c_str()), "link");
  WriteFile(odd + "/attributes", "x");
  Check(::setxattr((odd + "/attributes").c_str(), "user.note", "a\0b", 3, 0),
        "setxattr");
  for (mode_t mode : {0000, 0444, 0600, 0755, 01777, 04755, 02755}) {
    const std::string path = odd + "/mode" + std::to_string(mode);
    WriteFile(path, "m");
    Check(::chmod(path.c_str(), mode), "chmod");
  }
  WriteFile(odd + "/from 1960", "t");
  SetTime(odd + "/from 1960", -315619200, 1);
  WriteFile(odd + "/from 2100", "t");
  SetTime(odd + "/from 2100", 4102444800, 999999999);
  // A file with a hole, and data on both sides of it.
  UniqueFd fd(
      ::open((odd + "/hole").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  Check(::pwrite(fd.get(), "begin", 5, 0), "pwrite");
  Check(::pwrite(fd.get(), "end", 3, 5 << 20), "pwrite");
  std::string deep = odd;
  for (int i = 0; i < 40; ++i) {
    deep += "/d" + std::to_string(i);
    Check(::mkdir(deep.c_str(), 0700 + i % 8), "mkdir");
  }
  WriteFile(deep + "/bottom", "deep");
}

}  // namespace

std::vector<std::string> CompareTrees(const std::string& a,
                                      const std::string& b, size_t limit) {
  Comparer comparer(limit);
  comparer.Compare(a, b);
  return comparer.Take();
}

void MakeTree(const std::string& root, uint64_t seed, int files) {
  std::mt19937_64 random(seed);
  static constexpr size_t kSizes[] = {0,    1,     100,   4095,   4096,  4097,
                                      8192, 20000, 65537, 131072, 300001};
  MakeOddities(root);
  std::string directory = root;
  for (int i = 0; i < files; ++i) {
    if (i % 25 == 0) {
      directory = root + "/dir" + std::to_string(i / 25);
      Check(::mkdir(directory.c_str(), 0755), "mkdir " + directory);
    }
    const std::string path = directory + "/file" + std::to_string(i);
    WriteFile(path,
              RandomBytes(random(), kSizes[random() % std::size(kSizes)]));
    SetTime(path, 1'000'000'000 + i,
            static_cast<long>(random() % 1'000'000'000));
  }
  WriteFile(root + "/large", RandomBytes(seed, 5'000'011));
}

std::string ReadFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) Throw("open " + path);
  std::string content;
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    Check(n, "read " + path);
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
  }
}

namespace {
void WriteWith(int flags, const std::string& path, const std::string& content) {
  UniqueFd fd(
      ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC | flags, 0644));
  if (!fd) Throw("open " + path);
  for (size_t done = 0; done < content.size();) {
    const ssize_t n =
        ::write(fd.get(), content.data() + done, content.size() - done);
    Check(n, "write " + path);
    done += static_cast<size_t>(n);
  }
  Check(::close(fd.release()), "close " + path);
}
}  // namespace

void WriteFile(const std::string& path, const std::string& content) {
  WriteWith(O_TRUNC, path, content);
}
void AppendFile(const std::string& path, const std::string& content) {
  WriteWith(O_APPEND, path, content);
}

std::vector<std::string> ListDirectory(const std::string& path) {
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) Throw("opendir " + path);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(dir);
  if (error != 0) {
    errno = error;
    Throw("readdir " + path);
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool Exists(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0) return true;
  if (errno != ENOENT) Throw("lstat " + path);
  return false;
}

std::string RandomBytes(uint64_t seed, size_t length) {
  std::mt19937_64 random(seed);
  std::string bytes(length, 0);
  size_t i = 0;
  for (; i + 8 <= length; i += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, 8);
  }
  for (; i < length; ++i) bytes[i] = static_cast<char>(random());
  return bytes;
}

}  // namespace tripwire::systest
