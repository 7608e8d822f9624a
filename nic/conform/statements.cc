// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/statements.h"

namespace tripwire::conform {
namespace {

constexpr Statement kStatements[] = {
#include "nic/conform/statements.inc"
};

struct Undecidable {
  std::string_view id, why;
};
constexpr Undecidable kUndecidable[] = {
    {"W14", "needs a medium whose sender can change a frame after sending it"},
    {"M50", "is between a program and its own NIC"},
    {"M51", "is between a program and its own NIC"},
};

}  // namespace

const char* ToString(Level level) {
  switch (level) {
    case Level::kMust:
      return "MUST";
    case Level::kShould:
      return "SHOULD";
    default:
      return "MAY";
  }
}

Level Statement::level() const {
  if (text.find("MUST") != std::string_view::npos) return Level::kMust;
  if (text.find("SHOULD") != std::string_view::npos) return Level::kShould;
  return Level::kMay;
}

std::span<const Statement> Statements() { return kStatements; }

std::string_view WhyNotFromOutside(std::string_view id) {
  for (const Undecidable& entry : kUndecidable) {
    if (entry.id == id) return entry.why;
  }
  return {};
}

}  // namespace tripwire::conform
