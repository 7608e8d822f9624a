// SPDX-License-Identifier: BSD-3-Clause
// What is told about a NIC, by name.
#include "nic/api/stats/counters.h"

namespace tripwire::stats {

Group Describe(const NicCounters& c) {
  return {"nic",
          {{"rx_frames", c.rx_frames},
           {"rx_bytes", c.rx_bytes},
           {"tx_frames", c.tx_frames},
           {"tx_bytes", c.tx_bytes},
           {"retransmitted_frames", c.retransmitted_frames},
           {"timeouts", c.timeouts},
           {"duplicate_frames", c.duplicate_frames},
           {"early_frames", c.early_frames},
           {"acks_sent", c.acks_sent},
           {"writes", c.writes},
           {"reads", c.reads},
           {"messages", c.messages},
           {"atomics", c.atomics},
           {"write_bytes", c.write_bytes},
           {"read_bytes", c.read_bytes},
           {"tripwires_fired", c.tripwires_fired},
           {"events", c.events},
           {"chained_writes", c.chained_writes},
           {"chains_stopped", c.chains_stopped},
           {"chains_lost", c.chains_lost},
           {"drop_malformed", c.drop_malformed},
           {"drop_checksum", c.drop_checksum},
           {"drop_unknown_link", c.drop_unknown_link},
           {"drop_epoch", c.drop_epoch},
           {"drop_window", c.drop_window},
           {"drop_no_buffer", c.drop_no_buffer},
           {"refused_handle", c.refused_handle},
           {"refused_generation", c.refused_generation},
           {"refused_rights", c.refused_rights},
           {"refused_bounds", c.refused_bounds},
           {"refused_alignment", c.refused_alignment},
           {"refused_operation", c.refused_operation},
           {"links_up", c.links_up},
           {"links_lost", c.links_lost},
           {"polls", c.polls},
           {"sleeps", c.sleeps},
           {"doorbells_rung", c.doorbells_rung},
           {"wakeups", c.wakeups}}};
}

Group Describe(size_t index, const PortCounters& c) {
  return {"port " + std::to_string(index),
          {{"rx_frames", c.rx_frames},
           {"rx_bytes", c.rx_bytes},
           {"tx_frames", c.tx_frames},
           {"tx_bytes", c.tx_bytes},
           {"tx_dropped", c.tx_dropped},
           {"rx_no_buffer", c.rx_no_buffer},
           {"doorbells_rung", c.doorbells_rung},
           {"wakeups", c.wakeups},
           {"captured", c.captured},
           {"capture_dropped", c.capture_dropped}}};
}

}  // namespace tripwire::stats
