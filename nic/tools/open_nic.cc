// SPDX-License-Identifier: BSD-3-Clause
#include "nic/tools/open_nic.h"

#include <utility>

#include "nic/port/port_spec.h"

namespace tripwire::tools {

absl::StatusOr<std::unique_ptr<Nic>> OpenNic(
    const std::vector<std::string>& ports, NicOptions options) {
  auto opened = ports.empty() ? OpenDefaultPorts(PortRole::kClient, "tw")
                              : OpenPorts(ports);
  if (!opened.ok()) return opened.status();
  options.ports = *std::move(opened);
  return Nic::Open(std::move(options));
}

}  // namespace tripwire::tools
