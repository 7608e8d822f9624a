// SPDX-License-Identifier: BSD-3-Clause
// The client's calls: into slots, onto the link, and back.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "nic/comm/client_core.h"

namespace tripwire::rpc {
namespace {

size_t TotalBytes(std::span<const iovec> pieces) {
  size_t total = 0;
  for (const iovec& piece : pieces) total += piece.iov_len;
  return total;
}

}  // namespace

// ------------------------------------------------------------- starting calls

void ClientCore::Start(PendingCall* call) {
  Lock lock(mutex_);
  TakeUnheard();
  if (Validate(call)) AssignAndSend(call);
}

void ClientCore::AssignAndSend(PendingCall* call) {
  if (!Assign(call)) {
    waiting_.push_back(call);
    ListenForUnheard();
  } else if (MaySend(*call)) {
    Send(static_cast<uint32_t>(call->slot));
  }
}

// Ends calls that cannot be made at all.
bool ClientCore::Validate(PendingCall* call) {
  const size_t bulk_bytes = TotalBytes(call->request.bulk);
  absl::Status fault;
  if (state_ == State::kEnded) {
    fault = ended_;
  } else if (call->request.message.size() > message_bytes()) {
    fault = absl::InvalidArgumentError("rpc: the message is too long");
  } else if (bulk_bytes > this->bulk_bytes()) {
    fault = absl::InvalidArgumentError("rpc: too much bulk data in one call");
  } else if (call->request.bulk_reply_capacity > bulk_pool_.buffer_bytes()) {
    fault = absl::InvalidArgumentError("rpc: too much bulk data asked for");
  }
  if (fault.ok()) return true;
  Finish(call, fault);
  return false;
}

// Puts the call into a slot; false if it has to wait for one.
bool ClientCore::Assign(PendingCall* call) {
  const Request& request = call->request;
  const size_t bulk_bytes = TotalBytes(request.bulk);
  const bool recovery = request.during_recovery;
  if (free_slots_.empty() && !(recovery && recovery_slot_free_)) return false;
  const uint32_t index = free_slots_.empty() ? 0 : free_slots_.back();
  Slot& slot = *slots_[index];
  if (!TakeStaging(slot, request)) return false;
  if (!free_slots_.empty()) {
    free_slots_.pop_back();
  } else {
    recovery_slot_free_ = false;
  }
  ++slot.sequence;
  slot.phase = Phase::kPending;
  slot.on_wire = slot.known = false;
  slot.call = call;
  slot.bulk_capacity = static_cast<uint32_t>(request.bulk_reply_capacity);
  if (slot.bulk_capacity > 0) {
    slot.bulk = bulk_pool_.Take();
    ExportChunks();
  }
  call->slot = static_cast<int32_t>(index);
  call->sequence_word = slot.sequence;

  const size_t length = request.message.size();
  const size_t padded = Padded(length);
  slot.image.resize(padded + sizeof(CallTail));
  if (length > 0)
    std::memcpy(slot.image.data(), request.message.data(), length);
  std::memset(slot.image.data() + length, 0, padded - length);
  CallTail tail{};
  tail.message_bytes = static_cast<uint32_t>(length);
  tail.staging_bytes = static_cast<uint32_t>(bulk_bytes);
  tail.sequence = slot.sequence;
  std::memcpy(slot.image.data() + padded, &tail, sizeof tail);
  return true;
}

// Starts what was waiting for a slot. A call that lacks only a staging slot
// does not hold up those that need none.
void ClientCore::Pump() {
  if (waiting_.empty()) return;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (free_slots_.empty() && !recovery_slot_free_) return;
    PendingCall* call = *it;
    if (!Assign(call)) {
      ++it;
      continue;
    }
    it = waiting_.erase(it);
    if (MaySend(*call)) Send(static_cast<uint32_t>(call->slot));
  }
}

bool ClientCore::MaySend(const PendingCall& call) const {
  return state_ == State::kReady ||
         (state_ == State::kRecovering && call.request.during_recovery);
}

// ------------------------------------------------------------ onto the link

const uint8_t* ClientCore::ReplyEnd(uint32_t index) const {
  return reply_area_.data() + ReplySlotOffset(index + 1, server_.message_bytes);
}

// As it lies in memory; only ever compared.
uint64_t ClientCore::ReadWord(uint32_t index) const {
  uint64_t word;
  CopyOnce(&word, ReplyEnd(index) - sizeof word, sizeof word);
  return word;
}

// Arms the slot's tripwire if nobody looks at it who waits for the answer
// itself.
void ClientCore::Listen(uint32_t index) {
  Slot& slot = *slots_[index];
  if (slot.call->unheard) {
    NoteUnheard(index);
    if (waiting_.empty()) return;
  } else if (!slot.call->done_function) {
    return;
  }
  slot.armed = true;
  tripwires_[index].Arm();
}

void ClientCore::Send(uint32_t index) {
  if (!PlaceBulk(index)) return PutBack(index);
  Slot& slot = *slots_[index];
  slot.phase = Phase::kSent;
  slot.on_wire = true;
  PendingCall* call = slot.call;
  Listen(index);  // before the call goes: the answer cannot come earlier
  // Pairs with Ready: what it finds there is the completions, all set.
  call->word.store(ReplyEnd(index) - 8, std::memory_order_release);
  WriteCall(index, /*again=*/false);
}

// Whether the server of this link can read the request's bulk data where it
// lies.
bool ClientCore::IsShown(const Request& request) const {
  if (shown_.empty() || request.bulk.size() != 1 ||
      request.bulk_owner == nullptr) {
    return false;
  }
  const iovec& piece = request.bulk[0];
  const auto* data = static_cast<const uint8_t*>(piece.iov_base);
  return piece.iov_len > 0 && data >= shown_.data() &&
         data <= shown_.data() + shown_.size() &&
         piece.iov_len <=
             static_cast<size_t>(shown_.data() + shown_.size() - data);
}

// Gives the slot a place for its bulk data, if it needs one; false if there is
// none.
bool ClientCore::TakeStaging(Slot& slot, const Request& request) {
  if (slot.staging != kNoStaging || TotalBytes(request.bulk) == 0 ||
      IsShown(request)) {
    return true;
  }
  if (!free_staging_.empty()) {
    slot.staging = free_staging_.back();
    free_staging_.pop_back();
    return true;
  }
  if (!request.during_recovery || !recovery_staging_free_) return false;
  recovery_staging_free_ = false;
  slot.staging = 0;
  return true;
}

// Puts the bulk data where the server finds it, and says where in the call's
// tail. False if there is no place: the call was begun when the data could be
// read where it lies, and has come to a link over which it cannot.
bool ClientCore::PlaceBulk(uint32_t index) {
  Slot& slot = *slots_[index];
  const Request& request = slot.call->request;
  if (!TakeStaging(slot, request)) return false;
  uint8_t* at = slot.image.data() + slot.image.size() - sizeof(CallTail);
  CallTail tail;
  std::memcpy(&tail, at, sizeof tail);
  tail.staging_slot = slot.staging;
  const bool by_reference =
      slot.staging == kNoStaging && tail.staging_bytes.get() > 0;
  tail.flags = by_reference ? kCallByReference : 0;
  tail.shown_offset =
      by_reference ? static_cast<uint32_t>(
                         static_cast<const uint8_t*>(request.bulk[0].iov_base) -
                         shown_.data())
                   : 0;
  std::memcpy(at, &tail, sizeof tail);
  StageBulk(slot);
  return true;
}

// The server knows nothing of the call: it may as well wait for another slot.
void ClientCore::PutBack(uint32_t index) {
  PendingCall* call = slots_[index]->call;
  call->slot = -1;
  waiting_.push_front(call);
  Free(index);
}

// Bulk data goes first. Failures show as the link's loss.
void ClientCore::StageBulk(Slot& slot) {
  if (slot.staging == kNoStaging) return;
  PendingCall* call = slot.call;
  if (call->completions == nullptr) {
    if (free_completion_sets_.empty()) {
      completion_sets_.push_back(std::make_unique<CompletionSet>());
      free_completion_sets_.push_back(completion_sets_.back().get());
    }
    call->completions = free_completion_sets_.back();
    free_completion_sets_.pop_back();
  }
  uint64_t offset = uint64_t{slot.staging} * server_.bulk_bytes;
  for (const iovec& piece : call->request.bulk) {
    if (piece.iov_len == 0) continue;
    Completion* completion = call->completions->Next();
    const auto* data = static_cast<const uint8_t*>(piece.iov_base);
    if (!context_->Write(staging_area_, offset, {data, piece.iov_len},
                         completion).ok()) {
      --call->completions->used;
      return;
    }
    offset += piece.iov_len;
  }
}

void ClientCore::WriteCall(uint32_t index, bool again) {
  Slot& slot = *slots_[index];
  uint8_t* at = slot.image.data() + slot.image.size() - sizeof(CallTail);
  CallTail tail;
  std::memcpy(&tail, at, sizeof tail);
  if (slot.bulk) {
    const BulkPool::Place place = bulk_pool_.Find(slot.bulk);
    tail.bulk_offset = place.offset;
    tail.bulk_capacity = slot.bulk_capacity;
    chunk_apertures_[place.chunk].name().Serialize(tail.bulk_name);
  }
  OctetView bytes = slot.image;
  if (again) {
    tail.flags = kCallAgain;
    tail.shown_offset = 0;
    tail.message_bytes = 0;
    tail.staging_slot = kNoStaging;
    tail.staging_bytes = 0;
    bytes = bytes.last(sizeof tail);
    CallTail full;
    std::memcpy(&full, at, sizeof full);
    std::memcpy(at, &tail, sizeof tail);
    const uint64_t end = CallSlotOffset(index + 1, server_.message_bytes);
    (void)context_->Write(call_area_, end - bytes.size(), bytes);
    std::memcpy(at, &full, sizeof full);  // for yet another link
    return;
  }
  std::memcpy(at, &tail, sizeof tail);
  const uint64_t end = CallSlotOffset(index + 1, server_.message_bytes);
  // A lost link shows as an event, and the call is sent again.
  (void)context_->Write(call_area_, end - bytes.size(), bytes);
}

// After a welcome: what was pending goes on where the server stands.
void ClientCore::Resume(uint32_t index) {
  Slot& slot = *slots_[index];
  if (slot.phase == Phase::kAbandoned) {
    if (!slot.known) return Free(index);
    slot.armed = true;
    tripwires_[index].Arm();
    WriteCall(index, /*again=*/true);
    SendCancel(index);
  } else if (slot.phase == Phase::kPending) {
    if (!slot.known) return Send(index);
    slot.phase = Phase::kSent;
    Listen(index);
    slot.call->word.store(ReplyEnd(index) - 8, std::memory_order_release);
    WriteCall(index, /*again=*/true);
  }
}

void ClientCore::SendCancel(uint32_t index) {
  const rpc::Cancel cancel{index, slots_[index]->sequence};
  (void)context_->SendMessage(link_, Serialize(cancel));
}

// ------------------------------------------------------------ ends of calls

bool ClientCore::Collect(PendingCall* call) {
  Lock lock(mutex_);
  if (!call->done.load(std::memory_order_relaxed)) {  // under the mutex
    if (call->slot < 0 ||
        slots_[static_cast<size_t>(call->slot)]->phase != Phase::kSent ||
        (call->completions != nullptr && !call->completions->done()) ||
        !Harvest(static_cast<uint32_t>(call->slot))) {
      return false;
    }
    notify_ = false;  // its caller is here
  }
  if (call->completions != nullptr && !call->completions->done()) return false;
  GiveCompletions(call);
  return true;
}

void ClientCore::GiveCompletions(PendingCall* call) {
  if (call->completions == nullptr) return;
  call->completions->used = 0;
  free_completion_sets_.push_back(call->completions);
  call->completions = nullptr;
}

// The event that brings us here may have been of the slot's last call, or there
// may be none; so the NIC may be storing this very moment. When the word that
// comes last is there, so is all before it.
bool ClientCore::IsAnswered(uint32_t index) const {
  const Le64 expected(slots_[index]->sequence);
  uint64_t word;
  std::memcpy(&word, &expected, sizeof word);
  // Pairs with the release that orders the NIC's stores (PlaceInShared).
  return __atomic_load_n(
             reinterpret_cast<const uint64_t*>(ReplyEnd(index) - sizeof word),
             __ATOMIC_ACQUIRE) == word;
}

// Takes the answer from a reply slot, if it is there. The memory is the
// server's to write: copied, then checked.
bool ClientCore::Harvest(uint32_t index) {
  if (!IsAnswered(index)) return false;
  Slot& slot = *slots_[index];
  ReplyTail tail;
  CopyOnce(&tail, ReplyEnd(index) - sizeof tail, sizeof tail);
  if (tail.sequence.get() != slot.sequence) return false;
  std::memcpy(&slot.word, &tail.sequence, sizeof slot.word);
  if (slot.call == nullptr) {
    FinishSlot(index, absl::OkStatus());
    return true;
  }
  const uint32_t message_bytes = tail.message_bytes.get();
  const uint32_t bulk_bytes = tail.bulk_bytes.get();
  absl::Status status;
  if (message_bytes > server_.message_bytes ||
      bulk_bytes > slot.bulk_capacity) {
    status = absl::InternalError("rpc: the server's answer makes no sense");
  } else if (tail.status.get() != kReplyOk) {
    status = absl::AbortedError("rpc: the server dropped the call unanswered");
  } else {
    Response& response = *slot.call->response;
    response.message.resize(message_bytes);
    CopyOnce(response.message.data(),
             ReplyEnd(index) - sizeof tail - Padded(message_bytes),
             message_bytes);
    response.bulk_bytes = bulk_bytes;
    if (bulk_bytes > 0) {
      response.bulk = std::move(slot.bulk);
    } else {
      response.bulk.Reset();
    }
  }
  FinishSlot(index, std::move(status));
  return true;
}

// Ends the slot's call and frees the slot.
void ClientCore::FinishSlot(uint32_t index, absl::Status status) {
  PendingCall* call = std::exchange(slots_[index]->call, nullptr);
  if (call != nullptr) Finish(call, std::move(status));
  Free(index);
}

void ClientCore::Finish(PendingCall* call, absl::Status status) {
  call->status = std::move(status);
  call->slot = -1;
  call->word.store(nullptr, std::memory_order_relaxed);  // `done` follows
  if (call->unheard) {
    spare_calls_.emplace_back(call);
    return;
  }
  if (call->done_function) {
    if (call->deadline_ns != kNever) std::erase(timed_, call);
    finished_.push_back(call);
  } else {
    notify_ = true;
  }
  // Pairs with Ready. After this a waiting caller may take the call away.
  call->done.store(true, std::memory_order_release);
}

void ClientCore::Free(uint32_t index) {
  Slot& slot = *slots_[index];
  slot.phase = Phase::kFree;
  slot.call = nullptr;
  slot.armed = false;
  slot.bulk.Reset();
  slot.bulk_owner.reset();
  if (slot.staging == 0 && server_.staging_slots > 1) {
    recovery_staging_free_ = true;
  } else if (slot.staging != kNoStaging) {
    free_staging_.push_back(slot.staging);
  }
  slot.staging = kNoStaging;
  if (index == 0) {
    recovery_slot_free_ = true;
  } else {
    free_slots_.push_back(index);
  }
  Pump();
}

void ClientCore::FlushNotify() {
  if (std::exchange(notify_, false)) nic_.Notify();
}

bool ClientCore::Cancel(PendingCall* call) {
  Lock lock(mutex_);
  if (call->slot < 0 || state_ != State::kReady) return false;
  const auto index = static_cast<uint32_t>(call->slot);
  if (slots_[index]->phase != Phase::kSent) return false;
  SendCancel(index);
  return true;
}

bool ClientCore::Abandon(PendingCall* call, const absl::Status& why) {
  Lock lock(mutex_);
  const bool given_up = AbandonLocked(call, why);
  if (given_up) GiveCompletions(call);
  notify_ = false;  // its caller is here
  return given_up;
}

bool ClientCore::AbandonLocked(PendingCall* call, const absl::Status& why) {
  if (call->done.load(std::memory_order_relaxed)) return false;  // mutex held
  if (call->completions != nullptr && !call->completions->done()) return false;
  if (call->slot < 0) {
    std::erase(waiting_, call);
    Finish(call, why);
    return true;
  }
  const auto index = static_cast<uint32_t>(call->slot);
  Slot& slot = *slots_[index];
  if (slot.phase == Phase::kSent) {
    // The engine frees the slot when the answer comes, unless it just has.
    slot.armed = true;
    if (!tripwires_[index].Arm(slot.word)) return false;
    slot.call = nullptr;
    slot.bulk_owner = call->request.bulk_owner;
    slot.phase = Phase::kAbandoned;
    SendCancel(index);
  } else if (slot.on_wire) {
    slot.call = nullptr;
    slot.bulk_owner = call->request.bulk_owner;
    slot.phase = Phase::kAbandoned;
    slot.bulk.Reset();  // no link can reach it
  } else {
    slot.call = nullptr;
    Free(index);
  }
  Finish(call, why);
  return true;
}

}  // namespace tripwire::rpc
