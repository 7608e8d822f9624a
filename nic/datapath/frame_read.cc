// SPDX-License-Identifier: BSD-3-Clause
#include <atomic>
#include <utility>

#include "nic/datapath/engine.h"
#include "nic/datapath/place.h"

namespace tripwire {

SendOp& Engine::QueueRead(Link& link, const ApertureName& from, uint64_t offset,
                          uint64_t length, Completion* completion) {
  SendOp& op = link.ops.emplace_back();
  op.type = wire::kReadRequest;
  op.handle = from.handle;
  op.generation = from.generation;
  op.offset = offset;
  op.length = length;
  op.completion = completion;
  Charge(link, op, 0);
  return op;
}

bool Engine::Read(LinkId id, const ApertureName& from, uint64_t offset,
                  std::span<uint8_t> into, Completion* completion) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  now_is_stale_ = true;
  SendOp& op = QueueRead(*link, from, offset, into.size(), completion);
  op.read_into = into.data();
  Pump(*link);
  return true;
}

bool Engine::ReadScatter(LinkId id, const ApertureName& from, uint64_t offset,
                         std::span<const std::span<uint8_t>> parts,
                         Completion* completion) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  now_is_stale_ = true;
  uint64_t length = 0;
  for (const auto& part : parts) length += part.size();
  SendOp& op = QueueRead(*link, from, offset, length, completion);
  const PieceList list = MakePieceList(parts, copies_);
  op.copy = list.block;
  op.piece_count = list.count;
  Pump(*link);
  return true;
}

Engine::Delivery Engine::OnReadRequest(Link& link,
                                       const wire::FrameView& view) {
  if (link.answers_queued >= kMaxQueuedAnswers) return Delivery::kNoRoom;
  const auto& body = view.body<wire::ReadRequestPayload>();
  ApertureEntry* aperture = nullptr;
  const OpStatus status = contexts_[link.context]->apertures.Check(
      link.id, body.handle.get(), body.generation.get(), Access::kRead,
      body.offset.get(), body.length.get(), &aperture);
  if (status != OpStatus::kOk) {
    Refuse(link, view.sequence(), status);
    return Delivery::kTaken;
  }
  ++aperture->accesses;
  aperture->bytes += body.length.get();
  SendOp& op = link.ops.emplace_back();
  op.type = wire::kReadResponse;
  op.handle = body.handle.get();
  op.generation = body.generation.get();
  op.offset = body.offset.get();
  op.length = body.length.get();
  op.operation = view.sequence();
  op.hops = static_cast<uint8_t>(view.hops());
  ++link.answers_queued;
  MarkReady(link);
  return Delivery::kTaken;
}

AwaitedReply Engine::TakeAwaited(Link& link, Awaited::iterator it) {
  AwaitedReply ended = it->second;
  link.awaited.erase(it);
  copies_.Give(std::exchange(ended.list, {}).block);
  Discharge(link, ended.quota_bytes);
  return ended;
}

void Engine::OnReadResponse(Link& link, const wire::FrameView& view) {
  const auto& body = view.body<wire::ReadResponsePayload>();
  const auto data = view.data<wire::ReadResponsePayload>();
  auto it = link.awaited.find(body.operation.get());
  if (it == link.awaited.end() || it->second.type != wire::kReadRequest) return;
  AwaitedReply& reply = it->second;
  const uint64_t offset = body.offset.get();
  // In order and complete by the link's guarantee, or the peer is at fault.
  if (offset != reply.received || data.size() > reply.length - offset) {
    ++counters_.drop_malformed;
    return;
  }
  if (reply.list.count == 0) {
    PlaceInShared(reply.into + offset, data.data(), data.size());
  } else {
    const uint8_t* from = data.data();
    ForMemory(reply.list.pieces(), offset, data.size(),
              [&](uint8_t* to, size_t bytes) {
                PlaceInShared(to, from, bytes);
                from += bytes;
              });
  }
  reply.received += data.size();
  if (!view.has(wire::kLast)) return;
  const AwaitedReply ended = TakeAwaited(link, it);
  if (ended.received != ended.length) {
    ++counters_.drop_malformed;
    return Finish(ended.completion, OpStatus::kOutOfBounds);
  }
  std::atomic_thread_fence(std::memory_order_release);
  FireOutbound(link, Access::kRead, ended.handle, ended.generation,
               ended.offset, ended.length, ended.hops);
  Finish(ended.completion, OpStatus::kOk);
}

}  // namespace tripwire
