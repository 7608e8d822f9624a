// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_DATAPATH_ENGINE_TYPES_H_
#define TRIPWIRE_NIC_DATAPATH_ENGINE_TYPES_H_

#include <cstddef>
#include <cstdint>

#include "nic/base/clock.h"
#include "nic/datapath/link.h"
#include "nic/port/port.h"
#include "nic/wire/layout.h"
#include "nic/wire/parse.h"

namespace tripwire {

// What the engine hands upwards: frames outside links, and the beginnings and
// ends of links.
class ControlPlane {
 public:
  virtual ~ControlPlane() = default;
  virtual void OnControlFrame(size_t port, PathId path,
                              const wire::FrameView& view) = 0;
  // `link` ended: its context, if told, hears of it by an event.
  virtual void OnLinkEnded(Link& link) = 0;
  virtual uint64_t OnTime(uint64_t now_ns) = 0;  // returns its next deadline
};

struct EngineOptions {
  uint64_t keepalive_ns = kSecond;
  uint64_t peer_timeout_ns = 6 * kSecond;
  bool go_back_n = false;
  bool checksum = true;
  // Of every link, both ways; part of the protocol. Tests start elsewhere, to
  // see the 32 bits on the wire wrap.
  uint64_t first_sequence = 1;
  // What this NIC says it understands (wire::Feature).
  uint32_t features =
      wire::kFeatureAtomics | wire::kFeatureUnordered | wire::kFeatureHops;
};

// Where a walk over a table stands; begins at the first entry.
struct StatsCursor {
  size_t table = 0, slot = 0;
};

// Of an operation: what one frame carries.
struct Piece {
  uint64_t op, offset;
  uint32_t length;
  bool ends_op;
};

// A write that a firing asked for.
struct ChainToBegin {
  uint32_t tripwire, made;
  uint8_t hops;
  uint64_t word;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_DATAPATH_ENGINE_TYPES_H_
