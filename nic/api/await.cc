// SPDX-License-Identifier: BSD-3-Clause
#include "nic/api/await.h"

#include <algorithm>
#include <utility>

#include "nic/api/nic_impl.h"

namespace tripwire {

// ------------------------------------------------------------------- Awaiter

Awaiter::~Awaiter() {
  if (context_ == nullptr) return;
  auto lock = context_->impl_.Lock();
  if (list_ != nullptr) context_->awaiters_->Remove(*this);
}

bool Awaiter::await_ready() {
  if (context_ == nullptr) return true;
  auto lock = context_->impl_.Lock();
  Engine& engine = context_->impl_.engine();
  return IsReady(engine) && Take(engine);
}

bool Awaiter::await_suspend(std::coroutine_handle<> handle) {
  auto lock = context_->impl_.Lock();
  Engine& engine = context_->impl_.engine();
  if (IsReady(engine) && Take(engine)) return false;
  context_->awaiters_->Add(*this, handle);
  // From the end of the lock on, another thread may resume and destroy it.
  return true;
}

Fired::Fired(const Tripwire& tripwire, uint64_t seen)
    : Awaiter(tripwire.context_),
      id_(tripwire.id_),
      made_(0),
      seen_(seen),
      count_(seen) {
  if (context_ == nullptr) return;
  auto lock = context_->impl_.Lock();
  made_ = context_->impl_.engine().tripwire(id_).made;
}

bool Fired::IsReady(const Engine& engine) const {
  const TripwireEntry& entry = engine.tripwire(id_);
  return entry.made != made_ || entry.count > seen_ || entry.link_lost;
}

bool Fired::Take(Engine& engine) {
  const TripwireEntry& entry = engine.tripwire(id_);
  if (entry.made == made_) count_ = entry.count;
  return true;
}

bool NextEvent::IsReady(const Engine& engine) const {
  return engine.HasEvents(context_->id_);
}

// A source on the queue may turn out to have nothing to tell.
bool NextEvent::Take(Engine&) {
  return context_->TakeEventsLocked({&event_, 1}) > 0;
}

// ------------------------------------------------------------------ Awaiters

Awaiters::~Awaiters() {
  for (auto* list : {&waiting_, &ready_}) {
    for (Awaiter* awaiter : *list) {
      awaiter->list_ = nullptr;
      awaiter->context_ = nullptr;
    }
  }
}

void Awaiters::Add(Awaiter& awaiter, std::coroutine_handle<> handle) {
  awaiter.handle_ = handle;
  awaiter.place_ = waiting_.insert(waiting_.end(), &awaiter);
  awaiter.list_ = &waiting_;
  size_.fetch_add(1, std::memory_order_relaxed);
}

void Awaiters::Remove(Awaiter& awaiter) {
  awaiter.list_->erase(awaiter.place_);
  awaiter.list_ = nullptr;
  size_.fetch_sub(1, std::memory_order_relaxed);
}

void Awaiters::Move(Awaiter& awaiter, std::list<Awaiter*>& to) {
  to.splice(to.end(), *awaiter.list_, awaiter.place_);
  awaiter.list_ = &to;
}

// Who begins to wait is not ready by then, so only the engine's news makes it so.
bool Awaiters::AnyReady(const Engine& engine) {
  if (!ready_.empty()) return true;
  if (waiting_.empty() || looked_at_ == engine.news()) return false;
  const bool any = std::any_of(
      waiting_.begin(), waiting_.end(),
      [&](const Awaiter* awaiter) { return awaiter->IsReady(engine); });
  if (!any) looked_at_ = engine.news();
  return any;
}

void Awaiters::Collect(const Engine& engine) {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Awaiter& awaiter = **it++;
    if (awaiter.IsReady(engine)) Move(awaiter, ready_);
  }
}

std::coroutine_handle<> Awaiters::Next(Engine& engine) {
  while (!ready_.empty()) {
    Awaiter& awaiter = *ready_.front();
    if (!awaiter.IsReady(engine) || !awaiter.Take(engine)) {
      Move(awaiter, waiting_);  // another was faster
      continue;
    }
    Remove(awaiter);
    return awaiter.handle_;
  }
  return nullptr;
}

// ------------------------------------------------------------------- Context

// Resumes those whose news is there now; what they cause is for the next time.
size_t Context::ResumeCoroutines() {
  if (awaiters_->empty()) return 0;
  size_t resumed = 0;
  {
    auto lock = impl_.Lock();
    awaiters_->Collect(impl_.engine());
  }
  for (;; ++resumed) {
    std::coroutine_handle<> next;
    {
      auto lock = impl_.Lock();
      next = awaiters_->Next(impl_.engine());
    }
    if (next == nullptr) return resumed;
    next.resume();
  }
}

bool Context::Drive(absl::FunctionRef<bool()> done, uint64_t deadline_ns) {
  for (;;) {
    ResumeCoroutines();
    if (done()) return true;
    const bool some = nic_.WaitUntil(
        [&] {
          // Pairs with the release in Interrupt.
          return awaiters_->AnyReady(impl_.engine()) ||
                 interrupted_.load(std::memory_order_acquire);
        },
        deadline_ns);
    interrupted_.store(false, std::memory_order_relaxed);
    if (!some) return done();
  }
}

}  // namespace tripwire
