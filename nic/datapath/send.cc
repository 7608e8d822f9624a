// SPDX-License-Identifier: BSD-3-Clause
// Operations to frames: cutting, building and transmitting what there is room
// for, first what was lost, then what is new.
#include <algorithm>
#include <array>
#include <utility>

#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

// Ask for an acknowledgement at least this often in a long run of frames, when
// so many are unacknowledged: in an exchange they come by themselves.
constexpr uint64_t kAskEvery = 64;
constexpr uint64_t kAskBehind = 32;
// Operations somebody waits for, in a row, ask once in so many frames.
constexpr uint64_t kAskTogether = 8;
// Segments of one operation are cut at multiples of this, so that no word is.
constexpr uint64_t kCutAlignment = 64;

}  // namespace

void Engine::Pump(Link& link) {
  if (!link.carries_data()) return;
  if (link.sent.empty()) link.sent.resize(kWindowFrames);
  if (link.lost_count > 0 && !PumpLost(link)) return;
  if (!link.refusals.empty() && !PumpRefusals(link)) return;
  if (link.cursor_op < link.first_op + link.ops.size()) PumpNew(link);
}

uint32_t Engine::SegmentBytes(const Link& link, const SendOp& op,
                              uint64_t offset) const {
  if (!CarriesData(op.type)) return 0;
  // Whatever the type.
  constexpr uint64_t kMostAround =
      wire::kHeaderBytes + wire::kMaxFixedBytes + wire::kChecksumBytes;
  const uint64_t left = op.length - offset;
  if (left + kMostAround <= link.max_frame_bytes) {
    return static_cast<uint32_t>(left);
  }
  const uint64_t room = link.max_frame_bytes - wire::kHeaderBytes -
                        static_cast<size_t>(wire::FixedPayloadBytes(op.type)) -
                        (link.checksum ? wire::kChecksumBytes : 0);
  if (left <= room) return static_cast<uint32_t>(left);
  const uint64_t end = (op.offset + offset + room) & ~(kCutAlignment - 1);
  return static_cast<uint32_t>(end - op.offset - offset);
}

// Hands a burst to the link's port. Frames it had no room for are released.
// Returns whether all went.
bool Engine::TransmitBurst(Link& link, std::span<Frame> frames, size_t* sent) {
  Port& port = *ports_[link.port];
  *sent = port.Transmit(link.path, frames);
  counters_.tx_frames += *sent;
  for (size_t i = 0; i < *sent; ++i) {
    counters_.tx_bytes += frames[i].total_bytes();
  }
  if (*sent == frames.size()) return true;
  port.Release(frames.subspan(*sent));
  MarkReady(link);  // try again next turn
  return false;
}

// Sends lost frames again, oldest first. Returns false when the port is full.
bool Engine::PumpLost(Link& link) {
  std::array<Frame, kBurst>& frames = tx_burst_;
  std::array<uint64_t, kBurst> sequences;
  uint64_t scan = link.acked;
  while (link.lost_count > 0) {
    size_t count = 0;
    for (; scan < link.next_sequence && count < kBurst; ++scan) {
      if (!link.Sent(scan).lost) continue;
      if (!MaySend(link, link.acked, static_cast<uint32_t>(count))) break;
      sequences[count++] = scan;
    }
    if (count == 0) return true;
    const size_t got = ports_[link.port]->Allocate({frames.data(), count});
    for (size_t i = 0; i < got; ++i) {
      const SentFrame& record = link.Sent(sequences[i]);
      if (record.refusal != OpStatus::kOk) {
        BuildRefusal(link, static_cast<uint32_t>(record.op), record.refusal,
                     sequences[i], record.acknowledged, frames[i]);
        continue;
      }
      BuildFrame(link, link.Op(record.op), sequences[i], record.acknowledged,
                 record.op_offset, record.length, i + 1 == got, frames[i]);
    }
    size_t sent = 0;
    const bool all = TransmitBurst(link, {frames.data(), got}, &sent);
    for (size_t i = 0; i < sent; ++i) {
      SentFrame& record = link.Sent(sequences[i]);
      record.lost = false;
      record.retransmitted = true;
      record.sent_ns = Now();
      record.transmission = ++link.transmissions;
      --link.lost_count;
      ++link.retransmitted_frames;
      ++counters_.retransmitted_frames;
    }
    SetRetransmitTimer(link);
    if (!all) return false;
    if (got < count) {
      ++counters_.drop_no_buffer;
      MarkReady(link);
      return false;
    }
  }
  return true;
}

// What there is, and may go, in one burst.
size_t Engine::CutPieces(Link& link, std::span<Piece> pieces) {
  size_t count = 0;
  uint64_t number = link.cursor_op;
  uint64_t offset = link.cursor_offset;
  const uint64_t end = link.first_op + link.ops.size();
  while (count < pieces.size() && number < end &&
         MaySend(link, link.next_sequence + count,
                 static_cast<uint32_t>(count))) {
    const SendOp& op = link.Op(number);
    const uint32_t length = SegmentBytes(link, op, offset);
    const bool ends_op = !CarriesData(op.type) || offset + length == op.length;
    pieces[count++] = {number, offset, length, ends_op};
    offset = ends_op ? 0 : offset + length;
    if (ends_op) ++number;
  }
  return count;
}

bool Engine::PumpNew(Link& link) {
  std::array<Frame, kBurst>& frames = tx_burst_;
  std::array<Piece, kBurst> pieces;
  const uint64_t end = link.first_op + link.ops.size();
  for (;;) {
    const size_t count = CutPieces(link, pieces);
    if (count == 0) return true;
    const size_t got = ports_[link.port]->Allocate({frames.data(), count});
    const uint32_t acknowledged = Acknowledged(link);
    for (size_t i = 0; i < got; ++i) {
      const Piece& piece = pieces[i];
      const uint64_t sequence = link.next_sequence + i;
      const bool ask =
          MustAsk(link, piece, sequence, static_cast<uint32_t>(i + 1));
      BuildFrame(link, link.Op(piece.op), sequence, acknowledged, piece.offset,
                 piece.length, ask, frames[i]);
    }
    size_t sent = 0;
    const bool all = TransmitBurst(link, {frames.data(), got}, &sent);
    for (size_t i = 0; i < sent; ++i) {
      NotePieceSent(link, pieces[i], acknowledged);
    }
    if (sent > 0) {
      NoteAckSent(link);
      if (link.retransmit_at == kNever) SetRetransmitTimer(link);
    }
    if (!all) return false;
    if (got < count) {
      ++counters_.drop_no_buffer;
      MarkReady(link);
      return false;
    }
    if (link.cursor_op == end) return true;
  }
}

// Whether the frame is to ask for an acknowledgement. The last write there is asks,
// if somebody waits for it (reads and flushes are answered anyway); but when others of late have asked, it puts that
// off until it is sure that no more follow (AskWhatIsOwed).
bool Engine::MustAsk(Link& link, const Piece& piece, uint64_t sequence,
                     uint32_t more) {
  bool ask = !MaySend(link, sequence + 1, more) ||
             (sequence % kAskEvery == 0 && sequence - link.acked >= kAskBehind);
  if (!ask && piece.ends_op &&
      piece.op + 1 == link.first_op + link.ops.size() &&
      link.Op(piece.op).type == wire::kWrite &&
      link.Op(piece.op).completion != nullptr) {
    ask = sequence == link.acked || sequence - link.asked >= kAskTogether;
    if (!ask && !link.owes_question) {
      link.owes_question = true;
      questions_owed_.push_back(link.id);
    }
  }
  if (ask) link.asked = sequence;
  return ask;
}

// Nothing came in this turn and nobody wrote: asks for what is still unanswered.
void Engine::AskWhatIsOwed() {
  for (LinkId id : questions_owed_) {
    Link* link = FindLink(id);
    if (link == nullptr) continue;
    link->owes_question = false;
    const uint64_t newest = link->next_sequence - 1;
    if (!link->carries_data() || link->asked >= newest ||
        link->acked > newest) {
      continue;
    }
    link->asked = newest;
    SendAck(*link, Ring::kDoorbell, true);
  }
  questions_owed_.clear();
}

void Engine::NotePieceSent(Link& link, const Piece& piece,
                           uint32_t acknowledged) {
  const uint64_t sequence = link.next_sequence++;
  link.Sent(sequence) = {.op = piece.op,
                         .sent_ns = Now(),
                         .transmission = ++link.transmissions,
                         .op_offset = piece.offset,
                         .length = piece.length,
                         .acknowledged = acknowledged};
  SendOp& op = link.Op(piece.op);
  if (piece.offset == 0) op.first_sequence = sequence;
  link.cursor_op = piece.ends_op ? piece.op + 1 : piece.op;
  link.cursor_offset = piece.ends_op ? 0 : piece.offset + piece.length;
  if (!piece.ends_op) return;
  op.end_sequence = sequence + 1;
  op.transmitted = true;
  if (op.type != wire::kWrite) OnTransmitted(link, op);
}

// An operation's last frame went out for the first time.
void Engine::OnTransmitted(Link& link, SendOp& op) {
  const auto name = static_cast<uint32_t>(op.first_sequence);
  if (IsAnswered(op.type)) {
    AwaitedReply& reply = link.awaited[name];
    reply = {};
    reply.type = op.type;
    reply.completion = std::exchange(op.completion, nullptr);
    reply.into = op.read_into;
    if (op.type == wire::kReadRequest && op.piece_count != 0) {
      reply.list = {std::exchange(op.copy, {}), op.piece_count};
    }
    reply.length = op.length;
    reply.handle = op.handle;
    reply.generation = op.generation;
    reply.offset = op.offset;
    reply.hops = op.hops;
    reply.quota_bytes = std::exchange(op.quota_bytes, 0);
  } else if (op.type == wire::kReadResponse) {
    ApertureEntry* aperture = contexts_[link.context]->apertures.Find(
        op.handle, op.generation);
    ++counters_.reads;
    counters_.read_bytes += op.length;
    if (aperture != nullptr && aperture->tripwires != nullptr) {
      aperture->tripwires->Visit(
          op.offset, op.length, [&](uint32_t id) { Touch(id, Access::kRead, op.hops); });
    }
  }
}

}  // namespace tripwire
