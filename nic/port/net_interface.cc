// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/net_interface.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nic/base/fd.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

namespace tripwire {
namespace {

// The two EtherTypes for local experiments (IEEE 802, clause 9.2.3).
constexpr uint32_t kFirstEtherType = 0x88b5;
constexpr uint32_t kLastEtherType = 0x88b6;

}  // namespace

absl::StatusOr<NetInterface> FindNetInterface(const std::string& name) {
  ifreq request{};
  if (name.size() >= sizeof request.ifr_name) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name, "' is too long for an interface name"));
  }
  std::memcpy(request.ifr_name, name.c_str(), name.size());
  NetInterface interface;
  interface.name = name;
  UniqueFd probe(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!probe || ioctl(probe.get(), SIOCGIFINDEX, &request) != 0) {
    return absl::NotFoundError(absl::StrCat("no network interface '", name,
                                            "' (`ip link` lists them)"));
  }
  interface.index = request.ifr_ifindex;
  if (ioctl(probe.get(), SIOCGIFMTU, &request) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("MTU of ", name));
  }
  interface.mtu = static_cast<uint32_t>(request.ifr_mtu);
  if (ioctl(probe.get(), SIOCGIFHWADDR, &request) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("address of ", name));
  }
  std::memcpy(interface.mac.bytes.data(), request.ifr_hwaddr.sa_data, 6);
  if (ioctl(probe.get(), SIOCGIFFLAGS, &request) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("flags of ", name));
  }
  if ((request.ifr_flags & IFF_UP) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("network interface ", name, " is down (`ip link set ",
                     name, " up` starts it)"));
  }
  UniqueFd raw(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!raw) {
    if (errno != EPERM) return absl::ErrnoToStatus(errno, "raw socket");
    return absl::PermissionDeniedError(absl::StrCat(
        "no permission for raw frames on ", name,
        ": run as root, or give the program CAP_NET_RAW and CAP_NET_ADMIN"));
  }
  return interface;
}

std::set<int> OpenDescriptors() {
  std::set<int> fds;
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return fds;
  while (const dirent* entry = readdir(directory)) {
    int fd;
    if (absl::SimpleAtoi(entry->d_name, &fd) && fd != dirfd(directory)) {
      fds.insert(fd);
    }
  }
  closedir(directory);
  return fds;
}

std::vector<int> NewSockets(const std::set<int>& before, int family,
                            int interface_index) {
  std::vector<int> sockets;
  for (int fd : OpenDescriptors()) {
    int domain = 0;
    socklen_t length = sizeof domain;
    if (before.contains(fd) ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 ||
        domain != family) {
      continue;
    }
    if (family == AF_PACKET) {
      sockaddr_ll address{};
      length = sizeof address;
      if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) !=
              0 ||
          address.sll_ifindex != interface_index) {
        continue;
      }
    }
    sockets.push_back(fd);
  }
  return sockets;
}

bool FilterPacketSocket(int fd, const MacAddress& mac) {
  const auto& m = mac.bytes;
  const uint32_t first = static_cast<uint32_t>(m[0]) << 24 | m[1] << 16 |
                         m[2] << 8 | m[3];
  const uint32_t last = static_cast<uint32_t>(m[4]) << 8 | m[5];
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1, 4, 0),  // a group's
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, first, 0, 6),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, last, 0, 4),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kFirstEtherType, 0, 2),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, kLastEtherType, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  const sock_fprog program{sizeof code / sizeof code[0], code};
  const int on = 1;
  // Best effort: only kernels before 4.20 lack it.
  setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program,
                    sizeof program) == 0;
}

bool KeepWritable(int fd, uint32_t slots, uint32_t slot_bytes) {
  // What the kernel counts for a frame besides its bytes.
  constexpr uint64_t kAroundFrame = 2048;
  const uint64_t bytes = slots * (slot_bytes + kAroundFrame);
  // The kernel doubles it, and calls the socket writable until half is used.
  const int size = static_cast<int>(std::min<uint64_t>(bytes, INT_MAX / 2));
  return setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) == 0;
}

}  // namespace tripwire
