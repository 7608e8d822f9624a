// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_GST_INPUT_SENDER_H_
#define TRIPWIRE_PERIPH_GST_INPUT_SENDER_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "periph/client/peripherals.h"
#include "periph/proto/periph.pb.h"

namespace tripwire::periph {

// Passes a user's keys and pointer on to a screen's sink, on a thread of its
// own, so that a window never waits for the network. Opens the sink at the
// first event. When it cannot be opened, or is lost, events are dropped and it
// is tried again at a later one. The screen lets go of all keys when this is
// destroyed.
class InputSender {
 public:
  // `devices` must outlive it.
  InputSender(Peripherals& devices, Clock& clock, std::string device);
  ~InputSender();
  void Send(const proto::InputEvent& event);

 private:
  void Run();
  bool Open();

  Peripherals& devices_;
  Clock& clock_;
  const std::string device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<proto::InputEvent> waiting_;
  bool stopping_ = false;
  std::unique_ptr<FrameOutput> output_;  // the thread's
  uint64_t try_again_ns_ = 0;
  std::thread thread_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_GST_INPUT_SENDER_H_
