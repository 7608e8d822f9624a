// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/engine.h"

namespace tripwire {

// Tells the peer that its operation, named by a frame's sequence, was refused.
// Sent in sequence before anything that acknowledges the frame (see ApplyAck).
void Engine::Refuse(Link& link, uint64_t sequence, OpStatus status) {
  switch (status) {
    case OpStatus::kBadHandle: ++counters_.refused_handle; break;
    case OpStatus::kStaleGeneration: ++counters_.refused_generation; break;
    case OpStatus::kNoRights: ++counters_.refused_rights; break;
    default: ++counters_.refused_bounds; break;
  }
  if (link.refusals_queued++ == 0) link.first_refused = link.expected;
  SendOp& op = link.ops.emplace_back();
  op.type = wire::kOpError;
  op.operation = static_cast<uint32_t>(sequence);
  op.status = status;
  MarkReady(link);
}

void Engine::OnOpError(Link& link, const wire::FrameView& view) {
  const auto& body = view.body<wire::OpErrorPayload>();
  auto status = static_cast<OpStatus>(body.status);
  if (body.status == static_cast<uint8_t>(OpStatus::kOk) ||
      body.status == static_cast<uint8_t>(OpStatus::kPending) ||
      body.status > static_cast<uint8_t>(OpStatus::kTooLarge)) {
    status = OpStatus::kBadHandle;  // refused, for a reason we do not know
  }
  const uint32_t operation = body.operation.get();
  auto it = link.awaited.find(operation);
  if (it != link.awaited.end()) {
    Completion* completion = it->second.completion;
    link.awaited.erase(it);
    return Finish(completion, status);
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
