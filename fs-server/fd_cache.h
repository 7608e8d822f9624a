// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_FD_CACHE_H_
#define TRIPWIRE_FS_SERVER_FD_CACHE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "fs-server/handle.h"
#include "nic/base/fd.h"

namespace tripwire::fs {

// An open descriptor several users share; closed when the last lets go.
using SharedFd = std::shared_ptr<const UniqueFd>;

inline SharedFd Share(int fd) { return std::make_shared<const UniqueFd>(fd); }

// The O_PATH descriptors of recently used inodes, so that the next call on one
// need not look it up. Known files cost nothing beyond `capacity`; entries unused for a
// while go too (Purge), for a descriptor keeps a deleted file's space. Thread-safe.
class FdCache {
 public:
  explicit FdCache(size_t capacity) : shard_capacity_(capacity / kShards + 1) {}

  SharedFd Find(const FileId& id) {
    Shard& shard = ShardOf(id);
    std::lock_guard lock(shard.mutex);
    auto it = shard.map.find(id);
    if (it == shard.map.end()) return nullptr;
    shard.lru.splice(shard.lru.begin(), shard.lru, it->second);
    it->second->round = round_;
    return it->second->fd;
  }

  void Insert(const FileId& id, const SharedFd& fd) {
    SharedFd victim;  // closed outside the lock
    Shard& shard = ShardOf(id);
    std::lock_guard lock(shard.mutex);
    auto [it, fresh] = shard.map.try_emplace(id);
    if (!fresh) return;
    shard.lru.push_front({id, fd, round_});
    it->second = shard.lru.begin();
    if (shard.lru.size() <= shard_capacity_) return;
    victim = std::move(shard.lru.back().fd);
    shard.map.erase(shard.lru.back().id);
    shard.lru.pop_back();
  }

  void Erase(const FileId& id) {
    SharedFd victim;
    Shard& shard = ShardOf(id);
    std::lock_guard lock(shard.mutex);
    auto it = shard.map.find(id);
    if (it == shard.map.end()) return;
    victim = std::move(it->second->fd);
    shard.lru.erase(it->second);
    shard.map.erase(it);
  }

  // Drops what was not used since the last Purge; all with `everything`. Returns
  // how many entries are left.
  size_t Purge(bool everything = false) {
    size_t left = 0;
    for (Shard& shard : shards_) {
      std::list<Entry> victims;
      std::lock_guard lock(shard.mutex);
      while (!shard.lru.empty() && (everything || shard.lru.back().round != round_)) {
        shard.map.erase(shard.lru.back().id);
        victims.splice(victims.begin(), shard.lru, std::prev(shard.lru.end()));
      }
      left += shard.lru.size();
    }
    ++round_;
    return left;
  }

 private:
  static constexpr size_t kShards = 16;
  struct Entry {
    FileId id;
    SharedFd fd;
    uint32_t round;
  };
  struct Shard {
    std::mutex mutex;
    std::list<Entry> lru;  // most recent first
    absl::flat_hash_map<FileId, std::list<Entry>::iterator> map;
  };
  Shard& ShardOf(const FileId& id) {
    return shards_[absl::Hash<FileId>{}(id) >> 7 & (kShards - 1)];
  }

  const size_t shard_capacity_;
  std::array<Shard, kShards> shards_;
  std::atomic<uint32_t> round_{0};
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_FD_CACHE_H_
