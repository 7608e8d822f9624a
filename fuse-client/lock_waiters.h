// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_LOCK_WAITERS_H_
#define TRIPWIRE_FUSE_CLIENT_LOCK_WAITERS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "fs-server/proto/fs.pb.h"
#include "fuse-client/fuse_api.h"
#include "fuse-client/mutex.h"
#include "fuse-client/node_table.h"
#include "nic/comm/rpc.h"

namespace tripwire::fuse {

class FileSystem;
struct OpenFile;

// A process that waits for a lock, as we know it.
struct LockWait {
  FileSystem* fs = nullptr;
  uint64_t id = 0;            // its name at the server
  fuse_req_t req = nullptr;   // to be answered
  OpenFile* file = nullptr;   // open for as long as `req` is not answered
  NodeRef node;
  fs::pb::Lock lock;

  // Guarded by LockWaiters::mu_.
  bool queued = false;        // the server said that it waits
  bool granted = false;       // ... and then that it has it, or not:
  int error = 0;
  bool interrupted = false;   // its process got a signal
  bool cancelling = false;    // the server was told
};

// The processes that wait for locks. Each is a request of the kernel that has no
// answer yet, and a request in the server's queue; none holds a thread, or a call.
//
// The server names each opening of our session by an epoch. What it grants is noted
// under `mu_` together with a look at the epoch, and a recovery changes the epoch before
// it reclaims what is noted: so a lock is either reclaimed or asked for again.
//
// A wait leaves the table when its end is known: by Take, Granted, Begin or Stop. Whoever
// has it from there answers its request, and says Answered (but for Stop's). Thread-safe. Lock order: `mu_` before any Node's.
class LockWaiters {
 public:
  using Ref = std::shared_ptr<LockWait>;

  LockWaiters() = default;
  ~LockWaiters() { Stop(); }

  uint64_t epoch() const {
    MutexLock lock(&mu_);
    return epoch_;
  }
  // The session was opened (again). Returns what needs no answer of the server any
  // more: waits given up whose end the old server did not tell.
  std::vector<Ref> Begin(uint64_t epoch);
  // Runs `note` if the epoch is still this one; returns whether it is. `note` must not
  // block.
  template <class F>
  bool IfStill(uint64_t epoch, F note) {
    MutexLock lock(&mu_);
    if (epoch != epoch_) return false;
    note();
    return true;
  }

  // Null when stopping.
  Ref Add(FileSystem* fs, fuse_req_t req, OpenFile* file, NodeRef node,
          const fs::pb::Lock& lock);
  // The server answered, in this epoch, that the request waits. What is to be done:
  enum class Next {
    kWait,
    kCancel,    // a signal came meanwhile
    kGranted,   // so did the grant: Take it
    kAskAgain,  // the epoch is over
  };
  Next Queued(const Ref& wait, uint64_t epoch);
  // A signal came: true when the server is to be told.
  bool Interrupt(LockWait* wait);
  // A grant came: the wait it ends, if that is known to be queued; noted by `note`.
  Ref Granted(uint64_t id, uint64_t epoch, int error,
              const std::function<void(const LockWait&)>& note);
  // Its end is known: true for the one who gets to answer. `note` runs if so.
  bool Take(const Ref& wait, const std::function<void()>& note = {});
  Ref Find(uint64_t id);
  // All that the server has, or had, in its queue; in order of asking.
  std::vector<Ref> AllQueued();

  // The request of a wait that was taken has its answer.
  void Answered();

  // Runs `job` on a thread that may wait for the server; here and now when stopping.
  void Run(std::function<void()> job);
  // Ends calls made by jobs when stopping.
  rpc::CancelToken* cancel() { return &cancel_; }
  // Returns what nobody will end any more. All else is answered then.
  std::vector<Ref> Stop();

 private:
  void Work();

  rpc::CancelToken cancel_;
  mutable Mutex mu_;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
  absl::btree_map<uint64_t, Ref> waits_ ABSL_GUARDED_BY(mu_);
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mu_);
  int taken_ ABSL_GUARDED_BY(mu_) = 0;  // without an answer as yet
  bool working_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_LOCK_WAITERS_H_
