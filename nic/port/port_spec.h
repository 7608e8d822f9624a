// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_PORT_SPEC_H_
#define TRIPWIRE_NIC_PORT_PORT_SPEC_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/clock.h"
#include "nic/port/faulty_port.h"
#include "nic/port/port.h"

namespace tripwire {

// What `--port` says. docs/ports.md has the grammar.
struct PortSpec {
  enum class Kind { kMemif, kEth, kXdp, kPci, kVdev };
  struct Faults {
    FaultOptions options;
    uint64_t seed = 1;
  };

  std::string text;  // as written
  Kind kind = Kind::kMemif;
  std::string target;           // path, interface, address or vdev arguments
  bool listen = false;          // memif
  bool wait = false;            // memif client
  std::optional<uint32_t> mtu;  // bytes after the Ethernet header
  std::optional<uint32_t> buffers;  // frames in the port's pool
  uint32_t queue = 0;               // xdp
  std::optional<Faults> faults;
  bool telemetry = false;  // eth, xdp, pci, vdev: DPDK's telemetry socket
  std::optional<std::string> capture;  // file that all frames are written to
};

// One line of help on what `--port` takes, for --help texts.
inline constexpr char kPortHelp[] =
    "memif:PATH[,listen] | eth:IFACE | xdp:IFACE | pci:ADDR | vdev:ARGS, "
    "any of them after faulty:loss=P,...:, or with ,capture=FILE (may be "
    "repeated)";

// InvalidArgument, with what is wrong and what would be right.
absl::StatusOr<PortSpec> ParsePortSpec(std::string_view text);
// All of them, for programs that tell mistakes before they open anything.
absl::Status CheckPortSpecs(const std::vector<std::string>& specs);

struct OpenOptions {
  // The clock that faults are timed by; CLOCK_MONOTONIC when null.
  Clock* clock = nullptr;
};

// Opens a port. Errors are one line: what failed, why, and what to do.
// Blocks while drivers start (up to a second) or a memif listener answers.
// Thread-safe.
absl::StatusOr<std::unique_ptr<Port>> OpenPort(const PortSpec& spec,
                                               const OpenOptions& options = {});
absl::StatusOr<std::unique_ptr<Port>> OpenPort(std::string_view spec,
                                               const OpenOptions& options = {});

// Opens a port as several, each for a thread of its own: a memif listener,
// whose clients are divided among them evenly as they come, or an xdp:
// interface, of which each has one queue from `queue=` on. InvalidArgument for
// others, unless `count` is 1.
absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenDividedPort(
    std::string_view spec, size_t count, const OpenOptions& options = {});

// Opens all of them. Ports with a PCI address must be opened together with, or
// before, all others that need DPDK: this does.
absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenPorts(
    const std::vector<std::string>& specs, const OpenOptions& options = {});

// What programs use when there is no `--port`: servers listen on
// DIRECTORY/NAME.sock, clients join every listener in DIRECTORY.
enum class PortRole { kServer, kClient };

// $XDG_RUNTIME_DIR/tripwire; without that variable /run/tripwire for root and
// /tmp/tripwire-UID for others.
std::string DefaultPortDirectory();

// `name` tells servers of one user apart: NODE-PROGRAM. For clients, NotFound
// when no server runs.
absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenDefaultPorts(
    PortRole role, std::string_view name, const OpenOptions& options = {});

// The ports of a program: OpenPorts, or OpenDefaultPorts when `specs` is empty.
absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenPortsOrDefault(
    const std::vector<std::string>& specs, PortRole role, std::string_view name,
    const OpenOptions& options = {});

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_PORT_SPEC_H_
