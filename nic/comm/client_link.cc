// SPDX-License-Identifier: BSD-3-Clause
// The client's session and the links that carry it, one after another.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "nic/comm/client_core.h"

namespace tripwire::rpc {
namespace {

constexpr uint64_t kFirstBackoffNs = 10 * kMillisecond;
constexpr uint64_t kLongestBackoffNs = 1 * kSecond;
// A server may take long to open a session, but not for ever.
constexpr uint64_t kGreetingTimeoutNs = 60 * kSecond;
constexpr size_t kBulkBufferBytes = 1u << 20;

uint64_t NewSessionId(Random random) {
  uint64_t id;
  do {
    id = random.Next();
  } while (id == 0);
  return id;
}

}  // namespace

ClientCore::ClientCore(Nic& nic, ClientOptions options, Hooks hooks,
                       Random random)
    : nic_(nic),
      options_(std::move(options)),
      hooks_(std::move(hooks)),
      session_id_(NewSessionId(std::move(random))),
      context_(nic.CreateContext()),
      bulk_pool_(kBulkBufferBytes, std::max(options_.bulk_buffers, 1u)) {
  greeting_replies_.push_back(std::make_unique<Octets>());
  greeting_reply_ = greeting_replies_.back().get();
}

ClientCore::~ClientCore() {
  Close(absl::CancelledError("rpc: the client is closing"));
  RunCallbacks();
  // Links end with the context, and with them every write under way.
  tripwires_.clear();
  ForgetUnheard();
  context_.reset();
  RunCallbacks();
}

Octets ClientCore::ConnectData() const {
  ConnectRequest request;
  request.session_id = session_id_;
  return Serialize(request);
}

void ClientCore::Begin(std::optional<LinkId> link) {
  Lock lock(mutex_);
  if (!link.has_value()) return Connect();
  link_ = *link;
  state_ = State::kConnecting;
  OnLinkUp(*link);
}

void ClientCore::Connect() {
  reconnect_at_ = kNever;
  const auto link = context_->StartConnect(
      peer_.empty() ? options_.node : peer_, options_.service, ConnectData());
  if (!link.ok()) return End(link.status());  // and never could
  link_ = *link;
  state_ = State::kConnecting;
}

// ------------------------------------------------------------------- events

void ClientCore::Handle(std::span<const Event> events) {
  Lock lock(mutex_);
  for (const Event& event : events) HandleEvent(event);
  RunTimers();
  FlushNotify();
}

void ClientCore::HandleEvent(const Event& event) {
  if (state_ == State::kEnded) return;
  if (event.kind == EventKind::kTripwire) {
    if (event.cookie >= slots_.size() || state_ == State::kIdle) return;
    Slot& slot = *slots_[event.cookie];
    // Calls that somebody waits for are harvested by their waiter.
    if (!slot.armed) return;
    if (Harvest(static_cast<uint32_t>(event.cookie))) return;
    // An event of the slot's last call, or a server that writes nonsense; in
    // either case the answer is still to come.
    tripwires_[event.cookie].Arm();
    Harvest(static_cast<uint32_t>(event.cookie));
    return;
  }
  if (event.link != link_ || state_ == State::kIdle) return;
  switch (event.kind) {
    case EventKind::kLinkUp:
      // Not news for a link that Begin was given.
      if (state_ == State::kConnecting) OnLinkUp(event.link);
      break;
    case EventKind::kMessage:
      while (state_ != State::kIdle && state_ != State::kEnded) {
        const auto message = context_->TakeMessage(link_);
        if (!message.has_value()) break;
        OnMessage(*message);
      }
      break;
    case EventKind::kLinkDown:
      LoseLink(absl::StrCat("the link to ",
                            peer_.empty() ? options_.node : peer_,
                            " ended: ", ToString(event.end)),
               /*close=*/false);
      break;
    case EventKind::kOpFailed:
      // The server withdrew its memory under us: its news is on the way.
      spdlog::debug("rpc: the server refused {} writes: {}", event.count,
                    ToString(event.status));
      break;
    default:
      break;
  }
}

void ClientCore::OnLinkUp(LinkId link) {
  const absl::StatusOr<LinkInfo> info = context_->Describe(link);
  if (!info.ok()) return;  // its end is the next event
  if (peer_.empty()) peer_ = info->node;
  shares_memory_.store(info->shares_memory, std::memory_order_relaxed);
  const auto answer = ParseConnectAnswer(info->private_data);
  if (!answer.has_value()) {
    return End(absl::FailedPreconditionError(
        absl::StrCat(peer_, " does not speak our protocol")));
  }
  if (!answer->refused.empty()) {
    return End(absl::UnavailableError(
        absl::StrCat(peer_, " refused: ", answer->refused)));
  }
  BindLink(*answer);
  state_ = State::kGreeting;
  greet_by_ = Now() + kGreetingTimeoutNs;
  Hello hello;
  hello.incarnation = incarnation_;
  hello.notify_received = notify_received_;
  hello.notify_acked = notify_acked_;
  hello.notify_slots = kNotifySlots;
  hello.reply_area = reply_aperture_.name();
  hello.greeting = options_.greeting;
  (void)context_->SendMessage(link_, Serialize(hello));
}

void ClientCore::OnMessage(Bytes message) {
  const auto type = TypeOf(message);
  if (type == MessageType::kWelcome && state_ == State::kGreeting) {
    const auto welcome = ParseWelcome(message);
    if (welcome.has_value() && welcome->sequences.size() == server_.slots) {
      return OnWelcome(*welcome);
    }
  } else if (type == MessageType::kRefused && state_ == State::kGreeting) {
    if (const auto refused = ParseRefused(message)) {
      const auto code = static_cast<absl::StatusCode>(
          refused->code >= 1 && refused->code <= 16 ? refused->code : 2);
      const absl::Status why(code, refused->why);
      // A server that refuses someone it knew may yet think better of it.
      if (incarnation_ == 0) return End(why);
      last_failure_ = why;
      return LoseLink(absl::StrCat(peer_, " refused: ", refused->why), true);
    }
  } else if (type == MessageType::kBye) {
    if (const auto bye = ParseBye(message)) {
      return End(absl::UnavailableError(
          absl::StrCat(peer_, " ended the session: ", bye->why)));
    }
  }
  LoseLink(absl::StrCat(peer_, " sent a message that makes no sense"), true);
}

void ClientCore::OnWelcome(const Welcome& welcome) {
  greet_by_ = kNever;
  const bool first = incarnation_ == 0;
  if (!welcome.resumed) {
    notify_received_ = notify_acked_ = 0;
    if (incarnation_ != welcome.incarnation && !first) {
      needs_recovery_ = true;
      // Calls of a recovery that this one replaces.
      for (uint32_t i = 0; i < slots_.size(); ++i) {
        PendingCall* call = slots_[i]->call;
        if (call == nullptr || !call->request.during_recovery) continue;
        FinishSlot(i,
                   absl::UnavailableError("rpc: the server restarted again"));
      }
      if (recovering_) recover_again_ = true;
    }
    greeting_replies_.push_back(
        std::make_unique<Octets>(welcome.greeting_reply));
    // Pairs with greeting_reply(); earlier ones stay, for those who hold them.
    greeting_reply_.store(greeting_replies_.back().get(),
                          std::memory_order_release);
  }
  incarnation_ = welcome.incarnation;
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = *slots_[i];
    slot.known = slot.sequence != 0 && welcome.sequences[i] == slot.sequence;
    // A slot new to us may be old to a server that outlived us; never so by
    // one of our own session ids, but a sequence must grow in any case.
    slot.sequence = std::max(
        slot.sequence,
        slot.phase == Phase::kFree ? welcome.sequences[i] : uint64_t{0});
  }
  PublishNotify();
  if (notify_acked_ > 0) {
    const Le64 acked(notify_acked_);
    (void)context_->Write(
        call_area_, 0,
        {reinterpret_cast<const uint8_t*>(&acked), sizeof acked});
  }
  if (!needs_recovery_) return BecomeReady();
  state_ = State::kRecovering;
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    const PendingCall* call = slots_[i]->call;
    if (slots_[i]->phase == Phase::kAbandoned ||
        (call != nullptr && call->request.during_recovery)) {
      Resume(i);
    }
  }
  Pump();
  if (!recovering_) StartRecovery();
}

void ClientCore::StartRecovery() {
  recovering_ = true;
  recover_again_ = false;
  if (!hooks_.recover) {
    needs_recovery_ = recovering_ = false;
    return BecomeReady();
  }
  news_.push_back([this, reply = *greeting_replies_.back()] {
    hooks_.recover(reply);
  });
}

void ClientCore::RecoveryDone() {
  bool wake = false;
  {
    Lock lock(mutex_);
    recovering_ = false;
    if (recover_again_) {
      if (state_ == State::kRecovering) StartRecovery();
      wake = true;
    } else {
      needs_recovery_ = false;
      if (state_ == State::kRecovering) BecomeReady();
      wake = !news_.empty();
    }
    FlushNotify();
  }
  if (wake && hooks_.wake) hooks_.wake();
}

void ClientCore::BecomeReady() {
  state_ = State::kReady;
  backoff_ns_ = 0;
  last_failure_ = absl::OkStatus();
  connected_.store(true, std::memory_order_relaxed);  // only news
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i]->phase == Phase::kPending ||
        (slots_[i]->phase == Phase::kAbandoned && !slots_[i]->armed)) {
      Resume(i);
    }
  }
  Pump();
  if (options_.on_connection) {
    news_.push_back([this] { options_.on_connection(true, {}); });
  }
}

// From here on no link reaches our memory, until the next is bound.
void ClientCore::LoseLink(const std::string& why, bool close) {
  const bool was_connected = connected_.exchange(false);
  state_ = State::kIdle;
  greet_by_ = kNever;
  if (last_failure_.ok()) last_failure_ = absl::UnavailableError(why);
  notify_word_.store(nullptr, std::memory_order_release);
  for (auto& slot : slots_) {
    if (slot->call != nullptr) {
      slot->call->word.store(nullptr, std::memory_order_relaxed);
    }
  }
  tripwires_.clear();
  ForgetUnheard();
  // Revoking takes the NIC's lock: whoever still looked at our words through
  // Ready has finished, and what the peer wrote is visible here.
  reply_aperture_.Revoke();
  chunk_apertures_.clear();
  if (close) context_->Close(link_);
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = *slots_[i];
    slot.armed = slot.known = false;
    const bool sent =
        slot.phase == Phase::kSent || slot.phase == Phase::kAbandoned;
    if (!sent || Harvest(i)) continue;
    if (slot.phase == Phase::kAbandoned) {
      slot.bulk.Reset();
    } else {
      slot.phase = Phase::kPending;
    }
  }
  backoff_ns_ = std::clamp(backoff_ns_ * 2, kFirstBackoffNs, kLongestBackoffNs);
  reconnect_at_ = Now() + backoff_ns_;
  if (was_connected && options_.on_connection) {
    news_.push_back([this, why] { options_.on_connection(false, why); });
  }
}

void ClientCore::End(const absl::Status& why) {
  if (state_ == State::kEnded) return;
  const bool had_link = state_ != State::kIdle;
  if (had_link) LoseLink(std::string(why.message()), /*close=*/true);
  state_ = State::kEnded;
  ended_ = why;
  reconnect_at_ = kNever;
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    PendingCall* call = std::exchange(slots_[i]->call, nullptr);
    if (call == nullptr) continue;
    if (slots_[i]->on_wire) slots_[i]->bulk_owner = call->request.bulk_owner;
    Finish(call, why);
  }
  for (PendingCall* call : waiting_) Finish(call, why);
  waiting_.clear();
}

void ClientCore::Close(const absl::Status& why) {
  {
    Lock lock(mutex_);
    if (state_ != State::kIdle && state_ != State::kEnded &&
        state_ != State::kConnecting) {
      (void)context_->SendMessage(link_, Serialize(Bye{"closed"}));
    }
    End(why);
    FlushNotify();
  }
  if (hooks_.wake) hooks_.wake();
}

// ------------------------------------------------------------------- timers

void ClientCore::RunTimers() {
  const uint64_t now_ns = Now();
  if (now_ns >= greet_by_) {
    LoseLink(absl::StrCat(peer_, " does not answer our greeting"), true);
  }
  if (now_ns >= next_deadline_ns_) RunDeadlines(now_ns);
  if (state_ == State::kIdle && now_ns >= reconnect_at_) Connect();
}

uint64_t ClientCore::NextDeadlineNs() {
  Lock lock(mutex_);
  return std::min({reconnect_at_, greet_by_, next_deadline_ns_});
}

bool ClientCore::Progress() {
  bool any = false;
  Event events[32];
  while (const size_t count = context_->Poll(events)) {
    Handle({events, count});
    any = true;
  }
  Handle({});
  return RunCallbacks() || any;
}

absl::Status ClientCore::ended() {
  Lock lock(mutex_);
  return ended_;
}

absl::Status ClientCore::last_failure() {
  Lock lock(mutex_);
  return last_failure_;
}

std::span<uint8_t> ClientCore::shown_memory() const {
  Lock lock(mutex_);
  return shown_;
}

std::string ClientCore::peer() {
  Lock lock(mutex_);
  return peer_;
}

}  // namespace tripwire::rpc
