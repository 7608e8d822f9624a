// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/copy_pool.h"

namespace tripwire {

CopyPool::~CopyPool() {
  for (auto& blocks : free_) {
    for (uint8_t* block : blocks) delete[] block;
  }
}

CopyPool::Block CopyPool::Take(size_t bytes) {
  for (size_t i = 0; i < kClasses.size(); ++i) {
    if (bytes > kClasses[i]) continue;
    if (free_[i].empty()) return {new uint8_t[kClasses[i]], kClasses[i]};
    uint8_t* data = free_[i].back();
    free_[i].pop_back();
    return {data, kClasses[i]};
  }
  return {new uint8_t[bytes], bytes};
}

void CopyPool::Give(Block block) {
  if (block.data == nullptr) return;
  for (size_t i = 0; i < kClasses.size(); ++i) {
    if (block.capacity == kClasses[i] && free_[i].size() < kKept) {
      free_[i].push_back(block.data);
      return;
    }
  }
  delete[] block.data;
}

}  // namespace tripwire
