// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/interface_address.h"

#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tripwire {
namespace {

constexpr uint8_t kPrograms = 64;  // what six bits of the first octet can tell

MacAddress AddressOf(const NetInterface& interface, uint8_t number) {
  MacAddress mac = interface.mac;
  // Bit 0 is that of groups, bit 1 says locally administered.
  if (number > 0) mac.bytes[0] = static_cast<uint8_t>(number << 2 | 2);
  return mac;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const InterfaceAddress>> InterfaceAddress::Claim(
    const NetInterface& interface) {
  UniqueFd claim(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!claim) return absl::ErrnoToStatus(errno, "claiming an address");
  for (uint8_t number = 0; number < kPrograms; ++number) {
    const MacAddress mac = AddressOf(interface, number);
    if (number > 0 && mac == interface.mac) continue;
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    // An abstract name begins with a zero octet.
    const std::string text =
        absl::StrCat("tripwire-eth-", interface.index, "-", number);
    std::memcpy(name.sun_path + 1, text.data(), text.size());
    const auto length = static_cast<socklen_t>(
        offsetof(sockaddr_un, sun_path) + 1 + text.size());
    if (bind(claim.get(), reinterpret_cast<sockaddr*>(&name), length) == 0) {
      return std::shared_ptr<const InterfaceAddress>(
          new InterfaceAddress(std::move(claim), mac));
    }
    if (errno != EADDRINUSE) {
      return absl::ErrnoToStatus(errno, "claiming an address");
    }
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("network interface ", interface.name, " is in use by ",
                   kPrograms, " programs already"));
}

absl::Status InterfaceAddress::Subscribe(int fd,
                                         const NetInterface& interface) const {
  if (mac_ == interface.mac) return absl::OkStatus();
  packet_mreq request{};
  request.mr_ifindex = interface.index;
  request.mr_type = PACKET_MR_UNICAST;
  request.mr_alen = static_cast<uint16_t>(mac_.bytes.size());
  std::memcpy(request.mr_address, mac_.bytes.data(), mac_.bytes.size());
  if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request,
                 sizeof request) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("a second address on ", interface.name,
                            ", which another program uses"));
  }
  return absl::OkStatus();
}

}  // namespace tripwire
