// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_BULK_POOL_H_
#define TRIPWIRE_NIC_COMM_BULK_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "nic/comm/mapping.h"
#include "nic/comm/rpc.h"

namespace tripwire::rpc {

// Buffers of one size, carved from chunks of memory that are exported whole, so
// that taking and returning one allocates nothing. Grows by a chunk when empty;
// never shrinks. The buffer returned last is taken first, while it is warm.
//
// Thread-safe. Buffers may outlive the pool's owner: the memory goes when the
// owner and the last buffer are gone.
class BulkPool {
 public:
  struct Place {
    uint32_t chunk = 0;
    uint64_t offset = 0;
  };

  // `buffer_bytes` is rounded up to whole pages.
  BulkPool(size_t buffer_bytes, size_t buffers_per_chunk);
  ~BulkPool();
  BulkPool(const BulkPool&) = delete;

  BulkBuffer Take();
  // Where a buffer of this pool lies.
  Place Find(const BulkBuffer& buffer) const;
  size_t buffer_bytes() const { return buffer_bytes_; }

  // The chunks so far, in order; only grows.
  size_t chunks() const;
  std::span<uint8_t> chunk(size_t i) const;

 private:
  struct State;
  struct Node;
  static void Return(Node* node);

  size_t buffer_bytes_;
  State* state_;  // counted: one for the pool, one for each buffer out
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_NIC_COMM_BULK_POOL_H_
