// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_CONTROL_CONTROL_H_
#define TRIPWIRE_NIC_CONTROL_CONTROL_H_

#include <cstdint>
#include <string>

#include "nic/control/connections.h"
#include "nic/control/discovery.h"
#include "nic/datapath/engine.h"

namespace tripwire {

// The control plane of one NIC: discovery and connection management over the
// frames outside links. Slow path; runs with the engine, under its lock.
class Control final : public ControlPlane {
 public:
  Control(Engine& engine, std::string node);

  Connections& connections() { return connections_; }
  Discovery& discovery() { return discovery_; }

  void OnControlFrame(size_t port, PathId path,
                      const wire::FrameView& view) override;
  void OnLinkEnded(Link& link) override { connections_.OnLinkEnded(link); }
  uint64_t OnTime(uint64_t now_ns) override;

 private:
  Engine& engine_;
  Discovery discovery_;
  Connections connections_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_CONTROL_CONTROL_H_
