// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/engine.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace tripwire {
namespace {

// How soon a sleeper looks again at a port that had no room.
constexpr uint64_t kRetryNs = 200 * kMicrosecond;
// How soon a peer is asked again over a port that has rejoined its network; then
// after twice as long, and so on.
constexpr uint64_t kFirstProbeNs = 20 * kMillisecond;

}  // namespace

Engine::Engine(EngineOptions options, Clock& clock, Random& random,
               std::vector<std::unique_ptr<Port>> ports)
    : options_(options),
      clock_(clock),
      random_(random),
      ports_(std::move(ports)) {
  for (const auto& port : ports_) {
    macs_.push_back(port->info().mac);
    rejoins_.push_back(port->counters().rejoins);
  }
  rejoined_ns_.resize(ports_.size());
}

Engine::~Engine() {
  for (auto& link : links_) {
    if (link != nullptr) DropEarly(*link);
  }
}

bool Engine::Poll(uint64_t now_ns) {
  now_ns_ = now_ns;
  now_is_stale_ = false;
  ++counters_.polls;
  if (now_ns_ >= std::min(service_at_, look_at_)) ServePorts();
  bool busy = ReceiveBursts();
  if (!busy && !questions_owed_.empty()) AskWhatIsOwed();
  if (now_ns_ >= timers_at_) busy |= RunTimers();
  if (!chains_.empty()) busy |= RunChains();
  if (!ready_.empty()) busy |= ServeLinks();
  return busy;
}

uint64_t Engine::NextDeadline() const {
  const uint64_t timer = timers_.empty() ? kNever : timers_.top().first;
  // Links whose path was full: nothing tells when it has room again.
  const uint64_t retry = !chains_.empty() ? now_ns_
                         : ready_.empty() ? kNever
                                          : now_ns_ + kRetryNs;
  return std::min({timer, control_at_, service_at_, look_at_, retry});
}

void Engine::Schedule(Link& link) {
  const uint64_t due =
      std::min({link.retransmit_at, link.ack_at, link.probe_at});
  if (due >= link.scheduled_at) return;
  link.scheduled_at = due;
  timers_.emplace(due, link.id.value);
  timers_at_ = std::min(timers_at_, due);
}

bool Engine::RunTimers() {
  bool busy = false;
  if (control_ != nullptr && now_ns_ >= control_at_) {
    control_at_ = control_->OnTime(now_ns_);
  }
  while (!timers_.empty() && timers_.top().first <= now_ns_) {
    const auto [due, id] = timers_.top();
    timers_.pop();
    Link* link = FindLink(LinkId{id});
    // Entries are not removed when a timer moves; only the latest one counts.
    if (link == nullptr || link->scheduled_at != due) continue;
    link->scheduled_at = kNever;
    RunLinkTimers(*link);
    if (link->carries_data()) Schedule(*link);
    busy = true;
  }
  SetTimersAt();
  return busy;
}

void Engine::RunLinkTimers(Link& link) {
  if (!link.carries_data()) return;
  if (now_ns_ >= link.ack_at) {
    link.ack_at = kNever;
    if (link.unacknowledged > 0) SendAck(link, Ring::kQuietly, false);
  }
  if (now_ns_ >= link.retransmit_at) OnRetransmitTimer(link);
  if (now_ns_ < link.probe_at) return;
  const uint64_t silent_ns = now_ns_ - std::min(now_ns_, link.heard_ns);
  // Silence counts only while we were asking: a NIC that was not polled for a
  // while must not blame its peers.
  if (silent_ns >= options_.peer_timeout_ns && link.probes >= 3) {
    return EndLink(link, LinkEnd::kTimedOut);
  }
  // Since the port is back, not a word: who is there now, and does he know us?
  const uint64_t rejoined_ns = rejoined_ns_[link.port];
  const bool hurries = rejoined_ns != 0 && link.heard_ns <= rejoined_ns;
  if (silent_ns < options_.keepalive_ns && !hurries) {
    link.probe_at = link.heard_ns + options_.keepalive_ns;
    return;
  }
  if (now_ns_ - link.probed_ns >= options_.keepalive_ns) {
    ++link.probes;
    link.probed_ns = now_ns_;
  }
  SendAck(link, Ring::kDoorbell, true);
  uint64_t interval_ns = options_.keepalive_ns;
  if (hurries) {
    interval_ns = std::min(interval_ns,
                           std::max(now_ns_ - rejoined_ns, kFirstProbeNs));
  }
  link.probe_at = now_ns_ + interval_ns;
}

// A peer that was restarted meanwhile says so when it is asked; one that was not
// learns of our new path. If nobody answers, nothing is lost sooner than ever.
void Engine::NoteRejoined(size_t port) {
  rejoined_ns_[port] = now_ns_;
  ForEachLink([&](Link& link) {
    if (!link.carries_data() || link.port != port) return;
    link.probe_at = now_ns_;
    Schedule(link);
  });
}

bool Engine::ServeLinks() {
  const uint64_t sent_before = counters_.tx_frames;
  serving_.swap(ready_);
  for (LinkId id : serving_) {
    Link* link = FindLink(id);
    if (link == nullptr) continue;
    link->ready = false;
    if (!link->carries_data()) continue;
    if (link->early_count > 0) {
      DrainEarly(*link);
      ApplyCompletion(*link);
      if (!link->carries_data()) continue;
    }
    Pump(*link);  // its frames carry the acknowledgement, if it sends any
    if (link->unacknowledged == 0 && !link->ack_now) continue;
    if (link->ack_requested || link->ack_now ||
        link->unacknowledged >= kAckEveryFrames) {
      SendAck(*link, Ring::kDoorbell, false);
    }
  }
  serving_.clear();
  return counters_.tx_frames != sent_before;
}

void Engine::FlushAcks() {
  AskWhatIsOwed();
  for (LinkId id : delayed_acks_) {
    Link* link = FindLink(id);
    if (link == nullptr) continue;
    link->ack_delayed = false;
    if (link->carries_data() && link->unacknowledged > 0) {
      SendAck(*link, Ring::kQuietly, false);
    }
  }
  delayed_acks_.clear();
  TidyTimers();
}

// The next timer's entry is one that counts, and says when it is due.
void Engine::TidyTimers() {
  while (!timers_.empty()) {
    const auto [due, id] = timers_.top();
    Link* link = FindLink(LinkId{id});
    if (link == nullptr || link->scheduled_at != due) {
      timers_.pop();
      continue;
    }
    if (link->carries_data() &&
        std::min({link->retransmit_at, link->ack_at, link->probe_at}) <= due) {
      break;
    }
    timers_.pop();
    link->scheduled_at = kNever;
    if (link->carries_data()) Schedule(*link);
  }
  SetTimersAt();
}

void Engine::SetTimersAt() {
  timers_at_ = timers_.empty() ? kNever : timers_.top().first;
  if (control_ != nullptr) timers_at_ = std::min(timers_at_, control_at_);
}

void Engine::SendControl(size_t port, PathId path, const MacAddress& to,
                         uint8_t type, uint32_t link, uint32_t epoch,
                         std::span<const uint8_t> body) {
  Port& out = *ports_[port];
  if (body.size() > out.info().max_frame_bytes - wire::kHeaderBytes -
                        wire::kChecksumBytes) {
    return;  // callers keep bodies small; a tiny medium cannot carry them
  }
  Frame frame;
  if (out.Allocate({&frame, 1}) == 0) {
    ++counters_.drop_no_buffer;
    return;
  }
  auto* ethernet = reinterpret_cast<wire::EthernetHeader*>(frame.data);
  std::copy_n(to.bytes.begin(), 6, ethernet->destination);
  std::copy_n(out.info().mac.bytes.begin(), 6, ethernet->source);
  std::copy_n(wire::kEtherType, 2, ethernet->ether_type);
  auto* header = reinterpret_cast<wire::FrameHeader*>(
      frame.data + sizeof(wire::EthernetHeader));
  *header = wire::FrameHeader{};
  header->version = wire::kVersion;
  header->type = type;
  header->flags = 0;
  header->link = link;
  header->epoch = epoch;
  header->sequence = 0;
  header->acknowledged = 0;
  header->credit = 0;
  std::copy(body.begin(), body.end(), frame.data + wire::kHeaderBytes);
  frame.length_bytes = wire::Seal(frame.data, body.size(), true);
  if (out.Transmit(path, {&frame, 1}) == 0) {
    out.Release({&frame, 1});
    return;
  }
  ++counters_.tx_frames;
  counters_.tx_bytes += frame.length_bytes;
}

}  // namespace tripwire
