// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/access.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tripwire::periph {
namespace {

constexpr size_t kMaxDeviceName = 64;

std::string Quoted(const std::string& text) { return absl::StrCat("'", text, "'"); }

}  // namespace

bool AccessRules::Admits(const Asker& asker) const {
  return nodes.empty() || std::find(nodes.begin(), nodes.end(), asker.node) != nodes.end();
}

absl::Status ParseRules(std::string_view text, AccessRules* rules) {
  const std::string all(text);
  for (const std::string& rule : std::vector<std::string>(absl::StrSplit(all, ','))) {
    if (rule == "ro") {
      rules->read_only = true;
    } else if (rule == "exclusive") {
      rules->exclusive = true;
    } else if (rule.rfind("node=", 0) == 0 && rule.size() > 5) {
      rules->nodes.push_back(rule.substr(5));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat(Quoted(rule), " is no rule of access; there are ro, exclusive, node=NAME"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDeviceName(std::string_view name) {
  const bool good = !name.empty() && name.size() <= kMaxDeviceName &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ||
                             c == '-' || c == '_';
                    });
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(Quoted(std::string(name)),
                   " cannot name a device: 1 to 64 letters, digits, dots, "
                   "dashes, underscores"));
}

absl::StatusOr<NamedText> ParseNamed(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == text.npos || equals + 1 == text.size()) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(std::string(text)), " is not NAME=..."));
  }
  const std::string_view name = text.substr(0, equals);
  if (auto status = CheckDeviceName(name); !status.ok()) return status;
  return NamedText{std::string(name), std::string(text.substr(equals + 1))};
}

}  // namespace tripwire::periph
