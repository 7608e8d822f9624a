// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_DPDK_OPEN_H_
#define TRIPWIRE_NIC_PORT_DPDK_OPEN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/port/port.h"
#include "nic/port/port_spec.h"

namespace tripwire {

// Tells DPDK, before it starts, which PCI devices it may touch. Has no effect
// on a DPDK that runs already; does not start it.
void AllowPciDevices(const std::vector<std::string>& addresses);
// Likewise, that it is to open its telemetry socket.
void WantTelemetry();

// Opens an eth:, xdp:, pci: or vdev: port, starting DPDK if need be.
absl::StatusOr<std::unique_ptr<Port>> OpenDpdkPort(const PortSpec& spec);

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_DPDK_OPEN_H_
