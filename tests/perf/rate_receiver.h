// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_PERF_RATE_RECEIVER_H_
#define TRIPWIRE_TESTS_PERF_RATE_RECEIVER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "nic/base/clock.h"
#include "nic/base/random.h"
#include "nic/datapath/engine.h"
#include "nic/port/port.h"
#include "nic/wire/layout.h"

namespace tripwire {

inline constexpr uint32_t kFcsBytes = 4, kPreambleAndGapBytes = 20;

[[noreturn]] void Fail(const char* what);

// What is armed, and what of it is hit.
struct RateLoad {
  uint32_t tripwires = 0;
  uint32_t hit_percent = 0;
  uint32_t stride_bytes = 64;  // from place to place, a multiple of 8
};

// Where each frame writes: never the same order of places twice.
struct RatePlan {
  uint64_t places = 1;
  uint64_t stride = 64;
  uint64_t hit_percent = 0;
  bool is_long = false;  // data that covers many places: at one of two offsets
  uint64_t long_hit = 0, long_miss = 0;

  static uint64_t Mix(uint64_t x) {  // splitmix64's
    x = (x + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
  bool Hits(uint64_t sequence) const {
    return (Mix(sequence) & 0xffff) * 100 < hit_percent * 0x10000;
  }
  uint64_t Offset(uint64_t sequence) const {
    if (is_long) return Hits(sequence) ? long_hit : long_miss;
    const uint64_t place = (Mix(sequence) >> 32) * places >> 32;
    return (2 * place + (Hits(sequence) ? 0 : 1)) * stride;
  }
};

// All that the sender of a receiver's frames must know. Plain data.
struct RateTarget {
  RatePlan plan;
  MacAddress to, from;
  uint32_t link = 0, epoch = 0, handle = 0, generation = 0;
  uint32_t data_bytes = 0;
  uint32_t frame_bytes = 0;  // without the FCS
  bool checksum = false;

  // A frame, but for its number.
  void Build(uint8_t* data) const;
  // Numbers it, and aims it where that number is to go.
  void Number(uint64_t sequence, uint8_t* data) const {
    auto* header = reinterpret_cast<wire::FrameHeader*>(
        data + sizeof(wire::EthernetHeader));
    header->sequence = static_cast<uint32_t>(sequence);
    auto* body =
        reinterpret_cast<wire::WritePayload*>(data + wire::kHeaderBytes);
    body->offset = plan.Offset(sequence);
    if (checksum) wire::Seal(data, header->length.get(), true);
  }
  uint32_t wire_bytes() const {
    return frame_bytes + kFcsBytes + kPreambleAndGapBytes;
  }
  uint64_t HitsBetween(uint64_t before, uint64_t after) const;
};

// Data of frames of a size, which counts the FCS; a word at least.
uint32_t RateDataBytes(uint32_t size_bytes, bool checksum);
uint32_t RateFrameBytes(uint32_t data_bytes, bool checksum);

// Memory with one watched place and one that is not, for each tripwire.
class RateMemory {
 public:
  explicit RateMemory(size_t bytes);
  ~RateMemory();
  RateMemory(const RateMemory&) = delete;
  std::span<uint8_t> span() { return {data_, bytes_}; }

 private:
  size_t bytes_;
  uint8_t* data_;
};

// An engine with one port and one link: the whole receive path. Its frames come
// from whoever has the target.
class RateReceiver {
 public:
  RateReceiver(std::unique_ptr<Port> port, const MacAddress& peer,
               const RateLoad& load, uint32_t size_bytes, bool checksum);

  const RateTarget& target() const { return target_; }
  // One turn, and the events of it.
  bool Turn(uint64_t now_ns);
  // How many frames came.
  uint64_t Count() { return link().expected - first_; }
  // The next frame is to be this one; firings are counted from here.
  void Expect(uint64_t sequence);
  // How many frames came since; fails if any was lost, or a firing was lost or
  // made up.
  uint64_t Check();

 private:
  void Arm(const RateLoad& load);
  Link& link() { return *engine_->FindLink(link_); }

  SystemClock clock_;
  Random random_;
  RateMemory memory_;
  std::unique_ptr<Engine> engine_;
  uint32_t context_ = 0;
  ApertureName name_;
  LinkId link_;
  RateTarget target_;
  std::array<Event, 32> events_;
  uint64_t first_ = 1, told_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_TESTS_PERF_RATE_RECEIVER_H_
