// SPDX-License-Identifier: BSD-3-Clause
// Links, apertures and tripwires, as rows. The first column of each table names
// its rows; the one that they are sorted by is `activity`.
#include <string>

#include "absl/strings/str_cat.h"
#include "nic/api/nic_tables.h"
#include "nic/api/stats/counters.h"

namespace tripwire::stats {
namespace {

std::string ToText(Access access) {
  std::string text;
  for (const auto& [bit, name] : {std::pair{Access::kWrite, "write"},
                                  {Access::kRead, "read"},
                                  {Access::kAtomic, "atomic"}}) {
    if (Includes(access, bit))
      absl::StrAppend(&text, text.empty() ? "" : "+", name);
  }
  return text.empty() ? "none" : text;
}

// A link's id as text: what logs and the wire call it.
std::string ToText(LinkId link) {
  return link == LinkId{}
             ? "any"
             : absl::StrCat("0x", absl::Hex(link.value, absl::kZeroPad8));
}

std::string Handle(uint32_t handle, uint32_t generation) {
  return absl::StrCat(handle, "/", generation);
}

Table Links(const NicTables& from) {
  Table table{"links",
              {"link",          "context",          "state",
               "node",          "service",          "peer",
               "port",          "checksum",         "frames",
               "sent_frames",   "received_frames",  "retransmitted_frames",
               "rtt_ns",        "rtt_variance_ns",  "window_frames",
               "credit_frames", "in_flight_frames", "queued_operations",
               "early_frames",  "messages_waiting"},
              "frames",
              from.all_links,
              {}};
  for (const LinkStats& l : from.links) {
    table.rows.push_back({ToText(l.id),
                          uint64_t{l.context},
                          std::string(l.state),
                          l.node,
                          l.service,
                          l.peer.ToString(),
                          uint64_t{l.port},
                          l.checksum,
                          l.sent_frames + l.received_frames,
                          l.sent_frames,
                          l.received_frames,
                          l.retransmitted_frames,
                          l.rtt_ns,
                          l.rtt_variance_ns,
                          l.window_frames,
                          l.credit_frames,
                          l.in_flight_frames,
                          l.queued_operations,
                          l.early_frames,
                          l.messages_waiting});
  }
  return table;
}

Table Apertures(const NicTables& from) {
  Table table{"apertures",
              {"aperture", "context", "bytes_long", "rights", "only_link",
               "accesses", "bytes"},
              "accesses",
              from.all_apertures,
              {}};
  for (const ApertureStats& a : from.apertures) {
    table.rows.push_back({Handle(a.handle, a.generation), uint64_t{a.context},
                          a.length_bytes, ToText(a.rights), ToText(a.only),
                          a.accesses, a.bytes});
  }
  return table;
}

Table Tripwires(const NicTables& from) {
  Table table{"tripwires",
              {"tripwire", "context", "way", "link", "aperture", "offset",
               "bytes_long", "access", "mode", "armed", "count", "untold"},
              "count",
              from.all_tripwires,
              {}};
  for (const TripwireStats& t : from.tripwires) {
    table.rows.push_back({uint64_t{t.id}, uint64_t{t.context},
                          std::string(t.outbound ? "out-bound" : "in-bound"),
                          ToText(t.link), Handle(t.handle, t.generation),
                          t.offset, t.length_bytes, ToText(t.access),
                          std::string(t.one_shot ? "one-shot" : "persistent"),
                          t.armed, t.count, t.untold});
  }
  return table;
}

}  // namespace

std::vector<Table> Tables(Nic& nic, size_t limit) {
  const NicTables from = ReadTables(nic, limit);
  return {Links(from), Apertures(from), Tripwires(from)};
}

}  // namespace tripwire::stats
