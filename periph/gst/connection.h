// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_GST_CONNECTION_H_
#define TRIPWIRE_PERIPH_GST_CONNECTION_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "nic/api/nic.h"
#include "periph/client/peripherals.h"

namespace tripwire::periph {

// A NIC, and the devices of one node that are reached through it. Elements of
// one process that name the same ports and node share one.
struct Connection {
  std::unique_ptr<Nic> nic;
  std::unique_ptr<Peripherals> devices;  // goes first
};

// `ports`: as many --port options, separated by spaces; "" for the default.
// `node`: "" for the only one that offers devices. Errors as
// Peripherals::Connect and OpenNic. Waits for the network. Thread-safe.
absl::StatusOr<std::shared_ptr<Connection>> ConnectTo(const std::string& ports,
                                                      const std::string& node);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_GST_CONNECTION_H_
