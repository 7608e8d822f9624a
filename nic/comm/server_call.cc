// SPDX-License-Identifier: BSD-3-Clause
// Calls at the server: taken from their slots, answered, answered again.
#include "nic/comm/server_call.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "nic/comm/server_core.h"

namespace tripwire::rpc {

ServedCall::ServedCall(std::shared_ptr<Session> session, uint32_t slot,
                       uint64_t sequence, std::vector<uint8_t> message,
                       std::span<const uint8_t> bulk,
                       std::shared_ptr<const void> bulk_keeper,
                       size_t bulk_capacity)
    : session_(std::move(session)),
      slot_(slot),
      sequence_(sequence),
      message_(std::move(message)),
      bulk_(bulk),
      bulk_keeper_(std::move(bulk_keeper)),
      bulk_capacity_(bulk_capacity) {}

ServedCall::~ServedCall() {
  ServerGate& gate = *impl_session().gate;
  std::lock_guard lock(gate.mutex);
  if (gate.core == nullptr) return;
  if (!answered_) {
    gate.core->Answer(*this, kReplyAborted, {}, {}, 0, true);
  }
  gate.core->GiveOctets(std::move(message_));
}

BulkBuffer ServedCall::AllocateBulk(size_t bytes) {
  ServerGate& gate = *impl_session().gate;
  std::lock_guard lock(gate.mutex);
  if (gate.core != nullptr && bytes <= gate.core->bulk_pool_.buffer_bytes()) {
    gate.core->ReapOutgoing();
    return gate.core->bulk_pool_.Take();
  }
  // Larger than usual, or nobody will send it any more: memory of its own.
  auto* memory = new Mapping(std::max<size_t>(bytes, 1));
  return BulkBuffer(memory->data(), memory->size(),
                    [memory] { delete memory; });
}

void ServedCall::OnCancel(std::function<void()> f) {
  {
    std::lock_guard lock(cancel_mutex_);
    if (!cancelled_.load(std::memory_order_relaxed)) {  // under the mutex
      on_cancel_ = std::move(f);
      return;
    }
  }
  f();
}

std::function<void()> ServedCall::Cancel() {
  std::lock_guard lock(cancel_mutex_);
  cancelled_.store(true, std::memory_order_release);  // pairs with cancelled()
  return std::exchange(on_cancel_, nullptr);
}

void ServedCall::Reply(Bytes message, BulkBuffer bulk, size_t bulk_bytes,
                       bool cache) {
  ServerGate& gate = *impl_session().gate;
  {
    std::lock_guard lock(gate.mutex);
    if (answered_) {
      spdlog::error("rpc: a call was answered twice; the second is dropped");
      return;
    }
    answered_ = true;
    if (gate.core != nullptr) {
      gate.core->Answer(*this, kReplyOk, message, std::move(bulk), bulk_bytes,
                        cache);
    }
  }
  // What the hook holds may be freed by destroying it: not under the gate.
  std::function<void()> unused;
  std::lock_guard lock(cancel_mutex_);
  unused.swap(on_cancel_);
}

// Looks at a slot that its client wrote. Anything may be in it.
void ServerCore::Intake(const std::shared_ptr<Session>& session,
                        uint32_t index) {
  if (session->state != OpenState::kOpen || !session->welcomed) return;
  ServerSlot& slot = session->slots[index];
  const uint8_t* end = session->call_area.data() +
                       CallSlotOffset(index + 1, options_.message_bytes);
  CallTail tail;
  CopyOnce(&tail, end - sizeof tail, sizeof tail);
  const uint64_t sequence = tail.sequence.get();
  const bool again = (tail.flags.get() & kCallAgain) != 0;
  if (sequence == 0 || sequence < slot.last_sequence) return;
  if (sequence == slot.last_sequence) {
    // Looked at before, over this link. The next call may be on its way into
    // the slot: what lies before the tail is nobody's message.
    if (slot.target_epoch == session->epoch) return;
    const bool forgotten =
        slot.phase == SlotPhase::kAnswered && !slot.cached && !again;
    if (!forgotten) {
      slot.target_epoch = session->epoch;
      slot.target = ApertureName::Parse(tail.bulk_name);
      slot.target_offset = tail.bulk_offset.get();
      slot.target_capacity = tail.bulk_capacity.get();
      if (slot.phase == SlotPhase::kAnswered) AnswerAgain(session, index);
      return;
    }
  } else if (again || slot.phase == SlotPhase::kRunning) {
    End(session, "protocol error: a call out of turn", true);
    return;
  }
  const uint32_t message_bytes = tail.message_bytes.get();
  if (message_bytes > options_.message_bytes ||
      !BulkIsInBounds(*session, tail)) {
    End(session, "protocol error: a call out of bounds", true);
    return;
  }
  StartCall(session, index, tail, end - sizeof tail - Padded(message_bytes));
}

bool ServerCore::BulkIsInBounds(const Session& session,
                                const CallTail& tail) const {
  const uint64_t bytes = tail.staging_bytes.get();
  const uint32_t staging_slot = tail.staging_slot.get();
  if ((tail.flags.get() & kCallByReference) != 0) {
    const uint64_t shown = session.shown.bytes.size();
    const uint64_t offset = tail.shown_offset.get();
    return staging_slot == kNoStaging && bytes <= options_.bulk_bytes &&
           offset <= shown && bytes <= shown - offset;
  }
  if (staging_slot == kNoStaging) return bytes == 0;
  return staging_slot < options_.staging_slots && bytes <= options_.bulk_bytes;
}

void ServerCore::StartCall(const std::shared_ptr<Session>& session,
                           uint32_t index, const CallTail& tail,
                           const uint8_t* message) {
  ServerSlot& slot = session->slots[index];
  slot.last_sequence = tail.sequence.get();
  slot.phase = SlotPhase::kRunning;
  slot.cached = false;
  slot.waits_for_outgoing = false;
  slot.bulk.Reset();
  ++slot.attempt;
  slot.outgoing = 0;  // those of earlier attempts no longer count
  slot.target_epoch = session->epoch;
  slot.target = ApertureName::Parse(tail.bulk_name);
  slot.target_offset = tail.bulk_offset.get();
  slot.target_capacity = tail.bulk_capacity.get();

  Octets copy = TakeOctets();
  copy.resize(tail.message_bytes.get());
  CopyOnce(copy.data(), message, copy.size());
  std::span<const uint8_t> bulk;
  std::shared_ptr<const void> keeper;
  if ((tail.flags.get() & kCallByReference) != 0) {
    bulk = session->shown.bytes.subspan(tail.shown_offset.get(),
                                        tail.staging_bytes.get());
    keeper = session->shown.mapping;
    calls_by_reference_.fetch_add(1, std::memory_order_relaxed);  // a statistic
  } else if (tail.staging_slot.get() != kNoStaging) {
    bulk = session->staging.span().subspan(
        uint64_t{tail.staging_slot.get()} * options_.bulk_bytes,
        tail.staging_bytes.get());
  }
  auto call = std::allocate_shared<ServedCall>(
      CallAllocator<ServedCall>(call_memory_), session, index,
      slot.last_sequence, std::move(copy), bulk, std::move(keeper),
      slot.target_capacity);
  slot.call = call.get();
  calls_.push_back(std::move(call));
}

void ServerCore::OnCancel(const std::shared_ptr<Session>& session,
                          const Cancel& cancel) {
  if (cancel.slot >= session->slots.size()) return;
  // The call was written before the message was sent, but its event may still
  // be behind the message's.
  Intake(session, cancel.slot);
  if (session->state != OpenState::kOpen) return;
  ServerSlot& slot = session->slots[cancel.slot];
  if (slot.phase != SlotPhase::kRunning || slot.call == nullptr ||
      slot.last_sequence != cancel.sequence) {
    return;
  }
  if (auto f = slot.call->Cancel()) Queue(std::move(f));
}

void ServerCore::Answer(ServedCall& call, uint32_t status, Bytes message,
                        BulkBuffer bulk, size_t bulk_bytes, bool cache) {
  auto session = std::static_pointer_cast<Session>(call.session_);
  if (std::exchange(call.taken_, false)) Leave(*session);
  ServerSlot& slot = session->slots[call.slot_];
  if (session->state == OpenState::kEnded || slot.call != &call) return;
  assert(bulk_bytes <= call.bulk_capacity_ && bulk_bytes <= bulk.capacity());
  if (message.size() > options_.message_bytes) {
    spdlog::error("rpc: a reply of {} bytes is too long for its session ({})",
                  message.size(), options_.message_bytes);
    message = {};
    status = kReplyAborted;
  }
  if (status != kReplyOk) bulk_bytes = 0;
  bulk_bytes = std::min({bulk_bytes, call.bulk_capacity_, bulk.capacity()});

  ReplyTail tail{};
  tail.message_bytes = static_cast<uint32_t>(message.size());
  tail.status = status;
  tail.bulk_bytes = static_cast<uint32_t>(bulk_bytes);
  tail.sequence = call.sequence_;
  const size_t padded = Padded(message.size());
  slot.image.resize(padded + sizeof tail);
  if (!message.empty()) {
    std::memcpy(slot.image.data(), message.data(), message.size());
  }
  std::memset(slot.image.data() + message.size(), 0, padded - message.size());
  std::memcpy(slot.image.data() + padded, &tail, sizeof tail);

  slot.call = nullptr;
  slot.phase = SlotPhase::kAnswered;
  slot.cached = cache;
  if (bulk_bytes > 0) slot.bulk = std::move(bulk);
  slot.bulk_bytes = static_cast<uint32_t>(bulk_bytes);
  // Without a link, or before the client has said where its buffers now are,
  // the answer waits in the slot.
  if (session->welcomed && slot.target_epoch == session->epoch) {
    SendReply(session, call.slot_);
  }
}

void ServerCore::SendReply(const std::shared_ptr<Session>& session,
                           uint32_t index) {
  ServerSlot& slot = session->slots[index];
  if (slot.bulk && slot.bulk_bytes <= slot.target_capacity) {
    std::unique_ptr<Outgoing> outgoing;
    if (spare_outgoing_.empty()) {
      outgoing = std::make_unique<Outgoing>();
    } else {
      outgoing = std::move(spare_outgoing_.back());
      spare_outgoing_.pop_back();
    }
    // Relaxed: nobody else knows it yet.
    outgoing->completion.status.store(OpStatus::kPending,
                                      std::memory_order_relaxed);
    const absl::Status sent = context_->Write(
        context_->Import(session->link, slot.target), slot.target_offset,
        {slot.bulk.data(), slot.bulk_bytes}, &outgoing->completion);
    if (!sent.ok()) {  // the link is going; the answer waits for the next
      spare_outgoing_.push_back(std::move(outgoing));
      return;
    }
    outgoing->buffer = std::move(slot.bulk);
    outgoing->session = session;
    outgoing->slot = index;
    outgoing->attempt = slot.attempt;
    ++slot.outgoing;
    outgoing_.push_back(std::move(outgoing));
  }
  const uint64_t end = ReplySlotOffset(index + 1, options_.message_bytes);
  // A lost link shows as an event; the client then asks again.
  (void)context_->Write(session->reply_area, end - slot.image.size(),
                        slot.image);
}

// The client has lost the answer, or never got it, and has a new link.
void ServerCore::AnswerAgain(const std::shared_ptr<Session>& session,
                             uint32_t index) {
  ServerSlot& slot = session->slots[index];
  if (slot.outgoing > 0) {
    // The bulk data is still with the NIC, on its way over the old link.
    slot.waits_for_outgoing = true;
    next_timer_ns_ = std::min(next_timer_ns_, Now() + kMillisecond);
    return;
  }
  SendReply(session, index);
}

void ServerCore::ReapOutgoing() {
  for (size_t i = 0; i < outgoing_.size();) {
    if (!outgoing_[i]->completion.done()) {
      ++i;
      continue;
    }
    std::unique_ptr<Outgoing> done = std::move(outgoing_[i]);
    outgoing_[i] = std::move(outgoing_.back());
    outgoing_.pop_back();
    const std::shared_ptr<Session> session = std::move(done->session);
    BulkBuffer buffer = std::move(done->buffer);
    // Relaxed: done() has paired with the NIC already.
    const bool lost = done->completion.status.load(std::memory_order_relaxed) ==
                      OpStatus::kLinkLost;
    const uint32_t index = done->slot;
    const uint32_t attempt = done->attempt;
    spare_outgoing_.push_back(std::move(done));

    ServerSlot& slot = session->slots[index];
    if (slot.attempt != attempt || slot.phase != SlotPhase::kAnswered ||
        session->state != OpenState::kOpen) {
      continue;
    }
    --slot.outgoing;
    // Only a cached answer may be asked for again.
    if (lost && slot.cached) slot.bulk = std::move(buffer);
    if (slot.outgoing == 0 && std::exchange(slot.waits_for_outgoing, false) &&
        session->welcomed && slot.target_epoch == session->epoch) {
      SendReply(session, index);
    }
  }
}

Octets ServerCore::TakeOctets() {
  if (spare_octets_.empty()) return {};
  Octets octets = std::move(spare_octets_.back());
  spare_octets_.pop_back();
  return octets;
}

void ServerCore::GiveOctets(Octets octets) {
  if (spare_octets_.size() < 256) spare_octets_.push_back(std::move(octets));
}

}  // namespace tripwire::rpc
