// SPDX-License-Identifier: BSD-3-Clause
// Frames of a link into their order: duplicates dropped, early ones held.
#include <algorithm>
#include <cstring>
#include <utility>

#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

// How long an acknowledgement may wait for a frame to ride on.
constexpr uint64_t kAckDelayNs = 500 * kMicrosecond;

}  // namespace

void Engine::OnSequenced(Link& link, Frame& frame,
                         const wire::FrameView& view) {
  const uint64_t sequence = ExpandSequence(view.sequence(), link.expected);
  if (!link.refusals.empty() &&
      sequence - link.refusals.front().refused_at >= kWindowFrames) {
    // Beyond what our acknowledgements allow: what a deaf peer makes us
    // remember is bounded.
    ++counters_.drop_window;
    return;
  }
  if (sequence == link.expected) {
    if (link.early_count > 0 && link.CameEarly(sequence)) {
      // Held since it came early: there was no room when its turn came.
      ++counters_.duplicate_frames;
      link.ack_now = true;
    } else {
      if (Deliver(link, view) == Delivery::kNoRoom) {
        ++counters_.drop_no_buffer;
        return;
      }
      if (!link.carries_data()) return;
      ++link.expected;
    }
    NoteReceived(link);
    DrainEarly(link);
    ApplyCompletion(link);
    return;
  }
  link.ack_now = true;  // say what is missing, or that this was here before
  NoteReceived(link);
  if (sequence < link.expected) {
    ++counters_.duplicate_frames;
    return;
  }
  if (sequence - link.expected >= kWindowFrames || options_.go_back_n) {
    ++counters_.drop_window;
    return;
  }
  if (link.CameEarly(sequence)) {
    ++counters_.duplicate_frames;
    return;
  }
  if (!TakeEarly(link, frame, view, sequence)) return;
  ++link.early_count;
  link.early_end = std::max(link.early_end, sequence + 1);
}

// Places an unordered write, holds anything else. False when there is no room.
bool Engine::TakeEarly(Link& link, Frame& frame, const wire::FrameView& view,
                       uint64_t sequence) {
  if (view.type() == wire::kWrite && view.has(wire::kUnordered)) {
    PlaceEarly(link, view, sequence);
    return true;
  }
  if (held_frames_ >= kMaxHeldFrames) {
    ++counters_.drop_window;
    return false;
  }
  if (link.early.empty()) link.early.resize(kWindowFrames);
  if (!HoldFrame(link, frame, view, link.Early(sequence))) {
    ++counters_.drop_no_buffer;
    return false;
  }
  ++held_frames_;
  ++counters_.early_frames;
  return true;
}

// Data to its place now, everything else in its turn.
void Engine::PlaceEarly(Link& link, const wire::FrameView& view,
                        uint64_t sequence) {
  if (link.placed.empty()) link.placed.resize(kWindowFrames);
  ApertureEntry* aperture = nullptr;
  const OpStatus status = PlaceWrite(link, view, &aperture);
  link.placed[sequence % kWindowFrames] = DescribeWrite(view, status);
  ++news_;
  ++counters_.placed_early;
}

WriteFrame Engine::DescribeWrite(const wire::FrameView& view, OpStatus status) {
  const auto& body = view.body<wire::WritePayload>();
  WriteFrame frame;
  frame.handle = body.handle.get();
  frame.generation = body.generation.get();
  frame.offset = body.offset.get();
  frame.length = static_cast<uint32_t>(view.data<wire::WritePayload>().size());
  frame.sequence = view.sequence();
  frame.status = status;
  frame.hops = static_cast<uint8_t>(view.hops());
  frame.is_last = view.has(wire::kLast);
  return frame;
}

// The turn of an unordered write that came early. Its aperture may have been
// revoked since: then its tripwires are gone, too.
void Engine::DeliverPlaced(Link& link, WriteFrame& placed) {
  const WriteFrame frame = std::exchange(placed, WriteFrame());
  ++news_;
  FinishWrite(link, frame,
              contexts_[link.context]->apertures.Find(frame.handle,
                                                      frame.generation));
}

// Takes the frame over, or a copy of one that its sender wants back.
bool Engine::HoldFrame(Link& link, Frame& frame, const wire::FrameView& view,
                       Frame& slot) {
  if (frame.is_borrowed) {
    Port& port = *ports_[link.port];
    Frame copy;
    if (port.Allocate({&copy, 1}) == 0) return false;
    if (copy.capacity_bytes < frame.length_bytes) {
      port.Release({&copy, 1});
      return false;
    }
    std::memcpy(copy.data, frame.data, frame.length_bytes);
    // Headers as they were when they were checked.
    std::memcpy(copy.data, view.head,
                std::min<size_t>(frame.length_bytes, sizeof view.head));
    copy.length_bytes = frame.length_bytes;
    slot = copy;
  } else {
    slot = frame;
    frame.data = nullptr;
  }
  slot.path = static_cast<PathId>(link.port);  // who to give the buffer back to
  return true;
}

// Delivers held frames whose turn has come. One there is no room for stays: its
// sender knows that it arrived and will not send it again, so whoever makes
// room marks the link ready, and ServeLinks comes back here.
void Engine::DrainEarly(Link& link) {
  while (link.early_count > 0 && link.carries_data()) {
    if (WriteFrame* placed = link.Placed(link.expected)) {
      DeliverPlaced(link, *placed);
      --link.early_count;
      ++link.expected;
      NoteReceived(link);
      continue;
    }
    if (link.early.empty()) return;
    Frame& slot = link.Early(link.expected);
    if (slot.data == nullptr) return;
    wire::FrameView view;
    // Parsed before it was held; this only rebuilds the view.
    if (wire::Parse({slot.data, slot.length_bytes}, &view) !=
        wire::ParseResult::kOk) {
      return;
    }
    if (Deliver(link, view) == Delivery::kNoRoom) {
      ++counters_.drop_no_buffer;
      return;
    }
    if (!link.carries_data()) return;  // it was a close: all is dropped already
    ports_[slot.path]->Release({&slot, 1});
    slot = Frame{};
    --link.early_count;
    --held_frames_;
    ++link.expected;
    NoteReceived(link);
  }
}

void Engine::DropEarly(Link& link) {
  if (link.early_count > 0) {
    for (Frame& slot : link.early) {
      if (slot.data == nullptr) continue;
      ports_[slot.path]->Release({&slot, 1});
      slot = Frame{};
      --held_frames_;
    }
  }
  link.placed.clear();
  link.early_count = 0;
}

void Engine::NoteReceived(Link& link) {
  ++link.unacknowledged;
  if (link.ack_at == kNever) {
    link.ack_at = Now() + kAckDelayNs;
    if (link.ack_at < link.scheduled_at) Schedule(link);
  }
  if (!link.ack_delayed) {
    link.ack_delayed = true;
    delayed_acks_.push_back(link.id);
  }
  // Otherwise it waits for a frame to ride on.
  if (link.ack_now || link.ack_requested ||
      link.unacknowledged >= kAckEveryFrames) {
    MarkReady(link);
  }
}

Engine::Delivery Engine::Deliver(Link& link, const wire::FrameView& view) {
  ++news_;
  switch (view.type()) {
    case wire::kWrite: OnWrite(link, view); break;
    case wire::kReadRequest: return OnReadRequest(link, view);
    case wire::kReadResponse: OnReadResponse(link, view); break;
    case wire::kFlushRequest: return OnFlushRequest(link, view);
    case wire::kFlushResponse: OnFlushResponse(link, view); break;
    case wire::kOpError: OnOpError(link, view); break;
    case wire::kMessage: return OnMessage(link, view);
    case wire::kAtomicRequest: return OnAtomicRequest(link, view);
    case wire::kAtomicResponse: OnAtomicResponse(link, view); break;
    case wire::kClose: OnClose(link); break;
    default: break;  // the parser knows no other sequenced type
  }
  return Delivery::kTaken;
}

}  // namespace tripwire
