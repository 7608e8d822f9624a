// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/peer.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace tripwire::conform {
namespace {

// Distinct for each link, and never 0.
uint32_t EpochFor(uint32_t link) { return (link * 2654435761u) | 1u; }

}  // namespace

Peer::Peer(Segment& segment)
    : segment_(segment),
      link_(segment.NewLinkName()),
      epoch_(EpochFor(link_)),
      next_(segment.first_sequence()),
      sent_end_(next_),
      limit_operations_(next_ + kWindow - 8),
      limit_errors_(next_ + kWindow),
      expected_(next_),
      highest_(next_),
      nic_acknowledged_(next_) {
  segment_.Add(*this);
}

Peer::~Peer() {
  if (open_ && !closed_) Reset();
  segment_.Remove(*this);
}

// ------------------------------------------------------------------ connecting

Bytes Peer::ConnectBody(std::string_view service, std::string_view data) const {
  const uint32_t frame_bytes =
      offer_frame_bytes != 0 ? offer_frame_bytes
                             : std::min(segment_.info().max_frame_bytes, 1514u);
  BodyWriter body;
  body.Fixed32(field::kConnectLink, link_)
      .Fixed32(field::kConnectEpoch, epoch_);
  body.String(field::kConnectService, service);
  body.String(field::kConnectNode, std::string_view("tw-conform"));
  body.String(field::kConnectData, data);
  body.Varint(field::kConnectFrameBytes, frame_bytes);
  body.Varint(field::kConnectChecksum, offer_checksum ? 1 : 0);
  body.Varint(field::kConnectFeatures, offer_features);
  return body;
}

std::optional<Packet> Peer::AwaitAnswer(uint64_t within_ns) {
  return segment_.TakeControl(
      [&](const Packet& p) {
        return (p.type == type::kAccept || p.type == type::kReject) &&
               p.link == link_ && p.epoch == epoch_;
      },
      within_ns);
}

void Peer::Register(const Packet& answer) {
  segment_.set_nic_mac(answer.source);
  open_ = true;
}

bool Peer::TakeAccept(const Packet& accept) {
  Body body;
  if (accept.type != type::kAccept || !ParseBody(accept.payload, &body)) {
    return false;
  }
  nic_link_ = static_cast<uint32_t>(body.Number(field::kAcceptLink));
  nic_epoch_ = static_cast<uint32_t>(body.Number(field::kAcceptEpoch));
  nic_features_ = static_cast<uint32_t>(body.Number(field::kAcceptFeatures));
  checksum_ = body.Number(field::kAcceptChecksum) != 0;
  max_frame_bytes_ =
      static_cast<uint32_t>(body.Number(field::kAcceptFrameBytes));
  Register(accept);
  return nic_epoch_ != 0 && max_frame_bytes_ >= 512;
}

bool Peer::TakeConnect(const Packet& connect) {
  Body body;
  if (!ParseBody(connect.payload, &body)) return false;
  nic_link_ = static_cast<uint32_t>(body.Number(field::kConnectLink));
  nic_epoch_ = static_cast<uint32_t>(body.Number(field::kConnectEpoch));
  nic_features_ = static_cast<uint32_t>(body.Number(field::kConnectFeatures));
  checksum_ = offer_checksum || body.Number(field::kConnectChecksum) != 0;
  max_frame_bytes_ =
      std::min(static_cast<uint32_t>(body.Number(field::kConnectFrameBytes)),
               std::min(segment_.info().max_frame_bytes, 1514u));
  Register(connect);
  return nic_epoch_ != 0 && max_frame_bytes_ >= 512;
}

Bytes Peer::AcceptBody() const {
  BodyWriter body;
  body.Fixed32(field::kAcceptLink, link_).Fixed32(field::kAcceptEpoch, epoch_);
  body.String(field::kAcceptNode, std::string_view("tw-conform"));
  body.Varint(field::kAcceptFrameBytes, max_frame_bytes_);
  body.Varint(field::kAcceptChecksum, checksum_ ? 1 : 0);
  body.Varint(field::kAcceptFeatures, offer_features);
  return body;
}

// --------------------------------------------------------------------- sending

Packet Peer::Make(uint8_t type, Bytes payload, uint16_t flags) const {
  Packet packet;
  packet.destination = segment_.nic_mac();
  packet.source = source.value_or(segment_.mac());
  packet.type = type;
  packet.flags = flags;
  packet.link = nic_link_;
  packet.epoch = nic_epoch_;
  packet.sequence = static_cast<uint32_t>(next_);
  packet.acknowledged = static_cast<uint32_t>(acknowledge.value_or(expected_));
  packet.credit = credit;
  packet.payload = std::move(payload);
  packet.checksum = checksum_;
  return packet;
}

void Peer::Send(const Packet& packet) {
  const uint64_t acked = Expand(packet.acknowledged, expected_);
  const uint64_t granted = std::min<uint64_t>(packet.credit, kWindow);
  limit_operations_ = std::max(
      limit_operations_, acked + std::min<uint64_t>(granted, kWindow - 8));
  if (granted > 0) {
    limit_errors_ = std::max(limit_errors_,
                             acked + std::min<uint64_t>(granted + 8, kWindow));
  }
  segment_.Send(packet);
}

void Peer::NoteSent(uint64_t sequence, uint8_t t) {
  sent_beyond_.insert(sequence);
  while (sent_beyond_.erase(sent_end_) > 0) ++sent_end_;
  const auto name = static_cast<uint32_t>(sequence);
  if (t == type::kReadRequest) reads_.try_emplace(name);
  if (t == type::kFlushRequest) asked_flush_.try_emplace(name);
  if (t == type::kAtomicRequest) asked_atomic_.try_emplace(name);
}

void Peer::SayAt(uint64_t sequence, uint8_t type, Bytes payload,
                 uint16_t flags) {
  Packet packet = Make(type, std::move(payload), flags);
  packet.sequence = static_cast<uint32_t>(sequence);
  NoteSent(sequence, type);
  Send(packet);
}

uint64_t Peer::Say(uint8_t type, Bytes payload, uint16_t flags) {
  const uint64_t sequence = next_;
  if (!IsSequenced(type)) {
    Send(Make(type, std::move(payload), flags));
    return sequence;
  }
  ++next_;
  SayAt(sequence, type, std::move(payload), flags);
  return sequence;
}

void Peer::SayAck(uint16_t flags) {
  Bytes received(32);
  for (const auto& [sequence, packet] : early_) {
    const uint64_t i = sequence - expected_ - 1;
    if (i < 256) received[i / 8] |= static_cast<uint8_t>(1u << (i % 8));
  }
  Send(Make(type::kAck, received, flags));
}

size_t Peer::Room(uint8_t t) const {
  const size_t fixed = t == type::kWrite ? 14 : t == type::kMessage ? 8 : 32;
  return max_frame_bytes_ - kHeaderBytes - fixed - (checksum_ ? 4 : 0);
}

void Peer::SayMessage(std::span<const uint8_t> message) {
  const size_t room = Room(type::kMessage);
  size_t at = 0;
  do {
    const size_t n = std::min(room, message.size() - at);
    Say(type::kMessage,
        MessageBody(static_cast<uint32_t>(message.size()),
                    static_cast<uint32_t>(at), message.subspan(at, n)),
        at + n == message.size() ? flag::kLast : 0);
    at += n;
    if (next_ - nic_acknowledged_ > 200) {
      Until([&] { return next_ - nic_acknowledged_ < 100; });
    }
  } while (at < message.size());
}

uint64_t Peer::SayWrite(const Name& to, uint64_t offset,
                        std::span<const uint8_t> data, uint16_t extra_flags) {
  const uint64_t first = next_;
  const uint64_t room = Room(type::kWrite);
  uint64_t at = 0;
  do {
    uint64_t n = data.size() - at;
    if (n > room) n = ((offset + at + room) & ~uint64_t{63}) - offset - at;
    const bool last = at + n == data.size();
    Say(type::kWrite, WriteBody(to, offset + at, data.subspan(at, n)),
        static_cast<uint16_t>((last ? flag::kLast : 0) | extra_flags));
    at += n;
    if (next_ - nic_acknowledged_ > 200) {
      Until([&] { return next_ - nic_acknowledged_ < 100; });
    }
  } while (at < data.size());
  return first;
}

void Peer::Reset() {
  segment_.SendControl(type::kReset, Out().U32(link_).U32(epoch_));
  open_ = false;
}

// ---------------------------------------------------------------------- asking

bool Peer::Flush(uint64_t within_ns) {
  const uint64_t operation = Say(type::kFlushRequest, {});
  return Until([&] { return FlushDone(static_cast<uint32_t>(operation)); },
               within_ns);
}

uint8_t Peer::Try(uint8_t type, Bytes payload, uint16_t flags) {
  const uint64_t sequence = Say(type, std::move(payload), flags);
  if (!Flush()) return kNoAnswer;
  return StatusOf(sequence);
}

uint8_t Peer::Write(const Name& to, uint64_t offset,
                    std::span<const uint8_t> data) {
  const uint64_t first = SayWrite(to, offset, data);
  const uint64_t end = next_;
  if (!Flush()) return kNoAnswer;
  for (uint64_t s = first; s < end; ++s) {
    if (StatusOf(s) != status::kOk) return StatusOf(s);
  }
  return status::kOk;
}

uint8_t Peer::Read(const Name& from, uint64_t offset, uint64_t length,
                   Bytes* data) {
  const uint64_t sequence =
      Say(type::kReadRequest, ReadBody(from, offset, length));
  const auto ended = [&] {
    return ReadDone(sequence) || StatusOf(sequence) != status::kOk;
  };
  if (!Until(ended)) return kNoAnswer;
  if (data != nullptr) *data = ReadData(sequence);
  return StatusOf(sequence);
}

uint8_t Peer::Atomic(const Name& on, uint64_t offset, uint8_t operation,
                     uint64_t operand, uint64_t expected, uint64_t* before) {
  const uint64_t sequence =
      Say(type::kAtomicRequest,
          AtomicBody(on, offset, operation, operand, expected));
  const auto name = static_cast<uint32_t>(sequence);
  const auto ended = [&] {
    return atomics_.contains(name) || StatusOf(sequence) != status::kOk;
  };
  if (!Until(ended)) return kNoAnswer;
  if (before != nullptr && atomics_.contains(name)) *before = atomics_[name];
  return StatusOf(sequence);
}

const Heard* Peer::Await(size_t mark,
                         const std::function<bool(const Heard&)>& matches,
                         uint64_t within_ns) {
  size_t at = mark;
  const auto found = [&] {
    for (; at < heard_.size(); ++at) {
      if (matches(heard_[at])) return true;
    }
    return false;
  };
  return Until(found, within_ns) ? &heard_[at] : nullptr;
}

const Heard* Peer::Await(size_t mark, uint8_t t, uint64_t within_ns) {
  return Await(
      mark, [&](const Heard& h) { return h.packet.type == t; }, within_ns);
}

size_t Peer::Count(size_t mark,
                   const std::function<bool(const Heard&)>& matches) const {
  return static_cast<size_t>(std::count_if(
      heard_.begin() + static_cast<ptrdiff_t>(mark), heard_.end(), matches));
}

bool Peer::ReadDone(uint64_t operation) const {
  const auto it = reads_.find(static_cast<uint32_t>(operation));
  return it != reads_.end() && it->second.done;
}

const Bytes& Peer::ReadData(uint64_t operation) {
  return reads_[static_cast<uint32_t>(operation)].data;
}

}  // namespace tripwire::conform
