// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/open_nic.h"

#include <utility>

namespace tripwire {

absl::StatusOr<std::unique_ptr<Nic>> OpenNic(
    const std::vector<std::string>& ports, PortRole role, std::string_view name,
    NicOptions options) {
  auto opened = OpenPortsOrDefault(ports, role, name);
  if (!opened.ok()) return opened.status();
  options.ports = *std::move(opened);
  return Nic::Open(std::move(options));
}

}  // namespace tripwire
