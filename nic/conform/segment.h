// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONFORM_SEGMENT_H_
#define TRIPWIRE_NIC_CONFORM_SEGMENT_H_

#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "nic/conform/frame.h"
#include "nic/conform/world.h"
#include "nic/port/port.h"

namespace tripwire::conform {

class Peer;

// A frame that went over the suite's port.
struct LoggedFrame {
  uint64_t at_ns = 0;
  bool sent = false;  // by the suite
  Bytes bytes;
};

// What the suite saw by the way: a frame of the NIC that no test asked about,
// and that breaks a rule.
struct Complaint {
  std::string statement, text;
  size_t log_end = 0;  // frames logged by then
};

// The suite's own port: sends what it is told, hands received frames to the
// scripted peer they name, logs everything both ways.
class Segment {
 public:
  Segment(std::unique_ptr<Port> port, World& world,
          uint64_t first_sequence = 1);
  ~Segment();
  Segment(const Segment&) = delete;

  World& world() { return world_; }
  uint64_t NowNs() { return world_.NowNs(); }
  const PortInfo& info() const { return port_->info(); }
  MacAddress mac() const { return port_->info().mac; }
  uint64_t first_sequence() const { return first_sequence_; }
  // The NIC under test, once it was heard.
  MacAddress nic_mac() const { return nic_mac_; }
  void set_nic_mac(const MacAddress& mac) { nic_mac_ = mac; }

  // Sends these bytes as they are; waits while the port has no room.
  void Transmit(const Bytes& frame);
  // Sends a packet, with its addresses filled in if they are empty.
  void Send(Packet packet);
  // A frame outside links.
  void SendControl(uint8_t type, const Bytes& body, uint32_t link = 0,
                   uint32_t epoch = 0, bool broadcast = false);

  // Receives until `done()`, or until `within_ns` from now passed; returns
  // done().
  bool Until(const std::function<bool()>& done, uint64_t within_ns);
  void Run(uint64_t ns) {
    Until([] { return false; }, ns);
  }

  // Frames outside links, and resets, in order of arrival.
  std::deque<Packet>& control() { return control_; }
  // Takes the first that matches, waiting for it.
  std::optional<Packet> TakeControl(
      const std::function<bool(const Packet&)>& matches, uint64_t within_ns);

  // Whether the suite answers the NIC's connects and discovers, and how, is a
  // test's affair: called for every control frame, after it was queued.
  std::function<void(const Packet&)> on_control;

  void Add(Peer& peer);
  void Remove(Peer& peer);
  uint32_t NewLinkName() { return 0x7a000000u + ++links_made_; }

  // --- What happened
  // ----------------------------------------------------------
  void Complain(std::string statement, std::string text);
  std::vector<Complaint>& complaints() { return complaints_; }
  const std::vector<LoggedFrame>& log() const { return log_; }
  void Forget();  // begins a new log
  absl::Status OpenPcap(const std::string& path);
  uint64_t frames_sent() const { return sent_; }
  uint64_t frames_received() const { return received_; }

 private:
  bool ReceiveSome();
  void OnFrame(const Frame& frame);
  void Log(bool sent, std::span<const uint8_t> bytes);

  const std::unique_ptr<Port> port_;
  World& world_;
  const uint64_t first_sequence_;
  MacAddress nic_mac_;
  PathId path_ = kAllPaths;
  std::deque<Packet> control_;
  std::map<uint32_t, Peer*> peers_;
  std::set<uint32_t> retired_;  // names of links that are no more
  uint32_t links_made_ = 0;
  std::vector<Complaint> complaints_;
  std::vector<LoggedFrame> log_;
  FILE* pcap_ = nullptr;
  uint64_t sent_ = 0, received_ = 0;
};

}  // namespace tripwire::conform

#endif  // TRIPWIRE_NIC_CONFORM_SEGMENT_H_
