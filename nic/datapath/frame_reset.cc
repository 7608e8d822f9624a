// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/engine.h"

namespace tripwire {

void Engine::SendReset(size_t port, PathId path, const MacAddress& to,
                       uint32_t remote_link, uint32_t remote_epoch,
                       uint32_t named_link, uint32_t named_epoch) {
  wire::ResetPayload body;
  body.link = named_link;
  body.epoch = named_epoch;
  SendControl(port, path, to, wire::kReset, remote_link, remote_epoch,
              {reinterpret_cast<const uint8_t*>(&body), sizeof body});
}

// The peer knows nothing of the link named as our frames name it.
void Engine::OnReset(const wire::FrameView& view) {
  const auto& body = view.body<wire::ResetPayload>();
  auto it = by_remote_.find(
      {view.source().bytes, body.link.get(), body.epoch.get()});
  Link* link = it == by_remote_.end() ? nullptr : FindLink(it->second);
  if (link == nullptr) {
    ++counters_.drop_unknown_link;
    return;
  }
  EndLink(*link, LinkEnd::kPeerRestarted);
}

}  // namespace tripwire
