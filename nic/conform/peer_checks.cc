// SPDX-License-Identifier: BSD-3-Clause
// What the NIC under test sends to a scripted peer: put in order, and each
// frame held against the rules of the wire, whatever the test is about.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/peer.h"

namespace tripwire::conform {

void Peer::OnPacket(const Packet& packet, const Bytes& bytes) {
  CheckHeader(packet, bytes);
  if (!IsSequenced(packet.type)) {
    heard_.push_back({packet, highest_, false, segment_.NowNs()});
    CheckAcknowledged(packet);
    CheckAck(packet);
    if (auto_acknowledge && packet.has(flag::kAckRequested)) SayAck();
    return;
  }
  const uint64_t sequence = Expand(packet.sequence, expected_);
  const bool repeat = first_sent_.contains(sequence);
  CheckSequenced(packet, sequence);
  heard_.push_back({packet, sequence, repeat, segment_.NowNs()});
  CheckAcknowledged(packet);
  if (lose && lose(packet, sequence)) return;
  if (sequence >= expected_) early_.try_emplace(sequence, packet);
  for (auto it = early_.begin(); it != early_.end() && it->first == expected_;
       it = early_.erase(it)) {
    Deliver(it->second, expected_);
    ++expected_;
  }
  if (auto_acknowledge) SayAck();
}

void Peer::CheckHeader(const Packet& packet, const Bytes& bytes) {
  if (checksum_ && !packet.checksum) {
    Complain("W6", "a frame without a checksum on a link with checksums");
  }
  if (bytes.size() > max_frame_bytes_) {
    Complain("W76", absl::StrFormat("a frame of %u bytes; %u were agreed",
                                    bytes.size(), max_frame_bytes_));
  }
  if (packet.credit > kWindow) {
    Complain("W22", absl::StrFormat("a credit of %u; the window is 256",
                                    packet.credit));
  }
  const bool needs_atomics = packet.type == type::kAtomicRequest;
  if (needs_atomics && (offer_features & 1) == 0) {
    Complain("W80", "an atomic request to a peer that announced no atomics");
  }
  if (packet.has(flag::kUnordered) && (offer_features & 2) == 0) {
    Complain("W80", "an unordered write to a peer that announced none");
  }
}

void Peer::CheckSequenced(const Packet& packet, uint64_t sequence) {
  const auto first = first_sent_.find(sequence);
  if (first == first_sent_.end()) {
    if (sequence != highest_) {
      Complain("W19", absl::StrFormat("frame %u follows frame %u", sequence,
                                      highest_ - 1));
    }
    highest_ = std::max(highest_, sequence + 1);
    const bool is_error = packet.type == type::kError;
    const uint64_t limit = is_error ? limit_errors_ : limit_operations_;
    if (sequence >= limit) {
      Complain(
          is_error ? "W24" : "W22",
          absl::StrFormat("frame %u passes the window, which ends before %u",
                          sequence, limit));
    }
    if (closed_) Complain("W55", "a new frame after a close");
    first_sent_.emplace(sequence, packet);
    return;
  }
  const Packet& before = first->second;
  // A read's answer is looked up again; its aperture may be gone by now.
  const bool is_answer = before.type == type::kReadResponse;
  const bool same_type =
      packet.type == before.type || (is_answer && packet.type == type::kError);
  const bool same_payload =
      is_answer ? packet.type == type::kError ||
                      (packet.payload.size() == before.payload.size() &&
                       packet.U32(0) == before.U32(0) &&
                       packet.U48(4) == before.U48(4))
                : packet.payload == before.payload;
  if (!same_type || !same_payload ||
      packet.acknowledged != before.acknowledged) {
    Complain("W28", absl::StrFormat("frame %u, sent again, says something else",
                                    sequence));
  }
}

// Nothing may be acknowledged that was not sent, nor what was sent but is not
// the next in order.
void Peer::CheckAcknowledged(const Packet& packet) {
  const uint64_t acknowledged = Expand(packet.acknowledged, next_);
  if (acknowledged > sent_end_) {
    Complain("W20",
             absl::StrFormat("it acknowledges up to %u; only what is before %u "
                             "was sent",
                             acknowledged, sent_end_));
  }
  nic_acknowledged_ = std::max(nic_acknowledged_, acknowledged);
}

void Peer::CheckAck(const Packet& packet) {
  if (Expand(packet.sequence, highest_) != highest_) {
    Complain("W32", absl::StrFormat("an acknowledgement numbered %u; the NIC's "
                                    "next frame is %u",
                                    packet.sequence, highest_));
  }
  const uint64_t acknowledged = Expand(packet.acknowledged, next_);
  std::set<uint64_t> now;
  for (uint64_t i = 0; i < 256 && i / 8 < packet.payload.size(); ++i) {
    if ((packet.payload[i / 8] >> (i % 8) & 1) == 0) continue;
    const uint64_t sequence = acknowledged + 1 + i;
    now.insert(sequence);
    if (sequence >= sent_end_ && !sent_beyond_.contains(sequence)) {
      Complain("W56", absl::StrFormat("it reports frame %u as received, which "
                                      "was never sent",
                                      sequence));
    }
  }
  for (const uint64_t sequence : reported_) {
    if (sequence > acknowledged && !now.contains(sequence)) {
      Complain("W21",
               absl::StrFormat("frame %u was reported as received, and is "
                               "not any more",
                               sequence));
    }
  }
  reported_ = std::move(now);
}

void Peer::Deliver(const Packet& packet, uint64_t sequence) {
  const uint32_t operation = packet.U32(0);
  switch (packet.type) {
    case type::kReadResponse:
      return DeliverReadResponse(packet);
    case type::kError:
      return DeliverError(packet);
    case type::kMessage:
      return DeliverMessage(packet);
    case type::kFlushResponse: {
      const auto asked = asked_flush_.find(operation);
      if (asked == asked_flush_.end() || asked->second) {
        Complain("W46", absl::StrFormat("an answer to flush %u, which was not "
                                        "asked or is answered already",
                                        operation));
      } else {
        asked->second = true;
      }
      flushes_.insert(operation);
      break;
    }
    case type::kAtomicResponse: {
      const auto asked = asked_atomic_.find(operation);
      if (asked == asked_atomic_.end() || asked->second) {
        Complain("W48", absl::StrFormat("an answer to atomic %u, which was not "
                                        "asked or is answered already",
                                        operation));
      } else {
        asked->second = true;
      }
      atomics_[operation] = packet.U64(4);
      break;
    }
    case type::kClose:
      closed_ = true;
      break;
    default:
      break;
  }
  (void)sequence;
}

void Peer::DeliverReadResponse(const Packet& packet) {
  const auto it = reads_.find(packet.U32(0));
  if (it == reads_.end() || it->second.done) {
    return Complain("W42",
                    absl::StrFormat("an answer to read %u, which was not "
                                    "asked or is answered already",
                                    packet.U32(0)));
  }
  ReadState& read = it->second;
  if (packet.U48(4) != read.data.size()) {
    return Complain("W42",
                    absl::StrFormat("an answer at %u; at %u it would go on",
                                    packet.U48(4), read.data.size()));
  }
  const auto data = packet.From(10);
  read.data.insert(read.data.end(), data.begin(), data.end());
  read.done = packet.has(flag::kLast);
}

void Peer::DeliverError(const Packet& packet) {
  const uint32_t operation = packet.U32(0);
  const uint8_t why = packet.payload[4];
  const bool fails_late = reads_fail_late && reads_.contains(operation);
  if (!errors_.emplace(operation, why).second && !fails_late) {
    Complain("W51",
             absl::StrFormat("operation %u is refused twice", operation));
  }
  if (Expand(operation, next_) >= next_) {
    Complain("W51",
             absl::StrFormat("it refuses %u, which was never sent", operation));
  }
  if (packet.payload[5] != 0 || packet.payload[6] != 0 ||
      packet.payload[7] != 0) {
    Complain("W51", "an error whose reserved bytes are not zero");
  }
  if (fails_late) return;
  // Nothing sent before this may have acknowledged what it refuses.
  const uint64_t refused = Expand(operation, next_);
  for (const Heard& heard : heard_) {
    if (heard.packet.sequence == packet.sequence &&
        IsSequenced(heard.packet.type)) {
      break;  // itself
    }
    if (heard.repeat) continue;  // says what it said the first time
    if (Expand(heard.packet.acknowledged, next_) > refused) {
      Complain("W31", absl::StrFormat("frame %u was acknowledged before it was "
                                      "refused",
                                      refused));
      break;
    }
  }
}

void Peer::DeliverMessage(const Packet& packet) {
  if (packet.U32(4) != message_.size()) {
    Complain("W54", absl::StrFormat("a message goes on at %u; it has %u bytes",
                                    packet.U32(4), message_.size()));
    message_.clear();
    return;
  }
  const auto data = packet.From(8);
  message_.insert(message_.end(), data.begin(), data.end());
  if (packet.has(flag::kLast) != (message_.size() == packet.U32(0))) {
    Complain("W38", "a message's last frame is not the one that is marked");
  }
  if (!packet.has(flag::kLast)) return;
  messages_.push_back(std::move(message_));
  message_.clear();
}

}  // namespace tripwire::conform
