// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_COPY_POOL_H_
#define TRIPWIRE_NIC_DATAPATH_COPY_POOL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tripwire {

// Blocks for data that is copied on its way out (small writes, messages):
// recycled, so that steady traffic allocates nothing.
//
// Thread safety: none (the engine's lock).
class CopyPool {
 public:
  struct Block {
    uint8_t* data = nullptr;
    size_t capacity = 0;
  };
  CopyPool() = default;
  CopyPool(const CopyPool&) = delete;
  ~CopyPool();

  Block Take(size_t bytes);
  void Give(Block block);

 private:
  static constexpr std::array<size_t, 3> kClasses = {256, 2048, 16384};
  static constexpr size_t kKept = 1024;  // blocks kept for each class
  std::array<std::vector<uint8_t*>, kClasses.size()> free_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_COPY_POOL_H_
