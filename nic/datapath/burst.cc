// SPDX-License-Identifier: BSD-3-Clause
// From the ports to the links: bursts of frames, each to the link it names.
#include <algorithm>
#include <cstring>
#include <utility>

#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

// How often a busy engine gives its ports time for joins and departures.
constexpr uint64_t kServiceNs = 5 * kMillisecond;
// Bursts of so many frames are worth looking through before they are taken.
constexpr size_t kLookAheadFrames = 4;
// So many frames are looked up at once, ...
constexpr size_t kGroup = 4;
// ... which tripwires they touch is known so many frames later, ...
constexpr size_t kKnown = kGroup;
// ... and so many later they are taken. They themselves are fetched so long
// before.
constexpr size_t kAhead = 2 * kGroup;
// What an answer acknowledges as a rule is no more frames.
constexpr uint64_t kFewUnacknowledged = 4;
constexpr size_t kCacheLine = 64;
// Frames up to this long are fetched ahead.
constexpr size_t kFetchedFrameBytes = 2048;

// The data of the frame that comes next: copying it would wait for its lines.
// The processor sees by itself where longer copies go.
void FetchData(const Frame& frame) {
  if (frame.length_bytes > kFetchedFrameBytes) return;
  for (size_t at = kCacheLine; at < frame.length_bytes; at += kCacheLine) {
    __builtin_prefetch(frame.data + at);
  }
}

// The next frame of its link, which acknowledges all that this side has sent.
bool IsNext(const Link& link, const wire::FrameView& view) {
  return view.sequence() == static_cast<uint32_t>(link.expected) &&
         view.header->acknowledged.get() ==
             static_cast<uint32_t>(link.next_sequence);
}

// The usual write: such a frame, with nothing held, owed or waiting to be sent.
// It skips the questions whose answers that gives.
bool IsPlainWrite(const Link& link, const wire::FrameView& view) {
  return view.type() == wire::kWrite && IsNext(link, view) &&
         link.refusals.empty() && link.early_count == 0 &&
         link.pending.barrier == 0 && link.received_count == 0 &&
         link.lost_count == 0 &&
         link.cursor_op == link.first_op + link.ops.size();
}

// Of what is not acknowledged, which must be little.
bool NoneSentAgain(const Link& link) {
  if (link.next_sequence - link.acked > kFewUnacknowledged) return false;
  for (uint64_t s = link.acked; s < link.next_sequence; ++s) {
    if (link.Sent(s).retransmitted) return false;
  }
  return true;
}

// Whether of what NoteReceived does the count is all that is left to do.
bool OnlyCounts(const Link& link) {
  return link.ack_delayed && link.ack_at != kNever &&
         (link.ready ||
          (!link.ack_now && !link.ack_requested &&
           link.unacknowledged + 1 < kAckEveryFrames));
}

}  // namespace

// What frames will touch comes into the cache while those before them are
// taken, in steps: the frame; the memory it writes, and the slot that says who
// watches it; the tripwire. Places are asked for in loops that do nothing else,
// so that the processor finds several at once: to find a place among many costs
// it as much as to fetch what is there. Not too many at once either: it keeps a
// list.
void Engine::LookAhead(size_t begin, size_t received) {
  const size_t end = std::min(begin + kGroup, received);
  for (size_t i = begin == 0 ? 0 : begin + kAhead;
       i < std::min(end + kAhead, received); ++i) {
    __builtin_prefetch(rx_burst_[i].data);
  }
  for (size_t i = begin; i < end; ++i) {
    rx_views_[i].Parse(rx_burst_[i]);
    LookUp(rx_views_[i], i > 0 ? &rx_views_[i - 1] : nullptr);
  }
  for (size_t i = begin; i < end; ++i) {
    Received& ahead = rx_views_[i];
    if (ahead.aperture == nullptr) continue;
    __builtin_prefetch(ahead.memory, 1);
    ahead.FindSlot();
    if (ahead.slot != nullptr) __builtin_prefetch(ahead.slot);
  }
  if (begin < kKnown) return;
  const size_t known_end = std::min(begin - kKnown + kGroup, received);
  for (size_t i = begin - kKnown; i < known_end; ++i) {
    const ShortWatches::Watch* slot = rx_views_[i].slot;
    if (slot == nullptr || slot->length == 0 || slot->IsSeveral()) continue;
    __builtin_prefetch(&tripwires_[slot->id], 1);
  }
}

// Where the frame will write, if it may, and who may watch there. This stays
// true to the end of the burst: only the program exports, revokes, watches and
// unwatches, and it waits for us.
//
// Of frames that repeat each other only what differs is looked at.
void Engine::LookUp(Received& ahead, const Received* before) {
  const wire::FrameView& view = ahead.view;
  if (ahead.result != wire::ParseResult::kOk || view.type() != wire::kWrite)
    return;
  const auto& body = view.body<wire::WritePayload>();
  const uint64_t offset = body.offset.get();
  const uint64_t length = view.data<wire::WritePayload>().size();
  ApertureEntry* aperture = nullptr;
  if (before != nullptr && before->aperture != nullptr &&
      ahead.HasHeadOf(*before)) {
    ahead.repeats = true;
    if (ahead.HasTargetOf(*before)) aperture = before->aperture;
  }
  if (length == 0) return;
  if (aperture != nullptr) {
    if (!aperture->Holds(offset, length)) return;
    return ahead.WritesTo(aperture, offset, length);
  }
  const Link* link = FindLink(LinkId{view.header->link.get()});
  if (link == nullptr ||
      contexts_[link->context]->apertures.Check(
          link->id, body.handle.get(), body.generation.get(), Access::kWrite,
          offset, length, &aperture) != OpStatus::kOk) {
    return;
  }
  ahead.WritesTo(aperture, offset, length);
}

bool Engine::ReceiveBursts() {
  bool busy = false;
  for (size_t port = 0; port < ports_.size(); ++port) {
    const size_t received = ports_[port]->Receive(rx_burst_);
    if (received == 0) continue;
    busy = true;
    TakeBurst(port, received);
  }
  // A busy engine is not woken by its ports, so it looks now and then.
  if (busy) look_at_ = std::min(look_at_, now_ns_ + kServiceNs);
  return busy;
}

void Engine::ServePorts() {
  service_at_ = look_at_ = kNever;
  for (size_t port = 0; port < ports_.size(); ++port) {
    service_at_ = std::min(service_at_, ports_[port]->Service(now_ns_));
    const uint64_t rejoins = ports_[port]->counters().rejoins;
    if (std::exchange(rejoins_[port], rejoins) != rejoins) {
      NoteRejoined(port);
    }
  }
}

// Of a write that repeats the one taken before it, little is left to ask.
void Engine::TakeFrame(size_t port, Frame& frame, Received& received) {
  if (plain_ != nullptr && received.repeats &&
      IsNext(*plain_, received.view)) {
    plain_->path = frame.path;
    TakePlainWrite(*plain_, received);
  } else {
    plain_ = nullptr;
    OnFrame(port, frame, received);
  }
}

void Engine::TakeBurst(size_t port, size_t received) {
  plain_ = nullptr;
  const bool is_long = received >= kLookAheadFrames;
  const size_t ahead = is_long ? kAhead : 0;
  size_t kept = 0;
  uint64_t bytes = 0;
  for (size_t step = 0; step < received + ahead; ++step) {
    if (is_long && step % kGroup == 0) LookAhead(step, received);
    if (step < ahead) continue;
    const size_t i = step - ahead;
    Frame& frame = rx_burst_[i];
    bytes += frame.length_bytes;
    if (i + 1 < received) FetchData(rx_burst_[i + 1]);
    if (!is_long) rx_views_[i].Parse(frame);
    TakeFrame(port, frame, rx_views_[i]);
    // A frame that came early now belongs to its link.
    if (frame.data == nullptr) continue;
    if (kept != i) rx_burst_[kept] = frame;
    ++kept;
  }
  counters_.rx_frames += received;
  counters_.rx_bytes += bytes;
  if (kept > 0) {
    ports_[port]->Release(std::span<const Frame>(rx_burst_.data(), kept));
  }
}

void Engine::OnFrame(size_t port, Frame& frame, Received& received) {
  wire::FrameView& view = received.view;
  switch (received.result) {
    case wire::ParseResult::kOk:
      break;
    case wire::ParseResult::kNotOurs:
      return;
    case wire::ParseResult::kMalformed:
      ++counters_.drop_malformed;
      return;
    case wire::ParseResult::kBadChecksum:
      ++counters_.drop_checksum;
      return;
  }
  if ((view.ethernet->source[0] & 1) !=
      0) {  // nobody's address; never answer it
    ++counters_.drop_malformed;
    return;
  }
  const MacAddress& mine = macs_[port];
  if (std::memcmp(mine.bytes.data(), view.ethernet->destination, 6) != 0 &&
      !(view.ethernet->destination[0] & 1)) {
    return;  // a promiscuous or flooding medium: somebody else's frame
  }
  if (wire::IsControl(view.type())) {
    if (control_ == nullptr) return;
    if (frame.is_borrowed) {  // no parser of bodies expects them to change
      control_body_.assign(view.payload.begin(), view.payload.end());
      view.payload = control_body_;
    }
    control_->OnControlFrame(port, frame.path, view);
    return;
  }
  if (view.type() == wire::kReset) return OnReset(view);

  const uint32_t named = view.header->link.get();
  const uint32_t epoch = view.header->epoch.get();
  Link* link = FindLink(LinkId{named});
  const bool known = link != nullptr && link->epoch == epoch;
  if (!known || link->state == LinkState::kDown) {
    // The sender believes in a link that is no more: tell it.
    if (known || link == nullptr) {
      ++counters_.drop_unknown_link;
    } else {
      ++counters_.drop_epoch;
    }
    SendReset(port, frame.path, view.source(), 0, 0, named, epoch);
    return;
  }
  if (!link->carries_data()) return;  // its ACCEPT is still on the way
  if (link->checksum && !view.has(wire::kChecksummed)) {
    ++counters_.drop_malformed;
    return;
  }
  // A link has one peer, and never changes its port: its frames are cut for it.
  if (port != link->port || std::memcmp(link->remote_mac.bytes.data(),
                                        view.ethernet->source, 6) != 0) {
    ++counters_.drop_unknown_link;
    return;
  }
  // Where a link's frames come from is where its answers go: the peer may have
  // joined anew on another path.
  link->path = frame.path;
  link->heard_ns = now_ns_;
  link->probes = 0;
  if (IsPlainWrite(*link, view) && NoneSentAgain(*link)) {
    return TakePlainWrite(*link, received);
  }
  if (!ApplyAck(*link, view)) return;
  if (!link->carries_data()) return;  // that was the end of its closing
  if (wire::IsSequenced(view.type())) {
    if (view.has(wire::kAckRequested)) link->ack_requested = true;
    OnSequenced(*link, frame, view);
  } else {
    OnAck(*link, view);
  }
}

void Engine::TakePlainWrite(Link& link, const Received& received) {
  const wire::FrameView& view = received.view;
  link.peer_credit = view.header->credit.get();
  if (view.has(wire::kAckRequested)) link.ack_requested = true;
  ++news_;
  const auto& body = view.body<wire::WritePayload>();
  const auto data = view.data<wire::WritePayload>();
  const uint64_t offset = body.offset.get();
  ApertureEntry* aperture = received.aperture;
  if (view.has(wire::kLast) && link.touched.empty() &&
      (aperture != nullptr ||
       contexts_[link.context]->apertures.Check(
           link.id, body.handle.get(), body.generation.get(), Access::kWrite,
           offset, data.size(), &aperture) == OpStatus::kOk)) {
    // All of OnWrite that is left of it when the frame is checked, and is all
    // of its operation.
    PlaceChecked(*aperture, offset, data);
    ++aperture->accesses;
    if (received.slot_is_all && !received.slot->IsSeveral()) {
      TouchSlot(*received.slot, received.first, received.last, view.hops());
    } else if (aperture->tripwires != nullptr) {
      TouchWritten(*aperture, offset, data.size(), view.hops());
    }
    ++counters_.writes;
    link.access_refused = false;
    plain_ = &link;
  } else {
    OnWrite(link, view);
    plain_ = nullptr;
  }
  ++link.expected;
  if (OnlyCounts(link)) {
    ++link.unacknowledged;
  } else {
    NoteReceived(link);
  }
  if (link.acked == link.next_sequence) return;
  plain_ = nullptr;  // what is told of its end may end the link
  AcknowledgeAll(link);
}

}  // namespace tripwire
