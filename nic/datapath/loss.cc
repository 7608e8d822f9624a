// SPDX-License-Identifier: BSD-3-Clause
// Acknowledgements, completion, loss detection, time-outs and the congestion
// window.
//
// A frame counts as lost when three frames transmitted after it have been
// received (RFC 8985's idea with a fixed reordering window), which also catches
// a retransmission that was lost again. The window grows and shrinks as TCP
// Reno's (RFC 5681), in frames.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "nic/base/wire_int.h"
#include "nic/datapath/engine.h"

namespace tripwire {
namespace {

constexpr uint64_t kReorderedFrames = 3;
constexpr double kMinWindow = 8;

// Calls f with the number of each bit that is set, lowest first: nearly always
// there is none.
template <typename F>
void ForBits(const wire::AckPayload& ack, F f) {
  static_assert(sizeof ack.received % sizeof(Le64) == 0);
  for (uint64_t at = 0; at < sizeof ack.received; at += sizeof(Le64)) {
    Le64 word;
    std::memcpy(&word, ack.received + at, sizeof word);
    for (uint64_t bits = word.get(); bits != 0; bits &= bits - 1) {
      f(8 * at + static_cast<uint64_t>(std::countr_zero(bits)));
    }
  }
}

}  // namespace

bool Engine::ApplyAck(Link& link, const wire::FrameView& view) {
  const uint64_t acknowledged =
      ExpandSequence(view.header->acknowledged.get(), link.acked);
  if (acknowledged > link.next_sequence) {
    ++counters_.drop_malformed;  // acknowledges what was never sent
    return false;
  }
  if (acknowledged < link.acked) return true;  // overtaken by a later one
  link.peer_credit = view.header->credit.get();

  uint64_t newest = 0;
  uint64_t newest_sent_ns = 0;
  uint32_t newly = 0;
  bool overtook = false;  // the newest was sent again: after what is behind it
  const auto received = [&](SentFrame& record) {
    ++newly;
    // Sooner after it was sent again than any answer can come, it was the first
    // one that came, late: what was sent in between may be on its way yet.
    const bool is_late_first = record.retransmitted &&
                               Now() - record.sent_ns < link.least_rtt / 4 * 3;
    if (record.transmission > newest && !is_late_first) {
      newest = record.transmission;
      newest_sent_ns = record.retransmitted ? 0 : record.sent_ns;
      overtook = record.retransmitted;
    }
    if (record.lost) {
      record.lost = false;
      --link.lost_count;
    }
  };
  const bool advanced = acknowledged > link.acked;
  for (; link.acked < acknowledged; ++link.acked) {
    SentFrame& record = link.Sent(link.acked);
    if (record.received) {
      --link.received_count;
    } else {
      received(record);
    }
  }
  if (view.type() == wire::kAck && acknowledged < link.next_sequence) {
    ForBits(view.body<wire::AckPayload>(), [&](uint64_t bit) {
      const uint64_t sequence = acknowledged + 1 + bit;
      if (sequence >= link.next_sequence) return;
      SentFrame& record = link.Sent(sequence);
      if (record.received) return;
      received(record);
      record.received = true;
      ++link.received_count;
    });
  }
  if (newly > 0) {
    if (newest_sent_ns != 0) {
      link.MeasureRoundTrip(Now() - std::min(Now(), newest_sent_ns));
    }
    if (link.congestion_window < kWindowFrames) GrowWindow(link, newly);
    // Without either, nothing outstanding is older than what was received.
    if (link.received_count > 0 || overtook) DetectLosses(link, newest);
  } else if (options_.go_back_n && view.type() == wire::kAck) {
    OnRepeatedAck(link);
  }
  if (advanced) {
    link.backoff = 0;
    link.repeated_acks = 0;
    CountAnswers(link);
  }
  if (newly > 0) SetRetransmitTimer(link);

  // What this side sent before saying so may include refusals of operations
  // this acknowledges; they must be heard first.
  const uint64_t barrier = ExpandSequence(view.sequence(), link.expected) +
                           (wire::IsSequenced(view.type()) ? 1 : 0);
  if (barrier <= link.expected) {
    link.pending = link.pending_latest = {};
    CompleteOps(link, acknowledged);
  } else if (link.pending.barrier == 0 || barrier <= link.pending.barrier) {
    link.pending = {acknowledged, barrier};
  } else {
    link.pending_latest = {acknowledged, barrier};
  }
  if (link.carries_data() &&
      (link.lost_count > 0 || !link.refusals.empty() ||
       link.cursor_op < link.first_op + link.ops.size())) {
    MarkReady(link);
  }
  return true;
}

// What ApplyAck and ApplyCompletion come to when all there is was acknowledged
// by a frame that was taken in its turn, and none of it was sent again or is
// missing.
void Engine::AcknowledgeAll(Link& link) {
  const auto newly = static_cast<uint32_t>(link.next_sequence - link.acked);
  const uint64_t sent_ns = link.Sent(link.next_sequence - 1).sent_ns;
  link.MeasureRoundTrip(Now() - std::min(Now(), sent_ns));
  if (link.congestion_window < kWindowFrames) GrowWindow(link, newly);
  link.acked = link.next_sequence;
  link.backoff = 0;
  link.repeated_acks = 0;
  link.answers_queued = 0;
  link.counted_op = link.first_op + link.ops.size();
  link.retransmit_at = kNever;
  CompleteOps(link, link.acked);
}

// Answers make room for requests as soon as they are acknowledged, not only
// when they are complete: for that, a request that waits for the room may be
// missing.
void Engine::CountAnswers(Link& link) {
  if (link.answers_queued == 0) return;
  link.counted_op = std::max(link.counted_op, link.first_op);
  const uint64_t end = link.first_op + link.ops.size();
  for (; link.counted_op < end; ++link.counted_op) {
    const SendOp& op = link.Op(link.counted_op);
    if (!op.transmitted || op.end_sequence > link.acked) return;
    if (!IsAnswer(op.type)) continue;
    --link.answers_queued;
    if (link.early_count > 0) MarkReady(link);  // room for another request
  }
}

void Engine::GrowWindow(Link& link, uint32_t newly) {
  if (link.congestion_window < link.slow_start_threshold) {
    link.congestion_window += newly;
  } else {
    link.congestion_window += newly / link.congestion_window;
  }
  link.congestion_window =
      std::min<double>(link.congestion_window, kWindowFrames);
}

void Engine::ApplyCompletion(Link& link) {
  while (link.pending.barrier != 0 && link.expected >= link.pending.barrier) {
    const uint64_t acked = link.pending.acked;
    link.pending = std::exchange(link.pending_latest, {});
    CompleteOps(link, acked);
    if (!link.carries_data()) return;
  }
}

void Engine::CompleteOps(Link& link, uint64_t acked) {
  while (!link.ops.empty()) {
    SendOp& op = link.ops.front();
    if (!op.transmitted || op.end_sequence > acked) return;
    const OpStatus status = op.status;
    if (op.type == wire::kClose) return OnClosed(link);
    if (op.type == wire::kWrite) {
      if (status == OpStatus::kOk) {
        if (!link.outbound.empty()) {
          FireOutbound(link, Access::kWrite, op.handle, op.generation,
                       op.offset, op.length, op.hops);
        }
      } else if (op.completion == nullptr) {
        FailOp(link, status);
      }
    }
    if (op.copy.data != nullptr) copies_.Give(op.copy);
    Discharge(link, op.quota_bytes);
    Completion* completion = op.completion;
    link.ops.pop_front();
    ++link.first_op;
    if (completion != nullptr) Finish(completion, status);
  }
}

void Engine::DetectLosses(Link& link, uint64_t newest) {
  bool found = false;
  for (uint64_t s = link.acked; s < link.next_sequence; ++s) {
    SentFrame& record = link.Sent(s);
    if (record.received || record.lost) continue;
    const bool overtaken = record.transmission + kReorderedFrames <= newest;
    if (!overtaken && !(options_.go_back_n && found)) continue;
    record.lost = true;
    ++link.lost_count;
    found = true;
  }
  if (found) OnCongestion(link, /*timeout=*/false);
}

// A receiver that goes back n keeps nothing that comes early and so never says
// that it came; but it answers each such frame.
void Engine::OnRepeatedAck(Link& link) {
  if (link.next_sequence == link.acked || link.acked < link.recovery_point ||
      ++link.repeated_acks < kReorderedFrames) {
    return;
  }
  link.repeated_acks = 0;
  for (uint64_t s = link.acked; s < link.next_sequence; ++s) {
    SentFrame& record = link.Sent(s);
    if (record.received || record.lost) continue;
    record.lost = true;
    ++link.lost_count;
  }
  OnCongestion(link, /*timeout=*/false);
}

void Engine::OnCongestion(Link& link, bool timeout) {
  if (link.acked < link.recovery_point && !timeout) return;
  link.recovery_point = link.next_sequence;
  link.slow_start_threshold =
      std::max(link.congestion_window / 2, kMinWindow);
  link.congestion_window = timeout ? kMinWindow : link.slow_start_threshold;
}

void Engine::SetRetransmitTimer(Link& link) {
  if (link.next_sequence == link.acked) {
    link.retransmit_at = kNever;
    return;
  }
  link.retransmit_at = Now() + link.RetransmitTimeoutNs();
  if (link.retransmit_at < link.scheduled_at) Schedule(link);
}

void Engine::OnRetransmitTimer(Link& link) {
  if (link.next_sequence == link.acked) {
    link.retransmit_at = kNever;
    return;
  }
  // The first expiry probes with one frame: more often than not only the tail,
  // or its acknowledgement, is late. Who goes back n has to send all of it
  // anyway, for nothing that came after a gap was kept.
  const bool probe = link.backoff == 0 && !options_.go_back_n;
  ++link.backoff;
  if (!probe) ++counters_.timeouts;
  for (uint64_t s = link.acked; s < link.next_sequence; ++s) {
    SentFrame& record = link.Sent(s);
    if (record.received) continue;
    if (!record.lost) {
      record.lost = true;
      ++link.lost_count;
    }
    if (probe) break;
  }
  link.timeout_spread = static_cast<uint32_t>(random_.Below(Link::kSpreads));
  if (!probe) OnCongestion(link, /*timeout=*/true);
  SetRetransmitTimer(link);
  MarkReady(link);
}

}  // namespace tripwire
