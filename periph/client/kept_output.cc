// SPDX-License-Identifier: BSD-3-Clause
#include "periph/client/kept_output.h"

#include <chrono>

namespace tripwire::periph {
namespace {

// Nobody puts if nobody has for so long.
constexpr auto kIdle = std::chrono::milliseconds(250);

}  // namespace

absl::StatusOr<std::unique_ptr<FrameOutput>> KeptOutput::Open(Nic& nic, const StreamWish& wish) {
  auto sink = RemoteSink::Open(nic, wish);
  if (!sink.ok()) return sink.status();
  return std::unique_ptr<FrameOutput>(new KeptOutput(*std::move(sink)));
}

KeptOutput::~KeptOutput() {
  {
    const auto hold = Hold();
    stopping_ = true;
  }
  stopped_.notify_all();
  thread_.join();
}

std::unique_lock<std::mutex> KeptOutput::Hold() const {
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) {
    waiting_.fetch_add(1, std::memory_order_release);  // pairs with Run
    sink_->Interrupt();
    lock.lock();
    waiting_.fetch_sub(1, std::memory_order_relaxed);
  }
  ++calls_;
  return lock;
}

void KeptOutput::Run() {
  std::unique_lock lock(mutex_);
  for (bool lives = true; !stopping_;) {
    if (!lives) {
      stopped_.wait(lock);
      continue;
    }
    const uint64_t calls = calls_;
    stopped_.wait_for(lock, kIdle);
    // Pairs with Hold; its interruption comes after that, and is not forgotten.
    while (calls == calls_ && lives && !stopping_ && waiting_.load(std::memory_order_acquire) == 0) {
      lives = sink_->Tend();
    }
  }
}

}  // namespace tripwire::periph
