// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_ACCESS_H_
#define TRIPWIRE_PERIPH_SERVICE_ACCESS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tripwire::periph {

// Who asks, as the other end says itself. Node names are not authenticated:
// whoever is on the segment can take any. A user is one Peripherals object, on
// all its links.
struct Asker {
  std::string node;
  std::string program;
  uint64_t user = 0;
};

// Who may do what with one device.
struct AccessRules {
  bool read_only = false;          // no sinks, no writing to disks, no setting of controls
  bool exclusive = false;          // one user at a time
  std::vector<std::string> nodes;  // who may use it; empty: everybody

  bool Admits(const Asker& asker) const;
};

// RULE[,RULE...], the rules being ro, exclusive and node=NAME; adds to `rules`.
absl::Status ParseRules(std::string_view text, AccessRules* rules);

// NAME=REST, and whether NAME can name a device: 1 to 64 letters, digits, dots,
// dashes and underscores.
struct NamedText {
  std::string name, text;
};
absl::StatusOr<NamedText> ParseNamed(std::string_view text);
absl::Status CheckDeviceName(std::string_view name);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_ACCESS_H_
