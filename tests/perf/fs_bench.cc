// SPDX-License-Identifier: BSD-3-Clause
// tw-fs-bench: the same file work in several directories, each compared with the
// first (the floor: a local FUSE pass-through, see fs_bench.sh). Every figure is
// the best of the repetitions, taken in turn over the directories so that a noisy
// machine disturbs all alike. With --count it also says what each operation in the
// last directory cost the programs that serve it: calls, sleeps, doorbells.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "nic/api/stats/stats.h"

namespace {

struct Settings {
  std::vector<std::string> directories;
  uint64_t file_mib = 256;
  int files = 2000;
  int repeats = 3;
  std::string count;
  std::string only;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "tw-fs-bench: %s: %s\n", what.c_str(), strerror(errno));
  std::exit(1);
}

int OpenOrDie(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) Die(path);
  return fd;
}

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

// Forgets the pages of a file, so that it is read from below the mount.
void Forget(int fd) { posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); }

struct Workload {
  const char* name;
  const char* unit;
  double operations;  // in one run
  // Does the work in a directory; returns units of work per second.
  std::function<double(const std::string&)> run;
};

std::vector<Workload> Workloads(const Settings& s) {
  constexpr int kReads = 4000;
  constexpr int kWrites = 4000;
  const auto files = static_cast<double>(s.files);
  const uint64_t bytes = s.file_mib << 20;
  const auto file = [](const std::string& dir) { return dir + "/bench.data"; };
  const auto name = [](const std::string& dir, int i) {
    return dir + "/bench.d/f" + std::to_string(i);
  };
  return {
      {"sequential write, 1 MiB", "MiB/s", static_cast<double>(s.file_mib),
       [=](const std::string& dir) {
         std::vector<char> block(1 << 20, 'w');
         return s.file_mib / Seconds([&] {
                  const int fd = OpenOrDie(file(dir), O_WRONLY | O_CREAT | O_TRUNC);
                  for (uint64_t at = 0; at < bytes; at += block.size()) {
                    if (write(fd, block.data(), block.size()) !=
                        static_cast<ssize_t>(block.size())) {
                      Die("write");
                    }
                  }
                  if (close(fd) != 0) Die("close");
                });
       }},
      {"sequential read, 1 MiB", "MiB/s", static_cast<double>(s.file_mib),
       [=](const std::string& dir) {
         std::vector<char> block(1 << 20);
         const int fd = OpenOrDie(file(dir), O_RDONLY);
         Forget(fd);
         const double took = Seconds([&] {
           uint64_t got = 0;
           ssize_t n;
           while ((n = read(fd, block.data(), block.size())) > 0) got += n;
           if (n < 0 || got != bytes) Die("read");
         });
         close(fd);
         return s.file_mib / took;
       }},
      {"random read, 4 KiB", "op/s", kReads,
       [=](const std::string& dir) {
         std::mt19937_64 random(1);
         char block[4096];
         const int fd = OpenOrDie(file(dir), O_RDONLY);
         Forget(fd);
         posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
         const double took = Seconds([&] {
           for (int i = 0; i < kReads; ++i) {
             const off_t at = static_cast<off_t>(random() % (bytes / 4096) * 4096);
             if (pread(fd, block, sizeof block, at) != sizeof block) Die("pread");
           }
         });
         close(fd);
         return kReads / took;
       }},
      {"random write, 4 KiB", "op/s", kWrites,
       [=](const std::string& dir) {
         std::mt19937_64 random(2);
         char block[4096] = {};
         const int fd = OpenOrDie(file(dir), O_WRONLY);
         const double took = Seconds([&] {
           for (int i = 0; i < kWrites; ++i) {
             const off_t at = static_cast<off_t>(random() % (bytes / 4096) * 4096);
             if (pwrite(fd, block, sizeof block, at) != sizeof block) Die("pwrite");
           }
         });
         close(fd);
         return kWrites / took;
       }},
      {"create, write 1 KiB, close", "file/s", files,
       [=](const std::string& dir) {
         if (mkdir((dir + "/bench.d").c_str(), 0755) != 0) Die("mkdir");
         char data[1024] = {};
         return s.files / Seconds([&] {
                  for (int i = 0; i < s.files; ++i) {
                    const int fd = OpenOrDie(name(dir, i), O_WRONLY | O_CREAT | O_EXCL);
                    if (write(fd, data, sizeof data) != sizeof data) Die("write");
                    if (close(fd) != 0) Die("close");
                  }
                });
       }},
      {"list and stat all", "file/s", files,
       [=](const std::string& dir) {
         return s.files / Seconds([&] {
                  DIR* listing = opendir((dir + "/bench.d").c_str());
                  if (listing == nullptr) Die("opendir");
                  int seen = 0;
                  while (dirent* entry = readdir(listing)) {
                    struct stat st;
                    if (fstatat(dirfd(listing), entry->d_name, &st,
                                AT_SYMLINK_NOFOLLOW) != 0) {
                      Die("stat");
                    }
                    ++seen;
                  }
                  closedir(listing);
                  if (seen != s.files + 2) Die("readdir lost entries");
                });
       }},
      {"stat of fresh names (ENOENT)", "op/s", files,
       [=](const std::string& dir) {
         static int round = 0;
         ++round;
         return s.files / Seconds([&] {
                  struct stat st;
                  for (int i = 0; i < s.files; ++i) {
                    const std::string missing =
                        name(dir, i) + "." + std::to_string(round);
                    if (stat(missing.c_str(), &st) == 0) Die("ghost");
                  }
                });
       }},
      {"rename", "op/s", files,
       [=](const std::string& dir) {
         return s.files / Seconds([&] {
                  for (int i = 0; i < s.files; ++i) {
                    if (rename(name(dir, i).c_str(), (name(dir, i) + "r").c_str()) != 0)
                      Die("rename");
                  }
                });
       }},
      {"unlink", "op/s", files,
       [=](const std::string& dir) {
         const double rate = s.files / Seconds([&] {
                  for (int i = 0; i < s.files; ++i) {
                    if (unlink((name(dir, i) + "r").c_str()) != 0) Die("unlink");
                  }
                });
         if (rmdir((dir + "/bench.d").c_str()) != 0) Die("rmdir");
         return rate;
       }},
  };
}

// What the programs that serve a directory have done so far.
struct Costs {
  double calls = 0, server_sleeps = 0, mount_sleeps = 0, doorbells = 0;

  Costs operator-(const Costs& o) const {
    return {calls - o.calls, server_sleeps - o.server_sleeps,
            mount_sleeps - o.mount_sleeps, doorbells - o.doorbells};
  }
};

Costs CostsOf(const std::string& served) {
  namespace stats = tripwire::stats;
  Costs costs;
  for (const auto& program : stats::Collect(stats::DefaultDirectories())) {
    if (program.detail.find(served) == std::string::npos) continue;
    const bool is_server = program.program == "tw-fsd";
    costs.calls += static_cast<double>(program.Value("files", "calls"));
    (is_server ? costs.server_sleeps : costs.mount_sleeps) +=
        static_cast<double>(program.Value("nic", "sleeps"));
    costs.doorbells += static_cast<double>(program.Value("nic", "doorbells_rung"));
  }
  return costs;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Times file work in directories; ratios are to the first one");
  app.add_option("directory", settings.directories, "The floor, then the others")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--mib", settings.file_mib, "Size of the large file, MiB");
  app.add_option("--files", settings.files, "How many small files");
  app.add_option("--repeats", settings.repeats, "Repetitions; the best counts");
  app.add_option("--only", settings.only,
                 "Only work whose name has this text in it; reading and overwriting "
                 "need what \"sequential\" leaves");
  app.add_option("--count", settings.count,
                 "Also count what an operation in the last directory costs the programs "
                 "whose details (tw stat) have this text in them");
  CLI11_PARSE(app, argc, argv);

  auto workloads = Workloads(settings);
  std::erase_if(workloads, [&](const Workload& work) {
    return std::string_view(work.name).find(settings.only) == std::string_view::npos;
  });
  std::vector<std::vector<double>> best(
      workloads.size(), std::vector<double>(settings.directories.size()));
  std::vector<Costs> costs(workloads.size());  // of the last repetition
  for (int repeat = 0; repeat < settings.repeats; ++repeat) {
    for (size_t d = 0; d < settings.directories.size(); ++d) {
      for (size_t w = 0; w < workloads.size(); ++w) {
        const bool counts =
            !settings.count.empty() && d + 1 == settings.directories.size();
        const Costs before = counts ? CostsOf(settings.count) : Costs{};
        best[w][d] =
            std::max(best[w][d], workloads[w].run(settings.directories[d]));
        if (counts) costs[w] = CostsOf(settings.count) - before;
      }
    }
  }
  std::printf("%-30s %8s", "", "");
  for (const auto& dir : settings.directories) std::printf(" %18.18s", dir.c_str());
  std::printf("\n");
  for (size_t w = 0; w < workloads.size(); ++w) {
    std::printf("%-30s %8s", workloads[w].name, workloads[w].unit);
    for (size_t d = 0; d < settings.directories.size(); ++d) {
      std::printf(" %10.0f (%5.2f)", best[w][d], best[w][d] / best[w][0]);
    }
    std::printf("\n");
  }
  if (!settings.count.empty()) {
    std::printf("\nEach operation   %34s %14s %14s %10s\n", "calls", "server sleeps",
                "mount sleeps", "doorbells");
    for (size_t w = 0; w < workloads.size(); ++w) {
      const double n = workloads[w].operations;
      std::printf("%-40s %10.2f %14.3f %14.3f %10.3f\n", workloads[w].name,
                  costs[w].calls / n, costs[w].server_sleeps / n,
                  costs[w].mount_sleeps / n, costs[w].doorbells / n);
    }
  }
  for (const auto& dir : settings.directories) unlink((dir + "/bench.data").c_str());
}
