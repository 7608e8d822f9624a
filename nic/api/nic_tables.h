// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_NIC_TABLES_H_
#define TRIPWIRE_NIC_API_NIC_TABLES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "nic/base/mac_address.h"
#include "nic/datapath/types.h"

namespace tripwire {

class Nic;

// What a NIC's links, apertures and tripwires look like at one moment; for
// statistics (nic/api/stats, DPDK's telemetry).

struct LinkStats {
  LinkId id;
  uint32_t context = 0;
  const char* state = "";     // connecting, requested, open, closing, down
  std::string node, service;  // of the peer; what the link is to
  MacAddress peer;
  size_t port = 0;  // in the order given to the NIC
  uint32_t max_frame_bytes = 0;
  bool checksum = false;
  uint64_t sent_frames = 0,
           received_frames = 0;  // sequenced, each counted once
  uint64_t retransmitted_frames = 0;
  uint64_t rtt_ns = 0, rtt_variance_ns = 0;  // smoothed; 0: not measured
  uint64_t window_frames = 0;                // of congestion control
  uint64_t credit_frames = 0;                // granted by the peer
  uint64_t in_flight_frames = 0;
  uint64_t queued_operations = 0;  // not yet complete
  uint64_t early_frames = 0;       // held until their predecessors come
  uint64_t messages_waiting = 0;   // received, not yet taken
};

struct ApertureStats {
  uint32_t context = 0, handle = 0, generation = 0;
  uint64_t length_bytes = 0;
  Access rights = Access::kNone;
  LinkId only;  // the one link it is granted to; value UINT32_MAX: any
  uint64_t accesses = 0, bytes = 0;  // by peers
};

struct TripwireStats {
  uint32_t id = 0, context = 0;
  bool outbound = false;
  uint32_t handle = 0, generation = 0;  // of the aperture it watches
  LinkId link;                          // out-bound only
  uint64_t offset = 0, length_bytes = 0;
  Access access = Access::kNone;
  bool one_shot = false, armed = false;
  uint64_t count = 0;   // accesses counted since it was made
  uint64_t untold = 0;  // of them, not yet told by an event
};

// The most active ones, most active first, and how many there are in all.
struct NicTables {
  std::vector<LinkStats> links;          // by frames
  std::vector<ApertureStats> apertures;  // by accesses
  std::vector<TripwireStats> tripwires;  // by count
  uint64_t all_links = 0, all_apertures = 0, all_tripwires = 0;
};

// At most `limit` of each. Holds the NIC's lock for some microseconds at a
// time, however many there are, so entries are not all of the same instant.
// Thread-safe.
NicTables ReadTables(Nic& nic, size_t limit);

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_NIC_TABLES_H_
