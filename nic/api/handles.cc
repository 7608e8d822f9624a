// SPDX-License-Identifier: BSD-3-Clause
// The handles a context gives out: apertures and tripwires.
#include <utility>

#include "nic/api/context.h"
#include "nic/api/nic_impl.h"

namespace tripwire {

// ------------------------------------------------------------------ Aperture

Aperture::Aperture(Aperture&& other) noexcept { *this = std::move(other); }

Aperture& Aperture::operator=(Aperture&& other) noexcept {
  if (this != &other) {
    Revoke();
    context_ = std::exchange(other.context_, nullptr);
    memory_ = std::exchange(other.memory_, {});
    name_ = other.name_;
  }
  return *this;
}

void Aperture::Revoke() {
  if (context_ == nullptr) return;
  Context* context = std::exchange(context_, nullptr);
  auto lock = context->impl_.Lock();
  context->impl_.engine().Revoke(context->id_, name_);
}

// ------------------------------------------------------------------ Tripwire

Tripwire::Tripwire(Tripwire&& other) noexcept { *this = std::move(other); }

Tripwire& Tripwire::operator=(Tripwire&& other) noexcept {
  if (this != &other) {
    Remove();
    context_ = std::exchange(other.context_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

void Tripwire::Remove() {
  if (context_ == nullptr) return;
  Context* context = std::exchange(context_, nullptr);
  auto lock = context->impl_.Lock();
  context->impl_.engine().Unwatch(id_);
}

void Tripwire::Arm() {
  if (context_ == nullptr) return;
  auto lock = context_->impl_.Lock();
  context_->impl_.engine().Arm(id_);
}

bool Tripwire::Arm(uint64_t expected) {
  if (context_ == nullptr) return false;
  auto lock = context_->impl_.Lock();
  return context_->impl_.engine().ArmIfEqual(id_, expected);
}

bool Tripwire::Disarm() {
  if (context_ == nullptr) return false;
  auto lock = context_->impl_.Lock();
  return context_->impl_.engine().Disarm(id_);
}

uint64_t Tripwire::count() const {
  if (context_ == nullptr) return 0;
  auto lock = context_->impl_.Lock();
  return context_->impl_.engine().tripwire(id_).count;
}

uint64_t Tripwire::Wait(uint64_t seen, uint64_t deadline_ns) {
  if (context_ == nullptr) return 0;
  Engine& engine = context_->impl_.engine();
  uint64_t count = 0;
  const TripwireEntry* entry = nullptr;  // it stays where it is
  context_->nic_.WaitUntil(
      [&] {
        if (entry == nullptr) entry = &engine.tripwire(id_);
        count = entry->count;
        return count > seen || entry->link_lost;
      },
      deadline_ns);
  return count;
}

}  // namespace tripwire
