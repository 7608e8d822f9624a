// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_LOCK_MANAGER_H_
#define TRIPWIRE_FS_SERVER_LOCK_MANAGER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fs-server/handle.h"

namespace tripwire::fs {

// Byte-range locks with the semantics of fcntl(2) and whole-file locks with those
// of flock(2), for owners on many clients. The two kinds do not see each other, as
// on Linux. Waiting holds no thread: the continuation of a waiting request runs when it is
// granted, cancelled or refused, in whichever thread made that so, without locks
// held.
//
// Invariants: (1) of one kind and file, two locks of different owners overlap only
// when both are shared; (2) a waiting request conflicts with some held lock; (3) a
// request's continuation runs exactly once. Thread-safe.
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
  using Ticket = uint64_t;  // of a waiting request; 0: none

  // 0 or EAGAIN.
  int Try(const FileId& file, const Request& request);

  // Calls `done` at once with 0 or EDEADLK, or later. Returns a ticket when it waits
  // (`done` may have run by the time it returns).
  Ticket Wait(const FileId& file, const Request& request, Done done);
  // Ends a waiting request with EINTR, if it still waits.
  void Cancel(Ticket ticket);

  void Unlock(const FileId& file, const Request& range);

  // The first lock that `request` conflicts with.
  std::optional<Request> Test(const FileId& file, const Request& request);

  // Drops all locks and waiting requests of a session; the latter end with EINTR.
  void EndSession(uint64_t session);

  // Ends all waiting requests with EAGAIN: the server is going down.
  void StopWaiting();

  size_t waiting();

 private:
  struct Waiter {
    Ticket ticket;
    FileId file;
    Request request;
    Done done;
  };
  struct File {
    std::vector<Request> held;
    std::list<Waiter> waiting;  // in order of arrival
  };
  using Finished = std::vector<std::pair<Done, int>>;

  // All REQUIRE mutex_.
  static bool Conflicts(const Request& a, const Request& b);
  const Request* FindConflict(const File& file, const Request& request) const;
  bool WouldDeadlock(const File& file, const Request& request) const;
  static void Apply(File* file, const Request& request, bool unlock);
  void Wake(const FileId& id, Finished* finished);
  void DropIfEmpty(const FileId& id);

  static void Finish(Finished finished) {
    for (auto& [done, error] : finished) done(error);
  }

  std::mutex mutex_;
  absl::flat_hash_map<FileId, File> files_;
  absl::flat_hash_map<Ticket, FileId> tickets_;
  Ticket next_ticket_ = 1;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_LOCK_MANAGER_H_
