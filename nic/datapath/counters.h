// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_COUNTERS_H_
#define TRIPWIRE_NIC_DATAPATH_COUNTERS_H_

#include <cstdint>

namespace tripwire {

// Totals since the NIC was opened. Frames count whole Ethernet frames.
struct NicCounters {
  uint64_t rx_frames = 0, rx_bytes = 0, tx_frames = 0, tx_bytes = 0;
  uint64_t retransmitted_frames = 0;
  uint64_t timeouts = 0;            // retransmission timer expiries
  uint64_t duplicate_frames = 0;    // received again, dropped
  uint64_t early_frames = 0;        // held until their predecessors came
  uint64_t placed_early = 0;        // unordered writes placed before their turn
  uint64_t acks_sent = 0;
  // Operations completed here as target.
  uint64_t writes = 0, reads = 0, messages = 0, atomics = 0;
  uint64_t write_bytes = 0, read_bytes = 0;
  uint64_t tripwires_fired = 0;     // accesses that touched an armed tripwire
  uint64_t events = 0;              // events put on queues (coalesced)
  uint64_t chained_writes = 0;      // writes that tripwires' actions issued
  // Those not issued: after too many hops (a loop), or for want of a link that
  // takes them.
  uint64_t chains_stopped = 0, chains_lost = 0;
  // Frames dropped, by reason.
  uint64_t drop_malformed = 0, drop_checksum = 0, drop_unknown_link = 0,
           drop_epoch = 0, drop_window = 0, drop_no_buffer = 0;
  // Operations refused, by reason.
  uint64_t refused_handle = 0, refused_generation = 0, refused_rights = 0,
           refused_bounds = 0, refused_alignment = 0, refused_operation = 0;
  // Links that were up; those of them that ended without being closed; and of
  // these, those whose peer said so itself: it knows nothing of them.
  uint64_t links_up = 0, links_lost = 0, links_disowned = 0;
  uint64_t polls = 0, sleeps = 0;  // of the NIC; of threads, blocked
  // Times that nobody spun for a while, because others wanted the processors.
  uint64_t contended = 0;
  uint64_t doorbells_rung = 0, wakeups = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_COUNTERS_H_
