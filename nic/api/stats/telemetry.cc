// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/stats/telemetry.h"

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nic/api/stats/counters.h"
#include "nic/port/telemetry.h"
#include "spdlog/spdlog.h"

namespace tripwire::stats {
namespace {

// An answer has at most 16 KiB.
constexpr size_t kListed = 100;
// Rows looked through for one that is asked for by its name.
constexpr size_t kSearched = kMostRows;

struct Source {
  Nic* nic;
  std::string program;
};

struct Registry {
  std::mutex mutex;
  std::map<uint64_t, Source> sources;
  uint64_t next = 0;
};

// Never destroyed: DPDK's thread may ask until the very end.
Registry& GetRegistry() {
  static Registry* registry = new Registry;
  return *registry;
}

// "NIC,ROW": both may be missing.
struct Question {
  Source source;
  std::string row;
};

std::optional<Question> Read(std::string_view parameters,
                             const std::map<uint64_t, Source>& sources) {
  const std::vector<std::string> parts =
      absl::StrSplit(absl::string_view(parameters.data(), parameters.size()),
                     absl::MaxSplits(',', 1));
  auto it = sources.begin();
  if (!parts[0].empty()) {
    uint64_t number = 0;
    if (!absl::SimpleAtoi(parts[0], &number)) return std::nullopt;
    it = sources.find(number);
  }
  if (it == sources.end()) return std::nullopt;
  return Question{it->second, parts.size() > 1 ? parts[1] : ""};
}

TelemetryValue ToValue(const Cell& cell) {
  if (const auto* number = std::get_if<uint64_t>(&cell)) return *number;
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  return uint64_t{std::get<bool>(cell)};
}

// Handles are the same in every context, so an aperture's name has both.
std::string RowName(const Table& table, const std::vector<Cell>& row) {
  const auto text = [&](size_t i) {
    const TelemetryValue value = ToValue(row[i]);
    const auto* number = std::get_if<uint64_t>(&value);
    return number != nullptr ? absl::StrCat(*number)
                             : std::get<std::string>(value);
  };
  return table.name == "apertures" ? absl::StrCat(text(1), "/", text(0))
                                   : text(0);
}

std::optional<TelemetryAnswer> List() {
  Registry& registry = GetRegistry();
  std::lock_guard lock(registry.mutex);
  std::vector<std::string> numbers;
  for (const auto& [number, source] : registry.sources) {
    numbers.push_back(absl::StrCat(number));
  }
  return TelemetryAnswer{{"nics", std::move(numbers)}};
}

TelemetryAnswer Info(const Question& question) {
  return {{"program", question.source.program},
          {"node", question.source.nic->node()}};
}

TelemetryAnswer Counters(const Question& question) {
  TelemetryAnswer answer;
  for (const Group& group : Groups(*question.source.nic)) {
    for (const Counter& counter : group.counters) {
      answer.push_back(
          {absl::StrCat(group.name, "/", counter.name), counter.value});
    }
  }
  return answer;
}

std::optional<TelemetryAnswer> Rows(const std::string& name,
                                    const Question& question) {
  const size_t limit = question.row.empty() ? kListed : kSearched;
  for (const Table& table : Tables(*question.source.nic, limit)) {
    if (table.name != name) continue;
    std::vector<std::string> names;
    for (const std::vector<Cell>& row : table.rows) {
      names.push_back(RowName(table, row));
      if (names.back() != question.row) continue;
      TelemetryAnswer answer;
      for (size_t i = 0; i < table.columns.size(); ++i) {
        answer.push_back({table.columns[i], ToValue(row[i])});
      }
      return answer;
    }
    if (!question.row.empty()) return std::nullopt;
    return TelemetryAnswer{{"all", table.all}, {name, std::move(names)}};
  }
  return std::nullopt;
}

// Holds the registry, so that the NIC stays for as long as it is asked.
template <typename F>
void Register(const char* command, const char* help, F answer) {
  const absl::Status status = RegisterTelemetry(
      command, help,
      [answer](std::string_view parameters) -> std::optional<TelemetryAnswer> {
        Registry& registry = GetRegistry();
        std::lock_guard lock(registry.mutex);
        const auto question = Read(parameters, registry.sources);
        if (!question) return std::nullopt;
        return answer(*question);
      });
  if (!status.ok()) spdlog::debug("{}", std::string(status.message()));
}

void RegisterAll() {
  const absl::Status status = RegisterTelemetry(
      "/tripwire/list", "The NICs of this process. Takes no parameters",
      [](std::string_view) { return List(); });
  if (!status.ok()) spdlog::debug("{}", std::string(status.message()));
  Register("/tripwire/info", "A NIC's program and node. Parameters: [NIC]",
           Info);
  Register("/tripwire/counters", "A NIC's counters. Parameters: [NIC]",
           Counters);
  for (const char* name : {"links", "apertures", "tripwires"}) {
    Register(absl::StrCat("/tripwire/", name).c_str(),
             absl::StrCat("The most active ", name,
                          ", or all about one. Parameters: [NIC[,NAME]]")
                 .c_str(),
             [name = std::string(name)](const Question& question) {
               return Rows(name, question);
             });
  }
}

}  // namespace

TelemetrySource::TelemetrySource(Nic& nic, std::string program) {
  static std::once_flag once;
  std::call_once(once, RegisterAll);
  Registry& registry = GetRegistry();
  std::lock_guard lock(registry.mutex);
  number_ = registry.next++;
  registry.sources[number_] = {&nic, std::move(program)};
}

TelemetrySource::~TelemetrySource() {
  Registry& registry = GetRegistry();
  std::lock_guard lock(registry.mutex);
  registry.sources.erase(number_);
}

}  // namespace tripwire::stats
