// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_CONTEXT_STATE_H_
#define TRIPWIRE_NIC_DATAPATH_CONTEXT_STATE_H_

#include <algorithm>
#include <cstdint>

#include "nic/base/ring_queue.h"
#include "nic/datapath/aperture_table.h"
#include "nic/datapath/types.h"

namespace tripwire {

// One context, as the engine keeps it: what it has, what it may have, and the
// queue of those who have something to tell it.
struct ContextState {
  bool live = false;
  ContextQuotas quotas;
  uint32_t tripwires = 0, links = 0;
  uint64_t queued_bytes = 0;
  ApertureTable apertures;
  RingQueue<uint64_t> events;  // sources with something to tell, oldest first
  void (*signal)(void*) = nullptr;
  void* signal_argument = nullptr;

  bool MayExport() const { return apertures.exported() < quotas.apertures; }
  bool MayWatch() const { return tripwires < quotas.tripwires; }
  bool MayAddLink() const { return links < quotas.links; }
  bool MayQueue(uint64_t copied_bytes) const {
    const uint64_t left =
        quotas.queued_bytes - std::min(queued_bytes, quotas.queued_bytes);
    return left >= kQueuedOperationBytes &&
           copied_bytes <= left - kQueuedOperationBytes;
  }
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_CONTEXT_STATE_H_
