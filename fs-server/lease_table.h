// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_LEASE_TABLE_H_
#define TRIPWIRE_FS_SERVER_LEASE_TABLE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "fs-server/handle.h"
#include "nic/base/clock.h"

namespace tripwire::fs {

// Which session may cache what until when.
//
// Invariants, which make caches coherent:
//  1. A lease is granted *before* the fact it covers is read from the file
//  system.
//  2. Holders are taken *after* the change was made.
// So whoever may have read the old state is among those taken. Thread-safe.
//
// The lease on an inode that its holder has open does not run out: programs
// read pages that are mapped, or cached, without asking anybody, however late
// its renewal comes.
//
// A lease that has run out is recalled all the same for as long again, a second
// at the most: the kernel counts from when it takes an answer in, and that may
// be late if the holder loses its processor between looking at its clock and
// answering the kernel.
//
// Besides, one session may have a write lease on an inode, while no other has any on
// it: writes of which its programs believe that they are done may still be under way.
//  3. Nobody is granted a lease on the inode beside a write lease. Who wants to see
//  or change it has the write lease recalled first.
class LeaseTable {
 public:
  // `is_open` tells whether a session has an inode open (it is called with a
  // lock held, and may take only its own). Whoever has, or whose lease has just
  // run out, is given `answer_ns` to answer a recall.
  using IsOpen = std::function<bool(uint64_t session, const FileId& id)>;
  LeaseTable() : LeaseTable([](uint64_t, const FileId&) { return false; }, 0) {}
  LeaseTable(IsOpen is_open, uint64_t answer_ns)
      : is_open_(std::move(is_open)),
        answer_ns_(answer_ns),
        late_ns_(std::min(answer_ns, kSecond)) {}

  enum What : uint8_t { kInode = 1, kNames = 2 };
  struct Holder {
    uint64_t session;
    uint64_t expires_ns;
    uint8_t what;
    uint8_t names_recalled = 0;  // one by one, since the last grant
    bool every_name = false;     // of those taken: all names are to be recalled
  };

  // False, and nothing granted, beside another session's write lease (kInode).
  bool Grant(const FileId& id, uint64_t session, uint8_t what, uint64_t expires_ns,
             uint64_t now_ns);

  // A write lease, or false: another session has a lease of either kind, or one was
  // recalled just now. Renews the session's own.
  bool GrantWrites(const FileId& id, uint64_t session, uint64_t expires_ns,
                   uint64_t now_ns);
  struct Writer {
    uint64_t session;
    uint64_t until_ns;  // no need to wait longer for its answer
  };
  // Who has a write lease, if it is not `session`: to be recalled, so it is not renewed.
  std::optional<Writer> TakeWriter(const FileId& id, uint64_t session, uint64_t now_ns);
  // The writer has nothing under way any more. Until `refuse_until_ns` there is no
  // further write lease, so that whoever wanted the inode gets at it.
  void EndWrites(const FileId& id, uint64_t session, uint64_t refuse_until_ns = 0);
  bool HasWriters() const { return writers_.load(std::memory_order_acquire) > 0; }

  // Removes the leases of others than `session` on any of `what`, and returns those
  // that had not run out, with the time until which to wait for their holders. (A
  // session's own lease stays: its reply tells it all.)
  //
  // `one_name`: of kNames, one name only is to be recalled. Its holder still has the
  // others, and the lease on them; who is told so often (kMostNamesRecalled times) is to
  // forget them all, and has none.
  using Holders = absl::InlinedVector<Holder, 4>;
  void Take(const FileId& id, uint64_t session, uint8_t what, bool one_name,
            uint64_t now_ns, Holders* holders);

  void EndSession(uint64_t session);
  void Clear();  // but for write leases, which only their holders can end
  size_t size();  // inodes with leases, those run out included

 private:
  static constexpr size_t kShards = 64;
  static constexpr uint8_t kMostNamesRecalled = 16;
  using Map = absl::flat_hash_map<FileId, absl::InlinedVector<Holder, 1>>;
  struct WriteLease {
    uint64_t session;  // 0: nobody's
    uint64_t expires_ns;
    uint64_t refuse_until_ns;
    bool recalled;
  };
  struct alignas(64) Shard {
    std::mutex mutex;
    Map map;
    absl::flat_hash_map<FileId, WriteLease> writers;
    size_t sweep_size = 1024;  // when to look for leases that ran out
  };
  Shard& ShardOf(const FileId& id) {
    return shards_[absl::Hash<FileId>{}(id) >> 7 & (kShards - 1)];
  }
  void Sweep(Shard& shard, uint64_t now_ns);
  bool IsOver(const WriteLease& lease, uint64_t now_ns) const {
    return lease.session == 0 || lease.expires_ns + late_ns_ <= now_ns;
  }
  std::optional<Writer> WriterIn(const Shard& shard, const FileId& id, uint64_t session,
                                 uint64_t now_ns) const;
  template <typename Pred>
  void EraseWriters(Shard& shard, Pred is_gone);
  // Until when to wait for the answer of who is told now.
  uint64_t AnswerBy(uint64_t expires_ns, uint64_t now_ns) const {
    return expires_ns > now_ns ? expires_ns : now_ns + answer_ns_;
  }
  bool RanOut(const FileId& id, const Holder& holder, uint64_t now_ns) const {
    return holder.expires_ns + late_ns_ <= now_ns &&
           ((holder.what & kInode) == 0 || !is_open_(holder.session, id));
  }

  const IsOpen is_open_;
  const uint64_t answer_ns_;
  const uint64_t late_ns_;
  std::array<Shard, kShards> shards_;
  std::atomic<size_t> writers_{0};  // entries of all shards' `writers`
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_LEASE_TABLE_H_
