// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_PERIPH_STREAM_NUMBERED_FRAMES_H_
#define TRIPWIRE_TESTS_UNIT_PERIPH_STREAM_NUMBERED_FRAMES_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "periph/stream/feeder.h"
#include "periph/stream/frame_ring.h"
#include "tests/sim/sim_pair.h"

namespace tripwire::periph {

// Payloads in which every byte says which frame it is of: whoever gets one sees
// a frame that is torn, mixed up, of another number or of another length.
inline std::vector<uint8_t> NumberedBytes(uint64_t number, size_t bytes) {
  std::vector<uint8_t> data(bytes);
  uint64_t state = number * 0x9e3779b97f4a7c15u + bytes;
  for (size_t i = 0; i < bytes; ++i) {
    if (i % 8 == 0) state = state * 6364136223846793005u + 1442695040888963407u;
    data[i] = static_cast<uint8_t>(state >> (56 - i % 8));
  }
  return data;
}

inline bool IsNumbered(std::span<const uint8_t> data, uint64_t number) {
  const std::vector<uint8_t> wanted = NumberedBytes(number, data.size());
  return std::equal(data.begin(), data.end(), wanted.begin());
}

// A frame whose owner spoils the bytes when it lets go: what is read after that
// is seen. `held` counts those not yet let go of, which may outlive their test.
inline Frame NumberedFrame(uint64_t number, size_t bytes,
                           std::shared_ptr<int> held = nullptr) {
  auto* data = new std::vector<uint8_t>(NumberedBytes(number, bytes));
  Frame frame;
  frame.data = *data;
  if (held != nullptr) ++*held;
  frame.owner =
      std::shared_ptr<const void>(data->data(), [data, held](const void*) {
        std::fill(data->begin(), data->end(), 0xee);
        if (held != nullptr) --*held;
        delete data;
      });
  frame.number = number;
  frame.capture_ns = number * 1000;
  frame.pts_ns = number * 7;
  frame.duration_ns = 7;
  return frame;
}

// A stream between the contexts of a pair: frames go from left to right.
struct StreamPair : Pair {
  using Pair::Pair;

  void MakeRing(FrameRing::Options options) {
    auto made = FrameRing::Create(*right, right_link, options);
    ASSERT_TRUE(made.ok()) << made.status();
    ring = *std::move(made);
  }
  void MakeFeeder(Feeder::Options options) {
    feeder = std::make_unique<Feeder>(*left, left_link, options);
  }
  void Begin() {
    ASSERT_TRUE(feeder->Begin(ring->name()).ok());
    ring->SetCredit(feeder->credit_name());
  }
  void Make(Feeder::Options feeder_options, FrameRing::Options ring_options) {
    MakeFeeder(feeder_options);
    MakeRing(ring_options);
    Begin();
  }
  // Until nothing moves any more.
  void Settle() { net.RunFor(100 * kMillisecond); }

  std::unique_ptr<Feeder> feeder;
  std::unique_ptr<FrameRing> ring;
};

// Such a stream on a network without faults.
class StreamTest : public ::testing::Test {
 protected:
  void SetUp() override { pair_.Connect(); }
  void Send(uint64_t number, size_t bytes) {
    ASSERT_EQ(pair_.feeder->Offer(NumberedFrame(number, bytes, held_)),
              Feeder::Taken::kYes);
  }
  // Of the next event at the feeder's end; ~0 if there is none.
  uint64_t NextCookie() {
    Event event;
    event.cookie = ~uint64_t{0};
    net_.RunUntil([&] { return pair_.left->Poll({&event, 1}) == 1; }, kSecond);
    return event.cookie;
  }

  SimNetwork net_{1};
  StreamPair pair_{net_};
  // Frames not yet let go of.
  const std::shared_ptr<int> held_ = std::make_shared<int>(0);
};

// Takes the next frame, which must be this one, whole.
inline void ExpectFrame(FrameRing& ring, uint64_t number, size_t bytes) {
  auto view = ring.Take();
  ASSERT_TRUE(view.ok()) << view.status() << ", for frame " << number;
  EXPECT_EQ(view->frame().number, number);
  ASSERT_EQ(view->data().size(), bytes);
  EXPECT_TRUE(IsNumbered(view->data(), number));
}

}  // namespace tripwire::periph

#endif  // TRIPWIRE_TESTS_UNIT_PERIPH_STREAM_NUMBERED_FRAMES_H_
