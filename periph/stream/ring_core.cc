// SPDX-License-Identifier: BSD-3-Clause
#include "periph/stream/ring_core.h"

#include <sys/mman.h>

#include <algorithm>

namespace tripwire::periph {

RingCore::RingCore(Context& context, LinkId link,
                   const FrameRing::Options& options)
    : memory_(options.slots * SlotStride(options.payload_bytes)),
      slots_(options.slots),
      payload_bytes_(options.payload_bytes),
      stride_bytes_(SlotStride(options.payload_bytes)),
      context_(&context),
      link_(link),
      given_back_(options.slots) {
  // Pictures go through hundreds of pages each; a hint, no more.
  (void)madvise(memory_.data(), memory_.size(), MADV_HUGEPAGE);
}

std::span<const uint8_t> RingCore::Slot(uint64_t sequence) const {
  return memory_.span().subspan((sequence - 1) % slots_ * stride_bytes_,
                                stride_bytes_);
}

void RingCore::SetCredit(const ApertureName& credit) {
  std::lock_guard lock(mutex_);
  if (context_ == nullptr) return;
  credit_ = context_->Import(link_, credit);
  Report();
}

std::optional<FrameView> RingCore::Hand(const std::shared_ptr<RingCore>& core,
                                        uint64_t sequence, const Frame& frame,
                                        uint64_t arrival_ns) {
  std::lock_guard lock(core->mutex_);
  if (sequence - core->released_ > core->slots_) {
    core->overwritten_ = true;
    return std::nullopt;
  }
  FrameView view;
  view.core_ = core;
  view.sequence_ = sequence;
  view.frame_ = frame;
  view.arrival_ns_ = arrival_ns;
  core->taken_ = sequence;
  core->idle_ = false;
  core->ReportIfDue();
  return view;
}

void RingCore::GiveBack(uint64_t sequence) {
  const bool is_whole = LoadSequence(Slot(sequence)) == sequence;
  std::lock_guard lock(mutex_);
  if (!is_whole) overwritten_ = true;
  given_back_[(sequence - 1) % slots_] = 1;
  while (released_ < taken_ && given_back_[released_ % slots_] != 0) {
    given_back_[released_ % slots_] = 0;
    ++released_;
  }
  ReportIfDue();
}

// A feeder that has used up all it was told of waits; so that it never does
// while slots are free, it hears in time.
void RingCore::ReportIfDue() {
  const uint64_t batch = std::max<uint64_t>(slots_ / 4, 1);
  const uint64_t credit_left = reported_ + slots_ - taken_;  // at most
  if (idle_ || released_ - reported_ >= batch || credit_left < batch) Report();
}

void RingCore::Report() {
  if (context_ == nullptr || !credit_.has_value() || released_ == reported_)
    return;
  const Le64 word(released_);
  // If the link is down, nobody is left to be told.
  (void)context_->Write(*credit_, offsetof(CreditBlock, released),
                        {reinterpret_cast<const uint8_t*>(&word), sizeof word});
  reported_ = released_;
  ++reports_;
}

void RingCore::Idle() {
  std::lock_guard lock(mutex_);
  idle_ = true;
  Report();
}

bool RingCore::overwritten() const {
  std::lock_guard lock(mutex_);
  return overwritten_;
}

uint64_t RingCore::reports() const {
  std::lock_guard lock(mutex_);
  return reports_;
}

void RingCore::Close() {
  std::lock_guard lock(mutex_);
  context_ = nullptr;
}

}  // namespace tripwire::periph
