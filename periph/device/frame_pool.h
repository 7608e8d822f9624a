// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_DEVICE_FRAME_POOL_H_
#define TRIPWIRE_PERIPH_DEVICE_FRAME_POOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "periph/stream/frame.h"

namespace tripwire::periph {

// Memory for frames, used again once all who shared it have let go.
//
// Thread safety: one thread takes; owners may let go on any.
class FramePool {
 public:
  using Buffer = std::vector<uint8_t>;

  // A buffer that only the caller has, of this size, with any content.
  std::shared_ptr<Buffer> New(size_t bytes) {
    const std::shared_ptr<Buffer> buffer = Free();
    buffer->resize(bytes);
    return buffer;
  }
  // Gives a frame that nobody owns a copy that it owns.
  void Own(Frame& frame) {
    if (frame.owner != nullptr || frame.data.empty()) return;
    const std::shared_ptr<Buffer> buffer = Free();
    buffer->assign(frame.data.begin(), frame.data.end());
    frame.data = *buffer;
    frame.owner = buffer;
  }

 private:
  struct Slot {
    Buffer bytes;
    std::atomic<bool> is_free{false};
  };

  std::shared_ptr<Buffer> Free() {
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (++next_ >= slots_.size()) next_ = 0;
      // Pairs with the store in Lend: the last owner has done with the bytes.
      if (slots_[next_]->is_free.load(std::memory_order_acquire)) return Lend(slots_[next_]);
    }
    if (slots_.size() == kKept) return std::make_shared<Buffer>();
    slots_.push_back(std::make_shared<Slot>());
    return Lend(slots_.back());
  }
  static std::shared_ptr<Buffer> Lend(const std::shared_ptr<Slot>& slot) {
    slot->is_free.store(false, std::memory_order_relaxed);
    return {&slot->bytes,
            [slot](Buffer*) { slot->is_free.store(true, std::memory_order_release); }};
  }

  static constexpr size_t kKept = 64;
  std::vector<std::shared_ptr<Slot>> slots_;
  size_t next_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_DEVICE_FRAME_POOL_H_
