// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_FAULTY_PORT_H_
#define TRIPWIRE_NIC_PORT_FAULTY_PORT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "nic/base/clock.h"
#include "nic/base/fd.h"
#include "nic/base/random.h"
#include "nic/port/port.h"

namespace tripwire {

// What goes wrong. Probabilities are per frame and per direction, from 0 to 1.
struct FaultOptions {
  double loss = 0;       // the frame vanishes
  double duplicate = 0;  // it comes twice
  double reorder = 0;    // it is held back behind 1 to reorder_frames others,
                         // or for reorder_hold_ns if too few come
  double corrupt = 0;    // 1 to 8 of its bits flip
  double stall = 0;      // per burst: that direction does nothing for stall_ns
  uint32_t reorder_frames = 8;
  uint64_t reorder_hold_ns = 1 * kMillisecond;
  uint64_t stall_ns = 5 * kMillisecond;
  bool on_receive = true;
  bool on_transmit = true;
};

struct FaultCounters {
  uint64_t lost = 0, duplicated = 0, reordered = 0, corrupted = 0, stalls = 0;
};

// A port made worse: passes frames to and from another port, and by a seeded
// die loses, repeats, delays and corrupts some. Faults come in the same places
// for the same seed and the same calls. info().is_reliable is false, so users
// of the port defend themselves.
//
// Held-back frames become due by themselves: Service returns when, wake_fd()
// becomes readable then (if the inner port has one), and the frames are there
// for Receive, or leave.
//
// Thread safety and invariants: as for Port.
class FaultyPort final : public Port {
 public:
  FaultyPort(std::unique_ptr<Port> inner, Clock& clock, FaultOptions options,
             uint64_t seed);
  ~FaultyPort() override;

  // From now on; frames already held back stay so.
  void SetOptions(const FaultOptions& options) { options_ = options; }
  // Until further notice receives nothing and accepts nothing.
  void SetStalled(bool is_stalled) { is_stalled_ = is_stalled; }
  const FaultCounters& fault_counters() const { return fault_counters_; }
  Port& inner() { return *inner_; }

  const PortInfo& info() const override { return info_; }
  size_t Receive(std::span<Frame> frames) override;
  size_t Allocate(std::span<Frame> frames) override;
  size_t Transmit(PathId path, std::span<const Frame> frames,
                  Ring ring) override;
  void Release(std::span<const Frame> frames) override;
  bool ArmWakeup() override;
  void DisarmWakeup() override;
  int wake_fd() const override {
    return epoll_ ? epoll_.get() : inner_->wake_fd();
  }
  uint64_t Service(uint64_t now_ns) override;
  PortCounters counters() const override { return inner_->counters(); }

 private:
  struct Passing {
    PathId path;
    Ring ring;
    Frame frame;
  };
  struct Held {
    Passing passing;
    uint32_t frames_to_go;  // others that have yet to overtake it
    uint64_t until_ns;
  };
  // One direction.
  struct Lane {
    std::deque<Passing> ready;  // faults done, in the order they go on
    std::vector<Held> held;
    uint64_t stalled_until_ns = 0;
  };

  bool IsStalled(Lane& lane, bool is_enabled);
  void Suffer(Lane& lane, bool is_enabled, const Passing& passing);
  void LetGo(Lane& lane, uint64_t now_ns);
  void Corrupt(const Frame& frame);
  bool Copy(const Passing& from, Passing& to);
  void PullReceived();
  void FlushTransmit();
  uint64_t NextDueNs(const Lane& lane) const;
  void MakeAlarm();
  void SetAlarm();

  std::unique_ptr<Port> inner_;
  Clock& clock_;
  FaultOptions options_;
  Random random_;
  PortInfo info_;
  FaultCounters fault_counters_;
  bool is_stalled_ = false;
  bool is_inner_armed_ = false;
  // When the inner port can wake: that, and an alarm for what is due.
  UniqueFd epoll_, alarm_;
  Lane rx_, tx_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_FAULTY_PORT_H_
