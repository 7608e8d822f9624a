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
  state_ = State::kConnecting;
  link_ = context_->StartConnect(peer_.empty() ? options_.node : peer_,
                                 options_.service, ConnectData());
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

// Prepares our memory for the link: only this link may write it.
void ClientCore::BindLink(const ConnectAnswer& answer) {
  FitSlots(answer);
  const uint64_t bytes =
      ReplyAreaBytes(answer.slots, kNotifySlots, answer.message_bytes);
  const bool same = reply_area_.size() == bytes &&
                    server_.message_bytes == answer.message_bytes;
  server_ = answer;
  if (!same) {
    reply_area_ = Mapping(bytes);
  } else {
    // What earlier links left is not to be mistaken for news.
    for (uint32_t i = 0; i < answer.slots; ++i) {
      if (ReadWord(i) != 0) {
        std::memset(const_cast<uint8_t*>(ReplyEnd(i)) - 8, 0, 8);
      }
    }
    for (uint32_t i = 0; i < kNotifySlots; ++i) {
      std::memset(reply_area_.data() +
                      NotifySlotOffset(answer.slots, i + 1, kNotifySlots,
                                       answer.message_bytes) - 8,
                  0, 8);
    }
    std::memset(reply_area_.data() + reply_area_.size() - 8, 0, 8);
  }
  reply_aperture_ = context_->Export(reply_area_.span(), Access::kWrite, link_);
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    slots_[i]->word = 0;
    tripwires_.push_back(context_->Watch(
        reply_aperture_, ReplySlotOffset(i + 1, answer.message_bytes) - 8, 8,
        Access::kWrite, TripwireMode::kOneShot, i));
  }
  call_area_ = context_->Import(link_, answer.call_area);
  staging_area_ = context_->Import(link_, answer.staging);
  ExportChunks();
}

void ClientCore::ExportChunks() {
  if (!reply_aperture_) return;  // no link; BindLink will
  for (size_t i = chunk_apertures_.size(); i < bulk_pool_.chunks(); ++i) {
    chunk_apertures_.push_back(
        context_->Export(bulk_pool_.chunk(i), Access::kWrite, link_));
  }
}

// Makes the slots what this server offers. The same server offers the same; one
// restarted with other options may leave calls without a place.
bool ClientCore::FitSlots(const ConnectAnswer& answer) {
  const bool first = slots_.empty();
  message_bytes_.store(answer.message_bytes, std::memory_order_relaxed);
  bulk_bytes_.store(answer.staging_slots > 0 ? answer.bulk_bytes : 0,
                    std::memory_order_relaxed);
  if (!first && server_.slots == answer.slots &&
      server_.message_bytes == answer.message_bytes &&
      server_.bulk_bytes == answer.bulk_bytes &&
      server_.staging_slots == answer.staging_slots) {
    return true;
  }
  bool all_fit = true;
  std::vector<bool> staged(answer.staging_slots, false);
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = *slots_[i];
    if (slot.phase == Phase::kFree) continue;
    CallTail tail;
    std::memcpy(&tail, slot.image.data() + slot.image.size() - sizeof tail,
                sizeof tail);
    const bool fits = i < answer.slots &&
                      tail.message_bytes.get() <= answer.message_bytes &&
                      (slot.staging == kNoStaging ||
                       (slot.staging < answer.staging_slots &&
                        tail.staging_bytes.get() <= answer.bulk_bytes));
    if (fits) {
      if (slot.staging != kNoStaging) staged[slot.staging] = true;
      continue;
    }
    all_fit = false;
    slot.phase = Phase::kFree;
    slot.staging = kNoStaging;
    slot.bulk.Reset();
    if (PendingCall* call = std::exchange(slot.call, nullptr)) {
      Finish(call, absl::UnavailableError(
                       "rpc: the server came back with smaller limits"));
    }
  }
  slots_.resize(answer.slots);
  free_slots_.clear();
  for (uint32_t i = answer.slots; i-- > 0;) {
    if (slots_[i] == nullptr) slots_[i] = std::make_unique<Slot>();
    const bool is_free = slots_[i]->phase == Phase::kFree;
    if (i == 0) {
      recovery_slot_free_ = is_free;
    } else if (is_free) {
      free_slots_.push_back(i);
    }
  }
  free_staging_.clear();
  recovery_staging_free_ = false;
  for (uint32_t i = answer.staging_slots; i-- > 0;) {
    if (staged[i]) continue;
    if (i == 0 && answer.staging_slots > 1) {
      recovery_staging_free_ = true;
    } else {
      free_staging_.push_back(i);
    }
  }
  return all_fit;
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
        FinishSlot(i, absl::UnavailableError("rpc: the server restarted again"));
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
    if (call != nullptr) Finish(call, why);
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

std::string ClientCore::peer() {
  Lock lock(mutex_);
  return peer_;
}

// ------------------------------------------------------------- notifications

bool ClientCore::NotificationReady() const {
  const uint8_t* word = notify_word_.load(std::memory_order_acquire);
  if (word == nullptr) return false;
  Le64 value;
  std::memcpy(&value, word, sizeof value);
  return value.get() == notify_expected_.load(std::memory_order_relaxed);
}

// Says where the next notification is looked for.
void ClientCore::PublishNotify() {
  const uint64_t next = notify_received_ + 1;
  notify_expected_.store(next, std::memory_order_relaxed);
  const uint64_t end = NotifySlotOffset(server_.slots, next, kNotifySlots,
                                        server_.message_bytes) +
                       SlotBytes(server_.message_bytes);
  // Pairs with NotificationReady: the expected number goes with the word.
  notify_word_.store(reply_area_.data() + end - 8, std::memory_order_release);
}

bool ClientCore::TakeNotification(Octets* message, uint64_t* ticket) {
  Lock lock(mutex_);
  const uint8_t* word = notify_word_.load(std::memory_order_relaxed);  // mutex
  if (word == nullptr) return false;
  const uint8_t* end = word + 8;
  NotifyTail tail;
  CopyOnce(&tail, end - sizeof tail, sizeof tail);
  if (tail.sequence.get() != notify_received_ + 1) return false;
  const uint32_t bytes =
      std::min(tail.message_bytes.get(), server_.message_bytes);
  message->resize(bytes);
  CopyOnce(message->data(), end - sizeof tail - Padded(bytes), bytes);
  ++notify_received_;
  *ticket = incarnation_;
  PublishNotify();
  return true;
}

void ClientCore::AcknowledgeNotification(uint64_t ticket) {
  Lock lock(mutex_);
  if (ticket != incarnation_ || notify_acked_ >= notify_received_) return;
  ++notify_acked_;
  if (state_ != State::kRecovering && state_ != State::kReady) return;
  const Le64 acked(notify_acked_);
  (void)context_->Write(
      call_area_, 0, {reinterpret_cast<const uint8_t*>(&acked), sizeof acked});
}

}  // namespace tripwire::rpc
