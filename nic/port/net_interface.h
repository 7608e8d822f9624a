// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_NET_INTERFACE_H_
#define TRIPWIRE_NIC_PORT_NET_INTERFACE_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/base/mac_address.h"

namespace tripwire {

// A network interface of the kernel's, as eth: and xdp: ports need to know it.
struct NetInterface {
  std::string name;
  int index = 0;
  uint32_t mtu = 0;
  MacAddress mac;
};

// Looks an interface up, and makes sure that it is up and that we may open raw
// sockets. Errors say what to do.
absl::StatusOr<NetInterface> FindNetInterface(const std::string& name);

// The descriptors of this process.
std::set<int> OpenDescriptors();

// Those sockets of a family (AF_PACKET, AF_XDP) that were opened since `before`
// was taken. For AF_PACKET: and that are bound to the interface.
std::vector<int> NewSockets(const std::set<int>& before, int family,
                            int interface_index);

// Lets only Tripwire's frames for `mac`, or for a group, into an AF_PACKET
// socket, and none that this host sends: other traffic can then neither fill
// its ring nor wake us.
bool FilterPacketSocket(int fd, const MacAddress& mac);

// Makes an AF_PACKET socket writable at any time, though `slots` frames of up
// to `slot_bytes` are on their way: DPDK's driver waits, for as long as it
// takes, for the socket to be writable when it finds its ring full. (Then it
// looks again, and gives up.) Needs CAP_NET_ADMIN.
bool KeepWritable(int fd, uint32_t slots, uint32_t slot_bytes);

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_NET_INTERFACE_H_
