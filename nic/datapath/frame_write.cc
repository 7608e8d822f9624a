// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <atomic>
#include <cstring>

#include "nic/datapath/engine.h"
#include "nic/datapath/place.h"

namespace tripwire {
namespace {

// With more frames than so many unacknowledged, one asks for an acknowledgement
// now and then: no case for the short way.
constexpr uint64_t kFewUnacknowledged = 32;

void CopySmall(uint8_t* to, std::span<const uint8_t> data) {
  if (data.size() == sizeof(uint64_t)) {  // most are words
    std::memcpy(to, data.data(), sizeof(uint64_t));
  } else {
    std::copy(data.begin(), data.end(), to);
  }
}

}  // namespace

// An operation of this kind at the end of the queue, without its data.
SendOp& Engine::AddWrite(Link& link, const ApertureName& to, uint64_t offset,
                         uint64_t length, Completion* completion,
                         WriteOptions options) {
  SendOp& op = link.ops.emplace_back();
  op.type = wire::kWrite;
  op.handle = to.handle;
  op.generation = to.generation;
  op.offset = offset;
  op.length = length;
  op.completion = completion;
  op.hops = options.hops;
  op.is_unordered = options.is_unordered &&
                    (link.peer_features & wire::kFeatureUnordered) != 0;
  op.fence = link.fence;
  Charge(link, op, completion == nullptr ? length : 0);
  return op;
}

// A block of its own for the data; it is there when the program's is not.
uint8_t* Engine::TakeCopy(SendOp& op, size_t bytes) {
  op.copy = copies_.Take(bytes);
  op.data = op.copy.data;
  return op.copy.data;
}

bool Engine::Fence(LinkId id) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  link->fence = link->first_op + link->ops.size();
  return true;
}

bool Engine::Write(LinkId id, const ApertureName& to, uint64_t offset,
                   std::span<const uint8_t> data, Completion* completion,
                   WriteOptions options) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  if (completion == nullptr && data.size() <= SendOp::kInlineBytes &&
      options.hops == 0 && WriteAtOnce(*link, to, offset, data)) {
    return true;
  }
  QueueWrite(*link, to, offset, data, completion, options);
  Pump(*link);
  return true;
}

void Engine::QueueWrite(Link& link, const ApertureName& to, uint64_t offset,
                        std::span<const uint8_t> data, Completion* completion,
                        WriteOptions options) {
  now_is_stale_ = true;
  SendOp& op =
      AddWrite(link, to, offset, data.size(), completion, options);
  op.data = data.data();
  if (completion == nullptr && data.size() <= SendOp::kInlineBytes) {
    std::copy(data.begin(), data.end(), op.small);
    op.is_small = true;
  } else if (completion == nullptr) {
    std::memcpy(TakeCopy(op, data.size()), data.data(), data.size());
  }
}

bool Engine::WriteGather(LinkId id, const ApertureName& to, uint64_t offset,
                         std::span<const std::span<const uint8_t>> parts,
                         Completion* completion, WriteOptions options) {
  Link* link = FindLink(id);
  if (link == nullptr || link->state != LinkState::kOpen) return false;
  now_is_stale_ = true;
  uint64_t length = 0;
  for (const auto& part : parts) length += part.size();
  SendOp& op = AddWrite(*link, to, offset, length, completion, options);
  if (completion != nullptr) {
    const PieceList list = MakePieceList(parts, copies_);
    op.copy = list.block;
    op.piece_count = list.count;
  } else if (length > 0) {
    uint8_t* copy = TakeCopy(op, length);
    for (const auto& part : parts) {
      copy = std::copy(part.begin(), part.end(), copy);
    }
  }
  Pump(*link);
  return true;
}

// A small write with nothing before it, and room for more after it, needs none
// of the sender's machinery: the frame leaves first, and is accounted for while
// it is on its way. False when it is not so simple.
bool Engine::WriteAtOnce(Link& link, const ApertureName& to, uint64_t offset,
                         std::span<const uint8_t> data) {
  const uint64_t number = link.first_op + link.ops.size();
  const uint64_t sequence = link.next_sequence;
  if (link.cursor_op != number || link.lost_count > 0 ||
      !link.refusals.empty() || link.sent.empty() ||
      sequence - link.acked >= kFewUnacknowledged ||
      !MaySend(link, sequence + 1, 1)) {
    return false;
  }
  Port& port = *ports_[link.port];
  Frame frame;
  if (port.Allocate({&frame, 1}) == 0) return false;
  const uint32_t acknowledged = Acknowledged(link);
  FillHeaders(link, wire::kWrite, wire::kLast, sequence, acknowledged,
              frame.data);
  auto* body =
      reinterpret_cast<wire::WritePayload*>(frame.data + wire::kHeaderBytes);
  body->handle = to.handle;
  body->generation = to.generation;
  body->offset = offset;
  CopySmall(reinterpret_cast<uint8_t*>(body + 1), data);
  frame.length_bytes =
      wire::Seal(frame.data, sizeof *body + data.size(), link.checksum);
  if (port.Transmit(link.path, {&frame, 1}) == 0) {
    port.Release({&frame, 1});
    return false;
  }
  now_is_stale_ = true;
  ++counters_.tx_frames;
  counters_.tx_bytes += frame.length_bytes;
  SendOp& op = link.ops.emplace_back();
  op.type = wire::kWrite;
  op.handle = to.handle;
  op.generation = to.generation;
  op.offset = offset;
  op.length = data.size();
  CopySmall(op.small, data);
  op.is_small = true;
  Charge(link, op, data.size());
  NotePieceSent(link, {number, 0, static_cast<uint32_t>(data.size()), true},
                acknowledged);
  NoteAckSent(link);
  if (link.retransmit_at == kNever) SetRetransmitTimer(link);
  return true;
}

// Checks one frame of a write and stores its data. The aperture is set on kOk.
OpStatus Engine::PlaceWrite(Link& link, const wire::FrameView& view,
                            ApertureEntry** aperture) {
  const auto& body = view.body<wire::WritePayload>();
  const auto data = view.data<wire::WritePayload>();
  const uint64_t offset = body.offset.get();
  const OpStatus status = contexts_[link.context]->apertures.Check(
      link.id, body.handle.get(), body.generation.get(), Access::kWrite, offset,
      data.size(), aperture);
  if (status != OpStatus::kOk) return status;
  PlaceChecked(**aperture, offset, data);
  return OpStatus::kOk;
}

void Engine::OnWrite(Link& link, const wire::FrameView& view) {
  ApertureEntry* aperture = nullptr;
  const OpStatus status = PlaceWrite(link, view, &aperture);
  FinishWrite(link, DescribeWrite(view, status), aperture);
}

// The turn of a frame that is placed, or was refused: what follows from it. The
// aperture is null when it was refused, or is gone by now.
void Engine::FinishWrite(Link& link, const WriteFrame& frame,
                         ApertureEntry* aperture) {
  const bool last = frame.is_last;
  if (frame.status != OpStatus::kOk) {
    // One refusal for an operation, however many of its frames fail.
    if (!link.access_refused) Refuse(link, frame.sequence, frame.status);
    link.access_refused = true;
  } else if (aperture != nullptr) {
    if (last) ++aperture->accesses;
    if (aperture->tripwires == nullptr) {
      // Nobody watches: the usual case for bulk data.
    } else if (last && link.touched.empty()) {
      TouchWritten(*aperture, frame.offset, frame.length, frame.hops);
    } else {
      aperture->tripwires->Visit(
          frame.offset, frame.length, [&](uint32_t tripwire) {
            link.touched.push_back({tripwire, tripwires_[tripwire].made});
          });
    }
  }
  if (!last) {
    // A long access may touch the same tripwires in every frame.
    if (link.touched.size() > link.touched_limit) {
      std::sort(link.touched.begin(), link.touched.end());
      link.touched.erase(
          std::unique(link.touched.begin(), link.touched.end()),
          link.touched.end());
      link.touched_limit = std::max<size_t>(64, 2 * link.touched.size());
    }
    return;
  }
  ++counters_.writes;
  link.access_refused = false;
  if (link.touched.empty()) return;
  // Pairs with the acquire of whoever sees the tripwire's event or count.
  std::atomic_thread_fence(std::memory_order_release);
  std::sort(link.touched.begin(), link.touched.end());
  const auto end = std::unique(link.touched.begin(), link.touched.end());
  for (auto it = link.touched.begin(); it != end; ++it) {
    if (tripwires_[it->id].made != it->made) continue;
    Touch(it->id, Access::kWrite, frame.hops);
  }
  link.touched.clear();
  link.touched_limit = 64;
}

}  // namespace tripwire
