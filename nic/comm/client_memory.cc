// SPDX-License-Identifier: BSD-3-Clause
// The client's memory that the server writes: bound to one link at a time, with
// a place for each reply and each notification.
#include <algorithm>
#include <cstring>

#include "nic/comm/client_core.h"

namespace tripwire::rpc {

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
  shown_ = (answer.features & kTakesReferences) != 0
               ? context_->ShownMemory(link_)
               : std::span<uint8_t>();
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
    const bool fits =
        i < answer.slots && tail.message_bytes.get() <= answer.message_bytes &&
        tail.staging_bytes.get() <= answer.bulk_bytes &&
        (slot.staging == kNoStaging || slot.staging < answer.staging_slots);
    if (fits) {
      if (slot.staging != kNoStaging) staged[slot.staging] = true;
      continue;
    }
    all_fit = false;
    slot.phase = Phase::kFree;
    slot.staging = kNoStaging;
    slot.bulk.Reset();
    if (PendingCall* call = std::exchange(slot.call, nullptr)) {
      slot.bulk_owner = call->request.bulk_owner;
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
