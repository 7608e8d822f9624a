// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_JOURNAL_H_
#define TRIPWIRE_FS_SERVER_JOURNAL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace tripwire::fs {

// What is known about a call before it runs, from which a later server can tell
// whether it did run.
struct Intent {
  uint32_t op = 0;          // pb::Call::OpCase
  uint32_t had_target = 0;  // the name existed
  uint64_t ino = 0;         // of the inode the call is about
  uint64_t ino2 = 0;        // rename: of the inode at the target name
  uint64_t size = 0;        // append: the file's size
  int64_t realtime_ns = 0;  // when the call came
};

// The durable reply cache: for each session and slot the last non-idempotent call,
// first as an intent, then with its reply. A memory-mapped file, so that it
// survives the server's death (kill -9) at the price of some stores; not that of
// the machine, whose boot verifier tells clients. Thread-safe; one slot is used by one call at
// a time, as the RPC protocol has it.
//
// File layout, host byte order (the file never leaves its machine): a page of
// FileHeader; then for each session a page of SessionHeader and kSlots records of
// kRecordBytes.
class Journal {
 public:
  static constexpr uint32_t kSlots = 64;
  static constexpr uint32_t kRecordBytes = 1024;

  enum class Found { kNothing, kIntent, kReply };

  class Session;  // an opened session's part of the file

  // Maps the journal in `state_dir`, making it when missing or of another layout.
  // An empty `state_dir` keeps it in memory only. FAILED_PRECONDITION when another
  // server uses it.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& state_dir,
                                                       uint32_t sessions);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // The part of session `id`: what it was before a restart, or a new one.
  // Replaces the least recently opened dead or lost session when full; null
  // when all are alive.
  std::shared_ptr<Session> Attach(uint64_t id, bool* known);
  // The session is gone for good; what its calls still record is dropped.
  void Free(Session* session);
  // Its client was lost and may yet come back: what it did is kept while there
  // is room. Its locks are gone.
  void Lose(Session* session);

  // Sessions from before this start that held locks and have not been attached.
  std::vector<uint64_t> LostLockHolders();
  // Those of them that still have not come: their locks are lost for good.
  void ForgetLostLocks();

 private:
  struct FileHeader;
  struct SessionHeader;
  struct Record;
  Journal() = default;
  SessionHeader* HeaderAt(uint32_t index) const;

  int fd_ = -1;
  uint8_t* map_ = nullptr;
  size_t map_bytes_ = 0;
  uint32_t capacity_ = 0;
  std::mutex mutex_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<Session>> attached_;
};

class Journal::Session {
 public:
  // What the journal holds of call (slot, sequence). The views stay good until the
  // slot's next Begin.
  Found Lookup(uint32_t slot, uint64_t sequence, Intent* intent, std::string_view* reply) const;
  // Records that the call is about to run.
  void Begin(uint32_t slot, uint64_t sequence, const Intent& intent);
  // Records its reply. False, and the intent stays, when it is longer than fits.
  bool Finish(uint32_t slot, std::string_view reply);
  void SetHoldsLocks(bool holds);

 private:
  friend class Journal;
  Record* At(uint32_t slot) const;
  SessionHeader* header_ = nullptr;
  std::atomic<bool> freed_{false};
  bool lost_ = false;  // guarded by the journal's mutex
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_JOURNAL_H_
