// SPDX-License-Identifier: BSD-3-Clause
#include "tests/perf/ring_pair.h"

#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_ring.h>

#include <array>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nic/port/dpdk_port.h"
#include "nic/port/eal.h"

namespace tripwire {
namespace {

struct Rings {
  std::array<rte_ring*, 2> ring{};
  ~Rings() {
    for (rte_ring* one : ring) rte_ring_free(one);
  }
};

absl::StatusOr<std::unique_ptr<Port>> OpenRing(const std::string& name,
                                               rte_ring* receive,
                                               rte_ring* transmit,
                                               uint32_t max_frame_bytes) {
  const int id = rte_eth_from_rings(name.c_str(), &receive, 1, &transmit, 1, 0);
  std::array<char, RTE_ETH_NAME_MAX_LEN> device{};
  if (id < 0 || rte_eth_dev_get_name_by_port(static_cast<uint16_t>(id),
                                             device.data()) != 0) {
    return absl::InternalError(
        absl::StrCat("no ring device: ", Eal::TakeComplaint()));
  }
  DpdkPortOptions options;
  options.name = name;
  options.device = device.data();
  options.max_frame_bytes = max_frame_bytes;
  options.buffer_bytes = max_frame_bytes;
  options.is_vdev = true;
  auto port = DpdkPort::Open(options);
  if (!port.ok()) return port.status();
  return std::unique_ptr<Port>(*std::move(port));
}

}  // namespace

absl::StatusOr<RingPair> OpenRingPair(uint32_t max_frame_bytes) {
  static int next = 0;
  const int number = next++;
  if (auto status = Eal::Start(); !status.ok()) return status;
  auto rings = std::make_shared<Rings>();
  for (size_t i = 0; i < rings->ring.size(); ++i) {
    rings->ring[i] = rte_ring_create(
        absl::StrCat("tw_rate_", number, "_", i).c_str(), RingPair::kFrames + 1,
        SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
    if (rings->ring[i] == nullptr) {
      return absl::ResourceExhaustedError("no memory for a ring");
    }
  }
  auto sender = OpenRing(absl::StrCat("tws", number), rings->ring[0],
                         rings->ring[1], max_frame_bytes);
  if (!sender.ok()) return sender.status();
  auto receiver = OpenRing(absl::StrCat("twr", number), rings->ring[1],
                           rings->ring[0], max_frame_bytes);
  if (!receiver.ok()) return receiver.status();
  return RingPair{std::move(rings), *std::move(sender), *std::move(receiver)};
}

}  // namespace tripwire
