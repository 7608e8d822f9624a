// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_TRIPWIRE_ENTRY_H_
#define TRIPWIRE_NIC_DATAPATH_TRIPWIRE_ENTRY_H_

#include <atomic>
#include <cstdint>
#include <optional>

#include "nic/datapath/types.h"

namespace tripwire {

// What few tripwires have: out of line, so that the others do not pay for it.
struct TripwireExtra {
  ValueCondition condition;
  uint64_t every = 1;      // fires at each so-manieth access
  uint64_t accesses = 0;   // since it was armed or last fired
  std::atomic<uint64_t>* counter = nullptr;
  std::optional<ChainedWrite> write;

  bool is_needed() const {
    return condition.compare != Compare::kAlways || every > 1 ||
           counter != nullptr || write.has_value();
  }
};

// A tripwire as it is asked for, for Engine::Watch.
struct TripwireSpec {
  uint32_t context = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  Access access = Access::kNone;
  bool one_shot = false;
  bool wants_events = true;
  uint64_t cookie = 0;
  // Where it is: an aperture of `context`, or an import over `link`.
  bool outbound = false;
  uint32_t handle = 0;
  uint32_t generation = 0;
  LinkId link;
  TripwireExtra extra;
};

// One tripwire, all of it that an access to its range looks at in one cache line.
// The engine has them in a dense table; its id is its place there.
struct alignas(64) TripwireEntry {
  static constexpr uint32_t kNone = UINT32_MAX;

  uint64_t count = 0;  // firings since it was made
  uint64_t told = 0;   // part of `count` already handed out in events
  uint64_t cookie = 0;
  // The watched 64-bit word, of in-bound tripwires that have one; else null.
  const uint64_t* word = nullptr;
  uint32_t context = kNone;
  uint32_t made = 0;   // serial number, as ids are used again; 0: not in use
  uint32_t extra = kNone;  // place in the table of extras
  LinkId link;
  uint32_t handle = 0;
  uint32_t generation = 0;
  Access armed = Access::kNone;  // what it fires for now
  Access access = Access::kNone;  // what it fires for when armed
  bool one_shot = false;
  bool wants_events = true;
  bool queued = false;     // an event of it is on its context's queue
  bool link_lost = false;  // out-bound: its link is gone, it never fires again
  bool outbound = false;
  bool fired = false;      // since it was last armed
};
static_assert(sizeof(TripwireEntry) == 64);

// The rest of it: what only making and removing it need.
struct TripwireRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_TRIPWIRE_ENTRY_H_
