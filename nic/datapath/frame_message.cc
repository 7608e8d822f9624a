// SPDX-License-Identifier: BSD-3-Clause
#include <cstring>

#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

// Messages waiting to be taken; beyond that the peer's wait with the peer.
constexpr uint64_t kMaxInboxBytes = 16u << 20;
constexpr size_t kMaxInboxMessages = 65536;

}  // namespace

bool Engine::SendMessage(LinkId id, std::span<const uint8_t> message) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  now_is_stale_ = true;
  SendOp& op = link->ops.emplace_back();
  op.type = wire::kMessage;
  op.length = message.size();
  Charge(*link, op, message.size());
  if (!message.empty()) {
    op.copy = copies_.Take(message.size());
    std::memcpy(op.copy.data, message.data(), message.size());
    op.data = op.copy.data;
  }
  Pump(*link);
  return true;
}

std::optional<std::vector<uint8_t>> Engine::TakeMessage(LinkId id) {
  Link* link = FindLink(id);
  if (link == nullptr || link->inbox.empty()) return std::nullopt;
  std::vector<uint8_t> message = std::move(link->inbox.front());
  link->inbox.pop_front();
  link->inbox_bytes -= message.size();
  if (link->early_count > 0) MarkReady(*link);  // there is room again
  if (link->inbox.empty() && link->state == LinkState::kDown &&
      !link->tell_down && !link->queued) {
    FreeLink(*link);
  }
  return message;
}

Engine::Delivery Engine::OnMessage(Link& link, const wire::FrameView& view) {
  const auto& body = view.body<wire::MessagePayload>();
  const auto data = view.data<wire::MessagePayload>();
  const uint64_t total = body.total_length.get();
  const uint64_t offset = body.offset.get();
  if (total > kMaxMessageBytes || offset != link.message.size() ||
      data.size() > total - offset ||
      view.has(wire::kLast) != (offset + data.size() == total)) {
    ++counters_.drop_malformed;
    link.message.clear();
    Refuse(link, view.sequence(), OpStatus::kTooLarge);
    return Delivery::kTaken;
  }
  if (view.has(wire::kLast) && (link.inbox_bytes + total > kMaxInboxBytes ||
                                link.inbox.size() >= kMaxInboxMessages)) {
    return Delivery::kNoRoom;
  }
  link.message.insert(link.message.end(), data.begin(), data.end());
  if (!view.has(wire::kLast)) return Delivery::kTaken;
  link.inbox_bytes += total;
  link.inbox.push_back(std::move(link.message));
  link.message.clear();
  ++counters_.messages;
  link.tell_message = true;
  Tell(link);
  return Delivery::kTaken;
}

}  // namespace tripwire
