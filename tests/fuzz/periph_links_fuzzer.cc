// SPDX-License-Identifier: BSD-3-Clause
// The service of streams in the hands of users who say and write on their links
// what they like, beside one who behaves. He gets every frame, whole and in
// order, whatever the others do; nobody gets what is not for him, or has for
// himself what others use; what is no message ends its link; every answer can
// be read; and when all have gone, nothing of them is left.

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "periph/client/frame_stream.h"
#include "periph/service/stream_service.h"
#include "tests/fuzz/bytes.h"
#include "tests/unit/comm/test_wire.h"
#include "tests/unit/periph/service/fake_device.h"

using namespace tripwire;          // NOLINT: a fuzzer's main file
using namespace tripwire::periph;  // NOLINT

namespace {

using fuzz::Require;

constexpr uint64_t kSoonNs = 100 * kSecond;  // so that a hang is found
constexpr size_t kStrangers = 3;
constexpr uint64_t kFrameBytes = 64;

// One who says what he likes, and hears what he is told.
class Stranger {
 public:
  Stranger(Nic& nic, fuzz::Script& script)
      : nic_(nic),
        script_(script),
        context_(nic.CreateContext()),
        memory_(4096) {
    const auto link = context_->Connect("server", kStreamService, {}, kSoonNs);
    Require(link.ok(), "whoever asks gets a link");
    link_ = *link;
    ring_ = context_->Export(memory_, Access::kWrite, link_);
  }
  void Step() {
    switch (script_.Take() % 8) {
      case 0:
      case 1:
        return SayOpen();
      case 2:
        return SayRing();
      case 3:
        return SayOther();
      case 4:
        return SayBytes();
      case 5:
        return WriteWord();
      default:
        return Hear();
    }
  }
  // What was said is taken in: one way or the other an answer comes.
  void Settle() {
    proto::StreamMessage ping;
    ping.mutable_ping()->set_sent_ns(++pings_);
    if (!Send(*context_, link_, ping).ok()) return;
    const uint64_t until_ns = nic_.clock().NowNs() + kSoonNs;
    while (context_->IsUp(link_) && pongs_ < pings_) {
      Hear();
      Event event;
      context_->Wait({&event, 1}, nic_.clock().NowNs() + kMillisecond);
      Require(nic_.clock().NowNs() < until_ns,
              "who asks for the time is told, or his link ends");
    }
    Hear();
    Require(!must_end_ || !context_->IsUp(link_),
            "what is no message ends its link");
  }

 private:
  void Hear() {
    while (auto bytes = context_->TakeMessage(link_)) {
      const auto message = ParseStreamMessage(*bytes);
      Require(message.has_value(), "what is told can be read");
      if (message->has_pong()) pongs_ = message->pong().sent_ns();
      if (message->has_credit())
        credit_ = ParseAperture(message->credit().aperture());
      if (message->has_refused()) {
        Require(message->refused().code() != 0, "a refusal has a reason");
        Require(
            Printable(message->refused().error()) == message->refused().error(),
            "reasons are one line, for people");
      }
      if (!message->has_opened()) continue;
      Require(may_open_, "nobody gets what he may not have");
      Require(message->opened().max_frame_bytes() == kFrameBytes,
              "it is the device's format");
    }
  }
  void Say(const proto::StreamMessage& message) {
    (void)Send(*context_, link_, message);
  }

  void SayOpen() {
    const char* const kNames[] = {"cam", "cam", "cam", "private", "none", ""};
    proto::StreamMessage message;
    proto::Open& open = *message.mutable_open();
    const uint8_t how = script_.Take();
    open.set_version(how < 240 ? kProtocolVersion : how);
    open.set_device(kNames[script_.Take() % std::size(kNames)]);
    open.set_sink(how % 2 == 1);
    open.set_exclusive(how % 8 >= 6);
    open.set_policy(how % 64 < 60 ? how / 64 : script_.Take<uint32_t>());
    open.set_queue_frames(how % 32 < 30 ? how % 5 : script_.Take<uint32_t>());
    // Not the number of another, which is random and told to nobody.
    open.set_user(2 + script_.Take() % 2);
    const auto text = script_.TakeBytes(script_.Take() % 16);
    if (how % 16 == 15) open.set_program(std::string(text.begin(), text.end()));
    if (how % 16 == 14) open.set_format("test/other");
    may_open_ |=
        open.device() == "cam" && !open.exclusive() && open.format().empty();
    Say(message);
  }
  void SayRing() {
    proto::StreamMessage message;
    proto::Ring& ring = *message.mutable_ring();
    const uint8_t how = script_.Take();
    ApertureName name = ring_.name();
    if (how % 8 == 7) name.length_bytes = script_.Take<uint64_t>();
    if (how % 16 == 6) name.handle = script_.Take<uint32_t>();
    ring.set_aperture(how < 240 ? ToBytes(name) : "short");
    ring.set_slots(how % 8 < 6 ? 1 + how % 4 : script_.Take<uint32_t>());
    ring.set_payload_bytes(how % 32 < 28 ? kFrameBytes
                                         : script_.Take<uint64_t>());
    Say(message);
  }
  void SayOther() {
    proto::StreamMessage message;
    switch (script_.Take() % 7) {
      case 0:
        message.mutable_end()->set_code(script_.Take());
        break;
      case 1:
        message.mutable_credit()->set_aperture(ToBytes(ring_.name()));
        break;
      case 2:
        message.mutable_opened()->set_max_frame_bytes(script_.Take<uint64_t>());
        break;
      case 3:
        message.mutable_format()->set_max_frame_bytes(script_.Take<uint64_t>());
        break;
      case 4:
        message.mutable_state();
        break;
      case 5:
        message.mutable_pong()->set_sent_ns(script_.Take<uint64_t>());
        break;
      case 6:
        message.mutable_ping();
    }
    Say(message);
  }
  void SayBytes() {
    const auto bytes = script_.TakeBytes(script_.Take() % 64);
    must_end_ |= !ParseStreamMessage(bytes).has_value();
    // It may be an Open that was found by chance.
    may_open_ = true;
    (void)context_->SendMessage(link_, bytes);
  }
  void WriteWord() {
    if (!credit_.has_value()) return;
    const uint8_t choice = script_.Take();
    const Le64 word(choice < 128 ? choice % 8 : script_.Take<uint64_t>());
    (void)context_->Write(
        context_->Import(link_, *credit_), 0,
        {reinterpret_cast<const uint8_t*>(&word), sizeof word});
  }

  Nic& nic_;
  fuzz::Script& script_;
  const std::unique_ptr<Context> context_;
  std::vector<uint8_t> memory_;
  LinkId link_;
  Aperture ring_;
  std::optional<ApertureName> credit_;
  uint64_t pings_ = 0, pongs_ = 0;
  bool may_open_ = false;
  bool must_end_ = false;
};

class Run {
 public:
  explicit Run(fuzz::Script& script)
      : script_(script),
        server_nic_(MakeNic(0, "server")),
        client_nic_(MakeNic(1, "client")),
        registry_(Devices(), [] {}) {
    service_ = std::move(StreamService::Start(*server_nic_, registry_)).value();
    StreamWish wish;
    wish.node = "server";
    wish.device = "cam";
    wish.user = 1;
    friend_ = std::move(RemoteSource::Open(*client_nic_, wish)).value();
    Require(cam_.AwaitSources(1), "the source runs");
  }
  void Steps() {
    for (int i = 0; i < 60 && !script_.ended(); ++i) Step();
    for (auto& stranger : strangers_) {
      if (stranger != nullptr) stranger->Settle();
      stranger.reset();
    }
    MakeFrame();
    const uint64_t until_ns = client_nic_->clock().NowNs() + kSoonNs;
    const auto wait_for_streams = [&](size_t count) {
      while (service_->Stat("", {"client", "", 1}).size() != count ||
             registry_.devices()[0]->Describe().users_size() !=
                 static_cast<int>(count)) {
        Require(client_nic_->clock().NowNs() < until_ns,
                "of those who have gone nothing is left");
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    };
    wait_for_streams(1);
    friend_.reset();
    wait_for_streams(0);
    Require(cam_.AwaitSources(0), "a source that nobody uses ends");
  }

 private:
  std::unique_ptr<Nic> MakeNic(int side, const char* node) {
    NicOptions options;
    options.node = node;
    options.ports.push_back(wire_.MakePort(side));
    // However long this process may be kept from running.
    options.peer_timeout_ns = 10 * kSoonNs;
    return std::move(Nic::Open(std::move(options))).value();
  }
  std::vector<DeviceConfig> Devices() {
    cam_.max_frame_bytes = kFrameBytes;
    std::vector<DeviceConfig> devices;
    devices.push_back({"cam", "fake:", std::make_unique<FakeDevice>(cam_), {}});
    devices.push_back({"private",
                       "fake:",
                       std::make_unique<FakeDevice>(private_),
                       {.nodes = {"friend"}}});
    return devices;
  }
  void Step() {
    const uint8_t choice = script_.Take();
    if (choice % 8 == 0) return MakeFrame();
    auto& stranger = strangers_[choice / 8 % kStrangers];
    if (stranger == nullptr) {
      stranger = std::make_unique<Stranger>(*client_nic_, script_);
    } else if (choice % 32 == 1) {
      stranger.reset();
    } else if (choice % 8 == 2) {
      stranger->Settle();
    } else {
      stranger->Step();
    }
  }
  void MakeFrame() {
    const std::string text = absl::StrCat("frame ", ++made_);
    Require(cam_.Emit(text), "the source runs as long as it has a user");
    const auto view = friend_->Next(client_nic_->clock().NowNs() + kSoonNs);
    Require(view.ok() &&
                std::string(view->data().begin(), view->data().end()) == text,
            "who behaves gets every frame");
    Require(friend_->counters().received == made_ &&
                friend_->counters().dropped == 0 &&
                friend_->counters().lost == 0,
            "and none is missing");
  }

  fuzz::Script& script_;
  TestWire wire_;
  FakeControl cam_, private_;
  const std::unique_ptr<Nic> server_nic_, client_nic_;
  Registry registry_;
  std::unique_ptr<StreamService> service_;
  std::unique_ptr<FrameStream> friend_;
  std::unique_ptr<Stranger> strangers_[kStrangers];
  uint64_t made_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Script script(data, size);
  Run(script).Steps();
  return 0;
}
