// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/mbuf_pool.h"

#include <rte_errno.h>
#include <rte_mbuf.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tripwire {
namespace {

constexpr char kOpsName[] = "tripwire_stack";
constexpr char kFallbackOpsName[] = "stack";  // DPDK's, with a lock

struct Stack {
  std::vector<void*> objects;
};

Stack* StackOf(const rte_mempool* pool) {
  return static_cast<Stack*>(pool->pool_data);
}

int AllocStack(rte_mempool* pool) {
  auto* stack = new (std::nothrow) Stack;
  if (stack == nullptr) return -ENOMEM;
  stack->objects.reserve(pool->size);
  pool->pool_data = stack;
  return 0;
}

void FreeStack(rte_mempool* pool) { delete StackOf(pool); }

int Push(rte_mempool* pool, void* const* objects, unsigned count) {
  std::vector<void*>& stack = StackOf(pool)->objects;
  stack.insert(stack.end(), objects, objects + count);
  return 0;
}

int Pop(rte_mempool* pool, void** objects, unsigned count) {
  std::vector<void*>& stack = StackOf(pool)->objects;
  if (stack.size() < count) return -ENOBUFS;
  std::memcpy(objects, stack.data() + stack.size() - count,
              count * sizeof(void*));
  stack.resize(stack.size() - count);
  return 0;
}

unsigned Count(const rte_mempool* pool) {
  return static_cast<unsigned>(StackOf(pool)->objects.size());
}

const char* RegisterOps() {
  rte_mempool_ops ops{};
  std::strcpy(ops.name, kOpsName);
  ops.alloc = AllocStack;
  ops.free = FreeStack;
  ops.enqueue = Push;
  ops.dequeue = Pop;
  ops.get_count = Count;
  // The table has room for few; drivers may have filled it.
  return rte_mempool_register_ops(&ops) >= 0 ? kOpsName : kFallbackOpsName;
}

}  // namespace

absl::StatusOr<MbufPool> CreateMbufPool(const std::string& name, uint32_t count,
                                        uint32_t frame_bytes) {
  static const char* const ops_name = RegisterOps();
  const uint32_t room = RTE_PKTMBUF_HEADROOM + frame_bytes;
  if (room > UINT16_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("frames of ", frame_bytes, " bytes are too long"));
  }
  rte_mempool* pool = rte_pktmbuf_pool_create_by_ops(
      name.c_str(), count, 0, 0, static_cast<uint16_t>(room), SOCKET_ID_ANY,
      ops_name);
  if (pool == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", count, " buffers of ", room,
                     " bytes: ", rte_strerror(rte_errno)));
  }
  return MbufPool(pool);
}

}  // namespace tripwire
