// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/api/stats/stats.h"
#include "nic/base/utf8.h"

namespace tripwire::stats {
std::string JsonQuote(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const char c = text.front();
    if (length == 0) {
      out += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<uint8_t>(c) < 0x20) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(c));
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out += '"';
  return out;
}

namespace {

void AppendCell(const Cell& cell, std::string& out) {
  if (const auto* number = std::get_if<uint64_t>(&cell)) {
    absl::StrAppend(&out, *number);
  } else if (const auto* text = std::get_if<std::string>(&cell)) {
    absl::StrAppend(&out, JsonQuote(*text));
  } else {
    absl::StrAppend(&out, std::get<bool>(cell) ? "true" : "false");
  }
}

void AppendTable(const Table& table, std::string& out) {
  absl::StrAppend(&out, JsonQuote(table.name), ":{\"all\":", table.all,
                  ",\"rows\":[");
  const char* comma = "";
  for (const std::vector<Cell>& row : table.rows) {
    absl::StrAppend(&out, comma, "{");
    const size_t cells = std::min(row.size(), table.columns.size());
    for (size_t i = 0; i < cells; ++i) {
      absl::StrAppend(&out, i == 0 ? "" : ",", JsonQuote(table.columns[i]),
                      ":");
      AppendCell(row[i], out);
    }
    out += '}';
    comma = ",";
  }
  out += "]}";
}

}  // namespace

std::string ToJson(const ProcessStats& stats) {
  std::string out =
      absl::StrCat("{\"program\":", JsonQuote(stats.program),
                   ",\"pid\":", stats.pid, ",\"node\":", JsonQuote(stats.node),
                   ",\"detail\":", JsonQuote(stats.detail),
                   ",\"uptime_ns\":", stats.uptime_ns, ",\"groups\":{");
  const char* comma = "";
  for (const Group& group : stats.groups) {
    absl::StrAppend(&out, comma, JsonQuote(group.name), ":{");
    const char* inner_comma = "";
    for (const Counter& counter : group.counters) {
      absl::StrAppend(&out, inner_comma, JsonQuote(counter.name), ":",
                      counter.value);
      inner_comma = ",";
    }
    out += '}';
    comma = ",";
  }
  out += "},\"tables\":{";
  comma = "";
  for (const Table& table : stats.tables) {
    absl::StrAppend(&out, comma);
    AppendTable(table, out);
    comma = ",";
  }
  out += "}}";
  return out;
}

uint64_t ProcessStats::Value(std::string_view group,
                             std::string_view counter) const {
  for (const Group& g : groups) {
    if (g.name != group) continue;
    for (const Counter& c : g.counters) {
      if (c.name == counter) return c.value;
    }
  }
  return 0;
}

}  // namespace tripwire::stats
