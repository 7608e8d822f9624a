// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_BLOCKING_POOL_H_
#define TRIPWIRE_PERIPH_SERVICE_BLOCKING_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace tripwire::periph {

// Threads for work that waits (for a disk). They are started as they are needed, up to
// a number; beyond that work queues. Thread-safe; the destructor finishes what was given.
class BlockingPool {
 public:
  explicit BlockingPool(size_t max_threads) : max_threads_(max_threads) {}
  BlockingPool(const BlockingPool&) = delete;
  ~BlockingPool() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    news_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void Run(std::function<void()> work) {
    std::unique_lock lock(mutex_);
    queue_.push_back(std::move(work));
    if (queue_.size() > idle_ && threads_.size() < max_threads_) {
      try {
        threads_.emplace_back([this] { Work(); });
        return;
      } catch (const std::system_error&) {
        if (threads_.empty()) throw;  // else those there are will do
      }
    }
    lock.unlock();
    news_.notify_one();
  }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_;
      news_.wait(lock, [this] { return ending_ || !queue_.empty(); });
      --idle_;
      if (queue_.empty()) return;
      const std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
  }

  const size_t max_threads_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::deque<std::function<void()>> queue_;
  size_t idle_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_BLOCKING_POOL_H_
