// SPDX-License-Identifier: BSD-3-Clause
// Tripwires and the event queues they, and links, report to. A queue holds
// sources, not events: each source is on it at most once and is asked for what it
// has to tell when its turn comes, so a queue never overflows.
#include <utility>

#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

constexpr uint64_t kLinkSource = uint64_t{1} << 63;

}  // namespace

uint32_t Engine::Watch(TripwireEntry entry) {
  uint32_t id;
  if (free_tripwires_.empty()) {
    id = static_cast<uint32_t>(tripwires_.size());
    tripwires_.emplace_back();
  } else {
    id = free_tripwires_.back();
    free_tripwires_.pop_back();
  }
  entry.made = ++tripwires_made_;
  if (entry.outbound) {
    Link* link = FindLink(entry.link);
    if (link == nullptr || !link->carries_data()) {
      entry.link_lost = true;
    } else {
      auto& index =
          link->outbound[Link::OutboundKey(entry.handle, entry.generation)];
      if (index == nullptr) index = std::make_unique<TripwireIndex>();
      index->Insert(id, entry.offset, entry.length);
    }
  } else {
    ApertureEntry* aperture = contexts_[entry.context]->apertures.Find(
        entry.handle, entry.generation);
    if (aperture != nullptr) {
      if (aperture->tripwires == nullptr) {
        aperture->tripwires = std::make_unique<TripwireIndex>();
      }
      aperture->tripwires->Insert(id, entry.offset, entry.length);
      const auto address =
          reinterpret_cast<uintptr_t>(aperture->base) + entry.offset;
      if (address % 8 == 0 && entry.length >= 8) {
        entry.word = reinterpret_cast<const uint64_t*>(address);
      }
    }
  }
  tripwires_[id] = std::make_unique<TripwireEntry>(std::move(entry));
  return id;
}

void Engine::Unwatch(uint32_t id) {
  TripwireEntry& entry = *tripwires_[id];
  if (entry.outbound) {
    Link* link = FindLink(entry.link);
    if (link != nullptr && !entry.link_lost) {
      auto it = link->outbound.find(
          Link::OutboundKey(entry.handle, entry.generation));
      if (it != link->outbound.end()) {
        it->second->Erase(id, entry.offset, entry.length);
        if (it->second->empty()) link->outbound.erase(it);
      }
    }
  } else {
    ApertureEntry* aperture = contexts_[entry.context]->apertures.Find(
        entry.handle, entry.generation);
    if (aperture != nullptr && aperture->tripwires != nullptr) {
      aperture->tripwires->Erase(id, entry.offset, entry.length);
      if (aperture->tripwires->empty()) aperture->tripwires.reset();
    }
  }
  if (entry.queued) {
    // Its place in the queue is found empty when its turn comes; the id must not
    // be used again before.
    entry.armed = false;
    entry.wants_events = false;
    entry.context = UINT32_MAX;
    return;
  }
  tripwires_[id].reset();
  free_tripwires_.push_back(id);
}

void Engine::Arm(uint32_t id) {
  TripwireEntry& entry = *tripwires_[id];
  entry.armed = true;
  entry.fired_since_arm = 0;
}

bool Engine::ArmIfEqual(uint32_t id, uint64_t expected) {
  TripwireEntry& entry = *tripwires_[id];
  if (entry.word == nullptr) return false;
  // Peers' stores happen under the engine's lock, as this does; the acquire is
  // for words the application itself stores from another thread.
  if (__atomic_load_n(entry.word, __ATOMIC_ACQUIRE) != expected) return false;
  Arm(id);
  return true;
}

bool Engine::Disarm(uint32_t id) {
  TripwireEntry& entry = *tripwires_[id];
  entry.armed = false;
  return entry.fired_since_arm > 0;
}

void Engine::Touch(uint32_t id, Access access) {
  TripwireEntry& entry = *tripwires_[id];
  if (!entry.armed || !Includes(entry.access, access)) return;
  if (entry.one_shot) entry.armed = false;
  ++entry.count;
  ++entry.fired_since_arm;
  ++counters_.tripwires_fired;
  ++news_;
  if (entry.wants_events && !entry.queued) {
    entry.queued = true;
    PushSource(entry.context, id);
  }
}

void Engine::FireOutbound(Link& link, Access access, uint32_t handle,
                          uint32_t generation, uint64_t offset,
                          uint64_t length) {
  if (link.outbound.empty()) return;
  auto it = link.outbound.find(Link::OutboundKey(handle, generation));
  if (it == link.outbound.end()) return;
  it->second->Visit(offset, length, [&](uint32_t id) { Touch(id, access); });
}

void Engine::PushSource(uint32_t context, uint64_t source) {
  ContextState& state = *contexts_[context];
  if (!state.live) return;
  const bool was_empty = state.events.empty();
  state.events.push_back(source);
  ++counters_.events;
  ++news_;
  if (was_empty && state.signal != nullptr) state.signal(state.signal_argument);
}

void Engine::Tell(Link& link) {
  if (link.queued || link.quiet || !contexts_[link.context]->live) return;
  link.queued = true;
  PushSource(link.context, kLinkSource | link.id.value);
}

bool Engine::HasEvents(uint32_t context) const {
  return !contexts_[context]->events.empty();
}

void Engine::set_event_signal(uint32_t context, void (*signal)(void*),
                              void* argument) {
  contexts_[context]->signal = signal;
  contexts_[context]->signal_argument = argument;
}

size_t Engine::TakeEvents(uint32_t context, std::span<Event> events) {
  ContextState& state = *contexts_[context];
  size_t taken = 0;
  while (taken < events.size() && !state.events.empty()) {
    const uint64_t source = state.events.front();
    state.events.pop_front();
    Event& event = events[taken];
    event = Event{};
    if ((source & kLinkSource) != 0) {
      Link* link = FindLink(LinkId{static_cast<uint32_t>(source)});
      if (link == nullptr) continue;
      if (TakeLinkEvent(*link, &event)) ++taken;
      continue;
    }
    const auto id = static_cast<uint32_t>(source);
    TripwireEntry& entry = *tripwires_[id];
    entry.queued = false;
    if (entry.context == UINT32_MAX) {  // removed while it waited here
      tripwires_[id].reset();
      free_tripwires_.push_back(id);
      continue;
    }
    event.kind = EventKind::kTripwire;
    event.link = entry.link;
    event.cookie = entry.cookie;
    event.count = entry.count - entry.told;
    entry.told = entry.count;
    entry.fired_since_arm = 0;
    ++taken;
  }
  return taken;
}

bool Engine::TakeLinkEvent(Link& link, Event* event) {
  link.queued = false;
  event->link = link.id;
  if (link.tell_request) {
    link.tell_request = false;
    event->kind = EventKind::kConnectRequest;
  } else if (link.tell_up) {
    link.tell_up = false;
    event->kind = EventKind::kLinkUp;
  } else if (link.tell_message) {
    link.tell_message = false;
    event->kind = EventKind::kMessage;
    event->count = link.inbox.size();
  } else if (link.failed_ops > 0) {
    event->kind = EventKind::kOpFailed;
    event->status = link.failed_status;
    event->count = std::exchange(link.failed_ops, 0);
  } else if (link.tell_down) {
    link.tell_down = false;
    event->kind = EventKind::kLinkDown;
    event->end = link.end;
    if (link.inbox.empty()) FreeLink(link);
    return true;
  } else {
    return false;
  }
  if (link.tell_up || link.tell_message || link.failed_ops > 0 ||
      link.tell_down) {
    Tell(link);
  }
  return true;
}

void Engine::FailOp(Link& link, OpStatus status) {
  ++link.failed_ops;
  link.failed_status = status;
  Tell(link);
}

void Engine::Finish(Completion* completion, OpStatus status) {
  if (completion == nullptr) return;
  ++news_;
  completion->Finish(status);
}

}  // namespace tripwire
