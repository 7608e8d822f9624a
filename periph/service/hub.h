// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_HUB_H_
#define TRIPWIRE_PERIPH_SERVICE_HUB_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "periph/device/device.h"
#include "periph/device/frame_pool.h"
#include "periph/service/registry.h"
#include "periph/service/subscriber.h"

namespace tripwire::periph {

class HubSet;

// One source of a device and all who take its frames. It is started for the first of
// them and stopped after the last, on a thread of the hub's own, because both may take
// long; and it is started again every second while the device is away.
//
// Lock order: HubSet, Hub, Subscriber. Frames are offered with none of them held but
// the subscriber's own.
class Hub final : public FrameTaker {
 public:
  // `wanted` is what its first subscriber asked for.
  Hub(HubSet& set, ServedDevice& device, std::string wanted, std::shared_ptr<Subscriber> first);
  ~Hub() override;  // REQUIRES: nobody subscribes any more

  ServedDevice& device() { return device_; }
  // Nothing of it runs any more.
  bool at_rest() const { return at_rest_.load(std::memory_order_acquire); }

  // --- By the source.
  void Take(Frame frame) override;
  void SetFormat(const std::string& format, uint64_t max_frame_bytes) override;
  void End(const absl::Status& why) override;

 private:
  friend class HubSet;
  using Subscribers = std::vector<std::shared_ptr<Subscriber>>;
  enum class State : uint8_t {
    kStarting,
    kRunning,
    kAbsent,
    kStopping,  // nobody is left, or it has ended
  };

  // False if its frames are not what the subscriber wants, or it is at its end.
  bool Join(const std::shared_ptr<Subscriber>& subscriber);
  void Leave(const Subscriber* subscriber);
  void Run();
  void RunSource(std::unique_lock<std::mutex>& lock);
  void Announce(const Source& source);
  void StayAway(std::unique_lock<std::mutex>& lock, const absl::Status& why);
  void Finish(const absl::Status& why);
  void TellFormat();
  bool HasSubscribers();

  HubSet& set_;
  ServedDevice& device_;
  const std::string wanted_;

  std::mutex mutex_;  // all below
  std::condition_variable changed_;
  State state_ = State::kStarting;
  bool ever_ran_ = false;
  absl::Status why_absent_;
  std::shared_ptr<const Subscribers> subscribers_;  // replaced, never changed
  struct Format {
    std::string name;
    uint64_t max_frame_bytes = 0;
  };
  Format format_;
  std::optional<Format> early_format_;  // of a source that is starting
  std::optional<absl::Status> ended_;   // what the source said

  // The source's thread's.
  FramePool pool_;
  uint64_t taken_ = 0;
  uint64_t overrun_ = 0, overrun_before_ = 0;

  std::atomic<bool> at_rest_{false};
  std::thread thread_;  // last: it uses the rest
};

// The hubs of all devices. Thread-safe.
class HubSet {
 public:
  ~HubSet();  // REQUIRES: nobody subscribes any more

  // The subscriber shares a source that runs, or gets one of its own. What comes of it is
  // told to the subscriber. Does not block.
  void Join(ServedDevice& device, const std::shared_ptr<Subscriber>& subscriber);
  void Leave(const Subscriber* subscriber);
  // Lets go of hubs that have come to rest. Does not block.
  void Sweep();
  bool empty();

 private:
  friend class Hub;
  // Waits until the hub may start its source: a device that has only one at a time may
  // have one that is starting or being stopped. FAILED_PRECONDITION if another one runs;
  // CANCELLED if its subscribers are now that one's, or gone.
  absl::Status WaitForTurn(Hub& hub);
  std::optional<absl::Status> TakeTurn(Hub& hub);  // REQUIRES: mutex_

  std::mutex mutex_;
  std::condition_variable changed_;       // some hub's state did
  std::list<std::unique_ptr<Hub>> hubs_;  // oldest first
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_HUB_H_
