// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/lease_table.h"

#include <algorithm>

namespace tripwire::fs {

void LeaseTable::Grant(const FileId& id, uint64_t session, uint8_t what, uint64_t expires_ns,
                       uint64_t now_ns) {
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  if (shard.map.size() >= shard.sweep_size) Sweep(shard, now_ns);
  auto& holders = shard.map[id];
  for (Holder& holder : holders) {
    if (holder.session == session) {
      // A session's two kinds share the later end: too long costs one needless recall.
      holder.what |= what;
      holder.names_recalled = 0;
      holder.expires_ns = std::max(holder.expires_ns, expires_ns);
      return;
    }
  }
  holders.push_back({session, expires_ns, what});
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
      const uint64_t until_ns =
          holder->expires_ns > now_ns ? holder->expires_ns : now_ns + answer_ns_;
      Holder taken{holder->session, until_ns, static_cast<uint8_t>(holder->what & what)};
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
