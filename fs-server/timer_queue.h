// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_TIMER_QUEUE_H_
#define TRIPWIRE_FS_SERVER_TIMER_QUEUE_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace tripwire::fs {

// Runs functions later, on a thread of its own that sleeps for as long as there is
// nothing to do: one after another, so those that block hold up the others of their
// queue. Thread-safe.
class TimerQueue {
 public:
  using Time = std::chrono::steady_clock::time_point;

  TimerQueue() : thread_([this] { Run(); }) {}
  ~TimerQueue() { Stop(); }

  void RunAt(Time when, std::function<void()> task) {
    bool first;
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
      first = tasks_.empty() || when < tasks_.begin()->first;
      tasks_.emplace(when, std::move(task));
    }
    if (first) wake_.notify_one();
  }
  void RunIn(std::chrono::milliseconds delay, std::function<void()> task) {
    RunAt(std::chrono::steady_clock::now() + delay, std::move(task));
  }

  // What is still queued is dropped.
  void Stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      if (tasks_.empty()) {
        wake_.wait(lock);
      } else if (tasks_.begin()->first > std::chrono::steady_clock::now()) {
        const Time next = tasks_.begin()->first;
        wake_.wait_until(lock, next);
      } else {
        auto task = std::move(tasks_.begin()->second);
        tasks_.erase(tasks_.begin());
        lock.unlock();
        task();
        task = nullptr;
        lock.lock();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::multimap<Time, std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_TIMER_QUEUE_H_
