// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_SINK_STREAM_H_
#define TRIPWIRE_PERIPH_SERVICE_SINK_STREAM_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "periph/service/stream.h"
#include "periph/stream/frame_ring.h"

namespace tripwire::periph {

// Frames on their way to a device. A thread takes them from the ring here and puts
// them; while the device has no room the ring fills, and the user is paced by that.
class SinkStream final : public Stream {
 public:
  SinkStream(StreamPlace place, ServedDevice& device, Opening opening, const proto::Open& open,
             Asker asker);
  ~SinkStream() override;

  bool OnMessage(const proto::StreamMessage& message) override;
  void OnTripwire() override;
  void Close() override;
  bool at_rest() const override { return at_rest_.load(std::memory_order_acquire); }
  proto::StreamStat Stat() override;

 private:
  void Run();
  absl::Status Start();
  absl::Status Play();
  absl::Status PutOne(const FrameView& view);
  // False: the stream ended before the device was back.
  bool Restart(absl::Status why);
  bool AwaitNews();
  absl::StatusOr<std::shared_ptr<Sink>> NewSink();
  std::shared_ptr<Sink> sink();
  bool NoMoreComes();

  // The thread's.
  std::unique_ptr<FrameRing> ring_;

  std::mutex mutex_;  // all below
  std::condition_variable news_;
  std::shared_ptr<Sink> sink_;  // for Close to cancel
  bool has_ring_ = false;
  bool tripped_ = false;
  bool closed_ = false;
  bool no_more_comes_ = false;
  std::optional<ApertureName> credit_;
  bool credit_is_new_ = false;
  std::string format_;
  RingCounters counters_;

  std::atomic<bool> at_rest_{false};
  std::thread thread_;  // last: it uses the rest
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_SINK_STREAM_H_
