// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_FRAME_POOL_H_
#define TRIPWIRE_NIC_PORT_FRAME_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/port/port.h"

namespace tripwire {

// Long frames begin so far into a cache line: the data of a write follows 52 bytes
// of headers, and so begins the next. Copying between lines that lie alike is half
// again as fast. (Short ones begin with a line: most then fit into it.)
inline constexpr uint32_t kFrameSkewBytes = 12;

// The frame buffers of a port that has no hardware: one mapping, cut into
// equal buffers, last in first out so that the ones in use stay in the cache.
// Memory is only taken by buffers that were used at least once.
//
// Thread safety: none. Misuse (giving back twice, or what is not of this pool)
// aborts, in every build: the alternative is corrupted memory.
class FramePool {
 public:
  static absl::StatusOr<std::unique_ptr<FramePool>> Create(
      size_t count, uint32_t frame_bytes);
  ~FramePool();
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;

  // Fills a prefix of `frames` with empty buffers; returns its length.
  size_t Take(std::span<Frame> frames);
  void Give(std::span<const Frame> frames) {
    for (const Frame& frame : frames) GiveOne(frame);
  }
  void GiveOne(const Frame& frame) {
    const uintptr_t index = reinterpret_cast<uintptr_t>(frame.cookie) - 1;
    if (index >= count_ || !is_out_[index]) AbortMisuse();
    is_out_[index] = false;
    free_.push_back(static_cast<uint32_t>(index));
  }
  size_t available() const { return free_.size(); }
  uint32_t frame_bytes() const { return frame_bytes_; }

 private:
  FramePool(uint8_t* base, size_t count, uint32_t frame_bytes, size_t stride);
  [[noreturn]] static void AbortMisuse();

  uint8_t* const base_;
  const size_t count_;
  const uint32_t frame_bytes_;
  const size_t stride_bytes_;
  std::vector<uint32_t> free_;
  std::vector<uint8_t> is_out_;  // not bool: bits cost more than they save
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_FRAME_POOL_H_
