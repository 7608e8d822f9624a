// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_STATEMENTS_H_
#define TRIPWIRE_NIC_CONFORM_STATEMENTS_H_

#include <cstdint>
#include <span>
#include <string_view>

namespace tripwire::conform {

enum class Level : uint8_t { kMust, kShould, kMay };
const char* ToString(Level level);

// A numbered rule of docs/wire-format.md (W) or docs/memory-model.md (M).
struct Statement {
  std::string_view id, text;
  Level level() const;
};

// All of them, in the order of the documents. Made from the documents when the
// suite is built.
std::span<const Statement> Statements();

// Rules that no look from outside can decide, and why. Empty for all others.
std::string_view WhyNotFromOutside(std::string_view id);

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_STATEMENTS_H_
