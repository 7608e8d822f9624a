// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/lease_table.h"

#include <algorithm>

namespace tripwire::fs {

bool LeaseTable::Grant(const FileId& id, uint64_t session, uint8_t what, uint64_t expires_ns,
                       uint64_t now_ns) {
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  if ((what & kInode) != 0 && WriterIn(shard, id, session, now_ns)) return false;
  if (shard.map.size() >= shard.sweep_size) Sweep(shard, now_ns);
  auto& holders = shard.map[id];
  for (Holder& holder : holders) {
    if (holder.session == session) {
      // A session's two kinds share the later end: too long costs one needless recall.
      holder.what |= what;
      holder.names_recalled = 0;
      holder.expires_ns = std::max(holder.expires_ns, expires_ns);
      return true;
    }
  }
  holders.push_back({session, expires_ns, what});
  return true;
}

bool LeaseTable::GrantWrites(const FileId& id, uint64_t session, uint64_t expires_ns,
                             uint64_t now_ns) {
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  if (const auto it = shard.map.find(id); it != shard.map.end()) {
    for (const Holder& holder : it->second) {
      if (holder.session != session && !RanOut(id, holder, now_ns)) return false;
    }
  }
  auto [it, is_new] = shard.writers.try_emplace(id, WriteLease{});
  WriteLease& lease = it->second;
  if (is_new) writers_.fetch_add(1, std::memory_order_acq_rel);
  if (!IsOver(lease, now_ns) ? lease.session != session || lease.recalled
                             : lease.refuse_until_ns > now_ns) {
    return false;
  }
  lease = {session, expires_ns, 0, false};
  return true;
}

std::optional<LeaseTable::Writer> LeaseTable::WriterIn(const Shard& shard, const FileId& id,
                                                       uint64_t session,
                                                       uint64_t now_ns) const {
  if (shard.writers.empty()) return std::nullopt;
  const auto it = shard.writers.find(id);
  if (it == shard.writers.end() || it->second.session == session ||
      IsOver(it->second, now_ns)) {
    return std::nullopt;
  }
  return Writer{it->second.session, AnswerBy(it->second.expires_ns, now_ns)};
}

std::optional<LeaseTable::Writer> LeaseTable::TakeWriter(const FileId& id, uint64_t session,
                                                         uint64_t now_ns) {
  if (!HasWriters()) return std::nullopt;
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  const auto writer = WriterIn(shard, id, session, now_ns);
  if (writer) shard.writers[id].recalled = true;
  return writer;
}

void LeaseTable::EndWrites(const FileId& id, uint64_t session, uint64_t refuse_until_ns) {
  if (!HasWriters()) return;
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  const auto it = shard.writers.find(id);
  if (it == shard.writers.end() || it->second.session != session) return;
  if (refuse_until_ns != 0) {
    it->second = {0, 0, refuse_until_ns, false};
    return;
  }
  shard.writers.erase(it);
  writers_.fetch_sub(1, std::memory_order_acq_rel);
}

template <typename Pred>
void LeaseTable::EraseWriters(Shard& shard, Pred is_gone) {
  writers_.fetch_sub(absl::erase_if(shard.writers,
                                    [&](const auto& entry) { return is_gone(entry.second); }),
                     std::memory_order_acq_rel);
}

void LeaseTable::Take(const FileId& id, uint64_t session, uint8_t what, bool one_name,
                      uint64_t now_ns, Holders* out) {
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  auto it = shard.map.find(id);
  if (it == shard.map.end()) return;
  auto& holders = it->second;
  for (auto holder = holders.begin(); holder != holders.end();) {
    if (RanOut(id, *holder, now_ns)) {
      holder = holders.erase(holder);
    } else if (holder->session != session && (holder->what & what) != 0) {
      Holder taken{holder->session, AnswerBy(holder->expires_ns, now_ns),
                   static_cast<uint8_t>(holder->what & what)};
      uint8_t ended = taken.what;
      if (one_name && (taken.what & kNames) != 0) {
        taken.every_name = ++holder->names_recalled >= kMostNamesRecalled;
        if (!taken.every_name) ended &= static_cast<uint8_t>(~kNames);
      }
      out->push_back(taken);
      holder->what &= static_cast<uint8_t>(~ended);
      holder = holder->what == 0 ? holders.erase(holder) : holder + 1;
    } else {
      ++holder;
    }
  }
  if (holders.empty()) shard.map.erase(it);
}

void LeaseTable::EndSession(uint64_t session) {
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    EraseWriters(shard, [&](const WriteLease& lease) { return lease.session == session; });
    for (auto it = shard.map.begin(); it != shard.map.end();) {
      auto& holders = it->second;
      holders.erase(std::remove_if(holders.begin(), holders.end(),
                                   [&](const Holder& h) { return h.session == session; }),
                    holders.end());
      if (holders.empty()) {
        shard.map.erase(it++);
      } else {
        ++it;
      }
    }
  }
}

void LeaseTable::Clear() {
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    shard.map.clear();
  }
}

// Amortised: the next sweep comes when the table has doubled.
void LeaseTable::Sweep(Shard& shard, uint64_t now_ns) {
  for (auto it = shard.map.begin(); it != shard.map.end();) {
    auto& holders = it->second;
    holders.erase(std::remove_if(holders.begin(), holders.end(),
                                 [&](const Holder& h) { return RanOut(it->first, h, now_ns); }),
                  holders.end());
    if (holders.empty()) {
      shard.map.erase(it++);
    } else {
      ++it;
    }
  }
  EraseWriters(shard, [&](const WriteLease& lease) {
    return IsOver(lease, now_ns) && lease.refuse_until_ns <= now_ns;
  });
  shard.sweep_size = std::max<size_t>(1024, 2 * shard.map.size());
}

size_t LeaseTable::size() {
  size_t total = 0;
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    total += shard.map.size();
  }
  return total;
}

}  // namespace tripwire::fs
