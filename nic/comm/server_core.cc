// SPDX-License-Identifier: BSD-3-Clause
#include "nic/comm/server_core.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "nic/comm/rpc_layout.h"

namespace tripwire::rpc {
namespace {

constexpr uint64_t kHelloTimeoutNs = 10 * kSecond;
constexpr uint64_t kRefusedLingerNs = 2 * kSecond;
constexpr size_t kBulkBufferBytes = 1u << 20;
constexpr size_t kBulkBuffersPerChunk = 8;
constexpr uint64_t kAckCookie = 0xffff;

absl::Status Check(const ServerOptions& o) {
  if (o.slots < kMinSlots || o.slots > kMaxSlots) {
    return absl::InvalidArgumentError("rpc: slots must be from 2 to 4096");
  }
  if (o.message_bytes == 0 || o.message_bytes > kMaxMessageBytes) {
    return absl::InvalidArgumentError("rpc: message size out of range");
  }
  if (o.bulk_bytes > kMaxBulkBytes || o.staging_slots > kMaxStagingSlots) {
    return absl::InvalidArgumentError("rpc: staging size out of range");
  }
  return absl::OkStatus();
}

}  // namespace

ServerCore::ServerCore(Nic& nic, ServerOptions options,
                       Server::Callbacks callbacks, Random random)
    : nic_(nic),
      options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      gate_(std::make_shared<ServerGate>()),
      buffer_bytes_(kBulkBufferBytes),
      random_(std::move(random)),
      context_(nic.CreateContext()),
      bulk_pool_(kBulkBufferBytes, kBulkBuffersPerChunk),
      call_memory_(std::make_shared<CallMemory>()) {
  gate_->core = this;
}

absl::StatusOr<std::unique_ptr<ServerCore>> ServerCore::Create(
    Nic& nic, ServerOptions options, Server::Callbacks callbacks,
    Random random) {
  if (const absl::Status fit = Check(options); !fit.ok()) return fit;
  std::unique_ptr<ServerCore> core(
      new ServerCore(
      nic, std::move(options), std::move(callbacks), std::move(random)));
  if (absl::Status s = core->context_->Listen(core->options_.service);
      !s.ok()) {
    core->Stop();
    return s;
  }
  return core;
}

ServerCore::~ServerCore() { Stop(); }

void ServerCore::Stop() {
  std::vector<std::shared_ptr<Session>> sessions;
  std::vector<std::function<void()>> cancels;
  RingQueue<std::shared_ptr<ServedCall>> calls;
  std::deque<std::function<void()>> jobs;
  {
    Lock lock(gate_->mutex);
    if (stopped_) return;
    stopped_ = true;
    context_->StopListening(options_.service);
    gate_->core = nullptr;
    for (auto& session : sessions_) {
      if (session == nullptr) continue;
      Unbind(*session, true);
      session->state = OpenState::kEnded;
      for (ServerSlot& slot : session->slots) {
        if (slot.call == nullptr) continue;
        if (auto f = slot.call->Cancel()) cancels.push_back(std::move(f));
      }
    }
    sessions = std::move(sessions_);
    std::swap(calls, calls_);
    jobs = std::move(other_jobs_);
  }
  // Outside the lock: these run and destroy what belongs to users.
  for (auto& f : cancels) f();
  while (!calls.empty()) calls.pop_front();
  jobs.clear();
  for (auto& session : sessions) {
    if (session == nullptr) continue;
    for (auto& notification : session->notifications) {
      if (notification.done) {
        notification.done(absl::UnavailableError("the server has stopped"));
      }
    }
    session->notifications.clear();
  }
  sessions.clear();
  context_.reset();  // every write still under way ends with its link
  outgoing_.clear();
}

void ServerCore::Handle(std::span<const Event> events) {
  Lock lock(gate_->mutex);
  if (stopped_) return;
  for (const Event& event : events) HandleEvent(event);
  if (!outgoing_.empty()) ReapOutgoing();
  if (next_timer_ns_ != kNever && Now() >= next_timer_ns_) RunTimers();
}

void ServerCore::HandleEvent(const Event& event) {
  switch (event.kind) {
    case EventKind::kTripwire:
      OnTripwire(event.cookie);
      break;
    case EventKind::kConnectRequest:
      OnConnectRequest(event.link);
      break;
    case EventKind::kMessage:
      while (auto message = context_->TakeMessage(event.link)) {
        OnMessage(event.link, *message);
      }
      break;
    case EventKind::kLinkDown:
      OnLinkDown(event.link);
      break;
    case EventKind::kOpFailed:
      // A client that names memory it does not have gets no answer there.
      spdlog::debug("rpc: a client refused {} writes: {}", event.count,
                    ToString(event.status));
      break;
    case EventKind::kLinkUp:
      break;
  }
}

void ServerCore::OnTripwire(uint64_t cookie) {
  const uint64_t index = cookie >> 32;
  if (index >= sessions_.size() || sessions_[index] == nullptr) return;
  const std::shared_ptr<Session>& session = sessions_[index];
  // An event of an earlier link, or an earlier session of this index.
  if (((cookie >> 16) & 0xffff) != (session->epoch & 0xffff)) return;
  const uint64_t slot = cookie & 0xffff;
  if (slot == kAckCookie) {
    OnNotifyAck(*session);
  } else if (slot < session->slots.size()) {
    Intake(std::shared_ptr<Session>(session), static_cast<uint32_t>(slot));
  }
}

void ServerCore::Refuse(LinkId link, const std::string& why) {
  ConnectAnswer answer;
  answer.refused = why;
  if (!context_->Accept(link, Serialize(answer)).ok()) return;
  // It is the client's to close once it has read why; ours if it does not.
  refused_.emplace_back(Now() + kRefusedLingerNs, link);
  next_timer_ns_ = std::min(next_timer_ns_, refused_.front().first);
}

void ServerCore::OnConnectRequest(LinkId link) {
  const absl::StatusOr<LinkInfo> info = context_->Describe(link);
  if (!info.ok()) return;  // gone again
  const auto request = ParseConnectRequest(info->private_data);
  if (!request.has_value()) {
    spdlog::warn("rpc: {} asked for {} in words that are not ours", info->node,
                 options_.service);
    context_->Reject(link);
    return;
  }
  if (request->version != kProtocolVersion) {
    Refuse(link, "the server speaks version " +
                     std::to_string(kProtocolVersion) +
                     " of the protocol, the client version " +
                     std::to_string(request->version));
    return;
  }
  if (expelled_.contains(request->session_id)) {
    Refuse(link, "the session was expelled");
    return;
  }
  std::shared_ptr<Session> session = SessionOf(request->session_id);
  if (session->state == OpenState::kNew) session->peer_name = info->node;
  session->hello = Hello{};
  Bind(session, link);
}

std::shared_ptr<Session> ServerCore::SessionOf(uint64_t id) {
  if (auto it = index_of_id_.find(id); it != index_of_id_.end()) {
    return sessions_[it->second];
  }
  auto session = std::make_shared<Session>(gate_, id);
  do {
    session->incarnation = random_.Next();
  } while (session->incarnation == 0);
  // Differs from what another session of this index began with, most likely;
  // an event mistaken for ours finds an unchanged slot and does nothing.
  session->epoch = random_.Next() & 0xffff;
  if (free_indexes_.empty()) {
    session->index = static_cast<uint32_t>(sessions_.size());
    sessions_.push_back(session);
  } else {
    session->index = free_indexes_.back();
    free_indexes_.pop_back();
    sessions_[session->index] = session;
  }
  index_of_id_[id] = session->index;
  return session;
}

void ServerCore::OnLinkDown(LinkId link) {
  auto it = index_of_link_.find(link.value);
  if (it == index_of_link_.end()) return;
  const std::shared_ptr<Session> session = sessions_[it->second];
  Unbind(*session, false);
  if (session->state == OpenState::kNew) End(session, "never opened", false);
}

void ServerCore::OnMessage(LinkId link, Bytes message) {
  auto it = index_of_link_.find(link.value);
  if (it == index_of_link_.end()) return;
  const std::shared_ptr<Session> session = sessions_[it->second];
  const auto type = TypeOf(message);
  if (type == MessageType::kHello) {
    if (auto hello = ParseHello(message)) return OnHello(session, *hello);
  } else if (type == MessageType::kCancel) {
    if (auto cancel = ParseCancel(message)) return OnCancel(session, *cancel);
  } else if (type == MessageType::kBye) {
    return End(session, "closed by the client", false);
  }
  End(session, "protocol error: a message that makes no sense", true);
}

void ServerCore::RunTimers() {
  const uint64_t now = Now();
  next_timer_ns_ = kNever;
  while (!refused_.empty() && refused_.front().first <= now) {
    context_->Close(refused_.front().second);
    refused_.pop_front();
  }
  if (!refused_.empty()) next_timer_ns_ = refused_.front().first;
  const std::vector<std::shared_ptr<Session>> sessions = sessions_;
  for (const auto& session : sessions) {
    if (session == nullptr || session->welcomed) continue;
    // Opening may take as long as it likes; its end looks at the link.
    if (session->state == OpenState::kOpening) continue;
    const uint64_t due =
        session->lost_at_ns +
        (session->has_link ? kHelloTimeoutNs : options_.session_timeout_ns);
    if (due > now) {
      next_timer_ns_ = std::min(next_timer_ns_, due);
    } else if (session->has_link) {
      Unbind(*session, true);  // connected, and then said nothing
      if (session->state == OpenState::kNew) End(session, "silent", false);
    } else {
      spdlog::info("rpc: session {:016x} of {} did not come back",
                   session->session_id, session->peer_name);
      session->did_not_return.store(true, std::memory_order_relaxed);
      End(session, "timed out", false);
    }
  }
  for (const auto& outgoing : outgoing_) {
    const ServerSlot& slot = outgoing->session->slots[outgoing->slot];
    if (slot.waits_for_outgoing) {
      next_timer_ns_ = std::min(next_timer_ns_, now + kMillisecond);
    }
  }
}

uint64_t ServerCore::NextDeadlineNs() {
  Lock lock(gate_->mutex);
  return next_timer_ns_;
}

ServerCore::Job ServerCore::TakeJob(bool calls) {
  Job job;
  std::vector<std::shared_ptr<ServedCall>> dropped;  // outlive the lock
  Lock lock(gate_->mutex);
  if (!other_jobs_.empty()) {
    job.other = std::move(other_jobs_.front());
    other_jobs_.pop_front();
    return job;
  }
  while (calls && !calls_.empty()) {
    std::shared_ptr<ServedCall> call = std::move(calls_.front());
    calls_.pop_front();
    Session& session = call->impl_session();
    if (session.lost()) {  // its client makes it again, should it come back
      dropped.push_back(std::move(call));
      continue;
    }
    call->taken_ = true;
    // Also a session that its client has closed by now.
    if (session.busy++ == 0 && session.state == OpenState::kEnded) {
      ++ending_[session.session_id];
    }
    calls_started_.fetch_add(1, std::memory_order_relaxed);  // a statistic
    job.call = std::move(call);
    break;
  }
  return job;
}

size_t ServerCore::CallsPending() {
  Lock lock(gate_->mutex);
  return calls_.size();
}

bool ServerCore::HasJobs(bool calls) {
  Lock lock(gate_->mutex);
  return !other_jobs_.empty() || (calls && !calls_.empty());
}

void ServerCore::Run(Job job) {
  if (job.call != nullptr) {
    callbacks_.call(Call(std::move(job.call)));
  } else if (job.other) {
    job.other();
  }
}

bool ServerCore::Progress() {
  bool any = false;
  Event events[32];
  while (const size_t n = context_->Poll(events)) {
    Handle({events, n});
    any = true;
  }
  Handle({});
  while (Job job = TakeJob()) {
    Run(std::move(job));
    any = true;
  }
  return any;
}

void ServerCore::RestoreReply(uint64_t session_id, uint32_t slot,
                              uint64_t sequence, Bytes message) {
  Lock lock(gate_->mutex);
  if (slot >= options_.slots || message.size() > options_.message_bytes) {
    spdlog::warn("rpc: a stored reply does not fit this server's options");
    return;
  }
  Restored& kept = restored_[session_id][slot];
  if (sequence < kept.sequence) return;
  kept = {sequence, {message.begin(), message.end()}};
}

}  // namespace tripwire::rpc
