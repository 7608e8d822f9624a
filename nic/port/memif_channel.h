// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MEMIF_CHANNEL_H_
#define TRIPWIRE_NIC_PORT_MEMIF_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "nic/port/doorbell_ringer.h"
#include "nic/port/frame_pool.h"
#include "nic/port/memif_layout.h"
#include "nic/port/memif_ring.h"
#include "nic/port/port.h"

namespace tripwire {

// How implementations of memif name themselves to each other; those of ours
// start with this.
inline constexpr std::string_view kMemifOurName = "tripwire";

// The shared memory of one memif connection and the traffic over it: one ring
// each way, and a doorbell for each.
//
// The client creates the memory and offers it; the server is given it piece by
// piece by a peer it does not trust, and checks all of it. Afterwards a peer
// that breaks the rules of the rings breaks its own channel and nothing else.
//
// Thread safety: none.
class MemifChannel {
 public:
  // The client's end, with buffers of frame_bytes for each slot.
  static absl::StatusOr<std::unique_ptr<MemifChannel>> Create(
      uint32_t frame_bytes, uint8_t log2_ring_size);
  // The server's end, yet without memory.
  MemifChannel() = default;
  MemifChannel(const MemifChannel&) = delete;
  MemifChannel& operator=(const MemifChannel&) = delete;

  // Server, in this order: regions, one ring each way, then Open.
  absl::Status AddRegion(const MemifAddRegion& message, UniqueFd memory);
  absl::Status AddRing(const MemifAddRing& message, UniqueFd doorbell);
  absl::Status Open(bool peer_is_ours);
  // A second region of a client of ours, in which no ring lies: memory it shows
  // us.
  PeerMemory ShownByPeer() const;

  // Client: what to tell the server, and its end once it has answered.
  MemifAddRegion OfferedRegion() const;
  MemifAddRing OfferedRing(MemifDirection direction) const;
  int memory_fd() const { return memory_.get(); }
  int doorbell_fd(MemifDirection direction) const {
    return direction == MemifDirection::kC2s ? c2s_.doorbell.get()
                                             : s2c_.doorbell.get();
  }
  void OpenOffered(bool peer_is_ours);
  // The peer may stop this process anyway: its doorbell need not be mistrusted.
  void TrustPeer() { trusts_peer_ = true; }

  // REQUIRES, from here on: Open or OpenOffered was called.
  // As in Port; received frames get the given path. Those of one slot are
  // borrowed, counted in `borrowed`, and hold up the ring until GiveBack;
  // others are put together in buffers of the pool.
  size_t Receive(FramePool& pool, PathId path, std::span<Frame> frames,
                 PortCounters& counters, size_t* borrowed);
  // No borrowed frame of this channel is in use any more.
  void GiveBack() { consumer_->Release(); }
  // Copies a prefix of the frames into the ring; returns its length.
  size_t Send(std::span<const Frame> frames, Ring ring, DoorbellRinger& ringer,
              PortCounters& counters);

  // To sleep: Unmask, a full fence, and then HasFrames must be false.
  void Unmask() { consumer_->Unmask(); }
  void Mask() { consumer_->Mask(); }
  bool HasFrames() { return consumer_->HasFrames(); }
  // Readable (edge-triggered) when the peer rang.
  int wake_fd() const { return wake_fd_; }

  // The peer broke the rules: nothing more will pass.
  bool is_broken() const {
    return producer_->is_broken() || consumer_->is_broken() || has_no_bell_;
  }

 private:
  struct RingPlace {
    bool is_known = false;
    uint16_t region = 0;
    uint32_t offset = 0;
    uint8_t log2_size = 0;
    UniqueFd doorbell;
  };

  RingPlace& Place(MemifDirection direction) {
    return direction == MemifDirection::kC2s ? c2s_ : s2c_;
  }
  MemifRingView View(MemifDirection direction);
  bool ReceiveChained(FramePool& pool, PathId path, Frame& frame,
                      PortCounters& counters);
  void RingIfWanted(Ring ring, bool is_short, DoorbellRinger& ringer,
                    PortCounters& counters);

  void Keep(void* base, uint64_t size_bytes);

  std::vector<MemifRegion> regions_;
  std::vector<std::shared_ptr<const void>> mappings_;  // of the regions
  RingPlace c2s_, s2c_;
  UniqueFd memory_;  // client only: the region, to be passed on
  bool owns_buffers_ = false;
  uint32_t frame_bytes_ = 0;
  bool peer_is_ours_ = false;
  bool trusts_peer_ = false;
  std::optional<MemifProducer> producer_;
  std::optional<MemifConsumer> consumer_;
  bool has_no_bell_ = false;  // the peer's cannot be rung
  int ring_fd_ = -1;  // the doorbell we ring
  int wake_fd_ = -1;  // the one the peer rings
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MEMIF_CHANNEL_H_
