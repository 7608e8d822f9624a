// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_WORKERS_H_
#define TRIPWIRE_NIC_API_WORKERS_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/api/nic.h"

namespace tripwire {

struct WorkersOptions {
  std::string node;                // of all of them; empty: the host name
  std::vector<std::string> ports;  // each divided, see OpenDividedPort
  size_t count = 0;                // 0: one for each processor we may run on
  bool pin = true;                 // each to a processor, as far as there are
  uint64_t max_spin_ns = 50 * kMicrosecond;
};

// One node on several processors: a NIC for each, with its own part of every
// port, its own engine, links, tables and threads. A link belongs to the worker
// whose part of the port its peer joined, for good; nothing that a frame
// touches is shared by two workers.
//
// A program offers its services on every worker and keeps what belongs to a
// link (its context, its apertures) with that link's worker. Peers see one
// node.
//
// Thread safety: as for Nic, of which it owns `size()`.
class Workers {
 public:
  // Errors as OpenDividedPort and Nic::Open.
  static absl::StatusOr<std::unique_ptr<Workers>> Open(WorkersOptions options);
  Workers(const Workers&) = delete;

  size_t size() const { return workers_.size(); }
  Nic& nic(size_t worker) { return *workers_[worker].nic; }
  // The processor a worker's threads run on; -1: any.
  int processor(size_t worker) const { return workers_[worker].processor; }

  // Runs `serve(worker, nic)` on a thread for each worker, on its processor;
  // returns when all have returned.
  void Run(const std::function<void(size_t, Nic&)>& serve);

 private:
  struct Worker {
    std::unique_ptr<Nic> nic;
    int processor = -1;
  };
  Workers() = default;

  std::vector<Worker> workers_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_WORKERS_H_
