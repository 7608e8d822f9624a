// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <chrono>

#include "fs-server/testing/loopback_hub.h"

namespace tripwire::rpc {
namespace {

uint64_t NowNs() {
  SystemClock clock;
  return clock.NowNs();
}

bool Cancelled(CancelToken* cancel) {
  if (cancel == nullptr) return false;
  std::lock_guard lock(cancel->state->mutex);
  return cancel->state->cancelled;
}

}  // namespace

LoopbackClient::LoopbackClient(std::shared_ptr<Loopback::Hub> hub, ClientOptions options,
                               uint64_t id)
    : hub_(std::move(hub)),
      options_(std::move(options)),
      id_(id),
      notices_(std::make_unique<TaskQueue>(1)),
      recovery_(std::make_unique<TaskQueue>(1)) {}

LoopbackClient::~LoopbackClient() {
  {
    std::lock_guard lock(hub_->mutex);
    closing_ = true;
    FailAll(absl::CancelledError("the client is closing"));
    hub_->clients.erase(id_);
    if (session_ && !session_->ended && !session_->killed) {
      session_->End(absl::CancelledError("the client closed its session"));
    }
  }
  recovery_.reset();
  notices_.reset();
}

absl::Status LoopbackClient::Open() {
  std::shared_ptr<LoopbackServer> server;
  {
    std::unique_lock lock(hub_->mutex);
    const auto timeout = std::chrono::nanoseconds(
        std::min<uint64_t>(options_.connect_timeout_ns, 3600 * kSecond));
    if (!hub_->changed.wait_for(lock, timeout, [this] { return hub_->server != nullptr; })) {
      return absl::NotFoundError("no server answers");
    }
    server = hub_->server;
    hub_->clients[id_] = this;  // so that notifications find it
    recovering_ = true;
  }
  auto reply = server->OpenSession(this);
  std::lock_guard lock(hub_->mutex);
  recovering_ = false;
  if (!reply.ok()) {
    hub_->clients.erase(id_);
    return reply.status();
  }
  greeting_reply_ = *reply;
  server_options_ = server->options();
  slots_.resize(server_options_.slots);
  session_ = server->sessions[id_];
  return absl::OkStatus();
}

bool LoopbackClient::connected() const {
  std::lock_guard lock(hub_->mutex);
  return !hub_->cut && session_ && !session_->killed && !session_->ended;
}

void LoopbackClient::Recover() {
  if (closing_ || recovering_ || !dead_.ok()) return;
  recovering_ = true;
  session_ = nullptr;
  recovery_->Post([this, server = hub_->server] {
    auto reply = server->OpenSession(this);
    {
      std::lock_guard lock(hub_->mutex);
      if (closing_) return;
      if (!reply.ok()) {
        recovering_ = false;
        if (!server->killed) FailAll(dead_ = reply.status());
        return;
      }
      session_ = server->sessions[id_];
    }
    if (options_.on_recovered) options_.on_recovered(*reply);
    std::lock_guard lock(hub_->mutex);
    recovering_ = false;
    if (hub_->server && hub_->server != server) return Recover();
    Resend();
  });
}

void LoopbackClient::Resend() {
  const auto all = pending_;  // answering from the cache changes the list
  for (const auto& pending : all) Send(pending);
}

void LoopbackClient::Send(const std::shared_ptr<PendingCall>& pending) {
  if ((hub_->cut && !hub_->deliver_calls) || !hub_->server || !session_ ||
      session_->killed || session_->ended) {
    return;
  }
  if (recovering_ && !pending->during_recovery) return;
  if (pending->done) return;
  session_->Submit(pending);
}

absl::Status LoopbackClient::Start(const Request& request, uint64_t deadline_ns,
                                   CancelToken* cancel,
                                   std::function<void(absl::Status, Response)> callback,
                                   std::shared_ptr<PendingCall>* out) {
  auto pending = std::make_shared<PendingCall>();
  pending->message.assign(request.message.begin(), request.message.end());
  for (const auto& part : request.bulk) {
    const auto* data = static_cast<const uint8_t*>(part.iov_base);
    pending->staged.insert(pending->staged.end(), data, data + part.iov_len);
  }
  if (pending->message.size() > message_bytes() || pending->staged.size() > bulk_bytes()) {
    return absl::InvalidArgumentError("message or bulk data too large");
  }
  pending->bulk_reply_capacity = request.bulk_reply_capacity;
  pending->during_recovery = request.during_recovery;
  pending->callback = std::move(callback);
  std::unique_lock lock(hub_->mutex);
  while (true) {
    if (!dead_.ok()) return dead_;
    if (closing_) return absl::CancelledError("the client is closing");
    if (Cancelled(cancel)) return absl::CancelledError("cancelled");
    auto free = std::find_if(slots_.begin(), slots_.end(), [](auto& s) { return !s.busy; });
    if (free != slots_.end()) {
      free->busy = true;
      pending->slot = static_cast<uint32_t>(free - slots_.begin());
      pending->sequence = ++free->sequence;
      break;
    }
    if (NowNs() >= deadline_ns) return absl::DeadlineExceededError("no free call slot in time");
    hub_->changed.wait_for(lock, std::chrono::milliseconds(10));
  }
  pending_.push_back(pending);
  *out = pending;
  Send(pending);
  return absl::OkStatus();
}

absl::Status LoopbackClient::Invoke(const Request& request, Response* response,
                                    CancelToken* cancel) {
  const uint64_t deadline =
      request.timeout_ns == kNever ? kNever : NowNs() + request.timeout_ns;
  if (cancel != nullptr) {
    std::lock_guard lock(cancel->state->mutex);
    if (cancel->state->cancelled) return absl::CancelledError("cancelled");
    cancel->state->hook = [hub = hub_] {
      std::lock_guard lock(hub->mutex);
      hub->changed.notify_all();
    };
  }
  std::shared_ptr<PendingCall> pending;
  auto status = Start(request, deadline, cancel, nullptr, &pending);
  if (status.ok()) {
    std::unique_lock lock(hub_->mutex);
    auto over = [&] { return pending->done || Cancelled(cancel); };
    if (deadline == kNever) {
      hub_->changed.wait(lock, over);
    } else {
      const uint64_t now = NowNs();
      hub_->changed.wait_for(lock, std::chrono::nanoseconds(deadline > now ? deadline - now : 0),
                             over);
    }
    if (pending->done) {
      status = pending->status;
      if (response != nullptr) *response = std::move(pending->response);
    } else {
      status = Cancelled(cancel) ? absl::CancelledError("cancelled")
                           : absl::DeadlineExceededError("no answer in time");
      Abandon(pending);
    }
  }
  if (cancel != nullptr) {
    std::lock_guard lock(cancel->state->mutex);
    cancel->state->hook = nullptr;
  }
  return status;
}

void LoopbackClient::InvokeAsync(const Request& request,
                                 std::function<void(absl::Status, Response)> done,
                                 CancelToken* cancel) {
  const uint64_t deadline =
      request.timeout_ns == kNever ? kNever : NowNs() + request.timeout_ns;
  std::shared_ptr<PendingCall> pending;
  auto status = Start(request, deadline, cancel, done, &pending);
  if (!status.ok()) {
    if (done) done(status, {});
    return;
  }
  if (cancel == nullptr) return;
  const auto hook = [hub = hub_, id = id_, weak = std::weak_ptr(pending)] {
    std::lock_guard lock(hub->mutex);
    auto call = weak.lock();
    auto client = hub->clients.find(id);
    if (call && !call->done && client != hub->clients.end()) client->second->CancelAsync(call);
  };
  bool now = false;
  {
    std::lock_guard lock(cancel->state->mutex);
    now = cancel->state->cancelled;
    if (!now) cancel->state->hook = hook;
  }
  if (now) hook();
}

void LoopbackClient::CancelAsync(const std::shared_ptr<PendingCall>& pending) {
  pending->cancelled = true;
  if (!hub_->cut && session_ && !session_->killed && !recovering_) return Send(pending);
  pending->status = absl::CancelledError("cancelled");
  Complete(pending);
}

void LoopbackClient::Abandon(const std::shared_ptr<PendingCall>& pending) {
  pending->abandoned = true;
  pending->cancelled = true;
  Send(pending);  // tells the server, which knows the call already
}

void LoopbackClient::Complete(const std::shared_ptr<PendingCall>& pending) {
  auto it = std::find(pending_.begin(), pending_.end(), pending);
  if (it == pending_.end()) return;
  pending_.erase(it);
  slots_[pending->slot].busy = false;
  pending->done = true;
  if (pending->callback) {
    notices_->Post([pending] {
      pending->callback(pending->status, std::move(pending->response));
    });
  }
  hub_->changed.notify_all();
}

void LoopbackClient::FailAll(const absl::Status& why) {
  if (dead_.ok() && !closing_) dead_ = why;
  while (!pending_.empty()) {
    auto pending = pending_.back();
    pending->status = why;
    Complete(pending);
  }
}

}  // namespace tripwire::rpc
