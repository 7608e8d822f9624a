// SPDX-License-Identifier: BSD-3-Clause
// Reading and writing.
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "tests/posix/posix_env.h"

namespace tripwire::posix {
namespace {

class IoTest : public PosixTest {};

TEST_F(IoTest, WhatIsWrittenIsReadForManySizes) {
  for (const size_t size : {0ul, 1ul, 511ul, 4095ul, 4096ul, 4097ul, 65536ul, 100001ul,
                            (1ul << 20) - 1, 1ul << 20, (1ul << 20) + 1, 5000003ul}) {
    const std::string data = Pattern(size, static_cast<unsigned>(size));
    WriteFile(P("f"), data);
    EXPECT_EQ(static_cast<off_t>(size), Stat(P("f")).st_size);
    EXPECT_TRUE(data == ReadFile(P("f"))) << size;
  }
}

TEST_F(IoTest, RandomOverwritesMatchAModel) {
  std::string model;
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  srand(42);
  for (int i = 0; i < 300; ++i) {
    const size_t offset = static_cast<size_t>(rand()) % 300000;
    const size_t size = 1 + static_cast<size_t>(rand()) % 9000;
    switch (rand() % 8) {
      case 0: {
        ASSERT_OK(ftruncate(fd.get(), static_cast<off_t>(offset)));
        model.resize(offset);
        break;
      }
      case 1:
      case 2: {
        std::string got(size, '?');
        const ssize_t n = pread(fd.get(), got.data(), size, static_cast<off_t>(offset));
        ASSERT_GE(n, 0);
        got.resize(static_cast<size_t>(n));
        ASSERT_TRUE(got == (offset < model.size() ? model.substr(offset, size) : ""))
            << "step " << i;
        break;
      }
      default: {
        const std::string data = Pattern(size, static_cast<unsigned>(i));
        ASSERT_EQ(static_cast<ssize_t>(size),
                  pwrite(fd.get(), data.data(), size, static_cast<off_t>(offset)));
        if (model.size() < offset + size) model.resize(offset + size);
        model.replace(offset, size, data);
      }
    }
  }
  EXPECT_TRUE(model == ReadFile(P("f")));
}

TEST_F(IoTest, HolesReadAsZeros) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  ASSERT_EQ(1, pwrite(fd.get(), "x", 1, 100000));
  const std::string text = ReadFile(P("f"));
  ASSERT_EQ(100001u, text.size());
  EXPECT_EQ(std::string(100000, '\0') + "x", text);
}

TEST_F(IoTest, BeyondFourGigabytes) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  const off_t far = (off_t{5} << 30) + 123;
  ASSERT_EQ(4, pwrite(fd.get(), "far!", 4, far));
  ASSERT_EQ(4, pwrite(fd.get(), "4G!!", 4, (off_t{1} << 32) - 2));
  EXPECT_EQ(far + 4, Stat(P("f")).st_size);
  char buffer[5] = {};
  EXPECT_EQ(4, pread(fd.get(), buffer, 4, far));
  EXPECT_STREQ("far!", buffer);
  EXPECT_EQ(4, pread(fd.get(), buffer, 4, (off_t{1} << 32) - 2));
  EXPECT_STREQ("4G!!", buffer);
  EXPECT_EQ(0, pread(fd.get(), buffer, 4, far + 4));
  ASSERT_OK(ftruncate(fd.get(), 10));
  EXPECT_EQ(10, Stat(P("f")).st_size);
}

TEST_F(IoTest, ModesOfOpenAreKept) {
  WriteFile(P("f"), "x");
  char c;
  UniqueFd reader = Open("f", O_RDONLY);
  EXPECT_ERRNO(EBADF, write(reader.get(), "y", 1));
  UniqueFd writer = Open("f", O_WRONLY);
  EXPECT_ERRNO(EBADF, read(writer.get(), &c, 1));
  UniqueFd directory = Open(".", O_RDONLY);
  EXPECT_ERRNO(EISDIR, read(directory.get(), &c, 1));
}

TEST_F(IoTest, AppendAlwaysGoesToTheEnd) {
  WriteFile(P("f"), "start");
  UniqueFd a = Open("f", O_WRONLY | O_APPEND);
  UniqueFd b = Open("f", O_WRONLY | O_APPEND);
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(1, write(a.get(), "a", 1));
    ASSERT_EQ(1, write(b.get(), "b", 1));
  }
  EXPECT_EQ("startabababababababababab", ReadFile(P("f")));
  EXPECT_EQ(25, lseek(a.get(), 0, SEEK_END));
  UniqueFd both = Open("f", O_RDWR | O_APPEND);
  ASSERT_EQ(1, write(both.get(), "!", 1));
  char buffer[32] = {};
  EXPECT_EQ(26, pread(both.get(), buffer, sizeof(buffer), 0));
  EXPECT_STREQ("startabababababababababab!", buffer);
}

TEST_F(IoTest, AppendsOfManyProcessesLoseNothing) {
  WriteFile(P("f"), "");
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(std::make_unique<Child>([&, i] {
      UniqueFd fd(open(P("f").c_str(), O_WRONLY | O_APPEND));
      const std::string line(19, static_cast<char>('a' + i));
      for (int j = 0; j < 100; ++j) {
        if (write(fd.get(), (line + "\n").data(), 20) != 20) return 1;
      }
      return 0;
    }));
  }
  for (auto& child : children) EXPECT_EQ(0, child->Wait());
  const std::string text = ReadFile(P("f"));
  ASSERT_EQ(4u * 100 * 20, text.size());
  int counts[4] = {};
  for (size_t i = 0; i < text.size(); i += 20) {
    const char c = text[i];
    ASSERT_TRUE(c >= 'a' && c < 'e');
    ASSERT_EQ(std::string(19, c) + "\n", text.substr(i, 20));
    ++counts[c - 'a'];
  }
  for (const int count : counts) EXPECT_EQ(100, count);
}

TEST_F(IoTest, VectorsAndPositions) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  char one[] = "one", two[] = "twotwo";
  const iovec out[] = {{one, 3}, {two, 6}};
  EXPECT_EQ(9, writev(fd.get(), out, 2));
  EXPECT_EQ(9, lseek(fd.get(), 0, SEEK_CUR));
  EXPECT_EQ(2, lseek(fd.get(), 2, SEEK_SET));
  char a[4] = {}, b[4] = {};
  const iovec in[] = {{a, 3}, {b, 3}};
  EXPECT_EQ(6, readv(fd.get(), in, 2));
  EXPECT_STREQ("etw", a);
  EXPECT_STREQ("otw", b);
  EXPECT_ERRNO(EINVAL, lseek(fd.get(), -1, SEEK_SET));
  EXPECT_EQ(1009, lseek(fd.get(), 1000, SEEK_END));
  EXPECT_EQ(0, read(fd.get(), a, 3));
}

TEST_F(IoTest, DirectIo) {
  std::unique_ptr<char, decltype(&free)> buffer(
      static_cast<char*>(aligned_alloc(4096, 1 << 20)), &free);
  UniqueFd fd(open(P("f").c_str(), O_CREAT | O_RDWR | O_DIRECT, 0644));
  if (!fd && errno == EINVAL) GTEST_SKIP() << "this file system has none, as it may";
  ASSERT_TRUE(fd);
  const std::string data = Pattern(1 << 20, 3);
  memcpy(buffer.get(), data.data(), data.size());
  ASSERT_EQ(1 << 20, write(fd.get(), buffer.get(), 1 << 20));
  memset(buffer.get(), 0, 1 << 20);
  ASSERT_EQ(1 << 20, pread(fd.get(), buffer.get(), 1 << 20, 0));
  EXPECT_EQ(0, memcmp(buffer.get(), data.data(), data.size()));
  // Buffered and direct access see each other.
  UniqueFd buffered = Open("f", O_RDWR);
  ASSERT_EQ(4, pwrite(buffered.get(), "BUFF", 4, 4096));
  ASSERT_EQ(4096, pread(fd.get(), buffer.get(), 4096, 4096));
  EXPECT_EQ(0, memcmp(buffer.get(), "BUFF", 4));
  memset(buffer.get(), 'D', 4096);
  ASSERT_EQ(4096, pwrite(fd.get(), buffer.get(), 4096, 0));
  char c = 0;
  ASSERT_EQ(1, pread(buffered.get(), &c, 1, 100));
  EXPECT_EQ('D', c);
}

TEST_F(IoTest, SyncFlavours) {
  UniqueFd fd(open(P("f").c_str(), O_CREAT | O_RDWR | O_SYNC, 0644));
  ASSERT_TRUE(fd);
  EXPECT_EQ(4, write(fd.get(), "sync", 4));
  UniqueFd dsync(open(P("f").c_str(), O_RDWR | O_DSYNC));
  EXPECT_EQ(5, pwrite(dsync.get(), "dsync", 5, 4));
  EXPECT_OK(fsync(fd.get()));
  EXPECT_OK(fdatasync(fd.get()));
  EXPECT_OK(syncfs(fd.get()));
  UniqueFd directory = Open(".", O_RDONLY | O_DIRECTORY);
  EXPECT_OK(fsync(directory.get()));
  EXPECT_EQ("syncdsync", ReadFile(P("f")));
}

TEST_F(IoTest, Fallocate) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  ASSERT_OK(fallocate(fd.get(), 0, 0, 1 << 20));
  EXPECT_EQ(1 << 20, Stat(P("f")).st_size);
  ASSERT_OK(fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20));
  EXPECT_EQ(1 << 20, Stat(P("f")).st_size);
  const std::string data(1 << 20, 'x');
  ASSERT_EQ(1 << 20, pwrite(fd.get(), data.data(), data.size(), 0));
  ASSERT_OK(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192));
  std::string expected = data;
  expected.replace(4096, 8192, std::string(8192, '\0'));
  EXPECT_TRUE(expected == ReadFile(P("f")));
  UniqueFd reader = Open("f", O_RDONLY);
  EXPECT_ERRNO(EBADF, fallocate(reader.get(), 0, 0, 1));
  EXPECT_ERRNO(EINVAL, fallocate(fd.get(), 0, -1, 1));
  EXPECT_ERRNO(EINVAL, fallocate(fd.get(), 0, 0, 0));
}

TEST_F(IoTest, SeekDataAndHole) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  const std::string block(65536, 'd');
  ASSERT_EQ(65536, pwrite(fd.get(), block.data(), block.size(), 1 << 20));
  ASSERT_OK(ftruncate(fd.get(), 2 << 20));
  ASSERT_OK(fsync(fd.get()));
  EXPECT_EQ(0, lseek(fd.get(), 0, SEEK_HOLE));
  EXPECT_EQ(1 << 20, lseek(fd.get(), 0, SEEK_DATA));
  EXPECT_EQ((1 << 20) + 65536, lseek(fd.get(), 1 << 20, SEEK_HOLE));
  EXPECT_ERRNO(ENXIO, lseek(fd.get(), (1 << 20) + 65536, SEEK_DATA));
  EXPECT_ERRNO(ENXIO, lseek(fd.get(), 2 << 20, SEEK_HOLE));
}

TEST_F(IoTest, CopyFileRange) {
  const std::string data = Pattern(3000000, 5);
  WriteFile(P("from"), data);
  UniqueFd from = Open("from", O_RDONLY);
  UniqueFd to = Open("to", O_CREAT | O_RDWR);
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t n =
        copy_file_range(from.get(), nullptr, to.get(), nullptr, data.size() - done, 0);
    ASSERT_GT(n, 0) << strerror(errno);
    done += static_cast<size_t>(n);
  }
  EXPECT_EQ(0, copy_file_range(from.get(), nullptr, to.get(), nullptr, 100, 0));
  EXPECT_TRUE(data == ReadFile(P("to")));
  // Into the middle of what was read (and cached) before.
  off_t in = 100, out = 5000;
  EXPECT_EQ(10, copy_file_range(from.get(), &in, to.get(), &out, 10, 0));
  std::string expected = data;
  expected.replace(5000, 10, data.substr(100, 10));
  EXPECT_TRUE(expected == ReadFile(P("to")));
  EXPECT_EQ(110, in);
  EXPECT_EQ(5010, out);
}

TEST_F(IoTest, SharedMappings) {
  WriteFile(P("f"), std::string(3 * 4096, '.'));
  UniqueFd fd = Open("f", O_RDWR);
  char* map = static_cast<char*>(
      mmap(nullptr, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(MAP_FAILED, static_cast<void*>(map));
  EXPECT_EQ('.', map[5000]);
  // Written by the mapping, read by read(2), and the other way round.
  memcpy(map + 4090, "straddling", 10);
  char buffer[11] = {};
  EXPECT_EQ(10, pread(fd.get(), buffer, 10, 4090));
  EXPECT_STREQ("straddling", buffer);
  EXPECT_EQ(5, pwrite(fd.get(), "WRITE", 5, 100));
  EXPECT_EQ(0, memcmp(map + 100, "WRITE", 5));
  ASSERT_OK(msync(map, 3 * 4096, MS_SYNC));
  ASSERT_OK(munmap(map, 3 * 4096));
  ASSERT_OK(close(fd.release()));
  const std::string text = ReadFile(P("f"));
  EXPECT_EQ("straddling", text.substr(4090, 10));
  EXPECT_EQ("WRITE", text.substr(100, 5));
}

TEST_F(IoTest, MappingsOutliveTheirDescriptors) {
  WriteFile(P("f"), std::string(4096, 'a'));
  UniqueFd fd = Open("f", O_RDWR);
  char* map = static_cast<char*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(MAP_FAILED, static_cast<void*>(map));
  ASSERT_OK(close(fd.release()));
  memset(map, 'b', 4096);
  ASSERT_OK(munmap(map, 4096));
  EXPECT_EQ(std::string(4096, 'b'), ReadFile(P("f")));
}

TEST_F(IoTest, PrivateMappingsChangeNothing) {
  WriteFile(P("f"), std::string(4096, 'a'));
  UniqueFd fd = Open("f", O_RDONLY);
  char* map = static_cast<char*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get(), 0));
  ASSERT_NE(MAP_FAILED, static_cast<void*>(map));
  memset(map, 'b', 4096);
  ASSERT_OK(munmap(map, 4096));
  EXPECT_EQ(std::string(4096, 'a'), ReadFile(P("f")));
}

TEST_F(IoTest, ManyOpenFiles) {
  std::vector<UniqueFd> fds;
  for (int i = 0; i < 200; ++i) {
    fds.push_back(Open("f" + std::to_string(i), O_CREAT | O_RDWR));
    ASSERT_TRUE(fds.back());
    const std::string text = std::to_string(i);
    ASSERT_EQ(static_cast<ssize_t>(text.size()),
              write(fds.back().get(), text.data(), text.size()));
  }
  for (int i = 0; i < 200; ++i) {
    char buffer[8] = {};
    ASSERT_GT(pread(fds[static_cast<size_t>(i)].get(), buffer, 7, 0), 0);
    ASSERT_EQ(std::to_string(i), buffer);
  }
}

TEST_F(IoTest, ParallelWritersOfOneFile) {
  constexpr size_t kPart = 300000;
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const std::string part = Pattern(kPart, i);
      for (size_t done = 0; done < kPart; done += 10000) {
        pwrite(fd.get(), part.data() + done, 10000,
               static_cast<off_t>(i * kPart + done));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const std::string text = ReadFile(P("f"));
  ASSERT_EQ(4 * kPart, text.size());
  for (unsigned i = 0; i < 4; ++i) {
    EXPECT_TRUE(Pattern(kPart, i) == text.substr(i * kPart, kPart)) << i;
  }
}

TEST_F(IoTest, SequentialReadersWhileAWriterAppends) {
  UniqueFd fd = Open("f", O_CREAT | O_RDWR);
  const std::string data = Pattern(2000000, 9);
  std::thread writer([&] {
    for (size_t done = 0; done < data.size(); done += 50000) {
      EXPECT_EQ(50000, pwrite(fd.get(), data.data() + done, 50000,
                              static_cast<off_t>(done)));
    }
  });
  UniqueFd reader = Open("f", O_RDONLY);
  size_t seen = 0;
  EXPECT_TRUE(Eventually(60, [&] {
    char buffer[30000];
    const ssize_t n = pread(reader.get(), buffer, sizeof(buffer),
                            static_cast<off_t>(seen));
    if (n > 0) {
      EXPECT_EQ(0, memcmp(buffer, data.data() + seen, static_cast<size_t>(n)));
      seen += static_cast<size_t>(n);
    }
    return seen == data.size();
  }));
  writer.join();
}

}  // namespace
}  // namespace tripwire::posix
