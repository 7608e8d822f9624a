// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_STATS_STATS_H_
#define TRIPWIRE_NIC_API_STATS_STATS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/api/nic.h"

// Live counters of the programs on this host: each offers them on a Unix socket
// in the directory of default ports, and `tw stat` collects them.
namespace tripwire::stats {

struct Counter {
  std::string name;
  uint64_t value = 0;
};

struct Group {
  std::string name;
  std::vector<Counter> counters;
};

using Cell = std::variant<uint64_t, std::string, bool>;

// Things of one kind. The first column names a row; rows come sorted by the
// column `activity`, and there may be more than are shown.
struct Table {
  std::string name;
  std::vector<std::string> columns;
  std::string activity;
  uint64_t all = 0;
  std::vector<std::vector<Cell>> rows;
};

struct ProcessStats {
  std::string program;
  uint32_t pid = 0;
  std::string node;
  std::string detail;
  uint64_t uptime_ns = 0;
  std::vector<Group> groups;
  std::vector<Table> tables;  // links, apertures, tripwires

  // 0 when there is no such counter.
  uint64_t Value(std::string_view group, std::string_view counter) const;
};

struct Options {
  std::string program;  // "tw-fsd"
  std::string detail;   // "src=/usr/src"
  // The program's own groups, if any; called from the server's thread.
  std::function<std::vector<Group>()> extra;
  std::string directory;  // empty: that of default ports (nic/port/port_spec.h)
};

// Offers the counters of `nic` until destroyed. Costs nothing while nobody
// asks: its one thread sleeps in poll. The socket is readable for its owner
// only.
//
// Errors: FAILED_PRECONDITION (no runtime directory), INVALID_ARGUMENT (socket
// path too long), or why the socket could not be made. Programs carry on
// without.
class Server {
 public:
  static absl::StatusOr<std::unique_ptr<Server>> Start(Nic& nic,
                                                       Options options);
  ~Server();  // removes the socket; REQUIRES: the NIC is still there
  Server(const Server&) = delete;

  const std::string& path() const;

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Rows of each table that a program tells when it is not asked for a number.
inline constexpr uint64_t kUsualRows = 20;
// And the most that it tells, however many it is asked for.
inline constexpr uint64_t kMostRows = 100'000;

// Asks every program of this user (root: of every user) with a socket in
// `directories`, for so many rows of each table. Sockets whose program is gone
// are removed.
std::vector<ProcessStats> Collect(const std::vector<std::string>& directories,
                                  uint64_t rows = kUsualRows);
// The directory of default ports, and for root those of all users.
std::vector<std::string> DefaultDirectories();

// One JSON object on one line:
// {"program":...,"groups":{"nic":{"rx_frames":1}},
//  "tables":{"links":{"all":1,"rows":[{"link":"0x00100000",...}]}}}.
std::string ToJson(const ProcessStats& stats);
// `text` as a JSON string, quotes included; bytes that are not UTF-8 become
// U+FFFD.
std::string JsonQuote(std::string_view text);

}  // namespace tripwire::stats

#endif  // TRIPWIRE_NIC_API_STATS_STATS_H_
