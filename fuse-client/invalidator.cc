// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/invalidator.h"

#include <utility>

namespace tripwire::fuse {

bool Invalidator::Post(std::function<void()> job) {
  MutexLock lock(&mu_);
  if (stop_) return false;
  jobs_.push_back(std::move(job));
  if (idle_ < static_cast<int>(jobs_.size()) &&
      static_cast<int>(threads_.size()) < kThreads) {
    threads_.emplace_back([this] { Work(); });
  }
  return true;
}

bool Invalidator::Run(std::function<void()> job,
                      const std::function<bool()>& give_up) {
  struct Shared {
    Mutex mu;
    bool done = false;
  };
  auto shared = std::make_shared<Shared>();
  const bool posted = Post([shared, job = std::move(job)] {
    job();
    MutexLock lock(&shared->mu);
    shared->done = true;
  });
  if (!posted) return false;
  MutexLock lock(&shared->mu);
  while (!shared->mu.AwaitWithTimeout(absl::Condition(&shared->done),
                                      absl::Milliseconds(5))) {
    if (give_up()) return shared->done;
  }
  return true;
}

void Invalidator::Work() {
  mu_.Lock();
  for (;;) {
    ++idle_;
    const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return stop_ || !jobs_.empty();
    };
    mu_.Await(absl::Condition(&ready));
    --idle_;
    if (stop_) break;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    mu_.Unlock();
    job();
    job = nullptr;
    mu_.Lock();
  }
  mu_.Unlock();
}

void Invalidator::Stop() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(&mu_);
    stop_ = true;
    jobs_.clear();
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace tripwire::fuse
