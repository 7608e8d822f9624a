// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_FILE_SERVER_H_
#define TRIPWIRE_FS_SERVER_FILE_SERVER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "fs-server/change_watch.h"
#include "fs-server/config.h"
#include "fs-server/handle.h"
#include "fs-server/journal.h"
#include "fs-server/lease_table.h"
#include "fs-server/lock_manager.h"
#include "fs-server/proto/fs.pb.h"
#include "fs-server/session.h"
#include "fs-server/timer_queue.h"
#include "nic/comm/rpc.h"

namespace tripwire::fs {

struct Change;

// Serves files: the protocol of fs.proto on top of any rpc::Server.
//
//   auto files = FileServer::Create(config);
//   auto server = rpc::Server::Start(nic, FileServer::RpcOptions(), (*files)->Callbacks());
//   ...
//   (*files)->Shutdown();
//   server.reset();         // before `files`
//
// Handlers run on the RPC server's workers, many at once, each as the calling user.
// None waits for another client: such calls are parked and answered later. Thread-safe.
class FileServer {
 public:
  static constexpr char kService[] = "fs";

  static absl::StatusOr<std::unique_ptr<FileServer>> Create(ServerConfig config);
  ~FileServer();

  static rpc::ServerOptions RpcOptions();
  rpc::Server::Callbacks Callbacks();

  // No call waits any longer; later ones are not parked. Nobody who waits for a lock is
  // granted it any more. Sessions that end from now on keep their journal, for they will
  // come back to the next server.
  void Shutdown();

  // True when the server acts as each caller (it runs with root's rights).
  bool acts_as_caller() const { return acts_as_caller_; }
  const std::vector<std::unique_ptr<Export>>& exports() const { return exports_; }

  // Counters, for people.
  uint64_t calls() const;
  // The same by operation, named as in proto/: those asked for so far.
  std::vector<std::pair<std::string, uint64_t>> calls_by_operation() const;
  uint64_t recalls() const { return recalls_.load(std::memory_order_relaxed); }
  size_t session_count();

  // ---- For the operations (fs-server/ops). ----

  const ServerConfig& config() const { return config_; }
  const HandleCodec& codec() const { return codec_; }
  LeaseTable& leases() { return leases_; }
  LockManager& locks() { return locks_; }
  OpenTable& opens() { return opens_; }
  uint64_t verifier() const { return verifier_.load(std::memory_order_relaxed); }
  // Unstable data may have been lost (fsync failed): everybody must send it again.
  void DataLost() { verifier_.fetch_add(1, std::memory_order_relaxed); }

  // Serialises operations on one inode that are several system calls.
  std::mutex& Stripe(const FileId& id) {
    return stripes_[absl::Hash<FileId>{}(id) % stripes_.size()].mutex;
  }

  // Nobody may have the file open any more: if it has no name either, it goes. Leaves the
  // thread acting as the server itself.
  void Closed(Export& exported, const FileId& id);

  // Sends the reply once every other session has answered the recall of what it may have
  // cached of `changes`, or its leases have run out.
  void Answer(std::shared_ptr<rpc::Call> call, const std::vector<uint8_t>& message,
              rpc::BulkBuffer bulk, size_t bulk_bytes, bool cache, uint64_t session,
              const std::vector<Change>& changes);

  // Recalls from everybody, waiting for nobody.
  void Recall(const std::vector<Change>& changes);
  void RecallEverything();

  // Tells a session how its waiting request for a lock ended.
  void TellGrant(uint64_t session, uint64_t wait, uint64_t epoch, int error);

  // Runs `task` when no session may reclaim locks any more: now, or at the end of the
  // grace period.
  void AfterGrace(std::function<void()> task);
  void ReclaimFinished(uint64_t session);
  bool stopping() const { return stopping_.load(std::memory_order_acquire); }
  // The fd caches have something to drop some time after their last use.
  void SchedulePurge();

 private:
  explicit FileServer(ServerConfig config, HandleCodec codec, size_t open_limit)
      : config_(std::move(config)),
        codec_(codec),
        leases_([this](uint64_t session,
                       const FileId& id) { return opens_.IsOpen(session, id); },
                uint64_t{config_.lease_ms} * kMillisecond),
        opens_(open_limit) {}
  absl::Status OpenExports(size_t cached_fds);
  absl::Status StartWatch();
  absl::StatusOr<std::vector<uint8_t>> OpenSession(
      const std::shared_ptr<rpc::ServerSession>& rpc, rpc::Bytes greeting);
  absl::StatusOr<Export*> FindExport(const std::string& name) const;
  struct RecallSet;
  void TakeHolders(uint64_t session, const std::vector<Change>& changes, RecallSet* set);
  void Tell(uint64_t session, const pb::Notice& notice, std::function<void(absl::Status)> done);
  void CloseSession(const std::shared_ptr<rpc::ServerSession>& rpc);
  void Serve(std::shared_ptr<rpc::Call> call);
  // Recalls the write lease; serves the call when that was answered, or has run out.
  void ServeAfterWrites(std::shared_ptr<rpc::Call> call, const FileId& id,
                        const LeaseTable::Writer& writer);
  struct AwaitingWrites {
    std::shared_ptr<rpc::Call> call;  // it has done nothing yet
    FileId id;
    uint64_t writer = 0;  // a session
    std::atomic<bool> over{false};
  };
  void WritesAreOver(const std::shared_ptr<AwaitingWrites>& awaiting);
  bool TakeAwaiting(const std::shared_ptr<AwaitingWrites>& awaiting);
  std::shared_ptr<ClientSession> FindSession(uint64_t id);
  void EndGrace();
  void Purge();
  void DropUnclaimed();

  struct alignas(64) AlignedMutex {
    std::mutex mutex;
  };

  const ServerConfig config_;
  const HandleCodec codec_;
  bool acts_as_caller_ = false;
  std::vector<std::unique_ptr<Export>> exports_;
  std::unique_ptr<Journal> journal_;
  std::atomic<uint64_t> verifier_{0};
  LeaseTable leases_;
  LockManager locks_;
  OpenTable opens_;
  std::array<AlignedMutex, 256> stripes_;
  std::shared_mutex sessions_mutex_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<ClientSession>> sessions_;
  std::mutex grace_mutex_;
  absl::flat_hash_set<uint64_t> grace_for_;  // sessions that may still reclaim
  std::vector<std::function<void()>> after_grace_;
  // By pb::Call::OpCase; those that could not be read are under none.
  std::array<std::atomic<uint64_t>, pb::Call::kNull + 1> calls_{};
  std::atomic<uint64_t> recalls_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> purge_scheduled_{false};
  std::mutex awaiting_mutex_;
  absl::flat_hash_set<std::shared_ptr<AwaitingWrites>> awaiting_writes_;
  TimerQueue retries_;  // a thread that may block: it serves calls again
  TimerQueue timers_;  // last: their threads use the rest
  std::unique_ptr<ChangeWatch> watch_;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_FILE_SERVER_H_
