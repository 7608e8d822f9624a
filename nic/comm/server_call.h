// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_SERVER_CALL_H_
#define TRIPWIRE_NIC_COMM_SERVER_CALL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "nic/comm/rpc.h"
#include "nic/comm/rpc_layout.h"
#include "nic/comm/server_session.h"

namespace tripwire::rpc {

// Blocks of one size for ServedCalls, kept for the next one, so that serving a
// call allocates nothing in steady state. Thread-safe.
class CallMemory {
 public:
  ~CallMemory() {
    for (void* block : free_) ::operator delete(block);
  }
  void* Take(size_t bytes) {
    std::lock_guard lock(mutex_);
    if (block_bytes_ == 0) block_bytes_ = bytes;
    if (bytes != block_bytes_ || free_.empty()) return ::operator new(bytes);
    void* block = free_.back();
    free_.pop_back();
    return block;
  }
  void Give(void* block, size_t bytes) {
    std::lock_guard lock(mutex_);
    if (bytes != block_bytes_) {
      ::operator delete(block);
      return;
    }
    free_.push_back(block);
  }

 private:
  std::mutex mutex_;
  size_t block_bytes_ = 0;
  std::vector<void*> free_;
};

template <typename T>
struct CallAllocator {
  using value_type = T;
  explicit CallAllocator(std::shared_ptr<CallMemory> m)
      : memory(std::move(m)) {}
  template <typename U>
  CallAllocator(const CallAllocator<U>& other)  // NOLINT: as allocators do
      : memory(other.memory) {}
  T* allocate(size_t n) { return static_cast<T*>(memory->Take(n * sizeof(T))); }
  void deallocate(T* p, size_t n) {
    // The allocator may be the last owner of its own memory pool.
    std::shared_ptr<CallMemory> keep = memory;
    keep->Give(p, n * sizeof(T));
  }
  template <typename U>
  bool operator==(const CallAllocator<U>& other) const {
    return memory == other.memory;
  }
  std::shared_ptr<CallMemory> memory;
};

// One call being served, from its arrival until its user lets go of it.
class ServedCall final : public CallImpl {
 public:
  ServedCall(std::shared_ptr<Session> session, uint32_t slot, uint64_t sequence,
             std::vector<uint8_t> message, std::span<const uint8_t> bulk,
             std::shared_ptr<const void> bulk_keeper, size_t bulk_capacity);
  ~ServedCall() override;  // answers ABORTED if nobody did

  Bytes request() const override { return message_; }
  std::span<const uint8_t> bulk_request() const override { return bulk_; }
  size_t bulk_reply_capacity() const override { return bulk_capacity_; }
  BulkBuffer AllocateBulk(size_t bytes) override;
  const std::shared_ptr<ServerSession>& session() const override {
    return session_;
  }
  uint32_t slot() const override { return slot_; }
  uint64_t sequence() const override { return sequence_; }
  bool cancelled() const override {
    // Pairs with the release in Cancel.
    return cancelled_.load(std::memory_order_acquire);
  }
  void OnCancel(std::function<void()> f) override;
  void Reply(Bytes message, BulkBuffer bulk, size_t bulk_bytes,
             bool cache) override;

  // Gives back what is to run, outside any lock.
  std::function<void()> Cancel();

 private:
  friend class ServerCore;
  Session& impl_session() const {
    return static_cast<Session&>(*session_);
  }

  const std::shared_ptr<ServerSession> session_;
  const uint32_t slot_;
  const uint64_t sequence_;
  std::vector<uint8_t> message_;
  const std::span<const uint8_t> bulk_;
  // Of memory that the client shows.
  const std::shared_ptr<const void> bulk_keeper_;
  const size_t bulk_capacity_;
  bool answered_ = false;  // guarded by the gate's mutex
  bool taken_ = false;     // to be run, and not answered; likewise
  std::mutex cancel_mutex_;
  std::atomic<bool> cancelled_{false};
  std::function<void()> on_cancel_;  // guarded by cancel_mutex_
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_NIC_COMM_SERVER_CALL_H_
