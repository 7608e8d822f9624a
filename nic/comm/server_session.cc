// SPDX-License-Identifier: BSD-3-Clause
// A session's life at the server: its links, its opening and end, and the
// notifications it sends.
#include "nic/comm/server_session.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "nic/comm/rpc_layout.h"
#include "nic/comm/server_core.h"

namespace tripwire::rpc {
namespace {

constexpr uint64_t kHelloTimeoutNs = 10 * kSecond;
constexpr size_t kExpelledKept = 65536;
constexpr uint64_t kAckCookie = 0xffff;

}  // namespace

void Session::Notify(Bytes message, std::function<void(absl::Status)> done) {
  std::unique_lock lock(gate->mutex);
  ServerCore* core = gate->core;
  absl::Status refused;
  if (core == nullptr || state == OpenState::kEnded) {
    refused = absl::UnavailableError("the session has ended");
  } else if (message.size() > core->options_.message_bytes) {
    refused = absl::InvalidArgumentError("notification too long");
  }
  if (refused.ok()) {
    notifications.push_back(
        {{message.begin(), message.end()}, std::move(done)});
    if (welcomed) core->PumpNotifications(*this);
    return;
  }
  if (core != nullptr) {
    core->Queue([done = std::move(done), refused] {
      if (done) done(refused);
    });
    if (core->on_job) core->on_job();
    return;
  }
  lock.unlock();
  if (done) done(refused);  // no server thread is left to run it
}

void Session::Expel(const std::string& why) {
  std::lock_guard lock(gate->mutex);
  if (gate->core == nullptr) return;
  gate->core->End(shared_from_this(), why, true);
  if (gate->core->on_job) gate->core->on_job();
}

// Gives the session a link that asked for it; an older one is cut off first.
void ServerCore::Bind(const std::shared_ptr<Session>& session, LinkId link) {
  if (session->has_link) Unbind(*session, true);
  Session& s = *session;
  if (s.slots.empty()) {
    s.slots.resize(options_.slots);
    s.call_area =
        Mapping(CallAreaBytes(options_.slots, options_.message_bytes));
    s.staging = Mapping(uint64_t{options_.bulk_bytes} * options_.staging_slots);
  }
  // What the old link left is not to be mistaken for news from this one.
  for (uint32_t i = 0; i < options_.slots; ++i) {
    uint8_t* word = s.call_area.data() +
                    CallSlotOffset(i + 1, options_.message_bytes) - 8;
    static constexpr uint8_t kZero[8] = {};
    if (std::memcmp(word, kZero, 8) != 0) std::memset(word, 0, 8);
  }
  s.has_link = true;
  s.welcomed = false;
  s.link = link;
  ++s.epoch;
  s.lost_at_ns = Now();  // of silence, until the client says hello
  next_timer_ns_ = std::min(next_timer_ns_, s.lost_at_ns + kHelloTimeoutNs);
  index_of_link_[link.value] = s.index;
  s.call_aperture =
      context_->Export(s.call_area.span(), Access::kWrite, link);
  s.staging_aperture =
      context_->Export(s.staging.span(), Access::kWrite, link);
  const uint64_t cookie =
      (uint64_t{s.index} << 32) | ((s.epoch & 0xffff) << 16);
  for (uint32_t i = 0; i < options_.slots; ++i) {
    s.tripwires.push_back(context_->Watch(
        s.call_aperture, CallSlotOffset(i + 1, options_.message_bytes) - 8, 8,
        Access::kWrite, TripwireMode::kPersistent, cookie | i));
    s.tripwires.back().Arm();
  }
  s.tripwires.push_back(context_->Watch(s.call_aperture, 0, 8, Access::kWrite,
                                        TripwireMode::kPersistent,
                                        cookie | kAckCookie));
  s.tripwires.back().Arm();

  ConnectAnswer answer;
  answer.slots = options_.slots;
  answer.message_bytes = options_.message_bytes;
  answer.bulk_bytes = options_.bulk_bytes;
  answer.staging_slots = options_.staging_slots;
  answer.call_area = s.call_aperture.name();
  answer.staging = s.staging_aperture.name();
  s.shown = context_->MemoryShownBy(link);
  if (!s.shown.bytes.empty()) answer.features |= kTakesReferences;
  const absl::Status accepted = context_->Accept(link, Serialize(answer));
  if (!accepted.ok()) {
    spdlog::debug("rpc: accepting a client failed: {}", accepted.ToString());
    Unbind(s, true);
    if (s.state == OpenState::kNew) End(session, "never connected", false);
  }
}

// Takes the session's link away: from here on nothing reaches its memory.
void ServerCore::Unbind(Session& session, bool close) {
  if (!session.has_link) return;
  index_of_link_.erase(session.link.value);
  if (close) context_->Close(session.link);
  session.tripwires.clear();
  session.call_aperture.Revoke();
  session.staging_aperture.Revoke();
  session.shown = {};  // running calls keep what they look at
  session.has_link = false;
  session.welcomed = false;
  session.up.store(false, std::memory_order_relaxed);  // only news
  session.lost_at_ns = Now();
  next_timer_ns_ = std::min(next_timer_ns_,
                            session.lost_at_ns + options_.session_timeout_ns);
}

void ServerCore::OnHello(const std::shared_ptr<Session>& session,
                         const Hello& hello) {
  if (session->welcomed || session->hello.notify_slots != 0) {
    End(session, "protocol error: a second hello", true);
    return;
  }
  if (hello.reply_area.length_bytes <
      ReplyAreaBytes(options_.slots, hello.notify_slots,
                     options_.message_bytes)) {
    End(session, "protocol error: reply area too small", true);
    return;
  }
  session->hello = hello;
  session->reply_area = context_->Import(session->link, hello.reply_area);
  if (session->state == OpenState::kNew) {
    session->state = OpenState::kOpening;
    session->waits_to_open = ending_.contains(session->session_id);
    if (session->waits_to_open) {
      session->greeting = std::move(session->hello.greeting);
    } else {
      Open(session, std::move(session->hello.greeting));
    }
  } else if (session->state == OpenState::kOpen) {
    SendWelcome(*session);
  }  // else SendWelcome follows the opening
}

void ServerCore::Open(const std::shared_ptr<Session>& session,
                      Octets greeting) {
  ++session->busy;
  Queue([this, session, greeting = std::move(greeting)] {
    absl::StatusOr<Octets> result = Octets{};
    if (callbacks_.open) result = callbacks_.open(session, greeting);
    std::lock_guard lock(gate_->mutex);
    Opened(session, std::move(result));
    Leave(*session);
  });
}

// One of the user's functions for the session is done. With the last one of
// those of ended sessions of this id, the next session may be opened.
void ServerCore::Leave(Session& session) {
  if (--session.busy > 0 || session.state != OpenState::kEnded) return;
  const auto ending = ending_.find(session.session_id);
  if (--ending->second > 0) return;
  ending_.erase(ending);
  const auto next = index_of_id_.find(session.session_id);
  if (next == index_of_id_.end()) return;
  const std::shared_ptr<Session> successor = sessions_[next->second];
  if (!std::exchange(successor->waits_to_open, false)) return;
  Open(successor, std::move(successor->greeting));
  if (on_job) on_job();
}

void ServerCore::QueueClose(const std::shared_ptr<Session>& session) {
  if (!callbacks_.close) return;
  ++session->busy;
  Queue([this, session] {
    callbacks_.close(session);
    std::lock_guard lock(gate_->mutex);
    Leave(*session);
  });
}

void ServerCore::Opened(const std::shared_ptr<Session>& session,
                        absl::StatusOr<Octets> result) {
  if (session->state == OpenState::kEnded) {  // while it was being opened
    if (result.ok()) QueueClose(session);
    return;
  }
  if (!result.ok()) {
    if (session->has_link) {
      const Refused refused{static_cast<uint32_t>(result.status().code()),
                            std::string(result.status().message())};
      (void)context_->SendMessage(session->link, Serialize(refused));
    }
    session->state = OpenState::kNew;  // so that `close` is not called
    End(session, "refused", false);
    return;
  }
  session->state = OpenState::kOpen;
  session->greeting_reply = *std::move(result);
  if (auto it = restored_.find(session->session_id); it != restored_.end()) {
    for (auto& [index, restored] : it->second) {
      ServerSlot& slot = session->slots[index];
      ReplyTail tail{};
      tail.message_bytes = static_cast<uint32_t>(restored.message.size());
      tail.sequence = restored.sequence;
      slot.image = std::move(restored.message);
      slot.image.resize(Padded(slot.image.size()));
      const auto* raw = reinterpret_cast<const uint8_t*>(&tail);
      slot.image.insert(slot.image.end(), raw, raw + sizeof tail);
      slot.phase = SlotPhase::kAnswered;
      slot.cached = true;
      slot.last_sequence = restored.sequence;
    }
    restored_.erase(it);
  }
  if (session->has_link && session->hello.notify_slots != 0) {
    SendWelcome(*session);
  }
}

void ServerCore::SendWelcome(Session& session) {
  Welcome welcome;
  welcome.resumed = session.hello.incarnation == session.incarnation;
  welcome.incarnation = session.incarnation;
  for (const ServerSlot& slot : session.slots) {
    const bool is_forgotten =
        slot.phase == SlotPhase::kAnswered && !slot.cached;
    welcome.sequences.push_back(is_forgotten ? 0 : slot.last_sequence);
  }
  welcome.greeting_reply = session.greeting_reply;
  const uint64_t received =
      welcome.resumed ? session.hello.notify_received : 0;
  const uint64_t acked = welcome.resumed ? session.hello.notify_acked : 0;
  if (acked < session.notify_acked || received > session.notify_sent) {
    End(session.shared_from_this(), "protocol error: impossible hello", true);
    return;
  }
  (void)context_->SendMessage(session.link, Serialize(welcome));
  session.welcomed = true;
  session.up.store(true, std::memory_order_relaxed);  // only news
  while (session.notify_acked < acked) {
    ++session.notify_acked;
    if (auto done = std::move(session.notifications.front().done)) {
      Queue([done = std::move(done)] { done(absl::OkStatus()); });
    }
    session.notifications.pop_front();
  }
  session.notify_sent = received;
  PumpNotifications(session);
}

void ServerCore::End(const std::shared_ptr<Session>& session,
                     const std::string& why, bool expelled) {
  if (session->state == OpenState::kEnded) return;
  const OpenState before = session->state;
  session->state = OpenState::kEnded;
  if (expelled) {
    spdlog::info("rpc: session {:016x} of {} expelled: {}", session->session_id,
                 session->peer_name, why);
    if (session->has_link) {
      (void)context_->SendMessage(session->link, Serialize(Bye{why}));
    }
    if (expelled_.insert(session->session_id).second) {
      expelled_order_.push_back(session->session_id);
    }
    if (expelled_order_.size() > kExpelledKept) {
      expelled_.erase(expelled_order_.front());
      expelled_order_.pop_front();
    }
  }
  Unbind(*session, true);
  for (ServerSlot& slot : session->slots) {
    slot.bulk.Reset();
    if (slot.call == nullptr) continue;
    if (auto f = slot.call->Cancel()) Queue(std::move(f));
  }
  for (auto& notification : session->notifications) {
    if (auto done = std::move(notification.done)) {
      Queue([done = std::move(done)] {
        done(absl::UnavailableError("the session has ended"));
      });
    }
  }
  session->notifications.clear();
  index_of_id_.erase(session->session_id);
  sessions_[session->index] = nullptr;
  free_indexes_.push_back(session->index);
  if (before == OpenState::kOpen) QueueClose(session);
  if (session->busy > 0) ++ending_[session->session_id];
}

void ServerCore::PumpNotifications(Session& session) {
  const uint32_t window = session.hello.notify_slots;
  const uint64_t last = session.notify_acked + session.notifications.size();
  while (session.notify_sent < last &&
         session.notify_sent - session.notify_acked < window) {
    const uint64_t sequence = session.notify_sent + 1;
    const Octets& message =
        session.notifications[sequence - session.notify_acked - 1].message;
    NotifyTail tail{};
    tail.message_bytes = static_cast<uint32_t>(message.size());
    tail.sequence = sequence;
    Octets image = TakeOctets();
    image.assign(message.begin(), message.end());
    image.resize(Padded(image.size()));
    const auto* raw = reinterpret_cast<const uint8_t*>(&tail);
    image.insert(image.end(), raw, raw + sizeof tail);
    const uint64_t end =
        NotifySlotOffset(options_.slots, sequence, window,
                         options_.message_bytes) +
        SlotBytes(options_.message_bytes);
    const absl::Status sent =
        context_->Write(session.reply_area, end - image.size(), image);
    GiveOctets(std::move(image));
    if (!sent.ok()) return;  // sent again over the next link
    session.notify_sent = sequence;
  }
}

void ServerCore::OnNotifyAck(Session& session) {
  if (!session.welcomed) return;
  // The next acknowledgement may be on its way into the word.
  const uint64_t stored = __atomic_load_n(
      reinterpret_cast<const uint64_t*>(session.call_area.data()),
      __ATOMIC_ACQUIRE);
  Le64 word;
  std::memcpy(static_cast<void*>(&word), &stored, sizeof word);
  const uint64_t acked = word.get();
  if (acked <= session.notify_acked || acked > session.notify_sent) return;
  while (session.notify_acked < acked) {
    ++session.notify_acked;
    if (auto done = std::move(session.notifications.front().done)) {
      Queue([done = std::move(done)] { done(absl::OkStatus()); });
    }
    session.notifications.pop_front();
  }
  PumpNotifications(session);
}

}  // namespace tripwire::rpc
