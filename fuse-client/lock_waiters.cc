// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/lock_waiters.h"

#include <thread>
#include <utility>

namespace tripwire::fuse {

std::vector<LockWaiters::Ref> LockWaiters::Begin(uint64_t epoch) {
  std::vector<Ref> over;
  MutexLock lock(&mu_);
  epoch_ = epoch;
  for (auto at = waits_.begin(); at != waits_.end();) {
    Ref& wait = at->second;
    wait->granted = false;  // by a server that is gone; nothing was noted
    if (wait->cancelling) {
      over.push_back(std::move(wait));
      ++taken_;
      at = waits_.erase(at);
    } else {
      ++at;
    }
  }
  return over;
}

LockWaiters::Ref LockWaiters::Add(FileSystem* fs, fuse_req_t req, OpenFile* file,
                                  NodeRef node, const fs::pb::Lock& lock) {
  auto wait = std::make_shared<LockWait>();
  wait->fs = fs;
  wait->req = req;
  wait->file = file;
  wait->node = std::move(node);
  wait->lock = lock;
  wait->lock.set_action(fs::pb::LOCK_ACTION_WAIT);
  MutexLock guard(&mu_);
  if (stop_) return nullptr;
  wait->id = ++last_id_;
  wait->lock.set_wait(wait->id);
  waits_[wait->id] = wait;
  return wait;
}

LockWaiters::Next LockWaiters::Queued(const Ref& wait, uint64_t epoch) {
  MutexLock lock(&mu_);
  if (epoch != epoch_) return Next::kAskAgain;
  wait->queued = true;
  if (wait->granted) return Next::kGranted;
  if (!wait->interrupted || wait->cancelling) return Next::kWait;
  wait->cancelling = true;
  return Next::kCancel;
}

bool LockWaiters::Interrupt(LockWait* wait) {
  MutexLock lock(&mu_);
  wait->interrupted = true;
  if (!wait->queued || wait->cancelling) return false;
  wait->cancelling = true;
  return true;
}

LockWaiters::Ref LockWaiters::Granted(uint64_t id, uint64_t epoch, int error,
                                      const std::function<void(const LockWait&)>& note) {
  MutexLock lock(&mu_);
  const auto found = waits_.find(id);
  if (epoch != epoch_ || found == waits_.end()) return nullptr;
  Ref wait = found->second;
  wait->error = error;
  if (!wait->queued) {  // it overtook the answer, which is waited for
    wait->granted = true;
    return nullptr;
  }
  waits_.erase(found);
  ++taken_;
  if (error == 0) note(*wait);
  return wait;
}

bool LockWaiters::Take(const Ref& wait, const std::function<void()>& note) {
  MutexLock lock(&mu_);
  if (waits_.erase(wait->id) == 0) return false;
  ++taken_;
  if (note) note();
  return true;
}

LockWaiters::Ref LockWaiters::Find(uint64_t id) {
  MutexLock lock(&mu_);
  const auto found = waits_.find(id);
  return found == waits_.end() ? nullptr : found->second;
}

std::vector<LockWaiters::Ref> LockWaiters::AllQueued() {
  std::vector<Ref> all;
  MutexLock lock(&mu_);
  for (const auto& [id, wait] : waits_) {
    if (wait->queued) all.push_back(wait);
  }
  return all;
}

void LockWaiters::Answered() {
  MutexLock lock(&mu_);
  --taken_;
}

void LockWaiters::Run(std::function<void()> job) {
  mu_.Lock();
  const bool now = stop_;
  mu_.Unlock();
  if (now) return job();
  MutexLock lock(&mu_);
  jobs_.push_back(std::move(job));
  if (working_) return;
  working_ = true;
  std::thread([this] { Work(); }).detach();  // Stop waits for it
}

void LockWaiters::Work() {
  constexpr absl::Duration kLinger = absl::Seconds(5);
  MutexLock lock(&mu_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stop_ || !jobs_.empty();
  };
  for (;;) {
    mu_.AwaitWithTimeout(absl::Condition(&ready), kLinger);
    if (jobs_.empty()) break;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    mu_.Unlock();
    job();
    job = nullptr;
    mu_.Lock();
  }
  working_ = false;
}

std::vector<LockWaiters::Ref> LockWaiters::Stop() {
  cancel_.Cancel();
  std::vector<Ref> left;
  MutexLock lock(&mu_);
  stop_ = true;
  for (auto& [id, wait] : waits_) left.push_back(std::move(wait));
  waits_.clear();
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !working_ && taken_ == 0;
  };
  mu_.Await(absl::Condition(&none));
  return left;
}

}  // namespace tripwire::fuse
