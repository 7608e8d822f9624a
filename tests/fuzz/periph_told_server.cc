// SPDX-License-Identifier: BSD-3-Clause
#include "tests/fuzz/periph_told_server.h"

#include <cstring>
#include <utility>

#include "periph/stream/frame.h"

namespace tripwire::periph {
namespace {

using fuzz::Require;

constexpr uint32_t kSinkSlots = 3;
constexpr uint64_t kSinkFrameBytes = 200;

template <typename T>
std::span<const uint8_t> BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof value};
}

}  // namespace

ToldServer::ToldServer(Nic& nic, fuzz::Script& script, bool sink)
    : script_(script), sink_(sink), context_(nic.CreateContext()) {
  Require(context_->Listen(kStreamService).ok(), "a service may be offered");
}

ToldServer::~ToldServer() = default;

// --------------------------------------------------------------- what comes

void ToldServer::TakeEvents() {
  Event event;
  while (context_->Poll({&event, 1}) > 0) {
    if (event.kind != EventKind::kConnectRequest) continue;
    // The link before, if it is up still, is one that the user has left.
    stream_ = std::make_unique<ToldStream>();
    stream_->link = event.link;
    Require(context_->Accept(event.link, {}).ok(), "a link can be taken");
  }
}

void ToldServer::TakeMessages() {
  if (stream_ == nullptr) return;
  while (auto bytes = context_->TakeMessage(stream_->link)) {
    const auto message = ParseStreamMessage(*bytes);
    Require(message.has_value(), "what users say can be read");
    OnMessage(*message);
  }
}

void ToldServer::OnMessage(const proto::StreamMessage& message) {
  ToldStream& stream = *stream_;
  switch (message.kind_case()) {
    case proto::StreamMessage::kOpen:
      Require(!stream.asked, "a stream is asked for once");
      Require(
          message.open().device() == "cam" && message.open().sink() == sink_,
          "it is the one that was asked for");
      stream.asked = true;
      return;
    case proto::StreamMessage::kRing:
      return OnRing(message.ring());
    case proto::StreamMessage::kCredit:
      Require(sink_ && stream.aperture, "credit answers a ring");
      stream.user_credit = ParseAperture(message.credit().aperture());
      return Require(stream.user_credit.has_value(), "credit has a name");
    case proto::StreamMessage::kEnd:
      Require(sink_ && stream.opened, "only who feeds an open stream ends it");
      stream.user_ended = true;
      return;
    case proto::StreamMessage::kPing: {
      proto::StreamMessage answer;
      answer.mutable_pong()->set_sent_ns(message.ping().sent_ns());
      answer.mutable_pong()->set_there_ns(script_.Take<uint32_t>());
      answer.mutable_pong()->set_answered_ns(script_.Take<uint32_t>());
      return Say(answer);
    }
    case proto::StreamMessage::kPong:
      return;
    default:
      Require(false, "users say what users may say");
  }
}

void ToldServer::OnRing(const proto::Ring& told) {
  ToldStream& stream = *stream_;
  const auto name = ParseAperture(told.aperture());
  Require(!sink_ && name.has_value(), "a source's user names a ring");
  Require(!stream.unanswered.empty(), "a ring answers a format");
  const ToldStream::Format format = std::move(stream.unanswered.front());
  stream.unanswered.pop_front();
  Require(
      told.slots() == kUserSlots && told.payload_bytes() == format.max_bytes,
      "a ring is of the size asked for");
  Require(told.payload_bytes() <= kUserRingBytes &&
              SlotStride(told.payload_bytes()) <= kUserRingBytes / told.slots(),
          "no ring is larger than allowed");
  Require(
      name->length_bytes >= told.slots() * SlotStride(told.payload_bytes()) &&
          Includes(name->rights, Access::kWrite),
      "a ring can be filled");
  if (!stream.unanswered.empty()) return;  // of a format that is past
  stream.ring = {context_->Import(stream.link, *name), format, 0};
  stream.credit_aperture.Revoke();
  stream.credit = std::make_shared<Le64>();
  stream.credit_aperture = context_->Export(
      {reinterpret_cast<uint8_t*>(stream.credit.get()), sizeof(Le64)},
      Access::kWrite, stream.link);
  proto::StreamMessage answer;
  answer.mutable_credit()->set_aperture(ToBytes(stream.credit_aperture.name()));
  Say(answer);
}

// -------------------------------------------------------------- what is done

void ToldServer::Turn(bool first) {
  TakeEvents();
  TakeMessages();
  if (!first || stream_ == nullptr || stream_->closed) return;
  // Who knows what the user makes of it: he is to come again.
  if (reformed_ && !stream_->keeps_rules) return Close();
  if (reformed_) return DoRight();
  const uint8_t choice = script_.Take();
  switch (choice % 16) {
    case 8:
      return ChangeFormat();
    case 9:
      return Close();
    case 10:
      return End();
    case 11:
      return Refuse();
    case 12:
      return choice < 64 ? SayBytes() : SayAnything();
    case 13:
      return choice < 128 ? WriteAnything() : SayAnything();
    case 14: {
      if (!stream_->opened) return;
      proto::StreamMessage message;
      message.mutable_state()->set_present(script_.Take() % 2);
      message.mutable_state()->set_why(Text());
      return Say(message);
    }
    case 15:
      return;
    default:
      return DoRight();
  }
}

void ToldServer::Say(const proto::StreamMessage& message) {
  (void)Send(*context_, stream_->link, message);
}

void ToldServer::Odd() {
  stream_->keeps_rules = false;
  Over(absl::StatusCode::kUnknown);
}

void ToldServer::Over(absl::StatusCode code) {
  ever_broke_rules_ |= !stream_->keeps_rules;
  stream_->end = code;
  may_be_over_ = true;
}

void ToldServer::DoRight() {
  if (!stream_->asked) return;
  if (!stream_->opened) return Answer();
  if (!sink_) return WriteFrame();
  TakeFrame();
}

void ToldServer::Answer() {
  ToldStream& stream = *stream_;
  proto::StreamMessage message;
  proto::Opened& opened = *message.mutable_opened();
  ToldStream::Format format{Text(), 1 + script_.Take() % kSinkFrameBytes};
  opened.set_format(format.name);
  opened.set_max_frame_bytes(format.max_bytes);
  opened.set_present(true);
  stream.opened = true;
  Say(message);
  if (!sink_) return stream.unanswered.push_back(std::move(format));
  const uint64_t stride = SlotStride(format.max_bytes);
  stream.memory.assign(kSinkSlots * stride, 0);
  stream.aperture =
      context_->Export(stream.memory, Access::kWrite, stream.link);
  proto::StreamMessage ring;
  ring.mutable_ring()->set_aperture(ToBytes(stream.aperture.name()));
  ring.mutable_ring()->set_slots(kSinkSlots);
  ring.mutable_ring()->set_payload_bytes(format.max_bytes);
  Say(ring);
}

void ToldServer::WriteFrame() {
  ToldStream& stream = *stream_;
  if (!stream.ring.has_value() || stream.end.has_value()) return;
  ToldStream::Ring& ring = *stream.ring;
  const uint64_t released = stream.credit->get();
  Require(!stream.keeps_rules || released <= ring.written,
          "nothing is given back that was not there");
  if (ring.written - released >= kUserSlots) return;
  ToldFrame frame;
  frame.number = next_number_++;
  frame.format = Printable(ring.format.name, kMaxStreamMessageBytes);
  frame.bytes.resize(script_.Take() % (ring.format.max_bytes + 1));
  for (size_t i = 0; i < frame.bytes.size(); ++i) {
    frame.bytes[i] = static_cast<uint8_t>(frame.number * 7 + i);
  }
  SlotTail tail{};
  tail.length_bytes = static_cast<uint32_t>(frame.bytes.size());
  tail.number = frame.number;
  tail.sequence = ring.written + 1;
  const uint64_t stride = SlotStride(ring.format.max_bytes);
  const uint64_t padded = PaddedBytes(frame.bytes.size());
  std::vector<uint8_t> all(padded + sizeof tail);
  std::copy(frame.bytes.begin(), frame.bytes.end(), all.begin());
  std::memcpy(all.data() + padded, &tail, sizeof tail);
  const uint64_t end = (ring.written % kUserSlots + 1) * stride;
  ++ring.written;
  (void)context_->Write(ring.memory, end - all.size(), all);
  if (stream.keeps_rules) on_the_way.push_back(std::move(frame));
}

// Of the ring of a sink: what comes is what was put, and each is given back.
void ToldServer::TakeFrame() {
  ToldStream& stream = *stream_;
  if (!stream.aperture || stream.end.has_value()) return;
  const uint64_t stride = stream.memory.size() / kSinkSlots;
  const uint8_t* end =
      stream.memory.data() + (stream.taken % kSinkSlots + 1) * stride;
  SlotTail tail;
  std::memcpy(static_cast<void*>(&tail), end - sizeof tail, sizeof tail);
  if (tail.sequence.get() != stream.taken + 1) {
    if (!stream.user_ended) return;
    // It follows the last frame, so that was all.
    proto::StreamMessage message;
    message.mutable_end();
    Over(absl::StatusCode::kOk);
    return Say(message);
  }
  bool skipped = false;
  while (!put.empty() && put.front().number < tail.number.get()) {
    put.pop_front();
    skipped = true;
  }
  if (stream.keeps_rules) {
    Require(!put.empty() && put.front().number == tail.number.get(),
            "what comes was put");
    Require(!skipped ||
                (stream.taken == 0 && (tail.flags.get() & kDiscontinuity) != 0),
            "what is missing is told, and nothing is missing but with a link");
    const std::vector<uint8_t>& bytes = put.front().bytes;
    Require(tail.length_bytes.get() == bytes.size() &&
                std::equal(bytes.begin(), bytes.end(),
                           end - sizeof tail - PaddedBytes(bytes.size())),
            "a frame comes as it was put");
    put.pop_front();
  }
  ++stream.taken;
  if (!stream.user_credit.has_value()) return;
  const Le64 word(stream.taken);
  (void)context_->Write(context_->Import(stream.link, *stream.user_credit), 0,
                        BytesOf(word));
}

// ------------------------------------------------------- what may be done too

void ToldServer::ChangeFormat() {
  if (sink_ || !stream_->opened) return;
  ToldStream::Format format{Text(), 1 + script_.Take() % kSinkFrameBytes};
  proto::StreamMessage message;
  message.mutable_format()->set_format(format.name);
  message.mutable_format()->set_max_frame_bytes(format.max_bytes);
  stream_->unanswered.push_back(std::move(format));
  stream_->ring.reset();
  Say(message);
}

void ToldServer::Close() {
  stream_->closed = true;
  context_->Close(stream_->link);
}

void ToldServer::End() {
  if (!stream_->opened || stream_->end.has_value()) return;
  proto::StreamMessage message;
  message.mutable_end()->set_code(script_.Take() % 20);
  message.mutable_end()->set_error(Text());
  Over(ToStatus(message.end().code(), "").code());
  Say(message);
}

void ToldServer::Refuse() {
  if (!stream_->asked || stream_->opened) return;
  proto::StreamMessage message;
  message.mutable_refused()->set_code(1 + script_.Take() % 20);
  message.mutable_refused()->set_error(Text());
  Over(ToStatus(message.refused().code(), "").code());
  Say(message);
  Close();
}

// --------------------------------------------------- what breaks the rules

std::string ToldServer::Text() {
  constexpr std::string_view kLetters[] = {"a",        "\n",       "\x1b[2J",
                                           "\xc3\xa9", "\xc2\x9b", "x/y"};
  std::string text;
  for (int left = script_.Take() % 8; left > 0; --left) {
    text += kLetters[script_.Take() % std::size(kLetters)];
  }
  return text;
}

void ToldServer::SayBytes() {
  Odd();
  (void)context_->SendMessage(stream_->link, script_.TakeBytes(script_.Take()));
}

void ToldServer::SayAnything() {
  Odd();
  proto::StreamMessage message;
  const auto bytes = script_.TakeBytes(script_.Take() % 32);
  const std::string name(bytes.begin(), bytes.end());
  const uint64_t size =
      script_.Take() < 128 ? script_.Take() : script_.Take<uint64_t>();
  switch (script_.Take() % 9) {
    case 0:
      message.mutable_opened()->set_format(Text());
      message.mutable_opened()->set_max_frame_bytes(size);
      stream_->opened |= stream_->asked;
      if (size > 0) stream_->unanswered.push_back({"", size});
      break;
    case 1:
      message.mutable_format()->set_format(name);
      message.mutable_format()->set_max_frame_bytes(size);
      stream_->unanswered.push_back({name, size});
      break;
    case 2:
      message.mutable_ring()->set_aperture(
          script_.Take() < 128 ? ToBytes(stream_->aperture.name()) : name);
      message.mutable_ring()->set_slots(script_.Take<uint32_t>());
      message.mutable_ring()->set_payload_bytes(size);
      break;
    case 3:
      message.mutable_credit()->set_aperture(name);
      break;
    case 4:
      message.mutable_refused()->set_code(script_.Take<int32_t>());
      message.mutable_refused()->set_error(Text());
      break;
    case 5:
      message.mutable_end()->set_code(script_.Take<int32_t>());
      break;
    case 6:
      message.mutable_open()->set_device(name);
      break;
    case 7:
      message.mutable_pong()->set_sent_ns(script_.Take<uint64_t>());
      message.mutable_pong()->set_there_ns(size);
      message.mutable_pong()->set_answered_ns(script_.Take<uint64_t>());
      break;
    case 8:
      message.mutable_ping()->set_sent_ns(size);
  }
  Say(message);
}

// Somewhere into the user's memory that he gave.
void ToldServer::WriteAnything() {
  Odd();
  const auto bytes = script_.TakeBytes(1 + script_.Take() % 80);
  const uint64_t offset = script_.Take<uint16_t>();
  if (stream_->ring.has_value()) {
    (void)context_->Write(stream_->ring->memory, offset, bytes);
  } else if (stream_->user_credit.has_value()) {
    (void)context_->Write(
        context_->Import(stream_->link, *stream_->user_credit), 0, bytes);
  }
}

}  // namespace tripwire::periph
