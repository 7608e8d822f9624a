// SPDX-License-Identifier: BSD-3-Clause
// How work grows with processors: each worker takes the writes of a client of its own,
// both driven by the worker's thread, so that no frame crosses processors. Beside it,
// what the processors themselves allow: the same threads copying memory of their own.
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "nic/api/context.h"
#include "nic/api/workers.h"
#include "nic/port/port_spec.h"

namespace tripwire {
namespace {

struct Settings {
  size_t workers = 2;
  size_t bytes = 64;
  double seconds = 1;
};

uint64_t Now() { return SystemClock().NowNs(); }

[[noreturn]] void Die(const absl::Status& status) {
  std::fprintf(stderr, "tw-workers-bench: %s\n",
               std::string(status.message()).c_str());
  std::exit(1);
}

// A client, its link to the worker that took it in, and what that worker exports to it.
struct Pair {
  std::unique_ptr<Nic> nic;
  std::unique_ptr<Context> context;
  RemoteAperture to;
};

class World {
 public:
  World(const std::string& socket, size_t count) {
    WorkersOptions options;
    options.node = "workers";
    options.ports = {"memif:" + socket + ",listen"};
    options.count = count;
    auto workers = Workers::Open(std::move(options));
    if (!workers.ok()) Die(workers.status());
    workers_ = *std::move(workers);
    memory_.resize(count, std::vector<uint8_t>(1 << 16));
    pairs_.resize(count);
    for (size_t i = 0; i < count; ++i) {
      contexts_.push_back(workers_->nic(i).CreateContext());
      apertures_.push_back(contexts_[i]->Export(memory_[i], Access::kWrite));
      if (auto s = contexts_[i]->Listen("bench"); !s.ok()) Die(s);
    }
    for (size_t i = 0; i < count; ++i) Join(socket);
  }

  // Writes a second of all workers together.
  double Run(size_t bytes, double seconds) {
    std::atomic<uint64_t> writes{0};
    workers_->Run([&](size_t i, Nic& nic) {
      writes += Write(pairs_[i], nic, bytes, seconds);
    });
    return static_cast<double>(writes) / seconds;
  }
  double Copy(double seconds) {
    std::atomic<uint64_t> copies{0};
    workers_->Run([&](size_t i, Nic&) {
      uint8_t* memory = memory_[i].data();
      const uint64_t end_ns = Now() + static_cast<uint64_t>(seconds * 1e9);
      uint64_t done = 0;
      while (Now() < end_ns) {
        for (int k = 0; k < 100; ++k, ++done) {
          std::memcpy(memory, memory + (1 << 15), 1 << 12);
          asm volatile("" ::: "memory");
        }
      }
      copies += done;
    });
    return static_cast<double>(copies) / seconds;
  }

 private:
  // The next client; goes to the worker that has the fewest, which is one without.
  void Join(const std::string& socket) {
    Pair pair;
    auto port = OpenPort("memif:" + socket);
    if (!port.ok()) Die(port.status());
    NicOptions options;
    options.node = "client";
    options.ports.push_back(*std::move(port));
    options.service_thread = false;
    auto nic = Nic::Open(std::move(options));
    if (!nic.ok()) Die(nic.status());
    pair.nic = *std::move(nic);
    pair.context = pair.nic->CreateContext();
    const LinkId link = *pair.context->StartConnect("workers", "bench", {});
    for (size_t i = 0;; i = (i + 1) % contexts_.size()) {
      pair.nic->Poll();
      Event event;
      if (contexts_[i]->Poll({&event, 1}) == 0 ||
          event.kind != EventKind::kConnectRequest) {
        continue;
      }
      if (auto s = contexts_[i]->Accept(event.link, {}); !s.ok()) Die(s);
      pair.to = pair.context->Import(link, apertures_[i].name());
      while (!pair.context->IsUp(link)) pair.nic->Poll();
      pairs_[i] = std::move(pair);
      return;
    }
  }
  static uint64_t Write(Pair& pair, Nic& worker, size_t bytes, double seconds) {
    constexpr int kBatch = 32;
    std::vector<uint8_t> data(bytes, 1);
    Completion completions[kBatch];
    const uint64_t end_ns = Now() + static_cast<uint64_t>(seconds * 1e9);
    uint64_t done = 0;
    while (Now() < end_ns) {
      for (int k = 0; k < kBatch; ++k) {
        completions[k].status.store(OpStatus::kPending, std::memory_order_relaxed);
        const uint64_t offset = (done + static_cast<uint64_t>(k)) % 512 * 64;
        if (auto s = pair.context->Write(pair.to, offset, data, &completions[k]); !s.ok()) {
          Die(s);
        }
      }
      while (!completions[kBatch - 1].done()) {
        worker.Poll();
        pair.nic->Poll();
      }
      done += kBatch;
    }
    return done;
  }

  std::unique_ptr<Workers> workers_;
  std::vector<std::vector<uint8_t>> memory_;
  std::vector<std::unique_ptr<Context>> contexts_;
  std::vector<Aperture> apertures_;
  std::vector<Pair> pairs_;
};

int Main(int argc, char** argv) {
  CLI::App app("Times writes taken by one worker and by several");
  Settings settings;
  app.add_option("--workers", settings.workers, "How many, besides one")
      ->check(CLI::Range(2, 256));
  app.add_option("--bytes", settings.bytes, "Of each write")->check(CLI::Range(1, 32768));
  app.add_option("--seconds", settings.seconds, "For each figure")
      ->check(CLI::Range(0.01, 1000.0));
  CLI11_PARSE(app, argc, argv);
  char directory[] = "/tmp/tw-workers-XXXXXX";
  if (mkdtemp(directory) == nullptr) Die(absl::ErrnoToStatus(errno, "mkdtemp"));
  const std::string socket = std::string(directory) + "/sock";
  double writes[2], copies[2];
  const size_t counts[2] = {1, settings.workers};
  for (int k = 0; k < 2; ++k) {
    World world(socket, counts[k]);
    writes[k] = world.Run(settings.bytes, settings.seconds);
    copies[k] = world.Copy(settings.seconds);
  }
  rmdir(directory);
  std::printf("%-34s %12s %12s %8s\n", "", "1 worker",
              (std::to_string(settings.workers) + " workers").c_str(), "times");
  std::printf("%-34s %12.0f %12.0f %8.2f\n",
              ("writes of " + std::to_string(settings.bytes) + " bytes, 1/s").c_str(), writes[0],
              writes[1], writes[1] / writes[0]);
  std::printf("%-34s %12.0f %12.0f %8.2f\n", "memcpy of 4 KiB, 1/s", copies[0], copies[1],
              copies[1] / copies[0]);
  return 0;
}

}  // namespace
}  // namespace tripwire

int main(int argc, char** argv) { return tripwire::Main(argc, argv); }
