// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_INTERFACE_ADDRESS_H_
#define TRIPWIRE_NIC_PORT_INTERFACE_ADDRESS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "nic/base/mac_address.h"
#include "nic/port/net_interface.h"

namespace tripwire {

// One program's own Ethernet address on an interface of the kernel's that
// several may use: a peer must be able to tell them apart. The first has the
// interface's address; others have it with another first octet, a locally
// administered one (IEEE 802c, clause 8.4). Numbers are given out lowest first,
// so that a program which is started again is likely to have its old address,
// by which its peers learn at once that it is another.
//
// The number is claimed by binding an abstract Unix socket, whose names the
// kernel keeps for each network namespace, and frees when the program ends.
class InterfaceAddress {
 public:
  // RESOURCE_EXHAUSTED when 64 programs use the interface.
  static absl::StatusOr<std::shared_ptr<const InterfaceAddress>> Claim(
      const NetInterface& interface);

  const MacAddress& mac() const { return mac_; }
  // Has the interface pass frames for this address to an AF_PACKET socket.
  absl::Status Subscribe(int fd, const NetInterface& interface) const;

 private:
  InterfaceAddress(UniqueFd claim, const MacAddress& mac)
      : claim_(std::move(claim)), mac_(mac) {}

  const UniqueFd claim_;
  const MacAddress mac_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_INTERFACE_ADDRESS_H_
