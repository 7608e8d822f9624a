// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_AWAIT_H_
#define TRIPWIRE_NIC_API_AWAIT_H_

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <list>

#include "nic/api/context.h"
#include "nic/datapath/types.h"

namespace tripwire {

// Waiting in a coroutine:
//
//   uint64_t count = co_await Fired(tripwire, seen);
//   Event event = co_await NextEvent(context);
//
// Any coroutine type will do. Whoever calls Poll, Wait or Drive of the context
// resumes, on his thread and without any lock, those whose news has come; nobody
// else does, and nothing runs by itself.
//
// A coroutine that waits may be destroyed: it is then not resumed, also when its
// news was there already. As always, it must not be destroyed while another thread
// may be resuming it. When the context goes first, whoever waits on it is never
// resumed, and only to be destroyed.
//
// Thread safety: co_await from any thread. Each awaitable is for one co_await.
class Awaiter {
 public:
  Awaiter(const Awaiter&) = delete;
  Awaiter& operator=(const Awaiter&) = delete;
  virtual ~Awaiter();

  bool await_ready();
  // False when it need not be suspended: the news came just now.
  bool await_suspend(std::coroutine_handle<> handle);

 protected:
  explicit Awaiter(Context* context) : context_(context) {}

  // Under the NIC's lock. Whether there may be news; taking it, if there is.
  virtual bool IsReady(const Engine& engine) const = 0;
  virtual bool Take(Engine& engine) = 0;

  Context* context_;  // null once it is gone

 private:
  friend class Awaiters;
  std::coroutine_handle<> handle_;
  std::list<Awaiter*>* list_ = nullptr;  // which holds it, at `place_`
  std::list<Awaiter*>::iterator place_;
};

// Resumes when `tripwire` has fired more often than `seen`, when the link of an
// out-bound one is lost, or when it was removed; gives its count (`seen` in the
// last case). `tripwire` may be moved or destroyed meanwhile.
class Fired final : public Awaiter {
 public:
  explicit Fired(const Tripwire& tripwire, uint64_t seen = 0);
  uint64_t await_resume() const { return count_; }

 private:
  bool IsReady(const Engine& engine) const override;
  bool Take(Engine& engine) override;

  uint32_t id_;
  uint32_t made_;  // tells it from a later one with the same id
  uint64_t seen_;
  uint64_t count_;
};

// Gives the oldest event. Coroutines get events before callers of Poll and Wait, in
// the order in which they asked.
class NextEvent final : public Awaiter {
 public:
  explicit NextEvent(Context& context) : Awaiter(&context) {}
  Event await_resume() const { return event_; }

 private:
  bool IsReady(const Engine& engine) const override;
  bool Take(Engine& engine) override;

  Event event_;
};

// The coroutines that wait on one context, under the NIC's lock.
class Awaiters {
 public:
  Awaiters() = default;
  Awaiters(const Awaiters&) = delete;
  ~Awaiters();  // those still here are on their own

  // Without the lock, too: who comes this moment is found the next time.
  bool empty() const { return size_.load(std::memory_order_relaxed) == 0; }
  void Add(Awaiter& awaiter, std::coroutine_handle<> handle);
  void Remove(Awaiter& awaiter);
  // Whether somebody may have news.
  bool AnyReady(const Engine& engine);
  // Finds those that have, for Next.
  void Collect(const Engine& engine);
  // One of those found, with its news; null when there are no more.
  std::coroutine_handle<> Next(Engine& engine);

 private:
  static void Move(Awaiter& awaiter, std::list<Awaiter*>& to);

  std::list<Awaiter*> waiting_, ready_;
  std::atomic<size_t> size_{0};  // of both; written under the lock
  uint64_t looked_at_ = 0;  // the engine's news when nobody was ready
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_AWAIT_H_
