// SPDX-License-Identifier: BSD-3-Clause
// One frame of an operation, byte by byte.
#include <cstring>

#include "nic/datapath/engine.h"
#include "nic/datapath/place.h"

namespace tripwire {
namespace {

// Shorter data is copied into its frame, longer data gathered if the port can.
constexpr uint32_t kGatherBytes = 256;

// The fixed part of the payload.
void FillBody(const SendOp& op, uint8_t type, OpStatus status, uint64_t offset,
              uint8_t* payload) {
  switch (type) {
    case wire::kWrite: {
      auto* body = reinterpret_cast<wire::WritePayload*>(payload);
      body->handle = op.handle;
      body->generation = op.generation;
      body->offset = op.offset + offset;
      break;
    }
    case wire::kReadRequest: {
      auto* body = reinterpret_cast<wire::ReadRequestPayload*>(payload);
      body->handle = op.handle;
      body->generation = op.generation;
      body->offset = op.offset;
      body->length = op.length;
      break;
    }
    case wire::kReadResponse: {
      auto* body = reinterpret_cast<wire::ReadResponsePayload*>(payload);
      body->operation = op.operation;
      body->offset = offset;
      break;
    }
    case wire::kFlushResponse:
      reinterpret_cast<wire::FlushResponsePayload*>(payload)->operation =
          op.operation;
      break;
    case wire::kOpError: {
      auto* body = reinterpret_cast<wire::OpErrorPayload*>(payload);
      *body = wire::OpErrorPayload{};
      body->operation = op.operation;
      body->status = static_cast<uint8_t>(status);
      break;
    }
    case wire::kMessage: {
      auto* body = reinterpret_cast<wire::MessagePayload*>(payload);
      body->total_length = static_cast<uint32_t>(op.length);
      body->offset = static_cast<uint32_t>(offset);
      break;
    }
    case wire::kAtomicRequest: {
      auto* body = reinterpret_cast<wire::AtomicRequestPayload*>(payload);
      std::memcpy(body, op.small, sizeof *body);
      break;
    }
    case wire::kAtomicResponse: {
      auto* body = reinterpret_cast<wire::AtomicResponsePayload*>(payload);
      std::memcpy(body, op.small, sizeof *body);
      break;
    }
    default: break;
  }
}

}  // namespace

void Engine::FillHeaders(const Link& link, uint8_t type, uint16_t flags,
                         uint64_t sequence, uint32_t acknowledged,
                         uint8_t* out) const {
  auto* ethernet = reinterpret_cast<wire::EthernetHeader*>(out);
  std::memcpy(ethernet->destination, link.remote_mac.bytes.data(), 6);
  std::memcpy(ethernet->source, macs_[link.port].bytes.data(), 6);
  std::memcpy(ethernet->ether_type, wire::kEtherType, 2);
  auto* header = reinterpret_cast<wire::FrameHeader*>(
      out + sizeof(wire::EthernetHeader));
  header->version = wire::kVersion;
  header->type = type;
  header->flags = flags;
  header->link = link.remote_link;
  header->epoch = link.remote_epoch;
  header->sequence = static_cast<uint32_t>(sequence);
  header->acknowledged = acknowledged;
  header->credit = Credit();
}

// What the frame's data is taken from, unless it lies in several pieces (null).
const uint8_t* Engine::SourceOf(const SendOp& op, uint64_t offset,
                                uint32_t length) const {
  if (op.piece_count == 0 || !CarriesData(op.type)) {
    return op.Data() == nullptr ? nullptr : op.Data() + offset;
  }
  const uint8_t* only = nullptr;
  ForMemory(op.pieces(), offset, length,
            [&](const uint8_t* data, size_t bytes) {
              only = bytes == length ? data : nullptr;
            });
  return only;
}

// The usual frame: of a write whose data lies in one piece, on a link without
// checksums.
void Engine::BuildPlainWrite(const Link& link, const SendOp& op,
                             uint64_t sequence, uint32_t acknowledged,
                             uint64_t offset, uint32_t length,
                             bool ack_requested, Frame& frame) const {
  uint8_t* const out = frame.data;
  auto flags = static_cast<uint16_t>(op.hops << wire::kHopsShift);
  if (ack_requested) flags |= wire::kAckRequested;
  if (offset + length == op.length) flags |= wire::kLast;
  if (op.is_unordered && link.first_op >= op.fence) flags |= wire::kUnordered;
  FillHeaders(link, wire::kWrite, flags, sequence, acknowledged, out);
  FillBody(op, wire::kWrite, op.status, offset, out + wire::kHeaderBytes);
  constexpr auto kBody = static_cast<uint32_t>(sizeof(wire::WritePayload));
  auto* header = reinterpret_cast<wire::FrameHeader*>(
      out + sizeof(wire::EthernetHeader));
  header->length = static_cast<uint16_t>(kBody + length);
  frame.length_bytes = static_cast<uint32_t>(wire::kHeaderBytes) + kBody;
  frame.tail_bytes = 0;
  if (length >= kGatherBytes && link.gathers) {
    // Only the owner's own data, which does not change: words may tear.
    frame.tail = op.Data() + offset;
    frame.tail_bytes = length;
    return;
  }
  if (length > 0) {
    std::memcpy(out + frame.length_bytes, op.Data() + offset, length);
  }
  frame.length_bytes += length;
  if (frame.length_bytes < wire::kMinFrameBytes) {
    frame.length_bytes = wire::Seal(out, kBody + length, false);
  }
}

void Engine::BuildFrame(Link& link, SendOp& op, uint64_t sequence,
                        uint32_t acknowledged, uint64_t offset,
                        uint32_t length, bool ack_requested, Frame& frame) {
  uint8_t* const out = frame.data;
  uint8_t type = op.type;
  OpStatus status = op.status;
  const uint8_t* source = nullptr;
  if (type == wire::kReadResponse) {
    // Looked up for every frame, also when it is sent again: the aperture may
    // have been revoked meanwhile.
    ApertureEntry* aperture = nullptr;
    status = contexts_[link.context]->apertures.Check(
        link.id, op.handle, op.generation, Access::kRead, op.offset + offset,
        length, &aperture);
    if (status == OpStatus::kOk) {
      source = aperture->base + op.offset + offset;
    } else {
      type = wire::kOpError;
    }
  } else {
    source = SourceOf(op, offset, length);
  }
  uint16_t flags = 0;
  if (type == wire::kWrite) {
    flags = static_cast<uint16_t>(op.hops << wire::kHopsShift);
  }
  if (ack_requested) flags |= wire::kAckRequested;
  if (!CarriesData(type) || offset + length == op.length) flags |= wire::kLast;
  // What is before its fence is done, or it keeps its place.
  if (op.is_unordered && link.first_op >= op.fence) flags |= wire::kUnordered;
  FillHeaders(link, type, flags, sequence, acknowledged, out);
  uint8_t* payload = out + wire::kHeaderBytes;
  FillBody(op, type, status, offset, payload);
  auto bytes = static_cast<size_t>(wire::FixedPayloadBytes(type));
  frame.tail_bytes = 0;
  if (type == wire::kReadResponse) {
    FetchFromShared(payload + bytes, source, length);
    bytes += length;
  } else if (CarriesData(type) && length >= kGatherBytes && source != nullptr &&
             link.gathers) {
    // Only the owner's own data, which does not change: words may tear.
    auto* header = reinterpret_cast<wire::FrameHeader*>(
        out + sizeof(wire::EthernetHeader));
    header->length = static_cast<uint16_t>(bytes + length);
    frame.length_bytes = static_cast<uint32_t>(wire::kHeaderBytes + bytes);
    frame.tail = source;
    frame.tail_bytes = length;
    return;
  } else if (CarriesData(type) && length > 0) {
    if (source != nullptr) {
      std::memcpy(payload + bytes, source, length);
    } else {
      uint8_t* to = payload + bytes;
      ForMemory(op.pieces(), offset, length,
                [&](const uint8_t* data, size_t n) {
                  std::memcpy(to, data, n);
                  to += n;
                });
    }
    bytes += length;
  }
  frame.length_bytes = wire::Seal(out, bytes, link.checksum);
}

}  // namespace tripwire
