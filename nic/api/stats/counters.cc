// SPDX-License-Identifier: BSD-3-Clause
// What is told about a NIC, by name.
#include "nic/api/stats/counters.h"

#include <string>
#include <utility>

namespace tripwire::stats {

std::vector<Group> Describe(const NicCounters& c) {
  Group nic{"nic",
            {{"rx_frames", c.rx_frames},
             {"rx_bytes", c.rx_bytes},
             {"tx_frames", c.tx_frames},
             {"tx_bytes", c.tx_bytes},
             {"retransmitted_frames", c.retransmitted_frames},
             {"timeouts", c.timeouts},
             {"duplicate_frames", c.duplicate_frames},
             {"early_frames", c.early_frames},
             {"placed_early", c.placed_early},
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
             {"links_up", c.links_up},
             {"links_lost", c.links_lost},
             {"links_disowned", c.links_disowned},
             {"polls", c.polls},
             {"sleeps", c.sleeps},
             {"contended", c.contended},
             {"doorbells_rung", c.doorbells_rung},
             {"wakeups", c.wakeups}}};
  Group dropped{"dropped",
                {{"malformed", c.drop_malformed},
                 {"checksum", c.drop_checksum},
                 {"unknown_link", c.drop_unknown_link},
                 {"epoch", c.drop_epoch},
                 {"window", c.drop_window},
                 {"no_buffer", c.drop_no_buffer}}};
  Group refused{"refused",
                {{"handle", c.refused_handle},
                 {"generation", c.refused_generation},
                 {"rights", c.refused_rights},
                 {"bounds", c.refused_bounds},
                 {"alignment", c.refused_alignment},
                 {"operation", c.refused_operation}}};
  return {std::move(nic), std::move(dropped), std::move(refused)};
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
           {"capture_dropped", c.capture_dropped},
           {"rejoins", c.rejoins}}};
}

std::vector<Group> Groups(Nic& nic) {
  std::vector<Group> groups = Describe(nic.counters());
  const auto ports = nic.port_counters();
  for (size_t i = 0; i < ports.size(); ++i) {
    groups.push_back(Describe(i, ports[i]));
  }
  return groups;
}

}  // namespace tripwire::stats
