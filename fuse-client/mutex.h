// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_MUTEX_H_
#define TRIPWIRE_FUSE_CLIENT_MUTEX_H_

// The mount's locks: absl's, which take 8 bytes in each of a million nodes and
// wait for conditions. ThreadSanitizer cannot see into Debian's absl, so under
// it they are stand-ins of the same interface, made of locks it knows.

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TRIPWIRE_VISIBLE_MUTEX 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define TRIPWIRE_VISIBLE_MUTEX 1
#endif

#ifdef TRIPWIRE_VISIBLE_MUTEX
#include <condition_variable>
#include <shared_mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#endif

namespace tripwire::fuse {

#ifdef TRIPWIRE_VISIBLE_MUTEX

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mu_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    changed_.notify_all();  // whoever awaits a condition looks again
    mu_.unlock();
  }
  void ReaderLock() ABSL_SHARED_LOCK_FUNCTION() { mu_.lock_shared(); }
  void ReaderUnlock() ABSL_UNLOCK_FUNCTION() { mu_.unlock_shared(); }

  void Await(const absl::Condition& condition) {
    changed_.wait(mu_, [&] { return condition.Eval(); });
  }
  bool AwaitWithTimeout(const absl::Condition& condition,
                        absl::Duration timeout) {
    return AwaitWithDeadline(condition, absl::Now() + timeout);
  }
  bool AwaitWithDeadline(const absl::Condition& condition,
                         absl::Time deadline) {
    return changed_.wait_until(mu_, absl::ToChronoTime(deadline),
                               [&] { return condition.Eval(); });
  }

 private:
  std::shared_mutex mu_;
  std::condition_variable_any changed_;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) {
    mu_->Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mu_->Unlock(); }
  MutexLock(const MutexLock&) = delete;

 private:
  Mutex* const mu_;
};

class ABSL_SCOPED_LOCKABLE ReaderMutexLock {
 public:
  explicit ReaderMutexLock(Mutex* mu) ABSL_SHARED_LOCK_FUNCTION(mu) : mu_(mu) {
    mu_->ReaderLock();
  }
  ~ReaderMutexLock() ABSL_UNLOCK_FUNCTION() { mu_->ReaderUnlock(); }
  ReaderMutexLock(const ReaderMutexLock&) = delete;

 private:
  Mutex* const mu_;
};

#else

using absl::Mutex;
using absl::MutexLock;
using absl::ReaderMutexLock;

#endif

}  // namespace tripwire::fuse

#undef TRIPWIRE_VISIBLE_MUTEX

#endif  // TRIPWIRE_FUSE_CLIENT_MUTEX_H_
