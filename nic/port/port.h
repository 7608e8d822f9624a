// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_PORT_H_
#define TRIPWIRE_NIC_PORT_PORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "nic/base/mac_address.h"

struct epoll_event;

namespace tripwire {

// Names the way out of a port towards one neighbour. A port with one wire has
// one path; a memif listener has one for each client that joined. Learned from
// received frames (Frame::path) and kept by whoever wants to answer.
using PathId = uint32_t;
inline constexpr PathId kAllPaths = UINT32_MAX;  // broadcast: every path

// One Ethernet frame in a buffer that its port owns. `data` points at the
// destination MAC; there is no FCS. `cookie` belongs to the port.
struct Frame {
  uint8_t* data = nullptr;
  uint32_t length_bytes = 0;    // bytes of frame, from the destination MAC on
  uint32_t capacity_bytes = 0;  // bytes that fit at `data`
  PathId path = 0;              // where a received frame came from
  void* cookie = nullptr;
  // Received frames only. The frame still lies in memory shared with its
  // sender, who may change it at any time and who needs the place back: read
  // each byte that decides anything once, copy what must wait, and release it
  // soon.
  bool is_borrowed = false;
  // For Transmit, on ports that gather: the rest of the frame, which lies
  // somewhere else and is copied before Transmit returns.
  const uint8_t* tail = nullptr;
  uint32_t tail_bytes = 0;

  uint32_t total_bytes() const { return length_bytes + tail_bytes; }
};

struct PortInfo {
  std::string name;  // as the user wrote it, for messages
  MacAddress mac;
  uint32_t max_frame_bytes = 1514;  // largest frame, Ethernet header included
  // The medium neither corrupts nor loses silently (shared memory), so frames
  // need no payload checksum.
  bool is_reliable = false;
  bool gathers = false;  // Transmit takes frames with a tail
};

struct PortCounters {
  uint64_t rx_frames = 0, rx_bytes = 0;
  uint64_t tx_frames = 0, tx_bytes = 0;
  uint64_t tx_dropped = 0;      // no such path, or the path went away
  uint64_t rx_no_buffer = 0;    // the pool was empty
  uint64_t doorbells_rung = 0;  // system calls made to wake a sleeping peer
  uint64_t wakeups = 0;         // times our own doorbell was heard
  uint64_t captured = 0;  // frames written to a capture file, or about to be
  uint64_t capture_dropped = 0;  // frames a capture should have and has not
  // Times that Service found the port on its network again after it was off it:
  // whoever is there now may be another than before.
  uint64_t rejoins = 0;
};

enum class Ring { kDoorbell, kQuietly };

// What events of a port's epoll descriptor were about.
enum class Heard { kNothing, kFrames, kSlowWork };

// Memory of a neighbour's, to be read where it lies. Its owner may change it at
// any time; it stays mapped, at this place, for as long as `mapping` is held.
struct PeerMemory {
  std::span<const uint8_t> bytes;
  std::shared_ptr<const void> mapping;
};

// A way on and off the network: bursts of raw Ethernet frames.
//
// Thread safety: none; the owner of the port serialises all calls, except that
// wake_fd() may be polled by any thread at any time.
//
// Invariants:
//  1. Every frame handed out by Receive or Allocate is given back exactly once,
//     to Transmit (for the prefix it accepted) or to Release.
//  2. Frames handed out stay valid and unmoved until given back; `Receive`
//     never reuses them. A receiver may hold early ones, except those that are
//     borrowed: while it does, their sender's ring does not empty.
//  3. No call blocks.
class Port {
 public:
  virtual ~Port() = default;

  virtual const PortInfo& info() const = 0;

  // Fills a prefix of `frames` with received frames; returns its length.
  virtual size_t Receive(std::span<Frame> frames) = 0;

  // Fills a prefix of `frames` with empty buffers of at least
  // info().max_frame_bytes; returns its length, less than asked for (even 0)
  // when buffers are short.
  virtual size_t Allocate(std::span<Frame> frames) = 0;

  // Queues `frames` on `path`, in order; returns how many were accepted, always
  // a prefix. The rest stays the caller's: the path is full just now. Frames
  // for a path that no longer exists are accepted and dropped (counted). With
  // kAllPaths each path gets a copy where it has room. With Ring::kQuietly a
  // sleeping peer is not woken for these frames: it finds them when it next
  // looks (acknowledgements, which are worth nobody's sleep).
  virtual size_t Transmit(PathId path, std::span<const Frame> frames,
                          Ring ring = Ring::kDoorbell) = 0;

  // Gives buffers back unsent / after use.
  virtual void Release(std::span<const Frame> frames) = 0;

  // --- Sleeping -------------------------------------------------------------
  // To sleep: ArmWakeup(); if it returns true, block until wake_fd() is
  // readable or a timer is due; then DisarmWakeup(). While armed, an arriving
  // frame makes wake_fd() readable; while not armed it need not (peers do not
  // pay for a doorbell nobody needs). ArmWakeup returns false, unarmed, when
  // frames are already waiting.
  virtual bool ArmWakeup() = 0;
  virtual void DisarmWakeup() = 0;
  // One descriptor for poll/epoll, valid for the life of the port, readable
  // also when Service has something to do; -1 when the port can only be polled.
  virtual int wake_fd() const = 0;
  // One call in place of two, for an owner that sleeps on this port alone,
  // where wake_fd() is an epoll descriptor: Adopt adds a descriptor of the
  // owner's to it, for the life of the port (false: it is none). The owner may
  // then sleep in epoll_wait on wake_fd() itself, and tells what that told it,
  // when it is its turn again. After kSlowWork, Service has something to do,
  // and wake_fd() stays readable until it has done it.
  virtual bool Adopt(int) { return false; }
  virtual Heard Hear(std::span<const epoll_event>) { return Heard::kSlowWork; }

  // Slow work: joins and departures of memif clients, reconnection. Cheap when
  // there is nothing to do; to be called when wake_fd() was readable and every
  // few milliseconds while busy. Returns the time in ns on the caller's clock
  // at which it wants to be called at the latest (kNever if it does not mind).
  virtual uint64_t Service(uint64_t now_ns) = 0;

  virtual PortCounters counters() const = 0;

  // --- Memory in common -----------------------------------------------------
  // Memory of this process that neighbours can read where it lies, on ports that
  // have such: fixed for the life of the port, zero at first, and taken from the
  // system only where it is touched. Empty on others.
  virtual std::span<uint8_t> ShownMemory() { return {}; }
  // The same of the neighbour at the end of a path.
  virtual PeerMemory ShownBy(PathId) { return {}; }
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_PORT_H_
