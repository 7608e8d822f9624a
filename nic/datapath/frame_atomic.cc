// SPDX-License-Identifier: BSD-3-Clause
// Atomic operations on one aligned 64-bit word of the exporter's memory. Delivered
// once and in order, so executed once, whatever the network does; answered as a
// read is.
#include <cstring>

#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

constexpr uint64_t kWordBytes = 8;

}  // namespace

bool Engine::Atomic(LinkId id, const ApertureName& to, uint64_t offset,
                    wire::AtomicOperation operation, uint64_t operand,
                    uint64_t expected, uint64_t* result,
                    Completion* completion) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  now_is_stale_ = true;
  if ((link->peer_features & wire::kFeatureAtomics) == 0) {
    if (completion == nullptr) FailOp(*link, OpStatus::kUnknownOperation);
    Finish(completion, OpStatus::kUnknownOperation);
    return true;
  }
  SendOp& op = link->ops.emplace_back();
  op.type = wire::kAtomicRequest;
  op.handle = to.handle;
  op.generation = to.generation;
  op.offset = offset;
  op.length = kWordBytes;
  op.read_into = reinterpret_cast<uint8_t*>(result);
  op.completion = completion;
  wire::AtomicRequestPayload body{};
  body.handle = to.handle;
  body.generation = to.generation;
  body.offset = offset;
  body.operation = operation;
  body.operand = operand;
  body.expected = expected;
  static_assert(sizeof body <= SendOp::kInlineBytes);
  std::memcpy(op.small, &body, sizeof body);
  op.is_small = true;
  Charge(*link, op, 0);
  Pump(*link);
  return true;
}

Engine::Delivery Engine::OnAtomicRequest(Link& link,
                                         const wire::FrameView& view) {
  if (link.answers_queued >= kMaxQueuedAnswers) return Delivery::kNoRoom;
  const auto& body = view.body<wire::AtomicRequestPayload>();
  const uint64_t offset = body.offset.get();
  ApertureEntry* aperture = nullptr;
  OpStatus status = contexts_[link.context]->apertures.Check(
      link.id, body.handle.get(), body.generation.get(), Access::kAtomic, offset,
      kWordBytes, &aperture);
  if (status == OpStatus::kOk && body.operation != wire::kFetchAdd &&
      body.operation != wire::kCompareAndSwap) {
    status = OpStatus::kUnknownOperation;
  }
  uint64_t* word = nullptr;
  if (status == OpStatus::kOk) {
    word = reinterpret_cast<uint64_t*>(aperture->base + offset);
    if (reinterpret_cast<uintptr_t>(word) % kWordBytes != 0) {
      status = OpStatus::kMisaligned;
    }
  }
  if (status != OpStatus::kOk) {
    Refuse(link, view.sequence(), status);
    return Delivery::kTaken;
  }
  // Sequentially consistent: releases what was placed before, and the program's
  // own threads may operate on the same word.
  uint64_t before = 0;
  if (body.operation == wire::kFetchAdd) {
    before = __atomic_fetch_add(word, body.operand.get(), __ATOMIC_SEQ_CST);
  } else {
    before = body.expected.get();
    __atomic_compare_exchange_n(word, &before, body.operand.get(),
                                /*weak=*/false, __ATOMIC_SEQ_CST,
                                __ATOMIC_SEQ_CST);
  }
  ++counters_.atomics;
  ++aperture->accesses;
  aperture->bytes += kWordBytes;
  SendOp& op = link.ops.emplace_back();
  op.type = wire::kAtomicResponse;
  op.operation = view.sequence();
  wire::AtomicResponsePayload answer{};
  answer.operation = op.operation;
  answer.value = before;
  std::memcpy(op.small, &answer, sizeof answer);
  op.is_small = true;
  ++link.answers_queued;
  MarkReady(link);
  if (aperture->tripwires != nullptr) {
    aperture->tripwires->Visit(offset, kWordBytes, [&](uint32_t tripwire) {
      Touch(tripwire, Access::kAtomic, view.hops());
    });
  }
  return Delivery::kTaken;
}

void Engine::OnAtomicResponse(Link& link, const wire::FrameView& view) {
  const auto& body = view.body<wire::AtomicResponsePayload>();
  auto it = link.awaited.find(body.operation.get());
  if (it == link.awaited.end() || it->second.type != wire::kAtomicRequest) {
    return;
  }
  const AwaitedReply ended = TakeAwaited(link, it);
  if (ended.into != nullptr) {
    const uint64_t value = body.value.get();
    std::memcpy(ended.into, &value, sizeof value);
  }
  FireOutbound(link, Access::kAtomic, ended.handle, ended.generation,
               ended.offset, ended.length, ended.hops);
  Finish(ended.completion, OpStatus::kOk);
}

}  // namespace tripwire
