// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <atomic>
#include <cstring>

#include "nic/datapath/engine.h"
#include "nic/datapath/place.h"

namespace tripwire {

bool Engine::Write(LinkId id, const ApertureName& to, uint64_t offset,
                   std::span<const uint8_t> data, Completion* completion) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  now_ns_ = clock_.NowNs();
  SendOp op;
  op.type = wire::kWrite;
  op.handle = to.handle;
  op.generation = to.generation;
  op.offset = offset;
  op.length = data.size();
  op.data = data.data();
  op.completion = completion;
  if (completion == nullptr && !data.empty()) {
    op.copy = copies_.Take(data.size());
    std::memcpy(op.copy.data, data.data(), data.size());
    op.data = op.copy.data;
  }
  return Enqueue(*link, std::move(op));
}

void Engine::OnWrite(Link& link, const wire::FrameView& view) {
  const auto& body = view.body<wire::WritePayload>();
  const auto data = view.data<wire::WritePayload>();
  const uint64_t offset = body.offset.get();
  const bool last = view.has(wire::kLast);
  ApertureEntry* aperture = nullptr;
  const OpStatus status = contexts_[link.context]->apertures.Check(
      link.id, body.handle.get(), body.generation.get(), Access::kWrite, offset,
      data.size(), &aperture);
  if (status != OpStatus::kOk) {
    // One refusal for an operation, however many of its frames fail.
    if (!link.access_refused) Refuse(link, view.sequence(), status);
    link.access_refused = true;
  } else {
    // What was placed before is visible before this: a reader that polls a word
    // with an acquire load relies on it.
    std::atomic_thread_fence(std::memory_order_release);
    PlaceInShared(aperture->base + offset, data.data(), data.size());
    counters_.write_bytes += data.size();
    if (aperture->tripwires != nullptr) {
      aperture->tripwires->Visit(offset, data.size(), [&](uint32_t tripwire) {
        link.touched.push_back({tripwire, tripwires_[tripwire]->made});
      });
    }
  }
  if (!last) {
    // A long access may touch the same tripwires in every frame.
    if (link.touched.size() > link.touched_limit) {
      std::sort(link.touched.begin(), link.touched.end());
      link.touched.erase(
          std::unique(link.touched.begin(), link.touched.end()),
          link.touched.end());
      link.touched_limit = std::max<size_t>(64, 2 * link.touched.size());
    }
    return;
  }
  ++counters_.writes;
  link.access_refused = false;
  if (link.touched.empty()) return;
  // Pairs with the acquire of whoever sees the tripwire's event or count.
  std::atomic_thread_fence(std::memory_order_release);
  std::sort(link.touched.begin(), link.touched.end());
  const auto end = std::unique(link.touched.begin(), link.touched.end());
  for (auto it = link.touched.begin(); it != end; ++it) {
    const auto& entry = tripwires_[it->id];
    if (entry != nullptr && entry->made == it->made) Touch(it->id, Access::kWrite);
  }
  link.touched.clear();
  link.touched_limit = 64;
}

}  // namespace tripwire
