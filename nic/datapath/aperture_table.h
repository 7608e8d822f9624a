// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_APERTURE_TABLE_H_
#define TRIPWIRE_NIC_DATAPATH_APERTURE_TABLE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "nic/datapath/tripwire_table.h"
#include "nic/datapath/types.h"

namespace tripwire {

// One exported range of a context's memory.
struct ApertureEntry {
  uint8_t* base = nullptr;
  uint64_t length_bytes = 0;
  uint32_t generation = 0;  // of the present, or next, export in this slot
  Access rights = Access::kNone;
  bool exported = false;
  std::optional<LinkId> only;  // the one link it is granted to, if restricted
  std::unique_ptr<TripwireIndex> tripwires;  // null until one is set: costs nothing
  uint64_t accesses = 0, bytes = 0;  // by peers, since it was exported

  bool Holds(uint64_t offset, uint64_t length) const {
    return offset <= length_bytes && length <= length_bytes - offset;
  }
};

// The apertures of one context. A handle is an index here; the generation makes
// an old handle recognisable after its slot was used again.
//
// Thread safety: none (the engine's lock).
// Invariant: a lookup succeeds only for the exact (handle, generation) of an
// export not yet revoked, through a link it is granted to, with its rights, and
// with offset <= length and n <= length - offset.
class ApertureTable {
 public:
  ApertureName Export(std::span<uint8_t> memory, Access rights,
                      std::optional<LinkId> only);
  // No-op for a name that is not exported (any more).
  void Revoke(uint32_t handle, uint32_t generation);

  // The gate from the wire to memory. `*entry` is set on kOk only.
  OpStatus Check(LinkId link, uint32_t handle, uint32_t generation,
                 Access access, uint64_t offset, uint64_t length,
                 ApertureEntry** entry);
  // How many are exported now.
  size_t exported() const { return exported_; }
  // For the owner: the live export of this name, or nullptr.
  ApertureEntry* Find(uint32_t handle, uint32_t generation);
  // For statistics: all slots, exported or not.
  size_t slots() const { return entries_.size(); }
  const ApertureEntry& slot(uint32_t handle) const { return entries_[handle]; }

 private:
  std::vector<ApertureEntry> entries_;
  std::vector<uint32_t> free_;
  size_t exported_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_APERTURE_TABLE_H_
