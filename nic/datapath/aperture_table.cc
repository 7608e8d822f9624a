// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/aperture_table.h"

namespace tripwire {

ApertureName ApertureTable::Export(std::span<uint8_t> memory, Access rights,
                                   std::optional<LinkId> only) {
  uint32_t handle;
  if (free_.empty()) {
    handle = static_cast<uint32_t>(entries_.size());
    entries_.emplace_back();
    entries_.back().generation = 1;
  } else {
    handle = free_.back();
    free_.pop_back();
  }
  ApertureEntry& entry = entries_[handle];
  entry.base = memory.data();
  entry.length_bytes = memory.size();
  entry.rights = rights;
  entry.only = only;
  entry.exported = true;
  entry.accesses = entry.bytes = 0;
  ++exported_;
  return {handle, entry.generation, entry.length_bytes, rights};
}

void ApertureTable::Revoke(uint32_t handle, uint32_t generation) {
  ApertureEntry* entry = Find(handle, generation);
  if (entry == nullptr) return;
  entry->exported = false;
  --exported_;
  entry->base = nullptr;
  entry->length_bytes = 0;
  entry->tripwires.reset();
  // A slot whose generations are used up is retired, so that no name ever
  // comes to mean two things.
  if (++entry->generation != 0) free_.push_back(handle);
}

OpStatus ApertureTable::Check(LinkId link, uint32_t handle,
                              uint32_t generation, Access access,
                              uint64_t offset, uint64_t length,
                              ApertureEntry** entry) {
  if (handle >= entries_.size()) return OpStatus::kBadHandle;
  ApertureEntry& found = entries_[handle];
  if (!found.exported || found.generation != generation) {
    return OpStatus::kStaleGeneration;
  }
  if (!Includes(found.rights, access) ||
      (found.only.has_value() && *found.only != link)) {
    return OpStatus::kNoRights;
  }
  if (offset > found.length_bytes || length > found.length_bytes - offset) {
    return OpStatus::kOutOfBounds;
  }
  *entry = &found;
  return OpStatus::kOk;
}

ApertureEntry* ApertureTable::Find(uint32_t handle, uint32_t generation) {
  if (handle >= entries_.size()) return nullptr;
  ApertureEntry& entry = entries_[handle];
  if (!entry.exported || entry.generation != generation) return nullptr;
  return &entry;
}

}  // namespace tripwire
