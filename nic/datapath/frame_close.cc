// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/engine.h"

namespace tripwire {

// The last operation of a link: everything before it is delivered first.
void Engine::CloseGracefully(Link& link) {
  now_is_stale_ = true;
  if (link.state != LinkState::kOpen) return;
  SendOp& op = link.ops.emplace_back();
  op.type = wire::kClose;
  Pump(link);
  if (link.state == LinkState::kOpen) link.state = LinkState::kClosing;
}

void Engine::OnClose(Link& link) {
  ++link.expected;
  SendAck(link, Ring::kDoorbell, false);  // the link's last frame
  EndLink(link, LinkEnd::kClosedByPeer);
}

// Our own close arrived.
void Engine::OnClosed(Link& link) { EndLink(link, LinkEnd::kClosedHere); }

}  // namespace tripwire
