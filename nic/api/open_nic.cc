// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/open_nic.h"

#include <chrono>
#include <thread>
#include <utility>

namespace tripwire {
namespace {

// A server that the line before has started is not there at once.
constexpr int kLooks = 60;
constexpr auto kBetweenLooks = std::chrono::milliseconds(50);

}  // namespace

absl::StatusOr<std::unique_ptr<Nic>> OpenNic(
    const std::vector<std::string>& ports, PortRole role, std::string_view name,
    NicOptions options) {
  auto opened = OpenPortsOrDefault(ports, role, name);
  const bool may_come = ports.empty() && role == PortRole::kClient;
  for (int i = 0; may_come && i < kLooks && absl::IsNotFound(opened.status());
       ++i) {
    std::this_thread::sleep_for(kBetweenLooks);
    opened = OpenPortsOrDefault(ports, role, name);
  }
  if (!opened.ok()) return opened.status();
  options.ports = *std::move(opened);
  return Nic::Open(std::move(options));
}

}  // namespace tripwire
