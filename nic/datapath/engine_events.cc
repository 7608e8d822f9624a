// SPDX-License-Identifier: BSD-3-Clause
// The event queues that tripwires and links report to. A queue holds
// sources, not events: each source is on it at most once and is asked for what it
// has to tell when its turn comes, so a queue never overflows.
#include <utility>

#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

constexpr uint64_t kLinkSource = uint64_t{1} << 63;

}  // namespace

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
    TripwireEntry& entry = tripwires_[id];
    entry.queued = false;
    if (entry.made == 0) {  // removed while it waited here
      FreeTripwire(id);
      continue;
    }
    event.kind = EventKind::kTripwire;
    event.link = entry.link;
    event.cookie = entry.cookie;
    event.count = entry.count - entry.told;
    entry.told = entry.count;
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
