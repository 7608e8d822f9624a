// SPDX-License-Identifier: BSD-3-Clause
// Both ends of streams against peers that write what they like: a consumer
// whose ring is filled with nonsense, a feeder whose credit is nonsense.
// Nothing but the slots is looked at, what went wrong stays wrong, accounts add
// up, and memory is let go of.
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "periph/stream/feeder.h"
#include "periph/stream/frame_ring.h"
#include "tests/fuzz/bytes.h"
#include "tests/sim/sim_network.h"

using namespace tripwire;          // NOLINT: a fuzzer's main file
using namespace tripwire::periph;  // NOLINT

namespace {

constexpr uint64_t kMaxPayload = 3000;

// Two nodes and a link.
struct Net {
  Net()
      : network(1),
        left_nic(network.AddNode("left")),
        right_nic(network.AddNode("right")) {
    left = left_nic.CreateContext();
    right = right_nic.CreateContext();
    fuzz::Require(right->Listen("svc").ok(), "a service may be offered");
    left_link = *left->StartConnect("right", "svc", {});
    bool up = false;
    network.RunUntil(
        [&] {
          Event event;
          while (right->Poll({&event, 1}) > 0) {
            if (event.kind != EventKind::kConnectRequest) continue;
            right_link = event.link;
            up = right->Accept(event.link, {}).ok();
          }
          return up && left->IsUp(left_link);
        },
        kSecond);
    fuzz::Require(up, "a link comes up");
  }
  void Settle() { network.RunFor(10 * kMillisecond); }

  SimNetwork network;
  Nic& left_nic;
  Nic& right_nic;
  std::unique_ptr<Context> left, right;
  LinkId left_link, right_link;
};

template <typename T>
std::span<const uint8_t> BytesOf(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof value};
}

// ------------------------------------------------------- the consumer, and a
// hostile feeder

class RingRun {
 public:
  RingRun(Net& net, fuzz::Script& script) : net_(net), script_(script) {
    options_.slots = 1 + script.Take() % 5;
    options_.payload_bytes = script.Take<uint16_t>() % kMaxPayload;
    ring_ = *FrameRing::Create(*net.right, net.right_link, options_);
    name_ = ring_->name();
  }
  void Step() {
    switch (script_.Take() % 8) {
      case 0:
      case 1:
        return WriteTail();
      case 2:
        return WriteAnything();
      case 3:
      case 4:
        return Take();
      case 5:
        return Release();
      case 6:
        if (ring_ != nullptr) (void)ring_->Arm();
        return;
      case 7:
        if (script_.Take() < 8) return EndRing();
        if (ring_ != nullptr)
          ring_->SetLateness(script_.Take<uint64_t>(), script_.Take<int64_t>());
    }
  }
  void Finish() {
    EndRing();
    while (!views_.empty()) Release();
  }

 private:
  uint64_t stride() const { return SlotStride(options_.payload_bytes); }
  void Write(uint64_t offset, std::span<const uint8_t> data) {
    (void)net_.left->Write(net_.left->Import(net_.left_link, name_.aperture),
                           offset, data);
    net_.Settle();
  }
  // Nearly right, or right.
  void WriteTail() {
    const uint8_t choice = script_.Take();
    uint64_t sequence = next_;
    if (choice % 8 == 7) sequence = script_.Take<uint64_t>();
    SlotTail tail{};
    tail.sequence = sequence;
    tail.length_bytes =
        choice % 16 < 12 ? static_cast<uint32_t>(script_.Take<uint16_t>() %
                                                 (options_.payload_bytes + 1))
                         : script_.Take<uint32_t>();
    tail.number = choice % 32 < 16 ? next_ : script_.Take<uint64_t>();
    tail.overrun = script_.Take();
    tail.dropped = choice < 64 ? script_.Take<uint64_t>() : 0;
    tail.flags = script_.Take();
    tail.capture_ns = script_.Take<uint32_t>();
    const uint64_t slot = choice % 64 == 63 ? script_.Take() : (next_ - 1);
    if (choice % 8 != 7) ++next_;
    Write((slot % options_.slots + 1) * stride() - sizeof tail, BytesOf(tail));
  }
  void WriteAnything() {
    const uint64_t offset =
        script_.Take<uint16_t>() % (options_.slots * stride());
    Write(offset, script_.TakeBytes(1 + script_.Take() % 32));
  }
  void Take() {
    if (ring_ == nullptr) return;
    auto view = ring_->Take();
    if (!view.ok()) {
      fuzz::Require(
          absl::IsNotFound(view.status()) || absl::IsDataLoss(view.status()),
          "Take says what it may");
      fuzz::Require(!broken_ || absl::IsDataLoss(view.status()),
                    "nonsense is not forgiven");
      broken_ = absl::IsDataLoss(view.status());
      return;
    }
    fuzz::Require(!broken_, "nonsense is not forgiven");
    fuzz::Require(view->data().size() <= options_.payload_bytes,
                  "a frame fits its slot");
    Look(*view);
    ++taken_;
    fuzz::Require(ring_->counters().received == taken_, "frames are counted");
    fuzz::Require(views_.size() < options_.slots,
                  "no slot is handed out twice");
    views_.push_back(*std::move(view));
  }
  void Look(const FrameView& view) {
    for (const uint8_t byte : view.data()) sum_ = sum_ + byte;
  }
  void Release() {
    if (views_.empty()) return;
    const size_t which = script_.Take() % views_.size();
    Look(views_[which]);
    views_.erase(views_.begin() + static_cast<ptrdiff_t>(which));
  }
  void EndRing() { ring_.reset(); }

  Net& net_;
  fuzz::Script& script_;
  FrameRing::Options options_;
  std::unique_ptr<FrameRing> ring_;
  RingName name_;
  std::vector<FrameView> views_;
  uint64_t next_ = 1, taken_ = 0;
  bool broken_ = false;
  volatile uint64_t sum_ = 0;
};

// ------------------------------------------------------- the feeder, and a
// hostile consumer

class FeederRun {
 public:
  FeederRun(Net& net, fuzz::Script& script) : net_(net), script_(script) {
    Feeder::Options options;
    options.policy = static_cast<Policy>(script.Take() % 4);
    options.queue_frames = script.Take() % 4;
    feeder_.emplace(*net.left, net.left_link, options);
    memory_.resize(32 * 1024);
    aperture_ = net.right->Export(memory_, Access::kWrite);
  }
  void Step() {
    const bool was_ok = feeder_->status().ok();
    switch (script_.Take() % 8) {
      case 0:
      case 1:
      case 2:
        Offer();
        break;
      case 3:
      case 4:
        Credit();
        break;
      case 5:
        Begin();
        break;
      case 6:
        feeder_->Pump();
        break;
      case 7:
        if (script_.Take() % 4 == 0) feeder_->Pause();
        net_.Settle();
    }
    fuzz::Require(was_ok || !feeder_->status().ok(),
                  "what went wrong stays wrong");
    const FeederCounters counters = feeder_->counters();
    if (feeder_->status().ok()) {
      fuzz::Require(counters.offered ==
                        counters.sent + counters.dropped + counters.queued,
                    "every frame is accounted for");
    }
    fuzz::Require(counters.sent - sent_before_ <= slots_ + released_,
                  "no slot is filled before it was given back");
  }
  void Finish() {
    feeder_.reset();
    net_.Settle();
    net_.network.RunFor(kSecond);
    // The next feeder lets go of what is left.
    Feeder(*net_.left, net_.left_link, {}).Pump();
    fuzz::Require(held_ == 0, "memory is let go of");
  }

 private:
  void Offer() {
    const size_t length = script_.Take<uint16_t>() % (kMaxPayload + 100);
    auto* bytes = new std::vector<uint8_t>(length);
    periph::Frame frame;
    frame.data = *bytes;
    ++held_;
    std::shared_ptr<const void> owner(bytes->data(),
                                      [this, bytes](const void*) {
                                        --held_;
                                        delete bytes;
                                      });
    if (script_.Take() % 4 != 0) frame.owner = owner;
    frame.number = number_++;
    const Feeder::Taken taken = feeder_->Offer(frame);
    fuzz::Require((taken == Feeder::Taken::kGone) == !feeder_->status().ok(),
                  "gone is for good, and for a reason");
  }
  void Credit() {
    const uint8_t choice = script_.Take();
    const uint64_t sent = feeder_->counters().sent - sent_before_;
    uint64_t released =
        choice % 8 != 0 ? released_ + choice % 3 : script_.Take<uint64_t>();
    if (choice % 8 != 0 && released > sent) released = sent;
    if (released >= released_ && released <= sent) released_ = released;
    const Le64 word(released);
    (void)net_.right->Write(
        net_.right->Import(net_.right_link, feeder_->credit_name()), 0,
        BytesOf(word));
    net_.Settle();
  }
  void Begin() {
    RingName name;
    name.aperture = aperture_.name();
    const uint8_t choice = script_.Take();
    name.slots = choice % 8 == 0 ? script_.Take<uint32_t>() : 1 + choice % 6;
    name.payload_bytes = choice % 16 == 0
                             ? script_.Take<uint64_t>()
                             : script_.Take<uint16_t>() % kMaxPayload;
    if (choice >= 240) name.aperture.length_bytes = script_.Take<uint64_t>();
    const uint64_t sent = feeder_->counters().sent;
    if (!feeder_->Begin(name).ok()) return;
    fuzz::Require(name.slots > 0 &&
                      name.payload_bytes <= name.aperture.length_bytes &&
                      SlotStride(name.payload_bytes) <=
                          name.aperture.length_bytes / name.slots,
                  "a ring fits its aperture");
    slots_ = name.slots;
    released_ = 0;
    sent_before_ = sent;
  }

  Net& net_;
  fuzz::Script& script_;
  std::optional<Feeder> feeder_;
  std::vector<uint8_t> memory_;
  Aperture aperture_;
  int held_ = 0;
  uint64_t number_ = 0, slots_ = 0, released_ = 0, sent_before_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Script script(data, size);
  Net net;
  if (script.Take() % 2 == 0) {
    RingRun run(net, script);
    for (int i = 0; i < 200 && !script.ended(); ++i) run.Step();
    run.Finish();
  } else {
    FeederRun run(net, script);
    for (int i = 0; i < 200 && !script.ended(); ++i) run.Step();
    run.Finish();
  }
  return 0;
}
