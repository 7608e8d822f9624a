// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_TELEMETRY_H_
#define TRIPWIRE_NIC_PORT_TELEMETRY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace tripwire {

// What DPDK's telemetry can tell: names with numbers, texts (of up to 127
// bytes) or lists of texts. Of what exceeds its bounds (256 names, 512 texts a
// list) the rest is left out.
using TelemetryValue =
    std::variant<uint64_t, std::string, std::vector<std::string>>;
using TelemetryAnswer = std::vector<std::pair<std::string, TelemetryValue>>;

// nullopt when the parameters name nothing. Called from a thread of DPDK's.
using TelemetryCommand =
    std::function<std::optional<TelemetryAnswer>(std::string_view parameters)>;

// Adds a command ("/tripwire/links") to those that DPDK's telemetry socket
// answers, for ever, whether or not there ever is one. Thread-safe.
absl::Status RegisterTelemetry(const std::string& command,
                               const std::string& help,
                               TelemetryCommand answer);

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_TELEMETRY_H_
