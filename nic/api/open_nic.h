// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_OPEN_NIC_H_
#define TRIPWIRE_NIC_API_OPEN_NIC_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/api/nic.h"
#include "nic/port/port_spec.h"

namespace tripwire {

// A NIC of this process over the ports as the user wrote them with `--port`;
// without any, over those that docs/ports.md has for this case, where `name`
// tells servers of one user apart (NODE-PROGRAM; clients have no use for it).
// `options.ports` is replaced. InvalidArgument for what is no port, NotFound
// when no server runs to join, else as OpenPort and Nic::Open: one line each.
// Blocks while ports open, up to a second; a client without ports waits up to
// three for a server, which may just be starting.
absl::StatusOr<std::unique_ptr<Nic>> OpenNic(
    const std::vector<std::string>& ports, PortRole role, std::string_view name,
    NicOptions options = {});

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_OPEN_NIC_H_
