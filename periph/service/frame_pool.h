// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_FRAME_POOL_H_
#define TRIPWIRE_PERIPH_SERVICE_FRAME_POOL_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "periph/stream/frame.h"

namespace tripwire::periph {

// Gives frames that nobody owns a copy that somebody does. Copies are used again once
// all who shared one have let go of it.
//
// Thread safety: one thread copies; owners may let go on any.
class FramePool {
 public:
  void Own(Frame& frame) {
    if (frame.owner != nullptr || frame.data.empty()) return;
    const std::shared_ptr<Buffer> buffer = Free();
    buffer->assign(frame.data.begin(), frame.data.end());
    frame.data = *buffer;
    frame.owner = buffer;
  }

 private:
  using Buffer = std::vector<uint8_t>;

  std::shared_ptr<Buffer> Free() {
    for (size_t i = 0; i < buffers_.size(); ++i) {
      if (++next_ >= buffers_.size()) next_ = 0;
      // Only this thread makes a lone owner share it, so one is one for good.
      if (buffers_[next_].use_count() > 1) continue;
      // Pairs with the release in the last other owner's decrement.
      std::atomic_thread_fence(std::memory_order_acquire);
      return buffers_[next_];
    }
    if (buffers_.size() < kKept) {
      buffers_.push_back(std::make_shared<Buffer>());
      return buffers_.back();
    }
    return std::make_shared<Buffer>();
  }

  static constexpr size_t kKept = 64;
  std::vector<std::shared_ptr<Buffer>> buffers_;
  size_t next_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_FRAME_POOL_H_
