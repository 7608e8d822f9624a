// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_SHORT_WATCHES_H_
#define TRIPWIRE_NIC_DATAPATH_SHORT_WATCHES_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tripwire {

// Which watches of at most 64 bytes lie where in one aperture: nearly all
// there are, for words are what programs wait on.
//
// Memory is cut into granules of 64 bytes, and into pages of 64 granules. A
// page in which something is watched has a bit and a slot for each granule; the
// slot is the watch, or says where several are. So an access that meets one
// watch costs one cache line here, one that meets none costs at most that, and
// however many there are elsewhere makes no difference but to what the caches
// hold.
//
// Thread safety: none (the engine's lock).
// Invariant: Visit calls back for exactly the ids whose range overlaps the
// access, each once. A watch lies in one granule or in two that are neighbours.
class ShortWatches {
 public:
  static constexpr uint64_t kMaxLength = 64;

  // REQUIRES: 0 < length <= kMaxLength, and offset + length does not wrap.
  void Insert(uint32_t id, uint64_t offset, uint64_t length);
  void Erase(uint32_t id, uint64_t offset, uint64_t length);
  bool empty() const { return size_ == 0; }

  // Calls found(id). REQUIRES: offset < end.
  template <typename Found>
  void Visit(uint64_t offset, uint64_t end, Found&& found) const;

  static constexpr int kGranuleShift = 6;
  struct Watch {
    static constexpr uint8_t kSeveral = 255;
    uint32_t id = 0;     // with kSeveral: which of several_
    int8_t begin = 0;    // from where its granule begins: -63 to 63
    uint8_t length = 0;  // 1 to 64; 0: no watch here; kSeveral
    bool Overlaps(int64_t first, int64_t last) const {
      return length != 0 && begin <= last && first < begin + length;
    }
    bool IsSeveral() const { return length == kSeveral; }
  };
  static_assert(sizeof(Watch) == 8);

  // The slot of the granule in which `offset` lies, or null if nobody watches
  // on its page. It stays there until the next Insert or Erase. An access
  // within one granule that finds no watch there, or one alone, need not Visit.
  const Watch* SlotAt(uint64_t offset) const {
    const uint64_t page = offset >> kPageShift;
    if (page >= pages_.size() || pages_[page] == nullptr) return nullptr;
    return &pages_[page]->slots[(offset >> kGranuleShift) % kGranules];
  }

 private:
  static constexpr int kPageShift = 12;
  static constexpr uint64_t kGranules = uint64_t{1}
                                        << (kPageShift - kGranuleShift);
  struct alignas(64) Page {
    Watch slots[kGranules];
    uint64_t watched = 0;  // a bit for each slot in use
  };
  // Memory of pages, in blocks that double up to a huge page's size: few pages
  // take little, and many do not each have a place of their own to be found.
  class PagePool {
   public:
    PagePool() = default;
    ~PagePool();
    PagePool(const PagePool&) = delete;
    Page* Take();  // empty
    void Give(Page* page) { free_.push_back(page); }

   private:
    std::vector<void*> blocks_;
    std::vector<Page*> free_;
    size_t block_bytes_ = sizeof(Page);
  };

  template <typename Found>
  void VisitGranule(const Page& page, uint64_t granule, uint64_t first,
                    uint64_t offset, uint64_t end, Found&& found) const;
  void InsertAt(uint64_t granule, const Watch& watch);
  void EraseAt(uint64_t granule, uint32_t id);

  uint64_t size_ = 0;
  PagePool pool_;
  std::vector<Page*>
      pages_;  // null where nothing is watched; up to the last that is
  std::vector<std::vector<Watch>> several_;
  std::vector<uint32_t> free_several_;
};

template <typename Found>
void ShortWatches::VisitGranule(const Page& page, uint64_t granule,
                                uint64_t first, uint64_t offset, uint64_t end,
                                Found&& found) const {
  const uint64_t base = granule << kGranuleShift;
  // The access, as seen from here, as far as it can matter.
  const int64_t from =
      offset > base
          ? static_cast<int64_t>(offset - base)
          : -static_cast<int64_t>(std::min<uint64_t>(base - offset, 64));
  const auto to = static_cast<int64_t>(std::min<uint64_t>(end - 1 - base, 127));
  const auto look = [&](const Watch& watch) {
    if (!watch.Overlaps(from, to)) return;
    // One in two granules is met in the first that the access covers.
    if (granule != first && watch.begin < 0) return;
    found(watch.id);
  };
  const Watch& slot = page.slots[granule % kGranules];
  if (!slot.IsSeveral()) return look(slot);
  for (const Watch& watch : several_[slot.id]) look(watch);
}

template <typename Found>
void ShortWatches::Visit(uint64_t offset, uint64_t end, Found&& found) const {
  const uint64_t first = offset >> kGranuleShift;
  const uint64_t last = (end - 1) >> kGranuleShift;
  if (first == last) {  // a word: its slot says all
    const uint64_t number = first / kGranules;
    if (number >= pages_.size() || pages_[number] == nullptr) return;
    return VisitGranule(*pages_[number], first, first, offset, end, found);
  }
  const uint64_t pages =
      std::min<uint64_t>(last / kGranules + 1, pages_.size());
  for (uint64_t number = first / kGranules; number < pages; ++number) {
    const Page* page = pages_[number];
    if (page == nullptr) continue;
    uint64_t bits = page->watched;
    if (number == first / kGranules)
      bits &= ~uint64_t{0} << (first % kGranules);
    if (number == last / kGranules) {
      bits &= ~uint64_t{0} >> (kGranules - 1 - last % kGranules);
    }
    for (; bits != 0; bits &= bits - 1) {
      VisitGranule(*page, number * kGranules + std::countr_zero(bits), first,
                   offset, end, found);
    }
  }
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_SHORT_WATCHES_H_
