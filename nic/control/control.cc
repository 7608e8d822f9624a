// SPDX-License-Identifier: BSD-3-Clause
#include "nic/control/control.h"

#include <algorithm>

namespace tripwire {

Control::Control(Engine& engine, std::string node)
    : engine_(engine),
      discovery_(engine, std::move(node)),
      connections_(engine, discovery_) {
  engine_.set_control(this);
}

void Control::OnControlFrame(size_t port, PathId path,
                             const wire::FrameView& view) {
  bool well_formed = true;
  switch (view.type()) {
    case wire::kDiscover:
      well_formed = discovery_.OnDiscover(port, path, view);
      break;
    case wire::kAnnounce: {
      Announcement heard;
      well_formed = discovery_.OnAnnounce(port, path, view, &heard);
      if (well_formed) connections_.OnAnnouncement(heard);
      break;
    }
    case wire::kConnect:
      well_formed = connections_.OnConnect(port, path, view);
      break;
    case wire::kAccept: well_formed = connections_.OnAccept(port, path, view); break;
    case wire::kReject: well_formed = connections_.OnReject(view); break;
    default: well_formed = false;
  }
  if (!well_formed) ++engine_.counters().drop_malformed;
}

uint64_t Control::OnTime(uint64_t now_ns) {
  return std::min(discovery_.OnTime(now_ns), connections_.OnTime(now_ns));
}

}  // namespace tripwire
