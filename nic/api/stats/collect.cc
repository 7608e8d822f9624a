// SPDX-License-Identifier: BSD-3-Clause
#include <dirent.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nic/api/stats/stats.h"
#include "nic/api/stats/stats.pb.h"
#include "nic/base/fd.h"
#include "nic/port/port_spec.h"

namespace tripwire::stats {
namespace {

constexpr size_t kMaxMessageBytes = 256u << 20;
constexpr timeval kTimeout = {.tv_sec = 2, .tv_usec = 0};

std::vector<std::string> List(const std::string& directory) {
  std::vector<std::string> names;
  DIR* dir = ::opendir(directory.c_str());
  if (dir == nullptr) return names;
  while (const dirent* entry = ::readdir(dir))
    names.emplace_back(entry->d_name);
  ::closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<pb::ProcessStats> Ask(const std::string& path, uint64_t rows) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return std::nullopt;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return std::nullopt;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof kTimeout);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof kTimeout);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address),
                sizeof address) != 0) {
    // Nobody listens: its program was killed before it could remove it.
    if (errno == ECONNREFUSED) ::unlink(path.c_str());
    return std::nullopt;
  }
  pb::Request request;
  request.set_rows(rows);
  const std::string question = request.SerializeAsString();
  // It fits any socket's buffer. Whoever does not want it may answer all the
  // same.
  (void)::send(fd.get(), question.data(), question.size(), MSG_NOSIGNAL);
  ::shutdown(fd.get(), SHUT_WR);
  std::string bytes;
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::recv(fd.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::nullopt;
    if (n == 0) break;
    bytes.append(buffer, static_cast<size_t>(n));
    if (bytes.size() > kMaxMessageBytes) return std::nullopt;
  }
  pb::ProcessStats message;
  if (!message.ParseFromString(bytes)) return std::nullopt;
  return message;
}

Cell FromMessage(const pb::Cell& cell) {
  switch (cell.value_case()) {
    case pb::Cell::kText:
      return cell.text();
    case pb::Cell::kTruth:
      return cell.truth();
    default:
      return cell.number();
  }
}

ProcessStats FromMessage(const pb::ProcessStats& message) {
  ProcessStats stats;
  stats.program = message.program();
  stats.pid = message.pid();
  stats.node = message.node();
  stats.detail = message.detail();
  stats.uptime_ns = message.uptime_ns();
  for (const pb::Group& group : message.groups()) {
    Group& added = stats.groups.emplace_back();
    added.name = group.name();
    for (const pb::Counter& counter : group.counters()) {
      added.counters.push_back({counter.name(), counter.value()});
    }
  }
  for (const pb::Table& table : message.tables()) {
    Table& added = stats.tables.emplace_back();
    added.name = table.name();
    added.columns.assign(table.columns().begin(), table.columns().end());
    added.activity = table.activity();
    added.all = table.all();
    for (const pb::Row& row : table.rows()) {
      std::vector<Cell>& cells = added.rows.emplace_back();
      for (const pb::Cell& cell : row.cells())
        cells.push_back(FromMessage(cell));
    }
  }
  return stats;
}

}  // namespace

std::vector<ProcessStats> Collect(const std::vector<std::string>& directories,
                                  uint64_t rows) {
  std::vector<ProcessStats> all;
  for (const std::string& directory : directories) {
    for (const std::string& name : List(directory)) {
      if (!absl::EndsWith(name, ".stats")) continue;
      const std::string path = absl::StrCat(directory, "/", name);
      struct stat info;
      if (::lstat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode))
        continue;
      if (auto message = Ask(path, rows)) all.push_back(FromMessage(*message));
    }
  }
  return all;
}

std::vector<std::string> DefaultDirectories() {
  std::vector<std::string> directories;
  directories.push_back(DefaultPortDirectory());
  if (::geteuid() == 0) {
    directories.push_back("/run/tripwire");
    for (const std::string& name : List("/tmp")) {
      if (absl::StartsWith(name, "tripwire-")) {
        directories.push_back(absl::StrCat("/tmp/", name));
      }
    }
    for (const std::string& user : List("/run/user")) {
      if (user[0] != '.') {
        directories.push_back(absl::StrCat("/run/user/", user, "/tripwire"));
      }
    }
  }
  std::sort(directories.begin(), directories.end());
  directories.erase(std::unique(directories.begin(), directories.end()),
                    directories.end());
  return directories;
}

}  // namespace tripwire::stats
