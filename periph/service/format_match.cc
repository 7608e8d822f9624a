// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/format_match.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tripwire::periph {
namespace {

std::string Stripped(const std::string& text) {
  return std::string(absl::StripAsciiWhitespace(text));
}

// "width=(int)640" and "width = 640" are the same field; a type is only a notation.
std::string Canonical(const std::string& field) {
  const size_t equals = field.find('=');
  if (equals == field.npos) return Stripped(field);
  std::string value = Stripped(field.substr(equals + 1));
  if (!value.empty() && value[0] == '(') {
    const size_t end = value.find(')');
    if (end != value.npos) value = Stripped(value.substr(end + 1));
  }
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
    value = value.substr(1, value.size() - 2);
  }
  return absl::StrCat(Stripped(field.substr(0, equals)), "=", value);
}

std::vector<std::string> Fields(const std::string& format) {
  std::vector<std::string> fields;
  for (const std::string& field : std::vector<std::string>(absl::StrSplit(format, ','))) {
    fields.push_back(Canonical(field));
  }
  return fields;
}

}  // namespace

bool FormatMatches(const std::string& wanted, const std::string& actual) {
  if (wanted.empty() || wanted == actual) return true;
  const std::vector<std::string> want = Fields(wanted), have = Fields(actual);
  return want[0] == have[0] && std::all_of(want.begin() + 1, want.end(), [&](const auto& field) {
           return std::find(have.begin() + 1, have.end(), field) != have.end();
         });
}

}  // namespace tripwire::periph
