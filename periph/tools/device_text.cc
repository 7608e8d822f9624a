// SPDX-License-Identifier: BSD-3-Clause
#include "periph/tools/device_text.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nic/api/stats/stats.h"
#include "periph/proto/messages.h"

namespace tripwire::periph::tools {
namespace {

using stats::JsonQuote;

std::string State(const proto::DeviceInfo& info) {
  if (!info.present()) return "absent";
  return info.exclusive() ? "taken" : "ready";
}

// "source: video/x-raw; sink; disk": media types only, once each.
std::string Ways(const proto::DeviceInfo& info) {
  std::vector<std::string> ways;
  const auto add = [&](const char* what, const auto& formats) {
    std::vector<std::string> types;
    for (const std::string& format : formats) {
      const std::string type = Printable(format.substr(0, format.find(',')));
      if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
    }
    if (!types.empty()) ways.push_back(absl::StrCat(what, " ", absl::StrJoin(types, "|")));
  };
  add("source", info.source_formats());
  add("sink", info.sink_formats());
  if (info.disk()) ways.push_back("disk");
  if (info.read_only()) ways.push_back("read-only");
  return absl::StrJoin(ways, ", ");
}

std::string Users(const proto::DeviceInfo& info) {
  return absl::StrJoin(info.users(), " ", [](std::string* out, const proto::User& user) {
    absl::StrAppend(out, Printable(user.node()), "(", Printable(user.what()), ")");
  });
}

// A format whose lists of choices are long, for people: a few of each and how many more.
std::string Shortened(const std::string& format) {
  constexpr size_t kShown = 6;
  std::string text;
  size_t choice = 0;  // in a list, from 1
  for (size_t at = 0; at < format.size(); ++at) {
    const char c = format[at];
    if (c == '{') choice = 1;
    if (c == '}' && choice > kShown) absl::StrAppend(&text, " ... ", choice - kShown, " more ");
    if (c == '}') choice = 0;
    if (choice <= kShown) text += c;
    if (c == ',' && choice > 0) ++choice;
  }
  return text;
}

std::string JsonList(const google::protobuf::RepeatedPtrField<std::string>& texts) {
  return absl::StrCat(
      "[",
      absl::StrJoin(texts, ",",
                    [](std::string* out, const auto& text) { out->append(JsonQuote(text)); }),
      "]");
}

}  // namespace

std::string HeadLine() {
  return absl::StrFormat("%-24s %-8s %-7s %-36s %s", "DEVICE", "KIND", "STATE", "MAKES AND TAKES",
                         "USERS");
}

std::string LineOf(const std::string& node, const proto::DeviceInfo& info) {
  std::string users = Users(info);
  if (!info.present()) users = Printable(info.why_absent());
  return absl::StrFormat("%-24s %-8s %-7s %-36s %s",
                         absl::StrCat(Printable(node), ":", Printable(info.name())),
                         Printable(info.kind()), State(info), Ways(info), users);
}

std::string JsonOf(const std::string& node, const proto::DeviceInfo& info) {
  const auto yes_no = [](bool yes) { return yes ? "true" : "false"; };
  const std::string users =
      absl::StrJoin(info.users(), ",", [](std::string* out, const proto::User& user) {
        absl::StrAppend(out, "{\"node\":", JsonQuote(user.node()),
                        ",\"program\":", JsonQuote(user.program()),
                        ",\"what\":", JsonQuote(user.what()), "}");
      });
  return absl::StrCat(
      "{\"node\":", JsonQuote(node), ",\"device\":", JsonQuote(info.name()),
      ",\"kind\":", JsonQuote(info.kind()), ",\"description\":", JsonQuote(info.description()),
      ",\"present\":", yes_no(info.present()), ",\"why_absent\":", JsonQuote(info.why_absent()),
      ",\"source_formats\":", JsonList(info.source_formats()),
      ",\"sink_formats\":", JsonList(info.sink_formats()), ",\"disk\":", yes_no(info.disk()),
      ",\"exclusive\":", yes_no(info.exclusive()), ",\"read_only\":", yes_no(info.read_only()),
      ",\"users\":[", users, "]}");
}

std::string TextOf(const std::string& node, const proto::DeviceInfo& info) {
  std::string text = absl::StrCat(Printable(node), ":", Printable(info.name()), "\n");
  const auto line = [&](const char* name, const std::string& value) {
    if (!value.empty()) absl::StrAppend(&text, absl::StrFormat("  %-12s %s\n", name, value));
  };
  line("kind", Printable(info.kind()));
  line("what", Printable(info.description()));
  line("state", State(info));
  if (!info.present()) line("why", Printable(info.why_absent()));
  for (const std::string& format : info.source_formats()) line("makes", Printable(Shortened(format), 4000));
  for (const std::string& format : info.sink_formats()) line("takes", Printable(Shortened(format), 4000));
  if (info.disk()) line("disk", info.read_only() ? "read-only" : "read and write");
  if (info.read_only() && !info.disk()) line("access", "read-only");
  for (const proto::User& user : info.users()) {
    line("user", absl::StrCat(Printable(user.node()), ", ", Printable(user.program()), ", ",
                              Printable(user.what())));
  }
  return text;
}

}  // namespace tripwire::periph::tools
