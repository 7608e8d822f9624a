// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/nic_tables.h"

#include <algorithm>

#include "nic/api/nic.h"
#include "nic/api/nic_impl.h"

namespace tripwire {
namespace {

constexpr size_t kSlotsUnderLock = 256;

// Keeps the `limit` entries of greatest activity.
template <typename T>
class Top {
 public:
  explicit Top(size_t limit) : limit_(limit) {}

  template <typename Make>
  void Offer(uint64_t activity, Make make) {
    ++seen_;
    if (limit_ == 0) return;
    if (heap_.size() == limit_) {
      if (activity <= heap_.front().activity) return;
      std::pop_heap(heap_.begin(), heap_.end(), More);
      heap_.pop_back();
    }
    heap_.push_back({activity, seen_, make()});
    std::push_heap(heap_.begin(), heap_.end(), More);
  }
  // Greatest first; among equals, the first offered.
  std::vector<T> Take() {
    std::sort(heap_.begin(), heap_.end(), More);
    std::vector<T> entries;
    entries.reserve(heap_.size());
    for (Entry& entry : heap_) entries.push_back(std::move(entry.value));
    return entries;
  }
  uint64_t seen() const { return seen_; }

 private:
  struct Entry {
    uint64_t activity, order;
    T value;
  };
  static bool More(const Entry& a, const Entry& b) {
    return a.activity != b.activity ? a.activity > b.activity
                                    : a.order < b.order;
  }
  const size_t limit_;
  uint64_t seen_ = 0;
  std::vector<Entry> heap_;
};

const char* ToString(LinkState state) {
  switch (state) {
    case LinkState::kFree:
      return "free";
    case LinkState::kConnecting:
      return "connecting";
    case LinkState::kRequested:
      return "requested";
    case LinkState::kOpen:
      return "open";
    case LinkState::kClosing:
      return "closing";
    case LinkState::kDown:
      return "down";
  }
  return "";
}

LinkStats Describe(const Link& link, uint64_t first_sequence) {
  LinkStats stats;
  stats.id = link.id;
  stats.context = link.context;
  stats.state = ToString(link.state);
  stats.node = link.node;
  stats.service = link.service;
  stats.peer = link.remote_mac;
  stats.port = link.port;
  stats.max_frame_bytes = link.max_frame_bytes;
  stats.checksum = link.checksum;
  stats.sent_frames = link.next_sequence - first_sequence;
  stats.received_frames = link.expected - first_sequence;
  stats.retransmitted_frames = link.retransmitted_frames;
  stats.rtt_ns = link.smoothed_rtt;
  stats.rtt_variance_ns = link.rtt_variance;
  stats.window_frames = static_cast<uint64_t>(link.congestion_window);
  stats.credit_frames = link.peer_credit;
  stats.in_flight_frames = link.InFlight();
  stats.queued_operations = link.ops.size();
  stats.early_frames = link.early_count;
  stats.messages_waiting = link.inbox.size();
  return stats;
}

ApertureStats Describe(uint32_t context, uint32_t handle,
                       const ApertureEntry& entry) {
  ApertureStats stats;
  stats.context = context;
  stats.handle = handle;
  stats.generation = entry.generation;
  stats.length_bytes = entry.length_bytes;
  stats.rights = entry.rights;
  if (entry.only) stats.only = *entry.only;
  stats.accesses = entry.accesses;
  stats.bytes = entry.bytes;
  return stats;
}

TripwireStats Describe(uint32_t id, const TripwireEntry& entry,
                       const TripwireRange& range) {
  TripwireStats stats;
  stats.id = id;
  stats.context = entry.context;
  stats.outbound = entry.outbound;
  stats.handle = entry.handle;
  stats.generation = entry.generation;
  stats.link = entry.link;
  stats.offset = range.offset;
  stats.length_bytes = range.length;
  stats.access = entry.access;
  stats.one_shot = entry.one_shot;
  stats.armed = entry.armed != Access::kNone;
  stats.count = entry.count;
  stats.untold = entry.wants_events ? entry.count - entry.told : 0;
  return stats;
}

// Lets others have the lock between the parts of a table.
template <typename Show>
void ForEachPart(Nic& nic, Show show) {
  StatsCursor at;
  for (bool more = true; more;) {
    auto lock = nic.impl().Lock();
    more = show(nic.impl().engine(), at);
  }
}

}  // namespace

NicTables ReadTables(Nic& nic, size_t limit) {
  Top<LinkStats> links(limit);
  ForEachPart(nic, [&](const Engine& engine, StatsCursor& at) {
    const uint64_t first = engine.options().first_sequence;
    return engine.ShowLinks(at, kSlotsUnderLock, [&](const Link& link) {
      links.Offer(link.next_sequence + link.expected,
                  [&] { return Describe(link, first); });
    });
  });
  Top<ApertureStats> apertures(limit);
  ForEachPart(nic, [&](const Engine& engine, StatsCursor& at) {
    return engine.ShowApertures(
        at, kSlotsUnderLock,
        [&](uint32_t context, uint32_t handle, const ApertureEntry& entry) {
          apertures.Offer(entry.accesses,
                          [&] { return Describe(context, handle, entry); });
        });
  });
  Top<TripwireStats> tripwires(limit);
  ForEachPart(nic, [&](const Engine& engine, StatsCursor& at) {
    return engine.ShowTripwires(
        at, kSlotsUnderLock,
        [&](uint32_t id, const TripwireEntry& entry,
            const TripwireRange& range) {
          tripwires.Offer(entry.count,
                          [&] { return Describe(id, entry, range); });
        });
  });
  NicTables tables;
  tables.all_links = links.seen();
  tables.all_apertures = apertures.seen();
  tables.all_tripwires = tripwires.seen();
  tables.links = links.Take();
  tables.apertures = apertures.Take();
  tables.tripwires = tripwires.Take();
  return tables;
}

}  // namespace tripwire
