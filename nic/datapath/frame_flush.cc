// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/engine.h"

namespace tripwire {

bool Engine::Flush(LinkId id, Completion* completion) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  now_is_stale_ = true;
  SendOp& op = link->ops.emplace_back();
  op.type = wire::kFlushRequest;
  op.completion = completion;
  Charge(*link, op, 0);
  Pump(*link);
  return true;
}

// Delivery is in order, so everything before the request is placed by now.
Engine::Delivery Engine::OnFlushRequest(Link& link,
                                        const wire::FrameView& view) {
  if (link.answers_queued >= kMaxQueuedAnswers) return Delivery::kNoRoom;
  SendOp& op = link.ops.emplace_back();
  op.type = wire::kFlushResponse;
  op.operation = view.sequence();
  ++link.answers_queued;
  MarkReady(link);
  return Delivery::kTaken;
}

void Engine::OnFlushResponse(Link& link, const wire::FrameView& view) {
  auto it = link.awaited.find(
      view.body<wire::FlushResponsePayload>().operation.get());
  if (it == link.awaited.end() || it->second.type != wire::kFlushRequest) {
    return;
  }
  Finish(TakeAwaited(link, it).completion, OpStatus::kOk);
}

}  // namespace tripwire
