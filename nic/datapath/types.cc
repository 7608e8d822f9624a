// SPDX-License-Identifier: BSD-3-Clause
#include "nic/datapath/types.h"

#include <cstring>

#include "nic/base/wire_int.h"

namespace tripwire {
namespace {

struct WireName {
  Le32 handle;
  Le32 generation;
  Le64 length;
  uint8_t rights;
  uint8_t reserved[7];
};
static_assert(sizeof(WireName) == ApertureName::kWireBytes);

}  // namespace

const char* ToString(OpStatus status) {
  switch (status) {
    case OpStatus::kOk: return "ok";
    case OpStatus::kPending: return "pending";
    case OpStatus::kBadHandle: return "no such aperture";
    case OpStatus::kStaleGeneration: return "aperture revoked";
    case OpStatus::kNoRights: return "access not granted";
    case OpStatus::kOutOfBounds: return "outside the aperture";
    case OpStatus::kLinkLost: return "link lost";
    case OpStatus::kTooLarge: return "message too large";
    case OpStatus::kMisaligned: return "word not aligned";
    case OpStatus::kUnknownOperation: return "operation unknown to the peer";
  }
  return "unknown status";
}

const char* ToString(LinkEnd end) {
  switch (end) {
    case LinkEnd::kNone: return "up";
    case LinkEnd::kClosedHere: return "closed here";
    case LinkEnd::kClosedByPeer: return "closed by the peer";
    case LinkEnd::kRefused: return "refused by the peer";
    case LinkEnd::kTimedOut: return "no answer from the peer";
    case LinkEnd::kPeerRestarted: return "the peer restarted";
    case LinkEnd::kAmbiguous: return "several nodes offer the service";
    case LinkEnd::kNoSuchService: return "the node offers no such service";
  }
  return "unknown";
}

void ApertureName::Serialize(uint8_t out[kWireBytes]) const {
  WireName wire{};
  wire.handle = handle;
  wire.generation = generation;
  wire.length = length_bytes;
  wire.rights = static_cast<uint8_t>(rights);
  std::memcpy(out, &wire, sizeof wire);
}

ApertureName ApertureName::Parse(const uint8_t in[kWireBytes]) {
  WireName wire;
  std::memcpy(&wire, in, sizeof wire);
  return {wire.handle.get(), wire.generation.get(), wire.length.get(),
          static_cast<Access>(wire.rights & static_cast<uint8_t>(Access::kAny))};
}

}  // namespace tripwire
