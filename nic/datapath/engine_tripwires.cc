// SPDX-License-Identifier: BSD-3-Clause
// Tripwires: made, armed, touched by accesses, and what they do when they fire.
#include <cstring>
#include <memory>

#include "nic/datapath/engine.h"

namespace tripwire {

uint32_t Engine::Watch(const TripwireSpec& spec) {
  uint32_t id;
  if (free_tripwires_.empty()) {
    id = tripwires_.Add();
    ranges_.Add();
  } else {
    id = free_tripwires_.back();
    free_tripwires_.pop_back();
  }
  TripwireEntry& entry = tripwires_[id];
  entry = TripwireEntry();
  entry.context = spec.context;
  entry.cookie = spec.cookie;
  entry.access = spec.access;
  entry.one_shot = spec.one_shot;
  entry.wants_events = spec.wants_events;
  entry.outbound = spec.outbound;
  entry.link = spec.link;
  entry.handle = spec.handle;
  entry.generation = spec.generation;
  if (++tripwires_made_ == 0) ++tripwires_made_;
  entry.made = tripwires_made_;
  ranges_[id] = {spec.offset, spec.length};
  ++contexts_[spec.context]->tripwires;
  if (spec.extra.is_needed()) SetExtra(entry, spec.extra);
  if (entry.outbound) {
    Link* link = FindLink(entry.link);
    if (link == nullptr || !link->carries_data()) {
      entry.link_lost = true;
      return id;
    }
    auto& index =
        link->outbound[Link::OutboundKey(entry.handle, entry.generation)];
    if (index == nullptr) index = std::make_unique<TripwireIndex>();
    index->Insert(id, spec.offset, spec.length);
    return id;
  }
  ApertureEntry* aperture = ApertureOf(entry);
  if (aperture == nullptr) return id;
  if (aperture->tripwires == nullptr) {
    aperture->tripwires = std::make_unique<TripwireIndex>();
  }
  aperture->tripwires->Insert(id, spec.offset, spec.length);
  const auto address =
      reinterpret_cast<uintptr_t>(aperture->base) + spec.offset;
  if (address % 8 == 0 && spec.length >= 8) {
    entry.word = reinterpret_cast<const uint64_t*>(address);
  }
  return id;
}

ApertureEntry* Engine::ApertureOf(const TripwireEntry& entry) {
  return contexts_[entry.context]->apertures.Find(entry.handle,
                                                  entry.generation);
}

void Engine::SetExtra(TripwireEntry& entry, const TripwireExtra& extra) {
  if (free_extras_.empty()) {
    entry.extra = static_cast<uint32_t>(extras_.size());
    extras_.push_back(std::make_unique<TripwireExtra>(extra));
  } else {
    entry.extra = free_extras_.back();
    free_extras_.pop_back();
    *extras_[entry.extra] = extra;
  }
}

void Engine::Unwatch(uint32_t id) {
  TripwireEntry& entry = tripwires_[id];
  const TripwireRange& range = ranges_[id];
  if (entry.outbound) {
    Link* link = FindLink(entry.link);
    if (link != nullptr && !entry.link_lost) {
      auto it = link->outbound.find(
          Link::OutboundKey(entry.handle, entry.generation));
      if (it != link->outbound.end()) {
        it->second->Erase(id, range.offset, range.length);
        if (it->second->empty()) link->outbound.erase(it);
      }
    }
  } else {
    ApertureEntry* aperture = ApertureOf(entry);
    if (aperture != nullptr && aperture->tripwires != nullptr) {
      aperture->tripwires->Erase(id, range.offset, range.length);
      if (aperture->tripwires->empty()) aperture->tripwires.reset();
    }
  }
  if (entry.extra != TripwireEntry::kNone) {
    *extras_[entry.extra] = TripwireExtra();
    free_extras_.push_back(entry.extra);
    entry.extra = TripwireEntry::kNone;
  }
  ++news_;  // for whoever waits for it
  entry.armed = Access::kNone;
  entry.made = 0;
  --contexts_[entry.context]->tripwires;
  // Its place in the queue is found empty when its turn comes; the id must not be
  // used again before.
  if (!entry.queued) FreeTripwire(id);
}

void Engine::FreeTripwire(uint32_t id) { free_tripwires_.push_back(id); }

void Engine::Arm(uint32_t id) {
  TripwireEntry& entry = tripwires_[id];
  entry.armed = entry.access;
  entry.fired = false;
  if (entry.extra != TripwireEntry::kNone) extras_[entry.extra]->accesses = 0;
}

bool Engine::ArmIfEqual(uint32_t id, uint64_t expected) {
  TripwireEntry& entry = tripwires_[id];
  // The word goes with its aperture.
  if (entry.word == nullptr || ApertureOf(entry) == nullptr) return false;
  // Peers' stores happen under the engine's lock, as this does; the acquire is
  // for words the application itself stores from another thread.
  if (__atomic_load_n(entry.word, __ATOMIC_ACQUIRE) != expected) return false;
  Arm(id);
  return true;
}

bool Engine::Disarm(uint32_t id) {
  TripwireEntry& entry = tripwires_[id];
  entry.armed = Access::kNone;
  return entry.fired;
}

// An armed tripwire was touched.
void Engine::Fire(uint32_t id, unsigned hops) {
  TripwireEntry& entry = tripwires_[id];
  TripwireExtra* extra = nullptr;
  uint64_t word = 0;
  if (entry.extra != TripwireEntry::kNone) {
    extra = extras_[entry.extra].get();
    if (entry.word != nullptr) {
      word = __atomic_load_n(entry.word, __ATOMIC_ACQUIRE);
    }
    if (!Qualifies(*extra, word)) return;
  }
  if (entry.one_shot) entry.armed = Access::kNone;
  ++entry.count;
  entry.fired = true;
  ++counters_.tripwires_fired;
  ++news_;
  if (entry.wants_events && !entry.queued) {
    entry.queued = true;
    PushSource(entry.context, id);
  }
  if (extra != nullptr) Act(id, *extra, word, hops);
}

// Whether an access, of those that touch the range, is one to fire for.
bool Engine::Qualifies(TripwireExtra& extra, uint64_t word) const {
  if (!extra.condition.Holds(word)) return false;
  if (++extra.accesses < extra.every) return false;
  extra.accesses = 0;
  return true;
}

void Engine::Act(uint32_t id, TripwireExtra& extra, uint64_t word,
                 unsigned hops) {
  if (extra.counter != nullptr) {
    // Pairs with the acquire of whoever reads the counter: the access is visible.
    extra.counter->fetch_add(1, std::memory_order_release);
  }
  if (!extra.write.has_value()) return;
  if (hops >= wire::kMaxHops) {
    ++counters_.chains_stopped;
    return;
  }
  chains_.push_back(
      {id, tripwires_[id].made, static_cast<uint8_t>(hops + 1), word});
}

// Issues the writes that firings asked for. Some may be added meanwhile.
bool Engine::RunChains() {
  for (size_t i = 0; i < chains_.size(); ++i) {
    const ChainToBegin chain = chains_[i];
    const TripwireEntry& entry = tripwires_[chain.tripwire];
    if (entry.made != chain.made) continue;  // removed
    const ChainedWrite& write = *extras_[entry.extra]->write;
    Link* link = FindLink(write.link);
    uint8_t word[sizeof chain.word];
    std::memcpy(word, &chain.word, sizeof word);
    const std::span<const uint8_t> data =
        write.sends_word ? std::span<const uint8_t>(word) : write.data;
    if (link == nullptr || link->state != LinkState::kOpen ||
        (link->peer_features & wire::kFeatureHops) == 0 ||
        !MayQueue(link->context, data.size())) {
      ++counters_.chains_lost;
      continue;
    }
    if (Write(write.link, write.to, write.offset, data, nullptr,
              {.hops = chain.hops})) {
      ++counters_.chained_writes;
    } else {
      ++counters_.chains_lost;
    }
  }
  chains_.clear();
  return true;
}

void Engine::FireOutbound(Link& link, Access access, uint32_t handle,
                          uint32_t generation, uint64_t offset, uint64_t length,
                          unsigned hops) {
  if (link.outbound.empty()) return;
  auto it = link.outbound.find(Link::OutboundKey(handle, generation));
  if (it == link.outbound.end()) return;
  it->second->Visit(offset, length,
                    [&](uint32_t id) { Touch(id, access, hops); });
}

}  // namespace tripwire
