// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_LOCK_WAITERS_H_
#define TRIPWIRE_FUSE_CLIENT_LOCK_WAITERS_H_

#include <deque>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace tripwire::fuse {

// Where processes that wait for a lock wait: on threads apart from those that
// serve the mount, started as they are needed, so that any number of them holds
// nobody up. Thread-safe.
//
// Only so many wait *at the server* at a time, for each occupies one of the
// session's call slots, and with all of them taken the lock's holder could not even
// say that it lets go. The others ask again and again.
class LockWaiters {
 public:
  static constexpr int kMostParked = 16;

  LockWaiters() = default;
  ~LockWaiters() { Stop(); }

  // Runs `wait` on a thread of its own.
  void Start(std::function<void()> wait);
  // Takes or gives back the right to wait at the server.
  bool TryPark();
  void Unpark();
  // Sleeps, but not while stopping; returns false then.
  bool Pause(absl::Duration time);
  // All waits must end by themselves soon (their calls are cancelled).
  void Stop();

 private:
  void Work();

  absl::Mutex mu_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mu_);
  int idle_ ABSL_GUARDED_BY(mu_) = 0;
  int threads_ ABSL_GUARDED_BY(mu_) = 0;
  int parked_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_LOCK_WAITERS_H_
