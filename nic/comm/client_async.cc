// SPDX-License-Identifier: BSD-3-Clause
// The client's asynchronous calls: their start, cancellation, deadlines and
// callbacks.
#include <algorithm>
#include <utility>

#include "nic/comm/client_core.h"

namespace tripwire::rpc {
namespace {

// How soon to look again at what only the NIC's acknowledgements end.
constexpr uint64_t kLingerNs = 1 * kMillisecond;

}  // namespace

void ClientCore::StartAsync(std::unique_ptr<PendingCall> owned,
                            CancelToken* token) {
  PendingCall* call = owned.release();  // RunCallbacks takes it back
  if (token != nullptr) LinkToken(call, token);
  call->response = &call->own_response;
  call->unheard = !call->done_function && token == nullptr &&
                  call->request.bulk.empty() &&
                  call->request.timeout_ns == kNever;
  if (call->unheard) {
    const auto message = call->request.message;
    call->own_message.assign(message.begin(), message.end());
    call->request.message = call->own_message;
  } else {
    if (!call->done_function)
      call->done_function = [](absl::Status, Response) {};
    async_calls_.fetch_add(1, std::memory_order_relaxed);  // a hint
  }
  bool wake = false;
  {
    Lock lock(mutex_);
    TakeUnheard();
    if (call->request.timeout_ns < kNever - Now()) {
      call->deadline_ns = Now() + call->request.timeout_ns;
      timed_.push_back(call);
      wake = call->deadline_ns < next_deadline_ns_;
      next_deadline_ns_ = std::min(next_deadline_ns_, call->deadline_ns);
    }
    call->started = true;
    if (call->cancelled) {
      Finish(call, absl::CancelledError("rpc: cancelled"));
      wake = true;
    } else if (!Validate(call)) {
      wake = true;
    } else {
      AssignAndSend(call);
    }
  }
  if (wake && hooks_.wake) hooks_.wake();
}

bool ClientCore::WaitsUnheard(uint32_t index) const {
  const Slot& slot = *slots_[index];
  return slot.phase == Phase::kSent && slot.call != nullptr &&
         slot.call->unheard;
}

void ClientCore::NoteUnheard(uint32_t index) {
  if (std::exchange(slots_[index]->unheard, true)) return;
  unheard_.push_back(index);
}

void ClientCore::ForgetUnheard() {
  for (const uint32_t index : unheard_) slots_[index]->unheard = false;
  unheard_.clear();
}

// Answers that are there by now free their slots.
void ClientCore::TakeUnheard() {
  if (unheard_.empty()) return;
  taking_.swap(unheard_);  // freeing a slot may send another such call
  for (const uint32_t index : taking_) {
    slots_[index]->unheard = false;
    if (WaitsUnheard(index) && !Harvest(index)) NoteUnheard(index);
  }
  taking_.clear();
}

// Somebody waits for a slot: from now on these answers are heard.
void ClientCore::ListenForUnheard() {
  for (const uint32_t index : unheard_) {
    if (!WaitsUnheard(index)) continue;
    slots_[index]->armed = true;
    tripwires_[index].Arm();
  }
  TakeUnheard();  // what came just before
}

// Before the call starts: from here on a cancellation reaches it.
void ClientCore::LinkToken(PendingCall* call, CancelToken* token) {
  auto link = std::make_shared<AsyncCancel>();
  link->core = this;
  link->call = call;
  link->token = token->state;
  call->cancel = link;
  std::lock_guard lock(token->state->mutex);
  if (token->state->cancelled) {
    call->cancelled = true;
    return;
  }
  token->state->hook = [link] {
    std::lock_guard lock(link->mutex);
    if (link->core != nullptr) link->core->CancelAsync(link->call);
  };
}

// After this no cancellation touches the call; one that does is waited for.
void ClientCore::UnlinkToken(PendingCall* call) {
  const std::shared_ptr<AsyncCancel> link =
      std::exchange(call->cancel, nullptr);
  if (link == nullptr) return;
  {
    std::lock_guard lock(link->mutex);
    link->core = nullptr;
  }
  std::function<void()> hook;  // let go outside the lock
  std::lock_guard lock(link->token->mutex);
  hook.swap(link->token->hook);
}

// As Invoke's: a call the server has may still say what became of it, for a
// while.
void ClientCore::CancelAsync(PendingCall* call) {
  {
    Lock lock(mutex_);
    if (call->done.load(std::memory_order_relaxed)) return;  // mutex held
    call->cancelled = true;
    if (!call->started) return;  // StartAsync will see
    if (call->slot < 0) {
      std::erase(waiting_, call);
      Finish(call, absl::CancelledError("rpc: cancelled"));
    } else {
      const auto index = static_cast<uint32_t>(call->slot);
      const bool told =
          state_ == State::kReady && slots_[index]->phase == Phase::kSent;
      if (told) SendCancel(index);
      // If nobody can be told, there is nothing to wait for.
      Hasten(call, Now() + (told ? kCancelGraceNs : 0));
    }
  }
  if (hooks_.wake) hooks_.wake();
}

void ClientCore::Hasten(PendingCall* call, uint64_t deadline_ns) {
  if (call->deadline_ns == kNever) timed_.push_back(call);
  call->deadline_ns = std::min(call->deadline_ns, deadline_ns);
  next_deadline_ns_ = std::min(next_deadline_ns_, call->deadline_ns);
}

std::unique_ptr<PendingCall> ClientCore::NewCall() {
  Lock lock(mutex_);
  if (spare_calls_.empty()) return std::make_unique<PendingCall>();
  std::unique_ptr<PendingCall> call = std::move(spare_calls_.back());
  spare_calls_.pop_back();
  call->deadline_ns = kNever;
  call->started = call->cancelled = false;
  call->done.store(false, std::memory_order_relaxed);  // nobody looks yet
  return call;
}

// Asynchronous calls whose time has passed.
void ClientCore::RunDeadlines(uint64_t now_ns) {
  next_deadline_ns_ = kNever;
  const std::vector<PendingCall*> timed = timed_;
  for (PendingCall* call : timed) {
    if (call->deadline_ns > now_ns) {
      next_deadline_ns_ = std::min(next_deadline_ns_, call->deadline_ns);
      continue;
    }
    const absl::Status late =
        call->cancelled ? absl::CancelledError("rpc: cancelled")
                        : absl::DeadlineExceededError("rpc: no answer in time");
    if (AbandonLocked(call, late)) continue;
    if (call->slot >= 0 && Harvest(static_cast<uint32_t>(call->slot))) continue;
    next_deadline_ns_ = std::min(next_deadline_ns_, now_ns + kLingerNs);
  }
}

bool ClientCore::RunCallbacks() {
  bool any = false;
  for (;;) {
    std::unique_ptr<PendingCall> call;
    std::function<void()> news;
    {
      Lock lock(mutex_);
      if (!news_.empty()) {
        news = std::move(news_.front());
        news_.pop_front();
      } else if (!finished_.empty() &&
                 (finished_.front()->completions == nullptr ||
                  finished_.front()->completions->done())) {
        call.reset(finished_.front());
        finished_.pop_front();
        GiveCompletions(call.get());
      } else {
        if (!finished_.empty()) {
          next_deadline_ns_ = std::min(next_deadline_ns_, Now() + kLingerNs);
        }
        return any;
      }
    }
    any = true;
    if (news) news();
    if (call != nullptr) {
      async_calls_.fetch_sub(1, std::memory_order_relaxed);  // a hint
      UnlinkToken(call.get());
      const auto done = std::exchange(call->done_function, nullptr);
      done(std::move(call->status), std::move(call->own_response));
      Lock lock(mutex_);
      call->request.bulk_owner.reset();
      spare_calls_.push_back(std::move(call));
    }
  }
}

}  // namespace tripwire::rpc
