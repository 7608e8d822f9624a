// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/testing/loopback.h"

#include <algorithm>
#include <cstdlib>

#include "fs-server/testing/loopback_hub.h"
#include "nic/base/random.h"

namespace tripwire::rpc {
namespace {

// What Serve and Create give out: stops the server when destroyed.
class ServerHandle final : public Server {
 public:
  ServerHandle(std::shared_ptr<Loopback::Hub> hub, std::shared_ptr<LoopbackServer> server)
      : hub_(std::move(hub)), server_(std::move(server)) {}
  ~ServerHandle() override {
    {
      std::lock_guard lock(hub_->mutex);
      if (hub_->server == server_) hub_->server = nullptr;
    }
    server_->Stop();
  }
  void RestoreReply(uint64_t session_id, uint32_t slot, uint64_t sequence,
                    Bytes message) override {
    std::lock_guard lock(hub_->mutex);
    server_->restored[{session_id, slot}] = {
        sequence, std::vector<uint8_t>(message.begin(), message.end())};
  }
  const std::shared_ptr<LoopbackServer>& server() const { return server_; }

 private:
  const std::shared_ptr<Loopback::Hub> hub_;
  const std::shared_ptr<LoopbackServer> server_;
};

}  // namespace

TaskQueue::TaskQueue(uint32_t threads) {
  for (uint32_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

void TaskQueue::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void TaskQueue::Post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void TaskQueue::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

Loopback::Loopback() : hub_(std::make_shared<Hub>()) {}
Loopback::~Loopback() = default;

std::unique_ptr<Server> Loopback::Create(ServerOptions options,
                                         Server::Callbacks callbacks) {
  return std::make_unique<ServerHandle>(
      hub_, std::make_shared<LoopbackServer>(hub_, std::move(options), std::move(callbacks)));
}

void Loopback::Listen(Server& server) {
  std::lock_guard lock(hub_->mutex);
  hub_->server = static_cast<ServerHandle&>(server).server();
  for (auto& [id, client] : hub_->clients) client->Recover();
  hub_->changed.notify_all();
}

std::unique_ptr<Server> Loopback::Serve(ServerOptions options,
                                        Server::Callbacks callbacks) {
  auto server = Create(std::move(options), std::move(callbacks));
  Listen(*server);
  return server;
}

absl::StatusOr<std::unique_ptr<Client>> Loopback::Connect(ClientOptions options) {
  auto random = Random::FromSystem();
  auto client = std::make_unique<LoopbackClient>(hub_, std::move(options), random.Next());
  if (auto status = client->Open(); !status.ok()) return status;
  return client;
}

void Loopback::Kill() {
  std::lock_guard lock(hub_->mutex);
  if (!hub_->server) return;
  hub_->server->killed = true;
  for (auto& [id, session] : hub_->server->sessions) session->killed = true;
  hub_->server = nullptr;
}

void Loopback::Cut() {
  std::lock_guard lock(hub_->mutex);
  hub_->cut = true;
}

void Loopback::Heal() {
  std::lock_guard lock(hub_->mutex);
  hub_->cut = false;
  hub_->deliver_calls = false;
  for (auto& [id, client] : hub_->clients) {
    if (hub_->server && client->session_is_lost()) {
      client->Recover();
    } else {
      client->Resend();
    }
  }
  if (!hub_->server) return;
  for (auto& [id, session] : hub_->server->sessions) session->FlushNotices();
}

void Loopback::LoseSessions() {
  std::unique_lock lock(hub_->mutex);
  if (!hub_->server) return;
  auto sessions = hub_->server->sessions;
  for (auto& [id, session] : sessions) session->Lose();
  hub_->changed.wait(lock, [&] {
    return std::all_of(sessions.begin(), sessions.end(),
                       [](const auto& entry) { return entry.second->closed; });
  });
}

void Loopback::DeliverCalls() {
  std::lock_guard lock(hub_->mutex);
  hub_->deliver_calls = true;
  for (auto& [id, client] : hub_->clients) client->Resend();
}

bool Loopback::idle() const {
  std::lock_guard lock(hub_->mutex);
  if (!hub_->server) return true;
  for (const auto& [id, session] : hub_->server->sessions) {
    for (const auto& [number, slot] : session->slots) {
      if (slot.running) return false;
    }
  }
  return true;
}

uint64_t Loopback::calls() const {
  std::lock_guard lock(hub_->mutex);
  return hub_->calls;
}

uint64_t Loopback::notifications() const {
  std::lock_guard lock(hub_->mutex);
  return hub_->notifications;
}

}  // namespace tripwire::rpc
