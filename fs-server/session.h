// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_SESSION_H_
#define TRIPWIRE_FS_SERVER_SESSION_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fs-server/config.h"
#include "fs-server/handle.h"
#include "fs-server/inode_store.h"
#include "fs-server/journal.h"
#include "fs-server/unnamed_files.h"
#include "nic/base/fd.h"
#include "nic/comm/rpc.h"

namespace tripwire::fs {

// One exported directory.
struct Export {
  ExportConfig config;
  uint32_t id = 0;  // in handles
  std::unique_ptr<InodeStore> store;
  std::unique_ptr<UnnamedFiles> unnamed;
};

// A file or directory some client has open: the descriptor keeps the inode alive
// and carries the rights it was opened with.
struct OpenFile {
  UniqueFd fd;
  FileId id;
  uint64_t session = 0;
  uint32_t flags = 0;  // pb::OpenFlags
  bool directory = false;
  std::mutex position_mutex;  // of the descriptor's position (directories)
};

// All open files, found by (session, state) and by inode. Thread-safe.
class OpenTable {
 public:
  explicit OpenTable(size_t limit) : limit_(limit) {}

  // False when the server has as many open files as it can.
  bool HasRoom() const { return count_.load(std::memory_order_relaxed) < limit_; }
  void Add(const std::shared_ptr<OpenFile>& file) {
    std::lock_guard lock(mutex_);
    by_id_[file->id].push_back(file);
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  void Remove(const std::shared_ptr<OpenFile>& file) {
    std::lock_guard lock(mutex_);
    auto it = by_id_.find(file->id);
    if (it == by_id_.end()) return;
    if (std::erase(it->second, file) == 0) return;
    count_.fetch_sub(1, std::memory_order_relaxed);
    if (it->second.empty()) by_id_.erase(it);
  }
  // Any open of the inode, for one that can no longer be found otherwise.
  std::shared_ptr<OpenFile> Find(const FileId& id) {
    std::lock_guard lock(mutex_);
    auto it = by_id_.find(id);
    return it == by_id_.end() ? nullptr : it->second.front();
  }
  bool IsOpen(uint64_t session, const FileId& id) {
    std::lock_guard lock(mutex_);
    auto it = by_id_.find(id);
    return it != by_id_.end() &&
           std::any_of(it->second.begin(), it->second.end(),
                       [&](const auto& file) { return file->session == session; });
  }
  size_t size() const { return count_.load(std::memory_order_relaxed); }

 private:
  const size_t limit_;
  std::atomic<size_t> count_{0};
  std::mutex mutex_;
  absl::flat_hash_map<FileId, std::vector<std::shared_ptr<OpenFile>>> by_id_;
};

// One client's mount. Thread-safe.
struct ClientSession {
  uint64_t id = 0;
  std::string name;  // for the log
  std::shared_ptr<rpc::ServerSession> rpc;
  Export* exported = nullptr;  // null: only asked for the list of exports
  bool read_only = false;
  uint64_t lock_epoch = 0;      // of this opening; in every LockGrant
  std::shared_ptr<Journal::Session> journal;  // null: the journal is full

  std::shared_ptr<OpenFile> FindOpen(uint64_t state) {
    std::lock_guard lock(mutex);
    auto it = opens.find(state);
    return it == opens.end() ? nullptr : it->second;
  }

  std::mutex mutex;
  absl::flat_hash_map<uint64_t, std::shared_ptr<OpenFile>> opens;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_SESSION_H_
