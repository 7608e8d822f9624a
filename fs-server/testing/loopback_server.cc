// SPDX-License-Identifier: BSD-3-Clause
#include <cassert>
#include <cstdlib>

#include "fs-server/testing/loopback_hub.h"

namespace tripwire::rpc {

LoopbackCall::LoopbackCall(std::shared_ptr<LoopbackSession> session,
                           std::shared_ptr<PendingCall> pending)
    : session_(std::move(session)),
      base_session_(session_),
      pending_(std::move(pending)),
      message_(pending_->message) {}

LoopbackCall::~LoopbackCall() {
  if (answered_) return;
  session_->Answer(pending_, {}, {}, 0, false,
                   absl::AbortedError("the server dropped the call"));
}

BulkBuffer LoopbackCall::AllocateBulk(size_t bytes) {
  const size_t capacity = (bytes + 4095) / 4096 * 4096 + (bytes == 0 ? 4096 : 0);
  auto* data = static_cast<uint8_t*>(std::aligned_alloc(4096, capacity));
  return BulkBuffer(data, capacity, [data] { std::free(data); });
}

bool LoopbackCall::cancelled() const {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

void LoopbackCall::OnCancel(std::function<void()> f) {
  {
    std::lock_guard lock(mutex_);
    if (!cancelled_) {
      on_cancel_ = std::move(f);
      return;
    }
  }
  f();
}

void LoopbackCall::Cancel() {
  std::function<void()> f;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(cancelled_, true)) return;
    f = std::move(on_cancel_);
    on_cancel_ = nullptr;
  }
  if (f) f();
}

void LoopbackCall::Reply(Bytes message, BulkBuffer bulk, size_t bulk_bytes, bool cache) {
  assert(!answered_ && bulk_bytes <= pending_->bulk_reply_capacity);
  answered_ = true;
  session_->Answer(pending_, message, std::move(bulk), bulk_bytes, cache, absl::OkStatus());
}

bool LoopbackSession::connected() const {
  std::lock_guard lock(hub_->mutex);
  return !hub_->cut && !ended && !killed;
}

void LoopbackSession::Notify(Bytes message, std::function<void(absl::Status)> done) {
  std::lock_guard lock(hub_->mutex);
  if (killed) return;
  if (ended) {
    server_->Post([done = std::move(done)] { done(absl::UnavailableError("session ended")); });
    return;
  }
  notices.push_back({std::vector<uint8_t>(message.begin(), message.end()), std::move(done)});
  FlushNotices();
}

void LoopbackSession::FlushNotices() {
  auto found = hub_->clients.find(id_);
  if (hub_->cut || killed || found == hub_->clients.end()) return;
  LoopbackClient* client = found->second;
  while (!notices.empty()) {
    auto notice = std::make_shared<Notice>(std::move(notices.front()));
    notices.pop_front();
    ++hub_->notifications;
    client->PostNotice([self = shared_from_this(), client, notice] {
      if (client->options().on_notify) client->options().on_notify(notice->message);
      std::lock_guard lock(self->hub_->mutex);
      if (self->killed) return;
      self->server_->Post([self, notice] { notice->done(absl::OkStatus()); });
    });
  }
}

void LoopbackSession::Expel(const std::string& why) {
  std::lock_guard lock(hub_->mutex);
  if (ended) return;
  End(absl::UnavailableError("expelled: " + why));
}

void LoopbackSession::End(const absl::Status& why) {
  Close();
  auto client = hub_->clients.find(id_);
  if (client != hub_->clients.end()) client->second->FailAll(why);
}

void LoopbackSession::Lose() {
  lost_ = true;
  Close();
}

void LoopbackSession::Close() {
  const absl::Status why = absl::UnavailableError("the session has ended");
  ended = true;
  auto self = shared_from_this();
  for (auto& [number, slot] : slots) {
    if (auto call = slot.call.lock()) server_->Post([call] { call->Cancel(); });
  }
  for (auto& notice : notices) {
    if (killed) break;
    server_->Post([done = std::move(notice.done), why] { done(why); });
  }
  notices.clear();
  server_->sessions.erase(id_);
  if (killed) return;
  server_->Post([self] {
    if (self->server_->callbacks().close) self->server_->callbacks().close(self);
    std::lock_guard lock(self->hub_->mutex);
    self->closed = true;
    self->hub_->changed.notify_all();
  });
}

void LoopbackSession::Submit(const std::shared_ptr<PendingCall>& pending) {
  auto& slot = slots[pending->slot];
  if (slot.sequence == pending->sequence) {
    if (slot.running) {
      if (auto call = slot.call.lock(); call && pending->cancelled) {
        server_->Post([call] { call->Cancel(); });
      }
      return;
    }
    if (slot.cached) {
      pending->response.message = slot.reply;
      pending->status = absl::OkStatus();
      if (auto it = hub_->clients.find(id_); it != hub_->clients.end()) {
        it->second->Complete(pending);
      }
      return;
    }
  }
  slot.sequence = pending->sequence;
  slot.running = true;
  slot.cached = false;
  auto call = std::make_shared<LoopbackCall>(shared_from_this(), pending);
  slot.call = call;
  ++hub_->calls;
  if (pending->cancelled) call->Cancel();
  server_->Post([server = server_, call]() mutable {
    server->callbacks().call(Call(std::move(call)));
  });
}

void LoopbackSession::Answer(const std::shared_ptr<PendingCall>& pending, Bytes message,
                             BulkBuffer bulk, size_t bulk_bytes, bool cache,
                             absl::Status status) {
  std::lock_guard lock(hub_->mutex);
  if (killed || ended) return;
  auto& slot = slots[pending->slot];
  slot.running = false;
  if (cache && status.ok()) {
    slot.cached = true;
    slot.reply.assign(message.begin(), message.end());
  }
  auto client = hub_->clients.find(id_);
  if (hub_->cut || client == hub_->clients.end()) return;  // lost on its way
  pending->status = std::move(status);
  pending->response.message.assign(message.begin(), message.end());
  pending->response.bulk = std::move(bulk);
  pending->response.bulk_bytes = bulk_bytes;
  client->second->Complete(pending);
}

LoopbackServer::LoopbackServer(std::shared_ptr<Loopback::Hub> hub, ServerOptions options,
                               Server::Callbacks callbacks)
    : hub_(std::move(hub)),
      options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      workers_(std::make_unique<TaskQueue>(options_.workers)) {}

LoopbackServer::~LoopbackServer() = default;

absl::StatusOr<std::vector<uint8_t>> LoopbackServer::OpenSession(LoopbackClient* client) {
  auto session = std::make_shared<LoopbackSession>(hub_, this, client->session_id(), "loopback");
  {
    std::lock_guard lock(hub_->mutex);
    for (auto it = restored.begin(); it != restored.end();) {
      if (it->first.first != client->session_id()) {
        ++it;
        continue;
      }
      auto& slot = session->slots[it->first.second];
      slot.sequence = it->second.first;
      slot.cached = true;
      slot.reply = it->second.second;
      it = restored.erase(it);
    }
  }
  auto reply = callbacks_.open(session, client->options().greeting);
  if (!reply.ok()) return reply;
  std::lock_guard lock(hub_->mutex);
  if (killed) return absl::UnavailableError("the server was killed");
  sessions[client->session_id()] = session;
  return reply;
}

void LoopbackServer::Stop() {
  {
    std::lock_guard lock(hub_->mutex);
    // A server that stops in order forgets its sessions; their clients come back
    // when there is a server again. Calls that still run find nobody to answer.
    for (auto& [id, session] : sessions) {
      for (auto& [number, slot] : session->slots) {
        if (auto call = slot.call.lock()) Post([call] { call->Cancel(); });
      }
    }
  }
  workers_->Stop();
  std::lock_guard lock(hub_->mutex);
  killed = true;
  for (auto& [id, session] : sessions) session->killed = true;
  sessions.clear();
}

}  // namespace tripwire::rpc
