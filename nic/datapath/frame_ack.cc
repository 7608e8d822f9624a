// SPDX-License-Identifier: BSD-3-Clause
#include <cstring>

#include "nic/datapath/engine.h"

namespace tripwire {

// The acknowledgement itself was applied with the header (ApplyAck).
void Engine::OnAck(Link& link, const wire::FrameView& view) {
  if (!view.has(wire::kAckRequested)) return;
  link.ack_now = true;
  link.ack_requested = true;
  MarkReady(link);
}

void Engine::SendAck(Link& link, Ring ring, bool ask) {
  Port& port = *ports_[link.port];
  Frame frame;
  if (port.Allocate({&frame, 1}) == 0) {
    ++counters_.drop_no_buffer;
    return;
  }
  FillHeaders(link, wire::kAck, ask ? wire::kAckRequested : 0,
              link.next_sequence, Acknowledged(link), frame.data);
  auto* body =
      reinterpret_cast<wire::AckPayload*>(frame.data + wire::kHeaderBytes);
  std::memset(body, 0, sizeof *body);
  if (link.early_count > 0) {
    const uint64_t acknowledged =
        ExpandSequence(Acknowledged(link), link.expected);
    for (uint64_t s = link.expected + 1; s < link.early_end; ++s) {
      if (!link.CameEarly(s)) continue;
      const uint64_t i = s - acknowledged - 1;
      if (i >= kWindowFrames) break;
      body->received[i / 8] |= static_cast<uint8_t>(1u << (i % 8));
    }
  }
  frame.length_bytes =
      wire::Seal(frame.data, sizeof(wire::AckPayload), link.checksum);
  if (port.Transmit(link.path, {&frame, 1}, ring) == 0) {
    port.Release({&frame, 1});
    MarkReady(link);
    return;
  }
  ++counters_.acks_sent;
  ++counters_.tx_frames;
  counters_.tx_bytes += frame.length_bytes;
  NoteAckSent(link);
}

}  // namespace tripwire
