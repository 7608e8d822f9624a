// SPDX-License-Identifier: BSD-3-Clause
#include "tests/sim/scale/scale_network.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace tripwire {
namespace {

// The least time between two turns of a node that asks for the next at once: it
// waits for room in its port.
constexpr uint64_t kAgainNs = 500;

uint64_t MacKey(const MacAddress& mac) {
  uint64_t key = 0;
  std::memcpy(&key, mac.bytes.data(), mac.bytes.size());
  return key;
}

}  // namespace

std::string ScaleNetwork::NameOf(size_t node) {
  return "n" + std::to_string(node);
}

ScaleNetwork::ScaleNetwork(const ScaleOptions& options)
    : options_(options),
      random_(options.seed),
      fabric_(clock_, options.fabric) {
  fabric_.SetArrivalHook([this](const MacAddress& to, uint64_t at_ns) {
    Wake(node_of_mac_.at(MacKey(to)), at_ns + Jitter());
  });
  for (size_t i = 0; i < options.nodes; ++i) {
    auto node = std::make_unique<Node>();
    auto port = std::make_unique<FaultyPort>(
        fabric_.AddPort(NameOf(i), options.max_frame_bytes), clock_,
        FaultOptions(), random_.Next());
    node->port = port.get();
    node_of_mac_[MacKey(port->info().mac)] = i;
    NicOptions nic;
    nic.node = NameOf(i);
    nic.ports.push_back(std::move(port));
    nic.service_thread = false;
    nic.clock = &clock_;
    nic.seed = random_.Next() | 1;
    nic.go_back_n = options.go_back_n;
    // Silence says nothing here: probes of idle links would be most of the
    // work.
    nic.keepalive_ns = 100 * kSecond;
    nic.peer_timeout_ns = 600 * kSecond;
    auto opened = Nic::Open(std::move(nic));
    if (!opened.ok()) std::abort();
    node->nic = *std::move(opened);
    node->context = node->nic->CreateContext();
    nodes_.push_back(std::move(node));
    Wake(i, clock_.NowNs());
  }
}

ScaleNetwork::~ScaleNetwork() {
  fabric_.SetArrivalHook({});
  nodes_.clear();  // their last words still go to the fabric
}

void ScaleNetwork::SetFaults(bool are_on) {
  has_faults_ = are_on;
  for (auto& node : nodes_) {
    node->port->SetOptions(are_on ? options_.faults : FaultOptions());
    if (options_.stall_every_ns > 0) {
      node->next_stall_ns =
          are_on ? clock_.NowNs() + random_.Below(2 * options_.stall_every_ns)
                 : kNever;
    }
  }
}

void ScaleNetwork::Wake(size_t index, uint64_t at_ns) {
  turns_.push({at_ns, index, false});
}

bool ScaleNetwork::IsStalled(Node& node, uint64_t now_ns) {
  if (now_ns >= node.next_stall_ns) {
    node.stalled_until_ns = now_ns + options_.stall_ns;
    node.next_stall_ns =
        node.stalled_until_ns + random_.Below(2 * options_.stall_every_ns);
  }
  return now_ns < node.stalled_until_ns;
}

bool ScaleNetwork::Run(const std::function<void(size_t node)>& on_turn,
                       const std::function<bool()>& done, uint64_t limit_ns) {
  const uint64_t end_ns = clock_.NowNs() + limit_ns;
  while (!done()) {
    if (turns_.empty()) return false;
    const Turn turn = turns_.top();
    Node& node = *nodes_[turn.node];
    if (turn.at_ns > end_ns) {
      clock_.AdvanceTo(end_ns);
      return false;
    }
    turns_.pop();
    if (turn.is_deadline && turn.at_ns != node.deadline_ns) continue;
    clock_.AdvanceTo(turn.at_ns);
    const uint64_t now_ns = clock_.NowNs();
    if (IsStalled(node, now_ns)) {
      Wake(turn.node, node.stalled_until_ns);
      continue;
    }
    // Once more after what the turn issued: it may not all have left at once.
    do {
      while (node.nic->Poll()) {
      }
      on_turn(turn.node);
    } while (node.nic->Poll());
    const uint64_t next_ns = node.nic->NextDeadlineNs();
    node.deadline_ns =
        next_ns == kNever ? kNever : std::max(next_ns, now_ns + kAgainNs) + Jitter();
    if (node.deadline_ns != kNever) {
      turns_.push({node.deadline_ns, turn.node, true});
    }
  }
  return true;
}

NicCounters ScaleNetwork::Totals() {
  NicCounters all;
  for (auto& node : nodes_) {
    const NicCounters one = node->nic->counters();
    all.tx_frames += one.tx_frames;
    all.rx_frames += one.rx_frames;
    all.retransmitted_frames += one.retransmitted_frames;
    all.timeouts += one.timeouts;
    all.duplicate_frames += one.duplicate_frames;
    all.early_frames += one.early_frames;
    all.links_lost += one.links_lost;
    all.tripwires_fired += one.tripwires_fired;
  }
  return all;
}

}  // namespace tripwire
