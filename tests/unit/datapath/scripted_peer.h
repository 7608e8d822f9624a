// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_DATAPATH_SCRIPTED_PEER_H_
#define TRIPWIRE_TESTS_UNIT_DATAPATH_SCRIPTED_PEER_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nic/base/clock.h"
#include "nic/base/random.h"
#include "nic/control/control.h"
#include "nic/control/control.pb.h"
#include "nic/datapath/engine.h"
#include "nic/port/fabric.h"
#include "nic/wire/parse.h"

namespace tripwire {

using Bytes = std::vector<uint8_t>;

template <typename T>
Bytes BytesOf(const T& value) {
  const auto* p = reinterpret_cast<const uint8_t*>(&value);
  return Bytes(p, p + sizeof value);
}

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline Bytes WriteBody(const ApertureName& to, uint64_t offset,
                       const Bytes& data) {
  wire::WritePayload body;
  body.handle = to.handle;
  body.generation = to.generation;
  body.offset = offset;
  return BytesOf(body) + data;
}

inline Bytes ReadBody(const ApertureName& from, uint64_t offset,
                      uint64_t length) {
  wire::ReadRequestPayload body;
  body.handle = from.handle;
  body.generation = from.generation;
  body.offset = offset;
  body.length = length;
  return BytesOf(body);
}

inline Bytes ReadResponseBody(uint32_t operation, uint64_t offset,
                              const Bytes& data) {
  wire::ReadResponsePayload body;
  body.operation = operation;
  body.offset = offset;
  return BytesOf(body) + data;
}

inline Bytes MessageBody(uint32_t total, uint32_t offset, const Bytes& data) {
  wire::MessagePayload body;
  body.total_length = total;
  body.offset = offset;
  return BytesOf(body) + data;
}

inline Bytes AtomicBody(const ApertureName& to, uint64_t offset,
                        uint8_t operation, uint64_t operand,
                        uint64_t expected = 0) {
  wire::AtomicRequestPayload body{};
  body.handle = to.handle;
  body.generation = to.generation;
  body.offset = offset;
  body.operation = operation;
  body.operand = operand;
  body.expected = expected;
  return BytesOf(body);
}

inline Bytes AtomicResponseBody(uint32_t operation, uint64_t value) {
  wire::AtomicResponsePayload body{};
  body.operation = operation;
  body.value = value;
  return BytesOf(body);
}

inline Bytes ErrorBody(uint32_t operation, uint8_t status) {
  wire::OpErrorPayload body{};
  body.operation = operation;
  body.status = status;
  return BytesOf(body);
}

// One engine with its control plane on an in-memory segment, and, as its only
// neighbour, a bare port that says and hears whatever the test wants: the peer
// that no real engine would be. Time moves by command.
class ScriptedPeer {
 public:
  static constexpr uint32_t kLink = 0x00700007;  // the peer's name of the link
  static constexpr uint32_t kEpoch = 0x5eed5eed;

  explicit ScriptedPeer(EngineOptions options = {},
                        uint32_t max_frame_bytes = 1514,
                        FabricOptions fabric = {}, bool second_port = false)
      : fabric_(clock_, fabric),
        port_(fabric_.AddPort("peer", max_frame_bytes)),
        source_(port_->info().mac),
        sequence_(options.first_sequence),
        expected_(options.first_sequence) {
    std::vector<std::unique_ptr<Port>> ports;
    ports.push_back(fabric_.AddPort("nic", max_frame_bytes));
    nic_mac_ = ports[0]->info().mac;
    if (second_port) {  // on the same segment, with smaller frames
      ports.push_back(fabric_.AddPort("nic's second port", 600));
      second_mac_ = ports[1]->info().mac;
    }
    engine_ = std::make_unique<Engine>(options, clock_, random_,
                                       std::move(ports));
    control_ = std::make_unique<Control>(*engine_, "nic");
    context_ = engine_->CreateContext();
    control_->discovery().Offer("svc", context_);
  }
  ~ScriptedPeer() {
    engine_->DestroyContext(context_);
    Hear();
    if (fabric_.FramesHeld(nic_mac_) != 0) {
      std::fprintf(stderr, "the engine lost a frame's buffer\n");
      std::abort();
    }
  }

  Engine& engine() { return *engine_; }
  Connections& connections() { return control_->connections(); }
  Discovery& discovery() { return control_->discovery(); }
  NicCounters& counters() { return engine_->counters(); }
  ManualClock& clock() { return clock_; }
  Fabric& fabric() { return fabric_; }
  uint32_t context() const { return context_; }
  LinkId link() const { return link_; }    // the engine's name of the link
  uint32_t epoch() const { return epoch_; }
  MacAddress nic_mac() const { return nic_mac_; }
  MacAddress second_mac() const { return second_mac_; }
  MacAddress mac() const { return port_->info().mac; }
  // The next sequence number the script uses, and the next it has not heard.
  uint64_t sequence() const { return sequence_; }
  uint64_t expected() const { return expected_; }
  void set_sequence(uint64_t sequence) { sequence_ = sequence; }
  // From now on the script acknowledges this and no more.
  void set_acknowledge(uint64_t expected) {
    expected_ = expected;
    auto_acknowledge_ = false;
  }
  void set_credit(uint16_t credit) { credit_ = credit; }
  // The MAC that frames come from, from now on; the script's own at first.
  void set_source(const MacAddress& mac) { source_ = mac; }
  // What the script says it understands; REQUIRES: before Connect.
  void set_features(uint32_t features) { features_ = features; }

  // What the header of a frame says, unless the test says otherwise.
  wire::FrameHeader Header(uint8_t type) {
    wire::FrameHeader header{};
    header.version = wire::kVersion;
    header.type = type;
    header.flags = wire::kLast;
    header.link = link_.value;
    header.epoch = epoch_;
    header.sequence = static_cast<uint32_t>(sequence_);
    header.acknowledged = static_cast<uint32_t>(expected_);
    header.credit = credit_;
    return header;
  }
  Bytes Frame(const wire::FrameHeader& header, const Bytes& payload,
              bool checksum = true) {
    Bytes frame(wire::kHeaderBytes + payload.size() + 64);
    std::memcpy(frame.data(), nic_mac_.bytes.data(), 6);
    std::memcpy(frame.data() + 6, source_.bytes.data(), 6);
    std::memcpy(frame.data() + 12, wire::kEtherType, 2);
    std::memcpy(frame.data() + 14, &header, sizeof header);
    std::copy(payload.begin(), payload.end(),
              frame.begin() + wire::kHeaderBytes);
    frame.resize(wire::Seal(frame.data(), payload.size(), checksum));
    return frame;
  }

  // Puts a frame on the segment and lets the engine have it.
  void Send(const Bytes& frame) {
    Throw(frame);
    Run();
  }
  void Throw(const Bytes& bytes) {
    tripwire::Frame frame;
    if (port_->Allocate({&frame, 1}) == 0) std::abort();
    if (bytes.size() > frame.capacity_bytes) std::abort();
    std::copy(bytes.begin(), bytes.end(), frame.data);
    frame.length_bytes = static_cast<uint32_t>(bytes.size());
    if (port_->Transmit(0, {&frame, 1}) == 0) port_->Release({&frame, 1});
  }
  // A well-formed frame, the next in sequence if its type has a place in it.
  void Say(uint8_t type, const Bytes& payload, uint16_t flags = wire::kLast) {
    wire::FrameHeader header = Header(type);
    header.flags = flags;
    if (wire::IsSequenced(type)) ++sequence_;
    Send(Frame(header, payload));
  }
  void SayAck() { Say(wire::kAck, Bytes(sizeof(wire::AckPayload)), 0); }

  // Lets time pass and the engine work; keeps what the peer's port hears.
  void Run(uint64_t ns = 20 * kMicrosecond) {
    const uint64_t end_ns = clock_.NowNs() + ns;
    while (clock_.NowNs() < end_ns) {
      clock_.AdvanceBy(2 * kMicrosecond);
      while (engine_->Poll(clock_.NowNs())) {
      }
      Hear();
    }
  }
  // Frames heard since the last call.
  std::vector<Bytes> Take() {
    Hear();
    return std::exchange(heard_, {});
  }
  // Those of one type.
  std::vector<Bytes> Take(uint8_t type) {
    std::vector<Bytes> frames = Take();
    std::erase_if(frames,
                  [&](const Bytes& f) { return View(f).type() != type; });
    return frames;
  }
  static wire::FrameView View(const Bytes& frame) {
    wire::FrameView view;
    if (wire::Parse(frame, &view) != wire::ParseResult::kOk) std::abort();
    return view;
  }
  std::vector<Event> Events() {
    std::vector<Event> events(64);
    events.resize(engine_->TakeEvents(context_, events));
    return events;
  }
  // A persistent tripwire, armed, on what the engine exported as `name`.
  uint32_t Watch(const ApertureName& name, uint64_t offset, uint64_t length,
                 Access access) {
    TripwireSpec spec;
    spec.context = context_;
    spec.offset = offset;
    spec.length = length;
    spec.access = access;
    spec.handle = name.handle;
    spec.generation = name.generation;
    const uint32_t id = engine_->Watch(spec);
    engine_->Arm(id);
    return id;
  }

  control::Connect ConnectBody() const {
    control::Connect connect;
    connect.set_link(kLink);
    connect.set_epoch(kEpoch);
    connect.set_service("svc");
    connect.set_node("peer");
    connect.set_max_frame_bytes(port_->info().max_frame_bytes);
    connect.set_checksum(true);
    connect.set_features(features_);
    return connect;
  }
  template <typename Message>
  void SayControl(uint8_t type, const Message& message, uint32_t link = 0,
                  uint32_t epoch = 0) {
    const std::string body = message.SerializeAsString();
    wire::FrameHeader header{};
    header.version = wire::kVersion;
    header.type = type;
    header.link = link;
    header.epoch = epoch;
    Send(Frame(header, Bytes(body.begin(), body.end())));
  }
  // Opens the link, the script being the initiator. False if that fails.
  bool Connect() {
    SayControl(wire::kConnect, ConnectBody());
    for (const Event& event : Events()) {
      if (event.kind == EventKind::kConnectRequest) link_ = event.link;
    }
    if (!connections().Accept(link_, {})) return false;
    Run();
    for (const Bytes& frame : Take(wire::kAccept)) {
      control::Accept accept;
      const wire::FrameView view = View(frame);
      if (!accept.ParseFromArray(view.payload.data(),
                                 static_cast<int>(view.payload.size()))) {
        return false;
      }
      epoch_ = accept.epoch();
      return accept.link() == link_.value;
    }
    return false;
  }

 private:
  void Hear() {
    tripwire::Frame frame;
    while (port_->Receive({&frame, 1}) > 0) {
      Bytes bytes(frame.data, frame.data + frame.length_bytes);
      port_->Release({&frame, 1});
      const wire::FrameView view = View(bytes);
      if (wire::IsSequenced(view.type()) && auto_acknowledge_) {
        const uint64_t sequence = ExpandSequence(view.sequence(), expected_);
        if (sequence == expected_) ++expected_;
      }
      if (heard_.size() < 4096) heard_.push_back(std::move(bytes));
    }
  }

  ManualClock clock_;
  Random random_{1};
  Fabric fabric_;
  std::unique_ptr<Port> port_;
  MacAddress source_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Control> control_;
  MacAddress nic_mac_, second_mac_;
  uint32_t context_ = 0;
  LinkId link_;
  uint32_t epoch_ = 0;
  uint64_t sequence_, expected_;
  uint16_t credit_ = kWindowFrames;
  uint32_t features_ = 7;
  bool auto_acknowledge_ = true;
  std::vector<Bytes> heard_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_UNIT_DATAPATH_SCRIPTED_PEER_H_
