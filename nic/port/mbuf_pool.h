// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MBUF_POOL_H_
#define TRIPWIRE_NIC_PORT_MBUF_POOL_H_

#include <rte_mempool.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace tripwire {

struct MbufPoolDeleter {
  void operator()(rte_mempool* pool) const { rte_mempool_free(pool); }
};
using MbufPool = std::unique_ptr<rte_mempool, MbufPoolDeleter>;

// A pool of packet buffers for one port. As the calls to a port are serialised,
// so are those to its pool: it is a plain stack, without locks and without
// per-thread caches (in which every thread that ever drove the port would leave
// some hundred buffers). Last in, first out keeps buffers in the cache.
// REQUIRES: DPDK runs.
absl::StatusOr<MbufPool> CreateMbufPool(const std::string& name, uint32_t count,
                                        uint32_t frame_bytes);

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MBUF_POOL_H_
