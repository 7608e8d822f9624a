// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_SIM_STREAMS_H_
#define TRIPWIRE_TESTS_SIM_SIM_STREAMS_H_

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/periph/stream/numbered_frames.h"

// One source of frames and many consumers, each on a node of its own.
namespace tripwire::periph {

inline constexpr uint64_t kFeederCookie = 1, kRingCookie = 2;

inline FaultOptions SomeFaults(Random& random) {
  FaultOptions faults;
  if (random.Chance(0.5)) faults.loss = 0.02;
  if (random.Chance(0.5)) faults.duplicate = 0.02;
  if (random.Chance(0.5)) faults.reorder = 0.05;
  if (random.Chance(0.5)) faults.corrupt = 0.01;
  if (random.Chance(0.3)) faults.stall = 0.001;
  return faults;
}

// What a consumer and its feeder say out of band, in small.
enum Word : uint8_t { kRing = 'R', kCredit = 'C', kFormat = 'F' };

struct Says {
  uint8_t word = 0;
  ApertureName name;
  uint32_t slots = 0;
  uint64_t payload_bytes = 0;
};

inline void Say(Context& context, LinkId link, const Says& says) {
  std::vector<uint8_t> bytes(1 + ApertureName::kWireBytes + sizeof says.slots +
                             sizeof says.payload_bytes);
  uint8_t* at = bytes.data();
  *at++ = says.word;
  says.name.Serialize(at);
  at += ApertureName::kWireBytes;
  std::memcpy(at, &says.slots, sizeof says.slots);
  std::memcpy(at + sizeof says.slots, &says.payload_bytes,
              sizeof says.payload_bytes);
  (void)context.SendMessage(link,
                            bytes);  // a link that is down shows elsewhere
}

inline Says Parse(const std::vector<uint8_t>& bytes) {
  Says says;
  const uint8_t* at = bytes.data();
  says.word = *at++;
  says.name = ApertureName::Parse(at);
  at += ApertureName::kWireBytes;
  std::memcpy(&says.slots, at, sizeof says.slots);
  std::memcpy(&says.payload_bytes, at + sizeof says.slots,
              sizeof says.payload_bytes);
  return says;
}

// How one consumer is, from the seed.
struct Habits {
  Policy policy = Policy::kDropOldest;
  uint32_t queue_frames = 1;
  uint32_t slots = 1;
  double takes = 1;     // chance of looking, in each step
  double releases = 1;  // chance, for each view held in each step
  bool stopped = false;
};

// One stream: its feeder at the source, its ring at the consumer.
class Stream {
 public:
  Stream(SimNetwork& net, Context& source, Habits habits,
         uint64_t payload_bytes, const std::string& node)
      : random_(net.random()),
        source_(source),
        habits_(habits),
        payload_bytes_(payload_bytes),
        nic_(net.AddNode(node)),
        context_(nic_.CreateContext()) {
    link_ = *context_->StartConnect("source", "frames", {});
  }

  // ------------------------------------------------------------- at the source

  void Accepted(LinkId link) {
    source_link_ = link;
    feeder_ = std::make_unique<Feeder>(
        source_, link,
        Feeder::Options{.policy = habits_.policy,
                        .queue_frames = habits_.queue_frames,
                        .cookie = kFeederCookie});
  }
  bool accepted() const { return feeder_ != nullptr; }
  LinkId source_link() const { return source_link_; }

  void Offer(const Frame& frame) {
    made_.push_back({frame.number, frame.data.size()});
    outbox_.push_back(frame);
    EmptyOutbox();
  }
  void EmptyOutbox() {
    while (!outbox_.empty() &&
           feeder_->Offer(outbox_.front()) != Feeder::Taken::kFull) {
      outbox_.pop_front();
    }
    feeder_->Pump();
  }
  void OnFeederEvent() {
    feeder_->Pump();
    if (!outbox_.empty()) EmptyOutbox();
  }
  void OnFeederMessage() {
    while (auto message = source_.TakeMessage(source_link_)) {
      const Says says = Parse(*message);
      ASSERT_EQ(says.word, kRing);
      // For a format that is old by now: the consumer is about to take it away.
      if (--rings_due_ > 0) continue;
      ASSERT_TRUE(
          feeder_->Begin({says.name, says.slots, says.payload_bytes}).ok());
      Say(source_, source_link_, {kCredit, feeder_->credit_name()});
      OnFeederEvent();
    }
  }
  // Another format: longer or shorter frames.
  void ChangeFormat(uint64_t payload_bytes) {
    feeder_->Pause();
    ++rings_due_;
    Say(source_, source_link_, {kFormat, {}, 0, payload_bytes});
  }

  // ----------------------------------------------------------- at the consumer

  void MakeRing() {
    auto ring = FrameRing::Create(*context_, link_,
                                  {.slots = habits_.slots,
                                   .payload_bytes = payload_bytes_,
                                   .cookie = kRingCookie,
                                   .after = position_});
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_ = *std::move(ring);
    const RingName name = ring_->name();
    Say(*context_, link_,
        {kRing, name.aperture, name.slots, name.payload_bytes});
    woken_ = true;
  }
  // Everything of the old format is here before the word of the new one.
  void EndRing() {
    if (ring_ == nullptr) return;
    while (TakeOne()) {
    }
    AddCounters();
    position_ = ring_->position();
    ring_.reset();
  }
  void OnConsumerEvents() {
    Event event;
    while (context_->Poll({&event, 1}) > 0) {
      if (event.kind == EventKind::kLinkUp) MakeRing();
      if (event.kind == EventKind::kTripwire) woken_ = true;
      if (event.kind == EventKind::kOpFailed)
        ADD_FAILURE() << "a report was refused";
      if (event.kind == EventKind::kMessage) OnConsumerMessage();
    }
  }
  void OnConsumerMessage() {
    while (auto message = context_->TakeMessage(link_)) {
      const Says says = Parse(*message);
      if (says.word == kCredit) {
        ring_->SetCredit(says.name);
      } else {
        ASSERT_EQ(says.word, kFormat);
        EndRing();
        payload_bytes_ = says.payload_bytes;
        MakeRing();
      }
    }
  }
  // One frame, checked against what the source made. False if there was none.
  bool TakeOne() {
    auto view = ring_->Take();
    if (!view.ok()) {
      EXPECT_TRUE(absl::IsNotFound(view.status()) ||
                  absl::IsUnavailable(view.status()))
          << view.status();
      return false;
    }
    const uint64_t number = view->frame().number;
    while (!made_.empty() && made_.front().first < number) {
      made_.pop_front();
      ++missed_;
    }
    EXPECT_FALSE(made_.empty())
        << "frame " << number << " came twice, or too early";
    if (made_.empty()) return false;
    EXPECT_EQ(made_.front().first, number) << "nobody made it";
    EXPECT_EQ(made_.front().second, view->data().size());
    EXPECT_TRUE(IsNumbered(view->data(), number))
        << "frame " << number << " is torn";
    made_.pop_front();
    held_.push_back(*std::move(view));
    return true;
  }
  void ConsumerStep() {
    OnConsumerEvents();
    for (size_t i = 0; i < held_.size();) {
      if (!random_.Chance(habits_.releases)) {
        ++i;
        continue;
      }
      EXPECT_TRUE(IsNumbered(held_[i].data(), held_[i].frame().number))
          << "changed while it was held";
      held_.erase(held_.begin() + static_cast<ptrdiff_t>(i));
    }
    if (ring_ == nullptr || habits_.stopped || !woken_) return;
    if (!random_.Chance(habits_.takes)) return;
    if (TakeOne()) return;
    // Sleeps until told.
    woken_ = !ring_->Arm();
  }
  // No more frames are kept back.
  void Hurry() { habits_.takes = habits_.releases = 1; }

  std::string Where() {
    const FeederCounters c = feeder_->counters();
    return "ring " + std::to_string(ring_ != nullptr) + " offered " +
           std::to_string(c.offered) + " sent " + std::to_string(c.sent) +
           " queued " + std::to_string(c.queued) + " in flight " +
           std::to_string(feeder_->in_flight()) + " held " +
           std::to_string(held_.size()) + " outbox " +
           std::to_string(outbox_.size()) + " rings due " +
           std::to_string(rings_due_) + " woken " + std::to_string(woken_) +
           " status " + feeder_->status().ToString() + " received " +
           std::to_string(ring_ ? counters().received : 0) + " slots " +
           std::to_string(habits_.slots) + " drained " +
           std::to_string(feeder_->drained());
  }
  Feeder& feeder() { return *feeder_; }
  FrameRing& ring() { return *ring_; }
  bool done() {
    // Credit is told of by an event if frames wait for it; else one looks.
    if (feeder_->counters().queued == 0 && outbox_.empty()) feeder_->Pump();
    return ring_ != nullptr && outbox_.empty() && feeder_->drained() &&
           held_.empty();
  }
  uint64_t missed() const { return missed_; }
  RingCounters counters() const {
    RingCounters sum = counters_;
    Add(sum, ring_->counters());
    return sum;
  }
  const Habits& habits() const { return habits_; }
  void DropFeeder() { feeder_.reset(); }

 private:
  static void Add(RingCounters& sum, const RingCounters& more) {
    sum.received += more.received;
    sum.overrun += more.overrun;
    sum.dropped += more.dropped;
    sum.lost += more.lost;
  }
  void AddCounters() { Add(counters_, ring_->counters()); }

  Random& random_;
  Context& source_;
  Habits habits_;
  uint64_t payload_bytes_;
  LinkId source_link_;
  std::unique_ptr<Feeder> feeder_;
  int rings_due_ = 1;         // that answer the opening and changes of format
  std::deque<Frame> outbox_;  // kBlock: the source waits
  std::deque<std::pair<uint64_t, size_t>> made_;  // number and length

  Nic& nic_;
  std::unique_ptr<Context> context_;
  LinkId link_;
  std::unique_ptr<FrameRing> ring_;
  std::vector<FrameView> held_;
  StreamPosition position_;
  RingCounters counters_;
  uint64_t missed_ = 0;
  bool woken_ = false;
};

class World {
 public:
  explicit World(uint64_t seed) : net_(seed), random_(net_.random()) {
    nic_ = &net_.AddNode("source");
    context_ = nic_->CreateContext();
    EXPECT_TRUE(context_->Listen("frames").ok());
  }
  ~World() {
    streams_.clear();
    context_.reset();
  }

  Stream& AddStream(const Habits& habits, uint64_t payload_bytes) {
    Stream& stream = *streams_.emplace_back(
        std::make_unique<Stream>(net_, *context_, habits, payload_bytes,
                                 "consumer" + std::to_string(streams_.size())));
    // One at a time, so that each is known.
    EXPECT_TRUE(StepsUntil(
        [&] {
          Event event;
          while (!stream.accepted() && context_->Poll({&event, 1}) > 0) {
            if (event.kind != EventKind::kConnectRequest) continue;
            EXPECT_TRUE(context_->Accept(event.link, {}).ok());
            stream.Accepted(event.link);
          }
          return stream.accepted();
        },
        1000));
    return stream;
  }

  void SourceEvents() {
    Event event;
    while (context_->Poll({&event, 1}) > 0) {
      for (auto& stream : streams_) {
        if (!stream->accepted()) continue;
        if (event.kind == EventKind::kTripwire) stream->OnFeederEvent();
        if (event.kind == EventKind::kMessage &&
            event.link == stream->source_link()) {
          stream->OnFeederMessage();
        }
      }
    }
  }
  void Step() {
    net_.RunFor(1 + random_.Below(100 * kMicrosecond));
    if (all_accepted_) SourceEvents();
    for (auto& stream : streams_) stream->ConsumerStep();
  }
  template <typename Done>
  bool StepsUntil(Done done, int steps) {
    for (int i = 0; i < steps; ++i) {
      if (done()) return true;
      Step();
    }
    return done();
  }
  void AllAccepted() {
    all_accepted_ = true;
    for (auto& stream : streams_)
      stream->OnFeederMessage();  // what came meanwhile
  }

  // The source makes a frame for everybody; some of its own it loses.
  void Make(size_t bytes) {
    if (random_.Chance(0.05)) {
      const uint64_t lost = 1 + random_.Below(3);
      number_ += lost;
      overrun_ += lost;
    }
    for (auto& stream : streams_) {
      Frame frame = NumberedFrame(number_, bytes, held_);
      frame.overrun = overrun_;
      if (random_.Chance(0.1)) {  // from memory that is gone when Offer returns
        const std::vector<uint8_t> gone(frame.data.begin(), frame.data.end());
        if (stream->habits().policy != Policy::kBlock) {
          frame.owner.reset();
          frame.data = gone;
          stream->Offer(frame);
          continue;
        }
      }
      stream->Offer(frame);
    }
    ++number_;
  }

  std::string Where() {
    std::string where;
    for (auto& stream : streams_) (where += '\n') += stream->Where();
    return where;
  }
  SimNetwork& net() { return net_; }
  Random& random() { return random_; }
  std::vector<std::unique_ptr<Stream>>& streams() { return streams_; }
  uint64_t overrun() const { return overrun_; }
  int held() const { return *held_; }

 private:
  SimNetwork net_;
  Random& random_;
  Nic* nic_;
  std::unique_ptr<Context> context_;
  const std::shared_ptr<int> held_ = std::make_shared<int>(0);
  std::vector<std::unique_ptr<Stream>> streams_;
  bool all_accepted_ = false;
  uint64_t number_ = 0, overrun_ = 0;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_SIM_SIM_STREAMS_H_
