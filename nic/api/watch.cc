// SPDX-License-Identifier: BSD-3-Clause
// Tripwires as a program asks for them.
#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nic/api/context.h"
#include "nic/api/nic_impl.h"
#include "nic/base/wire_int.h"

namespace tripwire {
namespace {

absl::Status CheckRange(uint64_t size, uint64_t offset, uint64_t length) {
  size = std::min(size, Le48::kMax);  // what a frame can name
  if (length == 0 || offset > size || length > size - offset) {
    return absl::OutOfRangeError("a tripwire's range lies in its aperture");
  }
  return absl::OkStatus();
}

// For callers that ask for nothing a context may refuse but one watch too many.
Tripwire OrNone(absl::StatusOr<Tripwire> tripwire) {
  assert(tripwire.ok() || absl::IsResourceExhausted(tripwire.status()));
  return tripwire.ok() ? *std::move(tripwire) : Tripwire();
}

TripwireOptions Simple(Access access, TripwireMode mode, uint64_t cookie,
                       bool events) {
  TripwireOptions options;
  options.access = access;
  options.mode = mode;
  options.cookie = cookie;
  options.events = events;
  return options;
}

}  // namespace

// Checks what does not need the lock, and fills in the rest of `spec`. `word`:
// the start of the range in this process, or null.
absl::Status Context::CheckOptions(const TripwireOptions& options,
                                   const uint8_t* word,
                                   TripwireSpec* spec) const {
  const bool has_word = word != nullptr && spec->length >= sizeof(uint64_t) &&
                        reinterpret_cast<uintptr_t>(word) % 8 == 0;
  if (!Includes(Access::kAny, options.access)) {
    return absl::InvalidArgumentError("a tripwire watches some kind of access");
  }
  if (options.condition.compare != Compare::kAlways && !has_word) {
    return absl::InvalidArgumentError(
        "a condition needs an aligned 64-bit word of this side's memory at the "
        "start of the range");
  }
  if (options.every == 0) {
    return absl::InvalidArgumentError("a tripwire fires at every 1st access or "
                                      "later");
  }
  spec->context = id_;
  spec->access = static_cast<Access>(static_cast<uint8_t>(options.access) &
                                     static_cast<uint8_t>(Access::kAny));
  spec->one_shot = options.mode == TripwireMode::kOneShot;
  spec->wants_events = options.events;
  spec->cookie = options.cookie;
  spec->extra.condition = options.condition;
  spec->extra.every = options.every;
  spec->extra.counter = options.counter;
  if (!options.write.has_value()) return absl::OkStatus();
  const ChainedWriteTo& write = *options.write;
  if (write.sends_word && !has_word) {
    return absl::InvalidArgumentError(
        "there is no aligned 64-bit word of this side's memory to send");
  }
  const uint64_t bytes =
      write.sends_word ? sizeof(uint64_t) : write.data.size();
  if (bytes > kMaxChainedBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a tripwire writes at most ", kMaxChainedBytes, " bytes"));
  }
  const uint64_t size = std::min(write.to.name.length_bytes, Le48::kMax);
  if (write.offset > size || bytes > size - write.offset) {
    return absl::OutOfRangeError("write beyond the peer's aperture");
  }
  spec->extra.write.emplace();
  spec->extra.write->link = write.to.link;
  spec->extra.write->to = write.to.name;
  spec->extra.write->offset = write.offset;
  spec->extra.write->data.assign(write.data.begin(), write.data.end());
  spec->extra.write->sends_word = write.sends_word;
  return absl::OkStatus();
}

// REQUIRES: the NIC's lock.
absl::StatusOr<Tripwire> Context::Make(const TripwireSpec& spec) {
  if (spec.extra.write.has_value() && !Owns(spec.extra.write->link)) {
    return absl::UnavailableError("the link to write to is down");
  }
  if (!impl_.engine().MayWatch(id_)) {
    return absl::ResourceExhaustedError(
        "the context has as many tripwires as it may");
  }
  Tripwire tripwire;
  tripwire.id_ = impl_.engine().Watch(spec);
  tripwire.context_ = this;
  return tripwire;
}

absl::StatusOr<Tripwire> Context::Watch(const Aperture& aperture,
                                        uint64_t offset, uint64_t length,
                                        const TripwireOptions& options) {
  absl::Status status =
      CheckRange(aperture.memory().size(), offset, length);
  if (!status.ok()) return status;
  TripwireSpec spec;
  spec.offset = offset;
  spec.length = length;
  spec.handle = aperture.name().handle;
  spec.generation = aperture.name().generation;
  status = CheckOptions(options, aperture.memory().data() + offset, &spec);
  if (!status.ok()) return status;
  auto lock = impl_.Lock();
  return Make(spec);
}

absl::StatusOr<Tripwire> Context::Watch(const RemoteAperture& aperture,
                                        uint64_t offset, uint64_t length,
                                        const TripwireOptions& options) {
  absl::Status status =
      CheckRange(aperture.name.length_bytes, offset, length);
  if (!status.ok()) return status;
  TripwireSpec spec;
  spec.offset = offset;
  spec.length = length;
  spec.outbound = true;
  spec.handle = aperture.name.handle;
  spec.generation = aperture.name.generation;
  status = CheckOptions(options, nullptr, &spec);
  if (!status.ok()) return status;
  auto lock = impl_.Lock();
  if (Owns(aperture.link)) spec.link = aperture.link;  // else: lost already
  return Make(spec);
}

Tripwire Context::Watch(const Aperture& aperture, uint64_t offset,
                        uint64_t length, Access access, TripwireMode mode,
                        uint64_t cookie, bool events) {
  return OrNone(
      Watch(aperture, offset, length, Simple(access, mode, cookie, events)));
}

Tripwire Context::Watch(const RemoteAperture& aperture, uint64_t offset,
                        uint64_t length, Access access, TripwireMode mode,
                        uint64_t cookie, bool events) {
  return OrNone(
      Watch(aperture, offset, length, Simple(access, mode, cookie, events)));
}

std::optional<size_t> Context::WaitAny(
    std::span<const Tripwire* const> tripwires, std::span<const uint64_t> seen,
    uint64_t deadline_ns) {
  assert(tripwires.size() == seen.size());
  const Engine& engine = impl_.engine();
  size_t found = tripwires.size();
  nic_.WaitUntil(
      [&] {
        for (found = 0; found < tripwires.size(); ++found) {
          if (tripwires[found]->context_ != this) continue;
          const TripwireEntry& entry = engine.tripwire(tripwires[found]->id_);
          if (entry.count > seen[found] || entry.link_lost) return true;
        }
        return false;
      },
      deadline_ns);
  return found < tripwires.size() ? std::optional<size_t>(found) : std::nullopt;
}

}  // namespace tripwire
