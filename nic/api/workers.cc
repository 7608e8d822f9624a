// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/workers.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "nic/port/port_spec.h"

namespace tripwire {
namespace {

std::vector<int> Processors() {
  std::vector<int> processors;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return processors;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) processors.push_back(i);
  }
  return processors;
}

// For the calling thread, and those it starts.
void Pin(int processor) {
  if (processor < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  // Where it may not be chosen, the system chooses.
  (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Workers>> Workers::Open(WorkersOptions options) {
  const std::vector<int> processors = Processors();
  const size_t count = options.count > 0
                           ? options.count
                           : std::max<size_t>(processors.size(), 1);
  std::vector<NicOptions> parts(count);
  for (const std::string& spec : options.ports) {
    auto divided = OpenDividedPort(spec, count);
    if (!divided.ok()) return divided.status();
    for (size_t i = 0; i < count; ++i) {
      parts[i].ports.push_back(std::move((*divided)[i]));
    }
  }
  std::unique_ptr<Workers> workers(new Workers());
  workers->workers_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Worker& worker = workers->workers_[i];
    if (options.pin && processors.size() > 1) {
      worker.processor = processors[i % processors.size()];
    }
    parts[i].node = options.node;
    parts[i].max_spin_ns = options.max_spin_ns;
    absl::StatusOr<std::unique_ptr<Nic>> nic;
    // On its processor, so that the NIC's own thread stays there, and its
    // memory near.
    std::thread([&] {
      Pin(worker.processor);
      nic = Nic::Open(std::move(parts[i]));
    }).join();
    if (!nic.ok()) return nic.status();
    worker.nic = *std::move(nic);
  }
  return workers;
}

void Workers::Run(const std::function<void(size_t, Nic&)>& serve) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < workers_.size(); ++i) {
    threads.emplace_back([this, &serve, i] {
      Pin(workers_[i].processor);
      serve(i, *workers_[i].nic);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace tripwire
