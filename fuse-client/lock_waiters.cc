// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/lock_waiters.h"

#include <thread>
#include <utility>

namespace tripwire::fuse {

void LockWaiters::Start(std::function<void()> wait) {
  absl::MutexLock lock(&mu_);
  jobs_.push_back(std::move(wait));
  if (idle_ < static_cast<int>(jobs_.size())) {
    ++threads_;
    std::thread([this] { Work(); }).detach();  // Stop waits for it by count
  }
}

void LockWaiters::Work() {
  constexpr absl::Duration kLinger = absl::Seconds(5);
  mu_.Lock();
  for (;;) {
    ++idle_;
    const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return stop_ || !jobs_.empty();
    };
    mu_.AwaitWithTimeout(absl::Condition(&ready), kLinger);
    --idle_;
    if (jobs_.empty()) break;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    mu_.Unlock();
    job();
    job = nullptr;
    mu_.Lock();
  }
  --threads_;
  mu_.Unlock();
}

bool LockWaiters::TryPark() {
  absl::MutexLock lock(&mu_);
  if (parked_ >= kMostParked) return false;
  ++parked_;
  return true;
}

void LockWaiters::Unpark() {
  absl::MutexLock lock(&mu_);
  --parked_;
}

bool LockWaiters::Pause(absl::Duration time) {
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&stop_), time);
  return !stop_;
}

void LockWaiters::Stop() {
  absl::MutexLock lock(&mu_);
  stop_ = true;
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return threads_ == 0;
  };
  mu_.Await(absl::Condition(&none));
}

}  // namespace tripwire::fuse
