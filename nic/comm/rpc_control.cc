// SPDX-License-Identifier: BSD-3-Clause
#include "nic/comm/rpc_control.h"

#include <algorithm>
#include <cstring>

#include "nic/base/wire_int.h"
#include "nic/comm/rpc_layout.h"

namespace tripwire::rpc {
namespace {

constexpr uint32_t kMagic = 0x43'50'52'54;  // "TRPC"
constexpr size_t kMaxTextBytes = 512;       // of a reason given in words

class Writer {
 public:
  template <typename T>
  Writer& Int(T value) {
    LittleEndian<T> wire(value);
    return Raw({reinterpret_cast<const uint8_t*>(&wire), sizeof wire});
  }
  Writer& Byte(uint8_t value) {
    bytes_.push_back(value);
    return *this;
  }
  Writer& Raw(OctetView raw) {
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    return *this;
  }
  Writer& Text(const std::string& text) {
    const size_t length = std::min(text.size(), kMaxTextBytes);
    return Raw({reinterpret_cast<const uint8_t*>(text.data()), length});
  }
  Writer& Name(const ApertureName& name) {
    uint8_t wire[ApertureName::kWireBytes];
    name.Serialize(wire);
    return Raw(wire);
  }
  Octets Take() { return std::move(bytes_); }

 private:
  Octets bytes_;
};

// Reads past the end give zeros and make ok() false.
class Reader {
 public:
  explicit Reader(OctetView bytes) : rest_(bytes) {}

  template <typename T>
  T Int() {
    LittleEndian<T> wire(0);
    const OctetView raw = Raw(sizeof wire);
    if (raw.size() == sizeof wire) std::memcpy(&wire, raw.data(), sizeof wire);
    return wire.get();
  }
  uint8_t Byte() {
    const OctetView raw = Raw(1);
    return raw.empty() ? 0 : raw[0];
  }
  OctetView Raw(size_t length) {
    if (length > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const OctetView taken = rest_.first(length);
    rest_ = rest_.subspan(length);
    return taken;
  }
  ApertureName Name() {
    const OctetView raw = Raw(ApertureName::kWireBytes);
    return raw.empty() ? ApertureName{} : ApertureName::Parse(raw.data());
  }
  OctetView Rest() { return Raw(rest_.size()); }
  // Text from a peer goes to people's terminals and logs: printable only.
  std::string Text() {
    const OctetView raw = Rest();
    std::string text(raw.begin(),
                     raw.begin() + std::min(raw.size(), kMaxTextBytes));
    for (char& c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte == 0x7f) c = '?';
    }
    return text;
  }
  size_t left() const { return rest_.size(); }
  bool ok() const { return ok_; }

 private:
  OctetView rest_;
  bool ok_ = true;
};

Writer Start(MessageType type) {
  Writer out;
  out.Byte(static_cast<uint8_t>(type));
  return out;
}

bool IsA(Reader& in, MessageType type) {
  return in.Byte() == static_cast<uint8_t>(type) && in.ok();
}

bool IsWithinLimits(const ConnectAnswer& a) {
  return a.slots >= kMinSlots && a.slots <= kMaxSlots && a.message_bytes > 0 &&
         a.message_bytes <= kMaxMessageBytes && a.bulk_bytes <= kMaxBulkBytes &&
         a.staging_slots <= kMaxStagingSlots &&
         a.call_area.length_bytes >= CallAreaBytes(a.slots, a.message_bytes) &&
         a.staging.length_bytes >= uint64_t{a.bulk_bytes} * a.staging_slots;
}

}  // namespace

Octets Serialize(const ConnectRequest& request) {
  Writer out;
  out.Int(kMagic).Int(request.version).Int(uint16_t{0}).Int(request.session_id);
  return out.Take();
}

std::optional<ConnectRequest> ParseConnectRequest(OctetView bytes) {
  Reader in(bytes);
  if (in.Int<uint32_t>() != kMagic) return std::nullopt;
  ConnectRequest request;
  request.version = in.Int<uint16_t>();
  in.Int<uint16_t>();
  request.session_id = in.Int<uint64_t>();
  if (!in.ok() || request.session_id == 0) return std::nullopt;
  return request;
}

Octets Serialize(const ConnectAnswer& answer) {
  Writer out;
  out.Int(kMagic).Int(kProtocolVersion);
  out.Int(static_cast<uint16_t>(answer.refused.empty() ? 0 : 1));
  if (!answer.refused.empty()) return out.Text(answer.refused).Take();
  out.Int(answer.slots).Int(answer.message_bytes).Int(answer.bulk_bytes);
  out.Int(answer.staging_slots).Name(answer.call_area).Name(answer.staging);
  out.Int(answer.features);
  return out.Take();
}

std::optional<ConnectAnswer> ParseConnectAnswer(OctetView bytes) {
  Reader in(bytes);
  if (in.Int<uint32_t>() != kMagic) return std::nullopt;
  const uint16_t version = in.Int<uint16_t>();
  const bool is_refused = in.Int<uint16_t>() != 0;
  if (!in.ok()) return std::nullopt;
  ConnectAnswer answer;
  if (is_refused) {
    answer.refused = in.Text();
    if (answer.refused.empty()) answer.refused = "no reason given";
    return answer;
  }
  if (version != kProtocolVersion) return std::nullopt;
  answer.slots = in.Int<uint32_t>();
  answer.message_bytes = in.Int<uint32_t>();
  answer.bulk_bytes = in.Int<uint32_t>();
  answer.staging_slots = in.Int<uint32_t>();
  answer.call_area = in.Name();
  answer.staging = in.Name();
  answer.features = in.Int<uint32_t>();
  if (!in.ok() || !IsWithinLimits(answer)) return std::nullopt;
  return answer;
}

std::optional<MessageType> TypeOf(OctetView message) {
  if (message.empty() || message[0] < 1 || message[0] > 5) return std::nullopt;
  return static_cast<MessageType>(message[0]);
}

Octets Serialize(const Hello& hello) {
  Writer out = Start(MessageType::kHello);
  out.Int(hello.incarnation).Int(hello.notify_received);
  out.Int(hello.notify_acked).Int(hello.notify_slots);
  out.Name(hello.reply_area).Raw(hello.greeting);
  return out.Take();
}

std::optional<Hello> ParseHello(OctetView message) {
  Reader in(message);
  if (!IsA(in, MessageType::kHello)) return std::nullopt;
  Hello hello;
  hello.incarnation = in.Int<uint64_t>();
  hello.notify_received = in.Int<uint64_t>();
  hello.notify_acked = in.Int<uint64_t>();
  hello.notify_slots = in.Int<uint32_t>();
  hello.reply_area = in.Name();
  if (!in.ok() || hello.notify_slots == 0 ||
      hello.notify_slots > kMaxNotifySlots ||
      hello.notify_acked > hello.notify_received) {
    return std::nullopt;
  }
  const OctetView rest = in.Rest();
  hello.greeting.assign(rest.begin(), rest.end());
  return hello;
}

Octets Serialize(const Welcome& welcome) {
  Writer out = Start(MessageType::kWelcome);
  out.Byte(welcome.resumed ? 1 : 0).Int(welcome.incarnation);
  out.Int(static_cast<uint32_t>(welcome.sequences.size()));
  for (uint64_t sequence : welcome.sequences) out.Int(sequence);
  out.Raw(welcome.greeting_reply);
  return out.Take();
}

std::optional<Welcome> ParseWelcome(OctetView message) {
  Reader in(message);
  if (!IsA(in, MessageType::kWelcome)) return std::nullopt;
  Welcome welcome;
  welcome.resumed = in.Byte() != 0;
  welcome.incarnation = in.Int<uint64_t>();
  const uint32_t slots = in.Int<uint32_t>();
  if (!in.ok() || slots > kMaxSlots || welcome.incarnation == 0 ||
      in.left() < slots * sizeof(uint64_t)) {
    return std::nullopt;
  }
  for (uint32_t i = 0; i < slots; ++i) {
    welcome.sequences.push_back(in.Int<uint64_t>());
  }
  const OctetView rest = in.Rest();
  welcome.greeting_reply.assign(rest.begin(), rest.end());
  return welcome;
}

Octets Serialize(const Refused& refused) {
  Writer out = Start(MessageType::kRefused);
  return out.Int(refused.code).Text(refused.why).Take();
}

std::optional<Refused> ParseRefused(OctetView message) {
  Reader in(message);
  if (!IsA(in, MessageType::kRefused)) return std::nullopt;
  Refused refused;
  refused.code = in.Int<uint32_t>();
  refused.why = in.Text();
  if (!in.ok()) return std::nullopt;
  return refused;
}

Octets Serialize(const Cancel& cancel) {
  Writer out = Start(MessageType::kCancel);
  return out.Int(cancel.slot).Int(cancel.sequence).Take();
}

std::optional<Cancel> ParseCancel(OctetView message) {
  Reader in(message);
  if (!IsA(in, MessageType::kCancel)) return std::nullopt;
  Cancel cancel;
  cancel.slot = in.Int<uint32_t>();
  cancel.sequence = in.Int<uint64_t>();
  if (!in.ok()) return std::nullopt;
  return cancel;
}

Octets Serialize(const Bye& bye) {
  return Start(MessageType::kBye).Text(bye.why).Take();
}

std::optional<Bye> ParseBye(OctetView message) {
  Reader in(message);
  if (!IsA(in, MessageType::kBye)) return std::nullopt;
  return Bye{in.Text()};
}

}  // namespace tripwire::rpc
