// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/segment.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/peer.h"

namespace tripwire::conform {
namespace {

constexpr size_t kMaxLog = 50000;
constexpr size_t kMaxControl = 10000;

void Put32(FILE* file, uint32_t value) {
  const Bytes bytes = Out().U32(value);
  std::fwrite(bytes.data(), 1, bytes.size(), file);
}

}  // namespace

Segment::Segment(std::unique_ptr<Port> port, World& world,
                 uint64_t first_sequence)
    : port_(std::move(port)), world_(world), first_sequence_(first_sequence) {}

Segment::~Segment() {
  if (pcap_ != nullptr) std::fclose(pcap_);
}

absl::Status Segment::OpenPcap(const std::string& path) {
  pcap_ = std::fopen(path.c_str(), "wb");
  if (pcap_ == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  }
  Put32(pcap_, 0xa1b23c4d);  // nanoseconds
  Put32(pcap_, 2 | 4 << 16);
  Put32(pcap_, 0);
  Put32(pcap_, 0);
  Put32(pcap_, 65535);
  Put32(pcap_, 1);  // Ethernet
  return absl::OkStatus();
}

void Segment::Log(bool sent, std::span<const uint8_t> bytes) {
  const uint64_t now_ns = NowNs();
  if (pcap_ != nullptr) {
    Put32(pcap_, static_cast<uint32_t>(now_ns / kSecond));
    Put32(pcap_, static_cast<uint32_t>(now_ns % kSecond));
    Put32(pcap_, static_cast<uint32_t>(bytes.size()));
    Put32(pcap_, static_cast<uint32_t>(bytes.size()));
    std::fwrite(bytes.data(), 1, bytes.size(), pcap_);
  }
  if (log_.size() < kMaxLog) {
    log_.push_back({now_ns, sent, Bytes(bytes.begin(), bytes.end())});
  }
}

void Segment::Forget() {
  log_.clear();
  complaints_.clear();
  control_.clear();
}

void Segment::Complain(std::string statement, std::string text) {
  if (complaints_.size() < 100) {
    complaints_.push_back({std::move(statement), std::move(text), log_.size()});
  }
}

void Segment::Transmit(const Bytes& bytes) {
  Frame frame;
  const uint64_t give_up_ns = NowNs() + kSecond;
  while (NowNs() < give_up_ns) {
    if (port_->Allocate({&frame, 1}) == 0) {
      world_.Wait(*port_, NowNs() + 100 * kMicrosecond);
      continue;
    }
    if (bytes.size() > frame.capacity_bytes) {
      port_->Release({&frame, 1});
      return;
    }
    std::copy(bytes.begin(), bytes.end(), frame.data);
    frame.length_bytes = static_cast<uint32_t>(bytes.size());
    const PathId path = (bytes[0] & 1) != 0 ? kAllPaths : path_;
    if (port_->Transmit(path, {&frame, 1}) == 1) {
      ++sent_;
      return Log(true, bytes);
    }
    port_->Release({&frame, 1});
    world_.Wait(*port_, NowNs() + 100 * kMicrosecond);
    // What came meanwhile is received later: the caller may be in the middle of
    // a burst.
  }
}

void Segment::Send(Packet packet) {
  if (packet.destination == MacAddress{}) packet.destination = nic_mac_;
  if (packet.source == MacAddress{}) packet.source = mac();
  Transmit(Encode(packet));
}

void Segment::SendControl(uint8_t type, const Bytes& body, uint32_t link,
                          uint32_t epoch, bool broadcast) {
  Packet packet;
  packet.type = type;
  packet.link = link;
  packet.epoch = epoch;
  packet.payload = body;
  if (broadcast) packet.destination = MacAddress::Broadcast();
  Send(packet);
}

bool Segment::ReceiveSome() {
  std::array<Frame, 32> frames;
  const size_t n = port_->Receive(frames);
  for (size_t i = 0; i < n; ++i) {
    OnFrame(frames[i]);
  }
  port_->Release(std::span<const Frame>(frames.data(), n));
  return n > 0;
}

void Segment::OnFrame(const Frame& frame) {
  const Bytes bytes(frame.data, frame.data + frame.length_bytes);
  Packet packet;
  std::string why;
  const Decoded decoded = Decode(bytes, &packet, &why);
  if (decoded == Decoded::kNotOurs) return;
  const bool is_group = (packet.destination.bytes[0] & 1) != 0;
  if (!is_group && packet.destination != mac()) return;
  // Others on the segment talk as well.
  if (nic_mac_ != MacAddress{} && packet.source != nic_mac_ &&
      packet.type != type::kAnnounce) {
    return;
  }
  if (packet.source == nic_mac_) path_ = frame.path;
  ++received_;
  Log(false, bytes);
  if (decoded == Decoded::kMalformed) {
    const bool padding = why.find("padding") != std::string::npos ||
                         why.find("at least 60") != std::string::npos;
    const bool no_checksum = why.find("no checksum") != std::string::npos;
    return Complain(padding       ? "W8"
                    : no_checksum ? "W5"
                                  : "W3",
                    absl::StrCat("the NIC sent a malformed frame: ", why));
  }
  if ((packet.flags & 0x0fe8) != 0) {
    Complain((packet.flags & 8) != 0 ? "W9" : "W10",
             absl::StrFormat("the NIC sent flags %04x", packet.flags));
  }
  if (IsControl(packet.type) || packet.type == type::kReset) {
    if (control_.size() < kMaxControl) control_.push_back(packet);
    if (on_control) on_control(packet);
    return;
  }
  const auto it = peers_.find(packet.link);
  if (it != peers_.end() && it->second->epoch() == packet.epoch) {
    return it->second->OnPacket(packet, bytes);
  }
  if (retired_.contains(packet.link)) return;
  Complain("W15", absl::StrFormat("the NIC sent a frame for link %08x epoch "
                                  "%08x, which was never made",
                                  packet.link, packet.epoch));
}

bool Segment::Until(const std::function<bool()>& done, uint64_t within_ns) {
  const uint64_t end_ns = NowNs() + within_ns;
  for (;;) {
    while (ReceiveSome()) {
    }
    if (done()) return true;
    if (NowNs() >= end_ns) return false;
    world_.Wait(*port_, end_ns);
  }
}

std::optional<Packet> Segment::TakeControl(
    const std::function<bool(const Packet&)>& matches, uint64_t within_ns) {
  std::optional<Packet> found;
  Until(
      [&] {
        const auto it = std::find_if(control_.begin(), control_.end(), matches);
        if (it == control_.end()) return false;
        found = *it;
        control_.erase(it);
        return true;
      },
      within_ns);
  return found;
}

void Segment::Add(Peer& peer) { peers_[peer.link()] = &peer; }

void Segment::Remove(Peer& peer) {
  const auto it = peers_.find(peer.link());
  if (it == peers_.end() || it->second != &peer) return;
  peers_.erase(it);
  retired_.insert(peer.link());
}

}  // namespace tripwire::conform
