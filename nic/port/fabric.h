// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_FABRIC_H_
#define TRIPWIRE_NIC_PORT_FABRIC_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "nic/base/clock.h"
#include "nic/base/mac_address.h"
#include "nic/port/port.h"

namespace tripwire {

struct FabricOptions {
  uint64_t propagation_ns = 1 * kMicrosecond;  // from any port to any other
  // Speed of each port's wire, each way; 0 is infinitely fast.
  uint64_t bandwidth_bits_per_s = 0;
  size_t rx_queue_frames = 1024;  // arrived, not yet received; more are dropped
  size_t tx_queue_frames = 1024;  // waiting for a wire of finite bandwidth
  // What the switch holds for a port whose wire is busy; a frame that finds more
  // waiting is dropped. 0: any number.
  uint64_t switch_queue_bytes = 0;
  size_t buffers_per_port = 8192;  // frames a port may have handed out at once
  bool is_reliable = false;        // what PortInfo says; changes nothing else
};

struct FabricCounters {
  uint64_t delivered = 0;    // frames put into a receive queue
  uint64_t no_such_mac = 0;  // unicast to a MAC nobody has (or has any more)
  uint64_t queue_full = 0;   // the receiver's queue had no room
  uint64_t switch_full = 0;  // the switch's had none: congestion
  uint64_t too_long = 0;     // longer than the receiver can take
  uint64_t cut = 0;          // a link was cut
  uint64_t filtered = 0;     // the filter said no
};

// An Ethernet segment in memory: a perfect switch with one wire to each port.
// Frames go to the port that has their destination MAC; group addresses go to
// every other port. Nothing happens by itself: a frame is received by whoever
// asks for it at or after the moment it arrives on the injected clock, so a run
// is a function of its calls alone.
//
// Thread safety: none; one thread uses the fabric and all of its ports.
//
// Invariants:
//  1. Between two ports, frames arrive in the order sent.
//  2. A frame is never received before its arrival time.
//  3. Destroying a port (a crash) loses what was on its way to it and what it
//     had not received; what it had sent still arrives.
// Misuse of frames (double release, foreign buffers) aborts, in every build.
class Fabric {
 public:
  explicit Fabric(Clock& clock, FabricOptions options = {});
  ~Fabric();  // REQUIRES: all ports were destroyed
  Fabric(const Fabric&) = delete;
  Fabric& operator=(const Fabric&) = delete;

  // A new port. Its MAC follows from its name: a name that comes back after its
  // port was destroyed has the MAC it had, as a rebooted machine does.
  // REQUIRES: no live port has this name; max_frame_bytes >= 64.
  std::unique_ptr<Port> AddPort(std::string_view name,
                                uint32_t max_frame_bytes = 1514);

  // When the next frame arrives that has not arrived yet; kNever when none is
  // on its way. May name a moment at which, after a cut or crash, nothing
  // comes.
  uint64_t NextEventNs();

  // Cuts or restores the wire of the port with this MAC. A cut loses all that
  // is on its way to the port; what it already received stays. The port's owner
  // learns of the restoration (PortCounters::rejoins) when it next looks.
  void SetLinkUp(const MacAddress& mac, bool is_up);
  // Stops or restores frames from one MAC to another, in that direction only.
  void SetBlocked(const MacAddress& from, const MacAddress& to, bool blocked);
  // Sees every frame as it is sent, before routing; false loses the frame.
  using Filter =
      std::function<bool(const MacAddress& from, std::span<const uint8_t>)>;
  void SetFilter(Filter filter) { filter_ = std::move(filter); }
  // Hears of every frame that will arrive, to whom and when: for those who run too
  // many ports to look at each for every event.
  using ArrivalHook = std::function<void(const MacAddress& to, uint64_t at_ns)>;
  void SetArrivalHook(ArrivalHook hook) { arrival_hook_ = std::move(hook); }

  // Affect frames sent from now on.
  void SetPropagationNs(uint64_t ns) { options_.propagation_ns = ns; }
  void SetBandwidth(uint64_t bits_per_s) {
    options_.bandwidth_bits_per_s = bits_per_s;
  }

  // Frames the port handed out and has not been given back.
  size_t FramesHeld(const MacAddress& mac) const;
  const FabricCounters& counters() const { return counters_; }

 private:
  class MemoryPort;
  struct Buffer;
  struct Arrival {
    uint64_t at_ns;
    uint64_t order;  // breaks ties, so that runs repeat
    Buffer* buffer;
    uint32_t length_bytes;
    bool operator>(const Arrival& other) const {
      return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
    }
  };
  template <typename T>
  using MinHeap = std::priority_queue<T, std::vector<T>, std::greater<T>>;

  MacAddress MacOf(std::string_view name);
  Buffer* TakeBuffer(uint32_t capacity_bytes);
  void GiveBuffer(Buffer* buffer);
  void Send(MemoryPort& from, Buffer* buffer, uint32_t length_bytes);
  // Takes the buffer over.
  void Deliver(MemoryPort& from, MemoryPort& to, uint64_t departs_ns,
               Buffer* buffer, uint32_t length_bytes);
  uint64_t WireTimeNs(uint32_t length_bytes) const;

  Clock& clock_;
  FabricOptions options_;
  FabricCounters counters_;
  Filter filter_;
  ArrivalHook arrival_hook_;
  uint64_t next_order_ = 0;
  absl::flat_hash_map<std::string, MacAddress> mac_of_name_;
  // Ordered containers where iteration order can be seen in a run.
  std::vector<MemoryPort*> ports_;  // in the order added
  absl::flat_hash_map<uint64_t, MemoryPort*> port_of_mac_;
  std::set<std::pair<MacAddress, MacAddress>> blocked_;
  MinHeap<uint64_t> event_times_;
  absl::flat_hash_map<uint32_t, std::vector<Buffer*>> free_;  // by capacity
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_FABRIC_H_
