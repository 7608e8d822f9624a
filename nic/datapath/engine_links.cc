// SPDX-License-Identifier: BSD-3-Clause
// The engine's contexts and links: making, finding, opening and ending them.
#include <array>

#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

constexpr uint64_t kWholeSpace = Le48::kMax + 1;  // of offsets in an aperture

}  // namespace

uint32_t Engine::CreateContext(const ContextQuotas& quotas) {
  for (uint32_t id = 0; id < contexts_.size(); ++id) {
    if (!contexts_[id]->live) {
      *contexts_[id] = ContextState{};
      contexts_[id]->live = true;
      contexts_[id]->quotas = quotas;
      return id;
    }
  }
  contexts_.push_back(std::make_unique<ContextState>());
  contexts_.back()->live = true;
  contexts_.back()->quotas = quotas;
  return static_cast<uint32_t>(contexts_.size() - 1);
}

void Engine::DestroyContext(uint32_t context) {
  now_is_stale_ = true;
  for (size_t slot = 0; slot < links_.size(); ++slot) {
    Link* link = links_[slot].get();
    if (link->state == LinkState::kFree || link->context != context) continue;
    // The memory of operations under way goes with the context: cut, do not
    // linger.
    if (link->carries_data()) {
      SendReset(link->port, link->path, link->remote_mac, link->remote_link,
                link->remote_epoch, link->id.value, link->epoch);
    }
    if (link->state != LinkState::kDown) {
      EndLink(*link, LinkEnd::kClosedHere, /*tell=*/false);
    }
    if (link->state != LinkState::kFree) FreeLink(*link);
  }
  // Nobody takes these events any more: what they hold goes now.
  std::array<Event, 16> untold;
  while (TakeEvents(context, untold) > 0) {
  }
  for (uint32_t id = 0; id < tripwires_.size(); ++id) {
    if (tripwires_[id].made != 0 && tripwires_[id].context == context) {
      Unwatch(id);
    }
  }
  *contexts_[context] = ContextState{};
}

ApertureName Engine::Export(uint32_t context, std::span<uint8_t> memory,
                            Access rights, std::optional<LinkId> only) {
  return contexts_[context]->apertures.Export(memory, rights, only);
}

void Engine::Revoke(uint32_t context, const ApertureName& name) {
  contexts_[context]->apertures.Revoke(name.handle, name.generation);
}

Link& Engine::NewLink(uint32_t context) {
  uint32_t slot;
  if (free_links_.empty()) {
    slot = static_cast<uint32_t>(links_.size());
    links_.push_back(std::make_unique<Link>());
    links_.back()->id = LinkId{slot};
  } else {
    slot = free_links_.back();
    free_links_.pop_back();
  }
  Link& link = *links_[slot];
  const LinkId id{link.id.value + (1u << kSlotBits)};
  link = Link{};
  link.id = id;
  link.context = context;
  ++contexts_[context]->links;
  link.acked = link.next_sequence = link.expected = options_.first_sequence;
  do {
    link.epoch = random_.Next32();
  } while (link.epoch == 0);
  return link;
}

void Engine::OpenLink(Link& link) {
  now_is_stale_ = true;
  link.state = LinkState::kOpen;
  link.gathers = !link.checksum && ports_[link.port]->info().gathers;
  link.heard_ns = Now();
  link.probe_at = Now() + options_.keepalive_ns;
  by_remote_[NameAtPeer(link)] = link.id;
  ++counters_.links_up;
  Schedule(link);
}

void Engine::EndLink(Link& link, LinkEnd why, bool tell) {
  if (link.state == LinkState::kFree || link.state == LinkState::kDown) return;
  const bool was_open = link.carries_data();
  const bool closing = link.state == LinkState::kClosing;
  link.state = LinkState::kDown;
  link.end = why;
  if (was_open) {
    if (why != LinkEnd::kClosedHere && why != LinkEnd::kClosedByPeer) {
      ++counters_.links_lost;
      if (why == LinkEnd::kPeerRestarted) ++counters_.links_disowned;
    }
    auto it = by_remote_.find(NameAtPeer(link));
    if (it != by_remote_.end() && it->second == link.id) by_remote_.erase(it);
  }
  DropEarly(link);
  for (; !link.ops.empty(); link.ops.pop_front(), ++link.first_op) {
    SendOp& op = link.ops.front();
    copies_.Give(op.copy);
    // Its Completion is with the awaited reply.
    if (IsAnswered(op.type) && op.transmitted) continue;
    Finish(op.completion, OpStatus::kLinkLost);
  }
  auto awaited = std::move(link.awaited);
  link.awaited.clear();
  for (auto& [sequence, reply] : awaited) {
    copies_.Give(reply.list.block);
    Finish(reply.completion, OpStatus::kLinkLost);
  }
  Discharge(link, link.queued_bytes);
  for (auto& [name, index] : link.outbound) {
    index->Visit(0, kWholeSpace,
                 [&](uint32_t id) { tripwires_[id].link_lost = true; });
  }
  link.outbound.clear();
  link.refusals.clear();
  link.touched.clear();
  link.message.clear();
  if (control_ != nullptr) control_->OnLinkEnded(link);
  ++news_;
  if (closing) {
    FreeLink(link);
  } else if (tell) {
    link.tell_down = true;
    Tell(link);
  }
}

void Engine::FreeLink(Link& link) {
  link.state = LinkState::kFree;
  --contexts_[link.context]->links;
  link.inbox.clear();
  // A slot whose generations are used up is retired, so that no id ever comes to
  // mean another link.
  if (link.id.value >> kSlotBits == UINT32_MAX >> kSlotBits) return;
  free_links_.push_back(link.id.value & kSlotMask);
}

}  // namespace tripwire
