// SPDX-License-Identifier: BSD-3-Clause
#include "nic/tools/stat_text.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/tools/printable.h"

namespace tripwire::tools {
namespace {

using stats::Cell;
using stats::ProcessStats;
using stats::Table;

std::string Heading(const ProcessStats& process) {
  std::string text = absl::StrFormat("%s, process %d, node %s", process.program,
                                     process.pid, process.node);
  if (!process.detail.empty()) absl::StrAppend(&text, ", ", process.detail);
  absl::StrAppendFormat(&text, ", up %.0f s\n",
                        static_cast<double>(process.uptime_ns) * 1e-9);
  return text;
}

std::string Bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrFormat("%.0f %s", value, kUnits[unit])
                   : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string CellText(const std::string& column, const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) {
    return text->empty() ? "-" : Printable(*text);
  }
  if (const auto* truth = std::get_if<bool>(&cell))
    return *truth ? "yes" : "no";
  const uint64_t number = std::get<uint64_t>(cell);
  if (absl::EndsWith(column, "_ns")) {
    return absl::StrFormat("%.1f", static_cast<double>(number) * 1e-3);
  }
  return absl::StrCat(number);
}

std::string ColumnText(const std::string& column) {
  std::string text = absl::EndsWith(column, "_ns")
                         ? column.substr(0, column.size() - 3) + "_us"
                         : column;
  std::replace(text.begin(), text.end(), '_', ' ');
  return text;
}

bool SaysNothing(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) {
    return text->empty() || *text == "any";
  }
  const auto* number = std::get_if<uint64_t>(&cell);
  return number != nullptr && *number == 0;
}

std::optional<size_t> Find(const std::vector<std::string>& names,
                           const std::string& name) {
  const auto it = std::find(names.begin(), names.end(), name);
  if (it == names.end()) return std::nullopt;
  return static_cast<size_t>(it - names.begin());
}

double Seconds(const ProcessStats& now, const ProcessStats& before) {
  return now.uptime_ns > before.uptime_ns
             ? static_cast<double>(now.uptime_ns - before.uptime_ns) * 1e-9
             : 0;
}

std::string Rate(uint64_t now, uint64_t before, double seconds) {
  if (seconds <= 0 || now < before) return "";
  return absl::StrFormat("%.0f", static_cast<double>(now - before) / seconds);
}

// What names a row: handles are the same in every context.
std::string RowKey(const std::vector<Cell>& row) {
  std::string key;
  for (size_t i = 0; i < std::min<size_t>(row.size(), 2); ++i) {
    absl::StrAppend(&key, CellText("", row[i]), " ");
  }
  return key;
}

std::map<std::string, uint64_t> ActivityBefore(const ProcessStats& before,
                                               const Table& table) {
  std::map<std::string, uint64_t> activity;
  for (const Table& old : before.tables) {
    const auto at = Find(old.columns, old.activity);
    if (old.name != table.name || !at) continue;
    for (const auto& row : old.rows) {
      const auto* number =
          *at < row.size() ? std::get_if<uint64_t>(&row[*at]) : nullptr;
      if (number != nullptr) activity[RowKey(row)] = *number;
    }
  }
  return activity;
}

// Columns of texts, each as wide as its longest.
class Grid {
 public:
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  // Numbers to the right, texts to the left.
  std::string Text(const std::vector<bool>& is_number) const {
    std::vector<size_t> widths;
    for (const auto& row : rows_) {
      widths.resize(std::max(widths.size(), row.size()));
      for (size_t i = 0; i < row.size(); ++i) {
        widths[i] = std::max(widths[i], row[i].size());
      }
    }
    std::string out;
    for (const auto& row : rows_) {
      std::string line = "  ";
      for (size_t i = 0; i < row.size(); ++i) {
        const std::string space(widths[i] - row[i].size(), ' ');
        absl::StrAppend(&line, "  ", is_number[i] ? space : "", row[i],
                        is_number[i] ? "" : space);
      }
      line.erase(line.find_last_not_of(' ') + 1);
      absl::StrAppend(&out, line, "\n");
    }
    return out;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string TableText(const Table& table, const ProcessStats& now,
                      const ProcessStats* before, bool zeros) {
  std::string out = absl::StrFormat("  %s: %d", table.name, table.all);
  if (table.rows.size() < table.all) {
    absl::StrAppendFormat(&out, ", the %d with most %s", table.rows.size(),
                          ColumnText(table.activity));
  }
  out += '\n';
  if (table.rows.empty()) return out;
  std::vector<size_t> shown;
  std::vector<bool> is_number;
  std::vector<std::string> heads;
  for (size_t i = 0; i < table.columns.size(); ++i) {
    const bool says_nothing =
        std::all_of(table.rows.begin(), table.rows.end(), [i](const auto& row) {
          return i >= row.size() || SaysNothing(row[i]);
        });
    // The name, and what rows are sorted by, are always worth a column.
    if (says_nothing && !zeros && i > 0 && table.columns[i] != table.activity) {
      continue;
    }
    shown.push_back(i);
    is_number.push_back(table.rows[0].size() > i &&
                        std::holds_alternative<uint64_t>(table.rows[0][i]));
    heads.push_back(ColumnText(table.columns[i]));
  }
  const auto activity = Find(table.columns, table.activity);
  const bool has_rates = before != nullptr && activity.has_value();
  std::map<std::string, uint64_t> activity_before;
  if (has_rates) {
    activity_before = ActivityBefore(*before, table);
    heads.push_back(absl::StrCat(ColumnText(table.activity), "/s"));
    is_number.push_back(true);
  }
  Grid grid;
  grid.Add(heads);
  for (const std::vector<Cell>& row : table.rows) {
    std::vector<std::string> texts;
    for (const size_t i : shown) {
      texts.push_back(i < row.size() ? CellText(table.columns[i], row[i]) : "");
    }
    if (has_rates) {
      const auto it = activity_before.find(RowKey(row));
      const auto* number = *activity < row.size()
                               ? std::get_if<uint64_t>(&row[*activity])
                               : nullptr;
      texts.push_back(it == activity_before.end() || number == nullptr
                          ? ""
                          : Rate(*number, it->second, Seconds(now, *before)));
    }
    grid.Add(std::move(texts));
  }
  return out + grid.Text(is_number);
}

}  // namespace

void KeepOnly(const std::vector<std::string>& only, ProcessStats& stats) {
  if (only.empty()) return;
  const auto is_unwanted = [&](const auto& part) {
    return !Find(only, part.name).has_value();
  };
  std::erase_if(stats.groups, is_unwanted);
  std::erase_if(stats.tables, is_unwanted);
}

std::string StatText(const ProcessStats& now, const ProcessStats* before,
                     const StatLayout& layout) {
  std::string out = Heading(now);
  for (const stats::Group& group : now.groups) {
    std::string lines;
    for (const stats::Counter& counter : group.counters) {
      if (counter.value == 0 && !layout.zeros) continue;
      absl::StrAppendFormat(&lines, "    %-24s %20d", counter.name,
                            counter.value);
      if (before != nullptr) {
        const std::string rate =
            Rate(counter.value, before->Value(group.name, counter.name),
                 Seconds(now, *before));
        absl::StrAppendFormat(&lines, " %14s/s", rate);
      }
      lines += '\n';
    }
    if (lines.empty() && !layout.zeros) continue;
    absl::StrAppend(&out, "  ", group.name, "\n", lines);
  }
  for (const Table& table : now.tables) {
    absl::StrAppend(&out, TableText(table, now, before, layout.zeros));
  }
  return out;
}

std::string BriefStatText(const ProcessStats& process) {
  const auto nic = [&](const char* name) { return process.Value("nic", name); };
  uint64_t dropped = 0, refused = 0;
  for (const stats::Group& group : process.groups) {
    for (const stats::Counter& counter : group.counters) {
      if (group.name == "dropped") dropped += counter.value;
      if (group.name == "refused") refused += counter.value;
    }
  }
  std::string out = Heading(process);
  absl::StrAppendFormat(&out, "  received  %12d frames  %s\n", nic("rx_frames"),
                        Bytes(nic("rx_bytes")));
  absl::StrAppendFormat(&out, "  sent      %12d frames  %s\n", nic("tx_frames"),
                        Bytes(nic("tx_bytes")));
  absl::StrAppendFormat(&out, "  tripwires %12d fired   %d events\n",
                        nic("tripwires_fired"), nic("events"));
  absl::StrAppendFormat(
      &out,
      "  repaired  %12d retransmitted, %d duplicates dropped, %d early frames "
      "held\n",
      nic("retransmitted_frames"), nic("duplicate_frames"),
      nic("early_frames"));
  absl::StrAppendFormat(&out,
                        "  dropped   %12d frames  %d operations refused\n",
                        dropped, refused);
  for (const Table& table : process.tables) {
    absl::StrAppendFormat(&out, "  %-9s %12d\n", table.name, table.all);
  }
  return out;
}

}  // namespace tripwire::tools
