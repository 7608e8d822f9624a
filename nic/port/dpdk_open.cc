// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/dpdk_open.h"

#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_ethdev.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>

#include "absl/strings/str_cat.h"
#include "nic/port/dpdk_port.h"
#include "nic/port/eal.h"
#include "nic/port/interface_address.h"
#include "nic/port/net_interface.h"
#include "spdlog/spdlog.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif

namespace tripwire {
namespace {

constexpr uint32_t kEthernetHeaderBytes = 14;
// What TPACKET_V2 puts before a frame in its slot, and DPDK's reserve, rounded.
constexpr uint32_t kPacketSlotOverheadBytes = 128;
constexpr uint32_t kPacketRingBytes = 16u << 20;  // each way
// One page less headroom and the driver's reserve: XDP frames may not span
// pages.
constexpr uint32_t kMaxXdpMtu = 3400;
constexpr uint32_t kXdpBufferBytes = 3584;
constexpr int kXdpRetries = 10;
constexpr useconds_t kXdpPauseUs = 50'000;

// The driver locks its rings in memory, of which others than root may lock
// little.
uint32_t PacketRingBytes() {
  rlimit limit{};
  if (geteuid() == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) != 0 ||
      limit.rlim_cur == RLIM_INFINITY) {
    return kPacketRingBytes;
  }
  // Two rings, and room for what else is locked.
  return static_cast<uint32_t>(
      std::min<rlim_t>(kPacketRingBytes, limit.rlim_cur / 16 * 7));
}

// Opening looks at which descriptors appear, and numbers devices.
std::mutex& OpenMutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}

std::string NextDevice(const char* driver) {
  static int next = 0;
  return absl::StrCat(driver, next++);
}

absl::Status MakeVdev(const PortSpec& spec, const std::string& device,
                      const std::string& arguments) {
  Eal::TakeComplaint();
  const int error = rte_vdev_init(device.c_str(), arguments.c_str());
  if (error == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "port ", spec.text, ": DPDK cannot make device ", device, ": ",
      std::strerror(std::abs(error)), ": ", Eal::TakeComplaint()));
}

// Takes away what MakeVdev made, should the port that was to own it fail.
absl::StatusOr<std::unique_ptr<DpdkPort>> OpenVdev(DpdkPortOptions options) {
  options.is_vdev = true;
  auto port = DpdkPort::Open(options);
  if (!port.ok()) rte_vdev_uninit(options.device.c_str());
  return port;
}

absl::StatusOr<uint32_t> MtuFor(const PortSpec& spec,
                                const NetInterface& interface) {
  if (!spec.mtu) return interface.mtu;
  if (*spec.mtu > interface.mtu) {
    return absl::InvalidArgumentError(
        absl::StrCat("port ", spec.text, ": the MTU of ", interface.name,
                     " is ", interface.mtu, " (`ip link set ", interface.name,
                     " mtu ", *spec.mtu, "` raises it)"));
  }
  return *spec.mtu;
}

absl::StatusOr<std::unique_ptr<Port>> OpenEth(const PortSpec& spec) {
  auto interface = FindNetInterface(spec.target);
  if (!interface.ok()) return interface.status();
  auto mtu = MtuFor(spec, *interface);
  if (!mtu.ok()) return mtu.status();
  DpdkPortOptions options;
  options.name = spec.text;
  options.device = NextDevice("net_af_packet");
  options.max_frame_bytes =
      std::min<uint32_t>(*mtu, 32768 - 2 * kPacketSlotOverheadBytes) +
      kEthernetHeaderBytes;
  if (spec.buffers) options.buffers = *spec.buffers;
  // Slots are a power of two, so that they fill their blocks. The kernel may
  // put longer frames on the wire than we use: slots must hold those too.
  const uint32_t slot = std::bit_ceil(std::max(
      2048u, std::max(options.max_frame_bytes,
                      std::min(interface->mtu, 32000u) + kEthernetHeaderBytes) +
                 kPacketSlotOverheadBytes));
  const uint32_t block = std::max(slot, 65536u);
  const uint32_t count = std::clamp(PacketRingBytes() / slot, 64u, 4096u);
  options.buffer_bytes = slot;
  auto address = InterfaceAddress::Claim(*interface);
  if (!address.ok()) return address.status();
  options.address = *address;
  const std::set<int> before = OpenDescriptors();
  absl::Status made = MakeVdev(
      spec, options.device,
      absl::StrCat("iface=", interface->name, ",framesz=", slot,
                   ",blocksz=", block, ",framecnt=", count, ",qdisc_bypass=1"));
  if (!made.ok()) return made;
  const std::vector<int> sockets =
      NewSockets(before, AF_PACKET, interface->index);
  for (int fd : sockets) {
    FilterPacketSocket(fd, (*address)->mac());
    if (!KeepWritable(fd, count, slot)) {
      spdlog::warn("port {}: may stop while its wire is stuck: {}", spec.text,
                   std::strerror(errno));
    }
  }
  auto port = OpenVdev(options);
  if (!port.ok()) return port.status();
  for (int fd : sockets) {
    absl::Status subscribed = (*address)->Subscribe(fd, *interface);
    if (!subscribed.ok()) return subscribed;
  }
  if (!sockets.empty()) {
    absl::Status watched = (*port)->WakeBySockets(sockets);
    if (!watched.ok()) return watched;
  }
  return std::unique_ptr<Port>(*std::move(port));
}

absl::StatusOr<std::unique_ptr<Port>> TryXdp(const PortSpec& spec,
                                             const DpdkPortOptions& options,
                                             const NetInterface& interface) {
  const std::set<int> before = OpenDescriptors();
  // Without busy polling, which would hold the interrupts back that wake us.
  absl::Status made = MakeVdev(
      spec, options.device,
      absl::StrCat("iface=", interface.name, ",start_queue=", spec.queue,
                   ",queue_count=1,busy_budget=0"));
  if (!made.ok()) return made;
  auto port = OpenVdev(options);  // the driver opens its socket here
  if (!port.ok()) return port.status();
  const std::vector<int> sockets = NewSockets(before, AF_XDP, interface.index);
  if (!sockets.empty()) {
    absl::Status watched = (*port)->WakeBySockets(sockets);
    if (!watched.ok()) return watched;
  }
  return std::unique_ptr<Port>(*std::move(port));
}

absl::StatusOr<std::unique_ptr<Port>> OpenXdp(const PortSpec& spec) {
  auto interface = FindNetInterface(spec.target);
  if (!interface.ok()) return interface.status();
  if (interface->mtu > kMaxXdpMtu) {
    return absl::FailedPreconditionError(absl::StrCat(
        "port ", spec.text, ": XDP needs an MTU of at most ", kMaxXdpMtu,
        ", that of ", interface->name, " is ", interface->mtu,
        " (`ip link set ", interface->name, " mtu ", kMaxXdpMtu,
        "` lowers it; eth:", interface->name, " takes any)"));
  }
  auto mtu = MtuFor(spec, *interface);
  if (!mtu.ok()) return mtu.status();
  DpdkPortOptions options;
  options.name = spec.text;
  options.device = NextDevice("net_af_xdp");
  options.max_frame_bytes = *mtu + kEthernetHeaderBytes;
  options.buffer_bytes = kXdpBufferBytes;
  if (spec.buffers) options.buffers = *spec.buffers;
  auto port = TryXdp(spec, options, *interface);
  // The kernel frees the queue of a socket that was closed a little later.
  for (int i = 0; i < kXdpRetries && !port.ok(); ++i) {
    usleep(kXdpPauseUs);
    options.device = NextDevice("net_af_xdp");
    port = TryXdp(spec, options, *interface);
  }
  return port;
}

absl::StatusOr<std::unique_ptr<Port>> OpenRawVdev(const PortSpec& spec) {
  const size_t comma = spec.target.find(',');
  DpdkPortOptions options;
  options.name = spec.text;
  options.device = spec.target.substr(0, comma);
  options.buffer_bytes = 2048;
  const std::string arguments =
      comma == std::string::npos ? "" : spec.target.substr(comma + 1);
  absl::Status made = MakeVdev(spec, options.device, arguments);
  if (!made.ok()) return made;
  auto port = OpenVdev(options);
  if (!port.ok()) return port.status();
  return std::unique_ptr<Port>(*std::move(port));
}

absl::StatusOr<std::unique_ptr<Port>> OpenPci(const PortSpec& spec) {
  if (!Eal::IsPciAllowed(spec.target)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "port ", spec.text,
        ": DPDK runs already without this device; name pci: ports first"));
  }
  DpdkPortOptions options;
  options.name = spec.text;
  options.device = spec.target.substr(0, spec.target.find(','));
  options.want_interrupt = true;
  options.buffer_bytes = 2048;
  uint16_t id = 0;
  if (rte_eth_dev_get_port_by_name(options.device.c_str(), &id) != 0) {
    return absl::NotFoundError(absl::StrCat(
        "port ", spec.text, ": DPDK drives no network device ", options.device,
        " (is it bound to vfio-pci? `dpdk-devbind.py --status` tells)"));
  }
  rte_eth_dev_info device{};
  if (rte_eth_dev_info_get(id, &device) == 0 && device.max_mtu >= 9000 &&
      device.max_mtu < UINT16_MAX) {
    options.set_mtu = true;
    options.max_frame_bytes = 9000 + kEthernetHeaderBytes;
    options.buffer_bytes = 9216;
  }
  auto port = DpdkPort::Open(options);
  if (!port.ok()) return port.status();
  return std::unique_ptr<Port>(*std::move(port));
}

// The kernel and DPDK seldom say that it is a matter of rights.
absl::StatusOr<std::unique_ptr<Port>> WithHint(
    absl::StatusOr<std::unique_ptr<Port>> port, const char* needed) {
  if (port.ok() || geteuid() == 0) return port;
  return absl::Status(port.status().code(),
                      absl::StrCat(port.status().message(),
                                   " (such a port needs ", needed, ")"));
}

}  // namespace

void AllowPciDevices(const std::vector<std::string>& addresses) {
  Eal::AllowPciDevices(addresses);
}

void WantTelemetry() { Eal::WantTelemetry(); }

absl::StatusOr<std::unique_ptr<Port>> OpenDpdkPort(const PortSpec& spec) {
  std::lock_guard lock(OpenMutex());
  // Mistakes of the user are told without starting DPDK.
  if (spec.kind == PortSpec::Kind::kEth || spec.kind == PortSpec::Kind::kXdp) {
    auto interface = FindNetInterface(spec.target);
    if (!interface.ok()) {
      return absl::Status(
          interface.status().code(),
          absl::StrCat("port ", spec.text, ": ", interface.status().message()));
    }
  }
  if (spec.kind == PortSpec::Kind::kPci && !Eal::IsPciAllowed(spec.target)) {
    Eal::AllowPciDevices({spec.target});
  }
  if (spec.telemetry) {
    Eal::WantTelemetry();
    if (!Eal::HasTelemetry()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "port ", spec.text,
          ": DPDK runs already without telemetry; name this port first"));
    }
  }
  absl::Status started = Eal::Start();
  if (!started.ok()) return started;
  switch (spec.kind) {
    case PortSpec::Kind::kEth:
      return WithHint(OpenEth(spec), "CAP_NET_RAW and CAP_NET_ADMIN");
    case PortSpec::Kind::kXdp:
      return WithHint(OpenXdp(spec), "root");
    case PortSpec::Kind::kPci:
      return OpenPci(spec);
    case PortSpec::Kind::kVdev:
      return OpenRawVdev(spec);
    case PortSpec::Kind::kMemif:
      break;
  }
  return absl::InternalError("not a DPDK port");
}

}  // namespace tripwire
