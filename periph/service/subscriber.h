// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_SUBSCRIBER_H_
#define TRIPWIRE_PERIPH_SERVICE_SUBSCRIBER_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "periph/service/stream.h"
#include "periph/stream/feeder.h"

namespace tripwire::periph {

class HubSet;

// One consumer of a device's source. It has a lock and a queue of its own, so what it
// does, or does not do, is nobody else's business.
class Subscriber final : public Stream {
 public:
  Subscriber(HubSet& hubs, StreamPlace place, ServedDevice& device, Opening opening,
             const proto::Open& open, Asker asker);

  const std::string& wanted() const { return open_.format(); }

  // --- By the hub; any thread, one at a time.
  // The source is about to be started again, and may make something else: no frame of
  // it goes before OnFormat said what it is.
  void OnRestart();
  // The source runs and makes this, or makes this from now on.
  void OnFormat(const std::string& format, uint64_t max_frame_bytes);
  void OnAbsent(const absl::Status& why);
  // Not what it asked for, or not any more: the stream ends. OK: its proper end.
  void OnEnd(const absl::Status& why);
  // Blocks for room if the policy says so, until Close.
  void Offer(const Frame& frame);

  // --- As a stream.
  bool OnMessage(const proto::StreamMessage& message) override;
  void OnTripwire() override;
  void OnTick() override { OnTripwire(); }
  void Close() override;
  bool at_rest() const override { return true; }
  proto::StreamStat Stat() override;

 private:
  void TellOpened(const absl::Status& absent);  // REQUIRES: mutex_
  void EndIfAllSent();                          // REQUIRES: mutex_
  bool Begin(const proto::Ring& ring);          // REQUIRES: mutex_

  HubSet& hubs_;

  std::mutex mutex_;  // all below
  std::condition_variable room_;
  Feeder feeder_;
  std::string format_;
  uint64_t max_frame_bytes_ = 0;  // 0: not known yet
  bool opened_ = false;
  bool present_ = false;
  bool begins_ = true;      // the next frame is the first since something was missing
  bool restarted_ = false;  // and its format was not told yet
  bool closed_ = false;
  // It answers each format it was told of with one ring; the last is the one that
  // counts, for those before crossed the news on the way.
  uint64_t formats_told_ = 0, rings_ = 0;
  uint64_t overrun_ = 0;
  std::optional<absl::Status> end_;  // to be told when all was sent
  bool end_told_ = false;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_SUBSCRIBER_H_
