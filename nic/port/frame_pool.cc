// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/frame_pool.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tripwire {
namespace {

constexpr size_t kCacheLine = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<FramePool>> FramePool::Create(
    size_t count, uint32_t frame_bytes) {
  // Two lines more than a power of two would be: were all headers a multiple
  // of 4096 apart, they would fight for one set of the first-level cache.
  const size_t stride =
      (kFrameSkewBytes + frame_bytes + kCacheLine - 1) / kCacheLine *
          kCacheLine +
      2 * kCacheLine;
  void* base = mmap(nullptr, count * stride, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot map ", count, " frame buffers of ",
                            frame_bytes, " bytes"));
  }
  return std::unique_ptr<FramePool>(
      new FramePool(static_cast<uint8_t*>(base), count, frame_bytes, stride));
}

FramePool::FramePool(uint8_t* base, size_t count, uint32_t frame_bytes,
                     size_t stride)
    : base_(base),
      count_(count),
      frame_bytes_(frame_bytes),
      stride_bytes_(stride),
      is_out_(count) {
  free_.reserve(count);
  for (size_t i = count; i > 0; --i) {
    free_.push_back(static_cast<uint32_t>(i - 1));
  }
}

FramePool::~FramePool() { munmap(base_, count_ * stride_bytes_); }

size_t FramePool::Take(std::span<Frame> frames) {
  size_t taken = 0;
  while (taken < frames.size() && !free_.empty()) {
    const uint32_t index = free_.back();
    free_.pop_back();
    is_out_[index] = true;
    Frame& frame = frames[taken++];
    frame.data = base_ + index * stride_bytes_ + kFrameSkewBytes;
    frame.length_bytes = 0;
    frame.capacity_bytes = frame_bytes_;
    frame.path = 0;
    frame.is_borrowed = false;
    frame.cookie = reinterpret_cast<void*>(uintptr_t{index} + 1);
    frame.tail = nullptr;
    frame.tail_bytes = 0;
  }
  return taken;
}

void FramePool::AbortMisuse() {
  std::fprintf(stderr, "frame given back twice, or to a port it is not of\n");
  std::abort();
}

}  // namespace tripwire
