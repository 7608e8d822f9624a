// SPDX-License-Identifier: BSD-3-Clause
// Listing directories.
#include <dirent.h>

#include <atomic>
#include <cstring>
#include <map>
#include <set>
#include <thread>

#include "tests/posix/posix_env.h"

namespace tripwire::posix {
namespace {

class DirTest : public PosixTest {
 protected:
  void Fill(int count) {
    for (int i = 0; i < count; ++i) {
      UniqueFd fd(open(P(Name(i)).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
      ASSERT_TRUE(fd) << i << ": " << strerror(errno);
    }
  }
  static std::string Name(int i) { return "entry-" + std::to_string(i); }
};

TEST_F(DirTest, AnEmptyDirectoryHasDots) {
  DIR* d = opendir(dir().c_str());
  ASSERT_NE(nullptr, d);
  std::set<std::string> names;
  while (dirent* e = readdir(d)) names.insert(e->d_name);
  closedir(d);
  EXPECT_EQ((std::set<std::string>{".", ".."}), names);
}

TEST_F(DirTest, EntriesHaveTypesAndInodeNumbers) {
  WriteFile(P("file"), "x");
  ASSERT_OK(mkdir(P("dir").c_str(), 0755));
  ASSERT_OK(symlink("file", P("link").c_str()));
  ASSERT_OK(mkfifo(P("fifo").c_str(), 0644));
  DIR* d = opendir(dir().c_str());
  ASSERT_NE(nullptr, d);
  std::map<std::string, dirent> entries;
  while (dirent* e = readdir(d)) entries[e->d_name] = *e;
  closedir(d);
  const std::map<std::string, int> types = {
      {"file", DT_REG}, {"dir", DT_DIR}, {"link", DT_LNK}, {"fifo", DT_FIFO}};
  for (const auto& [name, type] : types) {
    ASSERT_EQ(1u, entries.count(name)) << name;
    EXPECT_EQ(type, entries[name].d_type) << name;
    EXPECT_EQ(LStat(P(name)).st_ino, entries[name].d_ino) << name;
  }
}

TEST_F(DirTest, LargeDirectoriesAreListedExactlyOnce) {
  constexpr int kCount = 5000;
  Fill(kCount);
  for (const bool with_attributes : {false, true}) {
    std::map<std::string, int> seen;
    DIR* d = opendir(dir().c_str());
    ASSERT_NE(nullptr, d);
    while (dirent* e = readdir(d)) {
      ++seen[e->d_name];
      if (with_attributes) {
        struct stat st;
        EXPECT_EQ(0, fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW));
      }
    }
    closedir(d);
    EXPECT_EQ(static_cast<size_t>(kCount) + 2, seen.size());
    for (const auto& [name, times] : seen) ASSERT_EQ(1, times) << name;
  }
}

TEST_F(DirTest, SeekdirReturnsToWhereItWas) {
  Fill(500);
  DIR* d = opendir(dir().c_str());
  ASSERT_NE(nullptr, d);
  std::vector<std::pair<long, std::string>> order;
  for (;;) {
    const long where = telldir(d);
    dirent* e = readdir(d);
    if (!e) break;
    order.emplace_back(where, e->d_name);
  }
  ASSERT_EQ(502u, order.size());
  for (size_t i = 0; i < order.size(); i += 37) {
    seekdir(d, order[i].first);
    dirent* e = readdir(d);
    ASSERT_NE(nullptr, e) << i;
    EXPECT_EQ(order[i].second, e->d_name) << i;
  }
  closedir(d);
}

TEST_F(DirTest, RewinddirSeesWhatIsNew) {
  Fill(3);
  DIR* d = opendir(dir().c_str());
  ASSERT_NE(nullptr, d);
  int first = 0;
  while (readdir(d)) ++first;
  EXPECT_EQ(5, first);
  WriteFile(P("later"), "");
  rewinddir(d);
  int second = 0;
  while (readdir(d)) ++second;
  EXPECT_EQ(6, second);
  closedir(d);
}

TEST_F(DirTest, RemovingWhileListingMissesNothing) {
  constexpr int kCount = 1500;
  Fill(kCount);
  DIR* d = opendir(dir().c_str());
  ASSERT_NE(nullptr, d);
  int removed = 0;
  while (dirent* e = readdir(d)) {
    if (e->d_name[0] == '.') continue;
    ASSERT_EQ(0, unlinkat(dirfd(d), e->d_name, 0)) << e->d_name;
    ++removed;
  }
  closedir(d);
  EXPECT_EQ(kCount, removed);
  EXPECT_TRUE(List(dir()).empty());
}

TEST_F(DirTest, AddingWhileListingRepeatsNothing) {
  Fill(800);
  std::atomic<bool> stop{false};
  std::thread adder([&] {
    for (int i = 0; !stop && i < 3000; ++i) {
      UniqueFd fd(open(P("added-" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY, 0644));
    }
  });
  for (int round = 0; round < 3; ++round) {
    std::map<std::string, int> seen;
    DIR* d = opendir(dir().c_str());
    while (dirent* e = readdir(d)) ++seen[e->d_name];
    closedir(d);
    for (int i = 0; i < 800; ++i) EXPECT_EQ(1, seen[Name(i)]) << Name(i);
    for (const auto& [name, times] : seen) EXPECT_EQ(1, times) << name;
  }
  stop = true;
  adder.join();
}

TEST_F(DirTest, TwoReadersOfOneDirectoryAreApart) {
  Fill(100);
  DIR* a = opendir(dir().c_str());
  DIR* b = opendir(dir().c_str());
  int count_a = 0, count_b = 0;
  for (int i = 0; i < 50 && readdir(a); ++i) ++count_a;
  while (readdir(b)) ++count_b;
  while (readdir(a)) ++count_a;
  closedir(a);
  closedir(b);
  EXPECT_EQ(102, count_a);
  EXPECT_EQ(102, count_b);
}

TEST_F(DirTest, ParallelCreatesInOneDirectory) {
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const std::string path = P(std::to_string(t) + "-" + std::to_string(i));
        UniqueFd fd(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644));
        if (!fd) ++failures;
        if (i % 3 == 0 && unlink(path.c_str()) != 0) ++failures;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(0, failures);
  EXPECT_EQ(4u * 66, List(dir()).size());
}

TEST_F(DirTest, ARaceForOneNameHasOneWinner) {
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> winners{0}, losers{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        if (mkdir(P("prize").c_str(), 0755) == 0) {
          ++winners;
        } else if (errno == EEXIST) {
          ++losers;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(1, winners);
    EXPECT_EQ(3, losers);
    ASSERT_OK(rmdir(P("prize").c_str()));
  }
}

TEST_F(DirTest, ADirectoryOfRemovedOpenFilesIsEmpty) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  UniqueFd fd(open(P("d/f").c_str(), O_CREAT | O_RDWR, 0644));
  ASSERT_TRUE(fd);
  ASSERT_EQ(4, write(fd.get(), "data", 4));
  ASSERT_OK(unlink(P("d/f").c_str()));
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(0u, st.st_nlink);
  EXPECT_OK(rmdir(P("d").c_str()));
  char data[4];
  EXPECT_EQ(4, pread(fd.get(), data, 4, 0));
}

}  // namespace
}  // namespace tripwire::posix
