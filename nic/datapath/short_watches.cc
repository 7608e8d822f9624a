// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/short_watches.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace tripwire {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

ShortWatches::PagePool::~PagePool() {
  for (void* block : blocks_) std::free(block);
}

ShortWatches::Page* ShortWatches::PagePool::Take() {
  if (free_.empty()) {
    void* block = std::aligned_alloc(
        block_bytes_ < kHugePage ? alignof(Page) : kHugePage, block_bytes_);
    if (block == nullptr) throw std::bad_alloc();
    blocks_.push_back(block);
    if (block_bytes_ == kHugePage) madvise(block, block_bytes_, MADV_HUGEPAGE);
    auto* pages = static_cast<Page*>(block);
    for (size_t i = block_bytes_ / sizeof(Page); i-- > 0;)
      free_.push_back(pages + i);
    block_bytes_ = std::min(2 * block_bytes_, kHugePage);
  }
  Page* page = free_.back();
  free_.pop_back();
  return new (page) Page();
}

void ShortWatches::Insert(uint32_t id, uint64_t offset, uint64_t length) {
  const uint64_t last = (offset + length - 1) >> kGranuleShift;
  if (pages_.size() <= last / kGranules) pages_.resize(last / kGranules + 1);
  for (uint64_t granule = offset >> kGranuleShift; granule <= last; ++granule) {
    const int64_t begin = static_cast<int64_t>(offset) -
                          static_cast<int64_t>(granule << kGranuleShift);
    InsertAt(granule,
             {id, static_cast<int8_t>(begin), static_cast<uint8_t>(length)});
  }
  ++size_;
}

void ShortWatches::InsertAt(uint64_t granule, const Watch& watch) {
  Page*& page = pages_[granule / kGranules];
  if (page == nullptr) page = pool_.Take();
  Watch& slot = page->slots[granule % kGranules];
  page->watched |= uint64_t{1} << (granule % kGranules);
  if (slot.length == 0) {
    slot = watch;
    return;
  }
  if (!slot.IsSeveral()) {
    uint32_t place;
    if (free_several_.empty()) {
      place = static_cast<uint32_t>(several_.size());
      several_.emplace_back();
    } else {
      place = free_several_.back();
      free_several_.pop_back();
    }
    several_[place] = {slot};
    slot = {place, 0, Watch::kSeveral};
  }
  several_[slot.id].push_back(watch);
}

void ShortWatches::Erase(uint32_t id, uint64_t offset, uint64_t length) {
  const uint64_t last = (offset + length - 1) >> kGranuleShift;
  for (uint64_t granule = offset >> kGranuleShift; granule <= last; ++granule) {
    EraseAt(granule, id);
  }
  --size_;
}

void ShortWatches::EraseAt(uint64_t granule, uint32_t id) {
  if (granule / kGranules >= pages_.size()) return;
  Page*& page = pages_[granule / kGranules];
  if (page == nullptr) return;
  Watch& slot = page->slots[granule % kGranules];
  if (slot.IsSeveral()) {
    std::vector<Watch>& all = several_[slot.id];
    std::erase_if(all, [&](const Watch& w) { return w.id == id; });
    if (all.size() != 1) return;
    free_several_.push_back(slot.id);
    const Watch alone = all[0];
    all = {};
    slot = alone;
    return;
  }
  if (slot.length == 0 || slot.id != id) return;
  slot = {};
  page->watched &= ~(uint64_t{1} << (granule % kGranules));
  if (page->watched != 0) return;
  pool_.Give(page);
  page = nullptr;
}

}  // namespace tripwire
