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
      (frame_bytes + kCacheLine - 1) / kCacheLine * kCacheLine + 2 * kCacheLine;
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
    frame.data = base_ + index * stride_bytes_;
    frame.length_bytes = 0;
    frame.capacity_bytes = frame_bytes_;
    frame.path = 0;
    frame.cookie = frame.data;
  }
  return taken;
}

uint32_t FramePool::IndexOf(const Frame& frame) const {
  const auto* start = static_cast<const uint8_t*>(frame.cookie);
  const size_t offset = static_cast<size_t>(start - base_);
  const size_t index = offset / stride_bytes_;
  if (index >= count_ || index * stride_bytes_ != offset || !is_out_[index]) {
    std::fprintf(stderr, "frame given back twice, or to a port it is not of\n");
    std::abort();
  }
  return static_cast<uint32_t>(index);
}

void FramePool::Give(std::span<const Frame> frames) {
  for (const Frame& frame : frames) {
    const uint32_t index = IndexOf(frame);
    is_out_[index] = false;
    free_.push_back(index);
  }
}

}  // namespace tripwire
