// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_EAL_H_
#define TRIPWIRE_NIC_PORT_EAL_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace tripwire {

// DPDK's environment abstraction layer (EAL): started when the first port needs
// it, once per process, and never stopped (DPDK cannot be started twice).
//
// Started so that it disturbs nobody: no hugepages unless a PCI device is used,
// no files or sockets (unless its telemetry is wanted), no probing of devices nobody asked for, the caller's
// affinity and signal mask untouched, its threads deaf to signals, its log in
// ours. Starting takes about 150 ms, of which 100 ms is DPDK measuring the
// clock on processors that do not tell its frequency.
//
// Thread-safe.
class Eal {
 public:
  static absl::Status Start();
  // Devices DPDK may touch, to be told before Start.
  static void AllowPciDevices(const std::vector<std::string>& addresses);
  static bool IsPciAllowed(const std::string& address);
  // That DPDK is to open its telemetry socket, also to be told before Start.
  static void WantTelemetry();
  static bool HasTelemetry();  // it is wanted and, if DPDK runs, there

  // The last thing DPDK complained about, for error messages; empties it.
  static std::string TakeComplaint();
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_EAL_H_
