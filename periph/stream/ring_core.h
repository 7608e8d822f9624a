// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_STREAM_RING_CORE_H_
#define TRIPWIRE_PERIPH_STREAM_RING_CORE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "nic/api/context.h"
#include "nic/comm/mapping.h"
#include "periph/stream/frame_ring.h"
#include "periph/stream/tail.h"

namespace tripwire::periph {

// What a ring and the views of its frames share: the slots, and which of them
// the consumer holds. The last of them frees the memory.
//
// Thread safety: all methods; the lock comes before the NIC's.
// Invariants: reported <= released <= taken <= released + slots.
class RingCore {
 public:
  RingCore(Context& context, LinkId link, const FrameRing::Options& options);

  std::span<uint8_t> memory() const { return memory_.span(); }
  // Of the frame with this sequence number.
  std::span<const uint8_t> Slot(uint64_t sequence) const;
  uint64_t payload_bytes() const { return payload_bytes_; }

  void SetCredit(const ApertureName& credit);
  // A view of the frame with this number, the next, in its slot. None if an
  // older view of that slot is not yet given back: the feeder did not own it.
  static std::optional<FrameView> Hand(const std::shared_ptr<RingCore>& core,
                                       uint64_t sequence, const Frame& frame,
                                       uint64_t arrival_ns);
  void GiveBack(uint64_t sequence);
  // The taker has nothing to take: what it has given back may as well be said,
  // now and whenever more is given back, until a frame is handed out.
  void Idle();
  // The feeder wrote into a slot it did not own.
  bool overwritten() const;
  uint64_t reports() const;
  // No more reports: the context is about to go.
  void Close();

 private:
  void ReportIfDue();  // REQUIRES: mutex_
  void Report();

  const Mapping memory_;
  const uint64_t slots_, payload_bytes_, stride_bytes_;

  mutable std::mutex mutex_;
  Context* context_;  // null once closed
  const LinkId link_;
  std::optional<RemoteAperture> credit_;
  std::vector<uint8_t> given_back_;  // by slot: ahead of its turn
  uint64_t taken_ = 0, released_ = 0, reported_ = 0, reports_ = 0;
  bool idle_ = false;
  bool overwritten_ = false;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_STREAM_RING_CORE_H_
