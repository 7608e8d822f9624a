// SPDX-License-Identifier: BSD-3-Clause
#include "periph/gst/input_sender.h"

#include <utility>

#include "periph/media/input_event.h"

namespace tripwire::periph {
namespace {

constexpr size_t kMostWaiting = 1000;
constexpr uint64_t kPutNs = 2 * kSecond;

}  // namespace

InputSender::InputSender(Peripherals& devices, Clock& clock, std::string device)
    : devices_(devices),
      clock_(clock),
      device_(std::move(device)),
      thread_([this] { Run(); }) {}

InputSender::~InputSender() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void InputSender::Send(const proto::InputEvent& event) {
  const std::lock_guard lock(mutex_);
  // Where the pointer was before does not matter.
  if (event.kind() == proto::InputEvent::MOTION && !waiting_.empty() &&
      waiting_.back().kind() == proto::InputEvent::MOTION) {
    waiting_.back() = event;
  } else if (waiting_.size() < kMostWaiting) {
    waiting_.push_back(event);
  }
  changed_.notify_all();
}

bool InputSender::Open() {
  if (output_ != nullptr) return true;
  if (clock_.NowNs() < try_again_ns_) return false;
  StreamOptions options;
  options.format = kInputFormat;
  options.policy = Policy::kDropNewest;
  options.queue_frames = 64;
  auto output = devices_.OpenSink(device_, options);
  if (output.ok()) {
    output_ = *std::move(output);
    return true;
  }
  try_again_ns_ = clock_.NowNs() + kPutNs;
  return false;
}

void InputSender::Run() {
  while (true) {
    proto::InputEvent event;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
      if (waiting_.empty()) break;
      event = std::move(waiting_.front());
      waiting_.pop_front();
    }
    if (!Open()) continue;
    const std::string bytes = event.SerializeAsString();
    Frame frame;
    frame.data = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
    frame.capture_ns = clock_.NowNs();
    if (!output_->Put(frame, clock_.NowNs() + kPutNs).ok()) output_.reset();
  }
  if (output_ != nullptr) (void)output_->Finish(clock_.NowNs() + kPutNs);
}

}  // namespace tripwire::periph
