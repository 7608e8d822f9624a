// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>

#include "nic/datapath/engine.h"

namespace tripwire {

// Tells the peer that its operation, named by a frame's sequence, was refused.
// Sent in sequence before anything that acknowledges the frame (see ApplyAck).
void Engine::Refuse(Link& link, uint64_t sequence, OpStatus status) {
  switch (status) {
    case OpStatus::kBadHandle: ++counters_.refused_handle; break;
    case OpStatus::kStaleGeneration: ++counters_.refused_generation; break;
    case OpStatus::kNoRights: ++counters_.refused_rights; break;
    case OpStatus::kMisaligned: ++counters_.refused_alignment; break;
    case OpStatus::kUnknownOperation: ++counters_.refused_operation; break;
    default: ++counters_.refused_bounds; break;
  }
  link.refusals.push_back(
      {static_cast<uint32_t>(sequence), status, link.expected});
  MarkReady(link);
}

void Engine::BuildRefusal(Link& link, uint32_t operation, OpStatus status,
                          uint64_t sequence, uint32_t acknowledged,
                          Frame& frame) {
  FillHeaders(link, wire::kOpError, wire::kLast, sequence, acknowledged,
              frame.data);
  auto* body =
      reinterpret_cast<wire::OpErrorPayload*>(frame.data + wire::kHeaderBytes);
  *body = wire::OpErrorPayload{};
  body->operation = operation;
  body->status = static_cast<uint8_t>(status);
  frame.tail_bytes = 0;
  frame.length_bytes = wire::Seal(frame.data, sizeof *body, link.checksum);
}

// Sends refusals, one by one: each allows more to be acknowledged. Neither the
// congestion window nor the peer's credit holds them up, unless that is 0, but the
// window itself does. Returns false when the port is full.
bool Engine::PumpRefusals(Link& link) {
  if (link.peer_credit == 0) return true;
  const uint64_t end =
      link.acked + std::min<uint64_t>(uint64_t{link.peer_credit} + kReservedFrames,
                                      kWindowFrames);
  while (!link.refusals.empty() && link.next_sequence < end) {
    Frame frame;
    if (ports_[link.port]->Allocate({&frame, 1}) == 0) {
      ++counters_.drop_no_buffer;
      MarkReady(link);
      return false;
    }
    const Refusal refusal = link.refusals.front();
    const uint32_t acknowledged = Acknowledged(link);
    BuildRefusal(link, refusal.operation, refusal.status, link.next_sequence,
                 acknowledged, frame);
    size_t sent = 0;
    if (!TransmitBurst(link, {&frame, 1}, &sent)) return false;
    SentFrame& record = link.Sent(link.next_sequence++);
    record = {.op = refusal.operation,
              .sent_ns = Now(),
              .transmission = ++link.transmissions,
              .acknowledged = acknowledged,
              .refusal = refusal.status};
    link.refusals.pop_front();
    link.ack_now = true;  // more may be acknowledged now
    MarkReady(link);
    if (link.retransmit_at == kNever) SetRetransmitTimer(link);
  }
  return true;
}

void Engine::OnOpError(Link& link, const wire::FrameView& view) {
  const auto& body = view.body<wire::OpErrorPayload>();
  auto status = static_cast<OpStatus>(body.status);
  if (body.status == static_cast<uint8_t>(OpStatus::kOk) ||
      body.status == static_cast<uint8_t>(OpStatus::kPending) ||
      body.status > static_cast<uint8_t>(OpStatus::kUnknownOperation)) {
    status = OpStatus::kBadHandle;  // refused, for a reason we do not know
  }
  const uint32_t operation = body.operation.get();
  auto it = link.awaited.find(operation);
  if (it != link.awaited.end()) {
    const AwaitedReply ended = TakeAwaited(link, it);
    if (ended.completion == nullptr && ended.type == wire::kAtomicRequest) {
      return FailOp(link, status);
    }
    return Finish(ended.completion, status);
  }
  const uint64_t sequence = ExpandSequence(operation, link.acked);
  for (size_t i = 0; i < link.ops.size(); ++i) {
    SendOp& op = link.ops[i];
    if (op.first_sequence == 0 || op.first_sequence > sequence) break;
    if (op.end_sequence != 0 && op.end_sequence <= sequence) continue;
    if (op.type == wire::kWrite) op.status = status;
    break;
  }
}

}  // namespace tripwire
