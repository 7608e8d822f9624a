// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_INVALIDATOR_H_
#define TRIPWIRE_FUSE_CLIENT_INVALIDATOR_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "fuse-client/mutex.h"

namespace tripwire::fuse {

// Runs invalidations that may have to wait for a lock inside the kernel, on a few
// threads of its own, so that whoever wants one can stop waiting for it.
// Thread-safe.
class Invalidator {
 public:
  Invalidator() = default;
  ~Invalidator() { Stop(); }

  // Runs `job` soon; false when stopping. Jobs may overtake each other.
  bool Post(std::function<void()> job);
  // Runs `job` and waits until it is done, or until `give_up` (asked every few
  // milliseconds) says that waiting for it could be waiting for ourselves.
  // Returns whether it is done.
  bool Run(std::function<void()> job, const std::function<bool()>& give_up);
  void Stop();

 private:
  static constexpr int kThreads = 8;
  void Work();

  Mutex mu_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
  int idle_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_INVALIDATOR_H_
