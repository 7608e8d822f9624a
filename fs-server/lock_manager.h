// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_LOCK_MANAGER_H_
#define TRIPWIRE_FS_SERVER_LOCK_MANAGER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fs-server/handle.h"
#include "fs-server/host_locks.h"

namespace tripwire::fs {

// Byte-range locks with the semantics of fcntl(2) and whole-file locks with those
// of flock(2), for owners on many clients. The two kinds do not see each other, as
// on Linux. Waiting holds neither thread nor call: the continuation of a waiting request
// runs when it is granted or refused, in whichever thread made that so, without locks
// held. Who waits is served in order of arrival, as far as ranges conflict.
//
// What clients hold is held against the processes of this host, too (HostLocks), where
// the caller names a descriptor of the file. What those hold is in clients' way; as nobody
// tells when they let go, who waits for them is tried again after a pause.
//
// Invariants: (1) of one kind and file, two locks of different owners overlap only
// when both are shared; (2) unless held back, a waiting request conflicts with some
// held lock, or when last tried did with one of this host; (3) a waiting request either has its continuation run, once, or was
// dropped: by Cancel, or with its session. Thread-safe.
class LockManager {
 public:
  enum class Kind : uint8_t { kPosix, kFlock };
  struct Owner {
    uint64_t session = 0;
    uint64_t id = 0;
    bool operator==(const Owner& o) const { return session == o.session && id == o.id; }
  };
  struct Request {
    Kind kind = Kind::kPosix;
    bool exclusive = false;
    Owner owner;
    uint32_t pid = 0;
    uint64_t start = 0;
    uint64_t end = UINT64_MAX;  // last byte; UINT64_MAX: to the end of the file
  };
  using Done = std::function<void(int error)>;

  // How long who waits for a process of this host is left alone: the first pause, doubled
  // up to the longest.
  static constexpr std::chrono::milliseconds kFirstPause{10};
  static constexpr std::chrono::milliseconds kLongestPause{500};
  // `later` has RetryHost called after so long. It must not block.
  void SetRetry(std::function<void(std::chrono::milliseconds)> later);
  void RetryHost();

  // 0 or EAGAIN. `fd`: of the file, of any kind; the thread may end up acting as the server
  // itself.
  int Try(const FileId& file, const Request& request, int fd = -1);

  // 0, EDEADLK, EINTR (it was cancelled before it came), or EINPROGRESS: then `done` gets 0 or EDEADLK later (it may have run by
  // the time this returns), unless the request is dropped. `wait` names it within its
  // owner's session; an earlier one of that name is dropped.
  int Wait(const FileId& file, const Request& request, uint64_t wait, Done done, int fd = -1);
  // Drops a waiting request; false when it does not wait (any more). Should it come only
  // now, overtaken by its cancellation, it is refused.
  bool Cancel(uint64_t session, uint64_t wait);

  // Between these two nobody who waits is granted anything: those who held locks before
  // the server restarted take them back first, by Try.
  void HoldBack();
  void LetGo();

  void Unlock(const FileId& file, const Request& range);

  // The first lock that `request` conflicts with; of owner {0, 0} if it is this host's.
  std::optional<Request> Test(const FileId& file, const Request& request, int fd = -1);

  // Drops a session's waiting requests: it will ask again.
  void DropWaiting(uint64_t session);
  // Drops all locks and waiting requests of a session.
  void EndSession(uint64_t session);

  // Drops all waiting requests and takes no more: the server is going down, and who
  // waits will ask the next one.
  void StopWaiting();

  size_t waiting();

 private:
  struct Waiter {
    Request request;
    uint64_t wait = 0;
    Done done;
  };
  using Waiters = std::list<Waiter>;  // in order of arrival
  struct File {
    std::vector<Request> held;
    Waiters waiting;
    std::optional<HostLocks> host;  // once somebody wanted a lock
    bool host_busy = false;         // somebody waits for a process of this host
  };
  struct Place {  // of a waiting request
    FileId file;
    Waiters::iterator at;
  };
  using WaitKey = std::pair<uint64_t, uint64_t>;  // session, wait
  using Finished = std::vector<std::pair<Done, int>>;

  // All REQUIRE mutex_.
  static bool Conflicts(const Request& a, const Request& b);
  const Request* FindConflict(const File& file, const Request& request) const;
  bool WouldDeadlock(const File& file, const Request& request) const;
  static void Apply(File* file, const Request& request, bool unlock);
  static void OpenHost(File* file, int fd);
  static bool TakeOnHost(File* file, const Request& request);
  static void RefreshHost(File* file, const Request& range);
  void RetryLater();
  void Enqueue(const FileId& id, File* file, const Request& request, uint64_t wait, Done done);
  Waiters::iterator Dequeue(File* file, Waiters::iterator at);
  bool DropOne(const WaitKey& key);
  bool DropWaitingIn(File* file, uint64_t session);
  void Wake(const FileId& id, Finished* finished);
  void DropIfEmpty(const FileId& id);

  static void Finish(Finished finished) {
    for (auto& [done, error] : finished) done(error);
  }

  std::mutex mutex_;
  absl::flat_hash_map<FileId, File> files_;
  absl::flat_hash_map<WaitKey, Place> waits_;
  // Whose byte-range requests wait, to find deadlocks: (session, owner id).
  absl::flat_hash_map<std::pair<uint64_t, uint64_t>, std::vector<WaitKey>> waits_of_;
  // The last that were cancelled without being there, oldest first.
  static constexpr size_t kCancelledKept = 1024;
  std::deque<WaitKey> cancelled_;
  std::function<void(std::chrono::milliseconds)> later_;
  std::chrono::milliseconds pause_ = kFirstPause;
  bool retry_due_ = false;
  bool held_back_ = false;
  bool stopped_ = false;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_LOCK_MANAGER_H_
