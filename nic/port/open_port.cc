// SPDX-License-Identifier: BSD-3-Clause
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "nic/port/capture_port.h"
#include "nic/port/dpdk_open.h"
#include "nic/port/memif_port.h"
#include "nic/port/port_spec.h"
#include "spdlog/spdlog.h"

namespace tripwire {
namespace {

constexpr uint32_t kEthernetHeaderBytes = 14;

Clock& ClockOf(const OpenOptions& options) {
  static SystemClock system_clock;
  return options.clock != nullptr ? *options.clock : system_clock;
}

MemifOptions MemifOptionsOf(const PortSpec& spec) {
  MemifOptions options;
  options.name = spec.text;
  options.path = spec.target;
  options.wait = spec.wait;
  if (spec.mtu) options.max_frame_bytes = *spec.mtu + kEthernetHeaderBytes;
  if (spec.buffers) options.buffers = *spec.buffers;
  return options;
}

absl::StatusOr<std::unique_ptr<Port>> OpenMemif(const PortSpec& spec) {
  return spec.listen ? MemifListenerPort::Open(MemifOptionsOf(spec))
                     : MemifClientPort::Open(MemifOptionsOf(spec));
}

// Puts around a port what its specification asks for.
absl::StatusOr<std::unique_ptr<Port>> Decorate(std::unique_ptr<Port> port,
                                               const PortSpec& spec,
                                               const OpenOptions& options) {
  if (spec.faults) {
    port =
        std::make_unique<FaultyPort>(std::move(port), ClockOf(options),
                                     spec.faults->options, spec.faults->seed);
  }
  if (!spec.capture) return port;
  // Outside the faults: the capture shows what the NIC sees and does.
  auto file = CaptureFile::Open(*spec.capture, port->info());
  if (!file.ok()) {
    return absl::Status(
        file.status().code(),
        absl::StrCat("port ", spec.text, ": ", file.status().message()));
  }
  return std::make_unique<CapturePort>(
      std::move(port), *std::move(file), ClockOf(options),
      options.clock == nullptr ? SystemClockEpochNs() : 0);
}

// Makes the directory for default ports, and sure that nobody else can put
// sockets into it.
absl::Status PrepareDirectory(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot make ", directory,
                            " for the default port (give one with --port)"));
  }
  struct stat info;
  if (lstat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, " is not a directory"));
  }
  if (info.st_uid != geteuid() || (info.st_mode & 0022) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        directory, " can be written to by others: remove it, or use --port"));
  }
  return absl::OkStatus();
}

std::vector<std::string> SocketsIn(const std::string& directory) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".sock" && entry.is_socket(error)) {
      paths.push_back(entry.path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Port>> OpenPort(const PortSpec& spec,
                                               const OpenOptions& options) {
  absl::StatusOr<std::unique_ptr<Port>> port =
      spec.kind == PortSpec::Kind::kMemif ? OpenMemif(spec)
                                          : OpenDpdkPort(spec);
  if (!port.ok()) return port;
  return Decorate(*std::move(port), spec, options);
}

absl::StatusOr<std::unique_ptr<Port>> OpenPort(std::string_view text,
                                               const OpenOptions& options) {
  absl::StatusOr<PortSpec> spec = ParsePortSpec(text);
  if (!spec.ok()) return spec.status();
  return OpenPort(*spec, options);
}

absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenDividedPort(
    std::string_view text, size_t count, const OpenOptions& options) {
  absl::StatusOr<PortSpec> spec = ParsePortSpec(text);
  if (!spec.ok()) return spec.status();
  std::vector<std::unique_ptr<Port>> ports;
  const bool is_listener = spec->kind == PortSpec::Kind::kMemif && spec->listen;
  if (count > 1 && spec->capture) {
    return absl::InvalidArgumentError(absl::StrCat(
        "port ", spec->text, ": one file cannot capture ", count, " ports"));
  }
  if (is_listener) {
    auto divided = MemifListenerPort::OpenDivided(MemifOptionsOf(*spec), count);
    if (!divided.ok()) return divided.status();
    ports = *std::move(divided);
  } else if (count > 1 && spec->kind != PortSpec::Kind::kXdp) {
    return absl::InvalidArgumentError(
        absl::StrCat("port ", spec->text,
                     " cannot be divided among threads; memif listeners and "
                     "xdp: interfaces can"));
  }
  for (size_t i = 0; i < count; ++i) {
    // Each its own faults.
    if (i > 0 && spec->faults) ++spec->faults->seed;
    auto port = is_listener ? Decorate(std::move(ports[i]), *spec, options)
                            : OpenPort(*spec, options);
    if (!port.ok()) return port.status();
    if (is_listener) {
      ports[i] = *std::move(port);
    } else {
      ports.push_back(*std::move(port));
      ++spec->queue;
    }
  }
  return ports;
}

absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenPorts(
    const std::vector<std::string>& texts, const OpenOptions& options) {
  std::vector<PortSpec> specs;
  std::vector<std::string> pci_addresses;
  for (const std::string& text : texts) {
    absl::StatusOr<PortSpec> spec = ParsePortSpec(text);
    if (!spec.ok()) return spec.status();
    if (spec->kind == PortSpec::Kind::kPci) {
      pci_addresses.push_back(spec->target);
    }
    if (spec->telemetry) WantTelemetry();
    specs.push_back(*std::move(spec));
  }
  if (!pci_addresses.empty()) AllowPciDevices(pci_addresses);
  std::vector<std::unique_ptr<Port>> ports;
  for (const PortSpec& spec : specs) {
    absl::StatusOr<std::unique_ptr<Port>> port = OpenPort(spec, options);
    if (!port.ok()) return port.status();
    ports.push_back(*std::move(port));
  }
  return ports;
}

std::string DefaultPortDirectory() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && runtime[0] == '/') {
    return absl::StrCat(runtime, "/tripwire");
  }
  if (geteuid() == 0) return "/run/tripwire";
  return absl::StrCat("/tmp/tripwire-", geteuid());
}

absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenDefaultPorts(
    PortRole role, std::string_view name, const OpenOptions& options) {
  const std::string directory = DefaultPortDirectory();
  std::vector<std::unique_ptr<Port>> ports;
  if (role == PortRole::kServer) {
    absl::Status status = PrepareDirectory(directory);
    if (!status.ok()) return status;
    if (name.empty() || name.find('/') != std::string_view::npos ||
        name.find(',') != std::string_view::npos || name[0] == '.') {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", std::string(name), "' cannot be the name of a socket"));
    }
    auto port = OpenPort(absl::StrCat("memif:", directory, "/",
                                      std::string(name), ".sock,listen"),
                         options);
    if (!port.ok()) return port.status();
    ports.push_back(*std::move(port));
    return ports;
  }
  std::vector<std::string> paths = SocketsIn(directory);
  if (geteuid() == 0 && directory != "/run/tripwire") {
    // Servers that the system started have no XDG_RUNTIME_DIR.
    for (std::string& path : SocketsIn("/run/tripwire")) {
      paths.push_back(std::move(path));
    }
  }
  for (const std::string& path : paths) {
    auto port = OpenPort(absl::StrCat("memif:", path), options);
    if (port.ok()) {
      ports.push_back(*std::move(port));
    } else {
      spdlog::debug("{}", port.status().ToString());
    }
  }
  if (ports.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no server listens in ", directory,
                     ": start one first, or say with --port where it is"));
  }
  return ports;
}

absl::StatusOr<std::vector<std::unique_ptr<Port>>> OpenPortsOrDefault(
    const std::vector<std::string>& specs, PortRole role, std::string_view name,
    const OpenOptions& options) {
  return specs.empty() ? OpenDefaultPorts(role, name, options)
                       : OpenPorts(specs, options);
}

}  // namespace tripwire
