// SPDX-License-Identifier: BSD-3-Clause
// The responder's operations towards the suite's apertures, its memory, and the
// threads that watch it.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "nic/conform/responder.h"
#include "nic/conform/responder_state.h"

namespace tripwire::conform {
namespace {

constexpr auto kLongestLook = std::chrono::seconds(10);

// Memory in pieces of uneven lengths, an empty one among them.
std::vector<std::span<uint8_t>> Pieces(Bytes& bytes) {
  std::vector<std::span<uint8_t>> pieces;
  std::span<uint8_t> rest(bytes);
  size_t next = 1;
  while (!rest.empty()) {
    const size_t n = std::min(next, rest.size());
    pieces.push_back(rest.first(n));
    rest = rest.subspan(n);
    next = next * 3 + 2;
    if (pieces.size() == 2) pieces.push_back(rest.first(0));
  }
  return pieces;
}

}  // namespace

uint8_t ToldKind(EventKind kind) {
  switch (kind) {
    case EventKind::kTripwire:
      return kToldTripwire;
    case EventKind::kConnectRequest:
      return kToldRequest;
    case EventKind::kLinkUp:
      return kToldUp;
    case EventKind::kLinkDown:
      return kToldDown;
    case EventKind::kMessage:
      return kToldMessage;
    case EventKind::kOpFailed:
      return kToldFailed;
    default:
      return 255;
  }
}

// ---------------------------------------------------------------------- memory

Responder::Memory::Memory(uint64_t length, uint8_t misalign) {
  mapped_ = length + 64;
  mapping_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    return;
  }
  bytes = {static_cast<uint8_t*>(mapping_) + misalign, length};
}

Responder::Memory::~Memory() {
  aperture.Revoke();
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

void Responder::Memory::Store(uint64_t offset, std::span<const uint8_t> data) {
  uint8_t* to = bytes.data() + offset;
  size_t at = 0;
  while (at < data.size()) {
    if (reinterpret_cast<uintptr_t>(to + at) % 8 == 0 &&
        data.size() - at >= 8) {
      uint64_t word;
      std::memcpy(&word, data.data() + at, 8);
      __atomic_store_n(reinterpret_cast<uint64_t*>(to + at), word,
                       __ATOMIC_RELEASE);
      at += 8;
    } else {
      __atomic_store_n(to + at, data[at], __ATOMIC_RELEASE);
      ++at;
    }
  }
}

Bytes Responder::Memory::Load(uint64_t offset, uint64_t length) const {
  Bytes out(length);
  const uint8_t* from = bytes.data() + offset;
  for (size_t i = 0; i < length; ++i) {
    out[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
  }
  return out;
}

// ------------------------------------------------------------------ operations

Responder::Operation& Responder::NewOperation(uint32_t context, uint32_t* id) {
  *id = ++ids_;
  auto& operation = operations_[*id];
  operation = std::make_unique<Operation>();
  operation->context = context;
  return *operation;
}

absl::Status Responder::Issue(Command command, In& in, Context& context,
                              const RemoteAperture& to, uint64_t offset,
                              Operation& operation) {
  Completion* completion = &operation.completion;
  switch (command) {
    case Command::kWrite: {
      const uint8_t flags = in.U8();
      const auto order = (flags & kUnorderedWrite) != 0 ? WriteOrder::kUnordered
                                                        : WriteOrder::kOrdered;
      const auto data = in.Rest();
      operation.data.assign(data.begin(), data.end());
      if ((flags & kTracked) == 0) completion = nullptr;
      if ((flags & kInPieces) == 0) {
        return context.Write(to, offset, operation.data, completion, order);
      }
      std::vector<std::span<const uint8_t>> pieces;
      for (const auto& piece : Pieces(operation.data)) pieces.push_back(piece);
      return context.WriteGather(to, offset, pieces, completion, order);
    }
    case Command::kRead: {
      operation.is_read = true;
      operation.data.resize(std::min<uint32_t>(in.U32(), 1 << 20));
      const uint8_t flags = in.left() > 0 ? in.U8() : 0;
      if ((flags & kInPieces) == 0) {
        return context.Read(to, offset, operation.data, completion);
      }
      return context.ReadScatter(to, offset, Pieces(operation.data),
                                 completion);
    }
    case Command::kFlush:
      return context.Flush(to.link, completion);
    default: {
      const uint8_t kind = in.U8();
      const uint64_t operand = in.U64(), expected = in.U64();
      return kind == kFetchAdd
                 ? context.FetchAdd(to, offset, operand, &operation.result,
                                    completion)
                 : context.CompareAndSwap(to, offset, expected, operand,
                                          &operation.result, completion);
    }
  }
}

Responder::Answer Responder::DoIssue(Command command, In& in) {
  const uint32_t context_id = in.U32();
  Context* context = FindContext(context_id);
  if (context == nullptr) return Bad("no such context");
  const LinkId link{in.U32()};
  if (command == Command::kMessage || command == Command::kFence) {
    const absl::Status done = command == Command::kFence
                                  ? context->Fence(link)
                                  : context->SendMessage(link, in.Rest());
    if (!done.ok()) return Failed(done);
    return {};
  }
  RemoteAperture to;
  uint64_t offset = 0;
  if (command == Command::kFlush) {
    to.link = link;
  } else {
    const auto name = in.Take(ApertureName::kWireBytes);
    if (!in.ok()) return Bad("arguments are missing");
    to = context->Import(link, ApertureName::Parse(name.data()));
    offset = in.U64();
  }
  uint32_t id = 0;
  Operation& operation = NewOperation(context_id, &id);
  const absl::Status issued =
      Issue(command, in, *context, to, offset, operation);
  if (!issued.ok()) {
    operations_.erase(id);
    return Failed(issued);
  }
  return {Result::kDone, Out().U32(id)};
}

Responder::Answer Responder::OperationState(In& in) {
  const auto it = operations_.find(in.U32());
  if (it == operations_.end()) return Bad("no such operation");
  const Operation& operation = *it->second;
  const bool done = operation.completion.done();
  Out out;
  out.U8(static_cast<uint8_t>(operation.completion.status.load()))
      .U64(done ? operation.result : 0);
  // Also of a read that is not done: its memory must not change any more once
  // it ended, and may be looked at to see that.
  if (operation.is_read) {
    out.Add(std::span(operation.data)
                .first(std::min<size_t>(operation.data.size(), 64 * 1024)));
  }
  return {Result::kDone, out};
}

Responder::Answer Responder::Counters() {
  const NicCounters c = nic_.counters();
  const std::pair<uint8_t, uint64_t> all[] = {
      {kDropMalformed, c.drop_malformed},
      {kDropChecksum, c.drop_checksum},
      {kDropUnknownLink, c.drop_unknown_link},
      {kDropEpoch, c.drop_epoch},
      {kDropWindow, c.drop_window},
      {kRefusedHandle, c.refused_handle},
      {kRefusedGeneration, c.refused_generation},
      {kRefusedRights, c.refused_rights},
      {kRefusedBounds, c.refused_bounds},
      {kDuplicates, c.duplicate_frames},
      {kChainsStopped, c.chains_stopped},
      {kChainsLost, c.chains_lost},
  };
  Out out;
  out.U16(static_cast<uint16_t>(std::size(all)));
  for (const auto& [which, value] : all) out.U8(which).U64(value);
  return {Result::kDone, out};
}

// ------------------------------------------------------------------- observers

Responder::Observer::Observer(const Memory& watched, uint8_t kind,
                              uint64_t first, uint64_t second)
    : memory(&watched) {
  const auto* a =
      reinterpret_cast<const uint64_t*>(watched.bytes.data() + first);
  const auto* b =
      reinterpret_cast<const uint64_t*>(watched.bytes.data() + second);
  thread_ = std::thread([this, kind, a, b] { Look(kind, a, b); });
}

void Responder::Observer::Stop() {
  stop_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
}

void Responder::Observer::Look(uint8_t kind, const uint64_t* first,
                               const uint64_t* second) {
  const auto end = std::chrono::steady_clock::now() + kLongestLook;
  uint64_t last = __atomic_load_n(first, __ATOMIC_ACQUIRE);
  uint64_t n = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint64_t value = __atomic_load_n(first, __ATOMIC_ACQUIRE);
    bool wrong;
    if (kind == kWholeWords) {
      wrong = value != (value & 0xff) * 0x0101010101010101u;
    } else {
      wrong = __atomic_load_n(second, __ATOMIC_ACQUIRE) < value;
    }
    if (wrong) violations.fetch_add(1, std::memory_order_relaxed);
    if (value != last) changes.fetch_add(1, std::memory_order_relaxed);
    last = value;
    if (++n % 256 == 0) {
      looks.store(n, std::memory_order_relaxed);
      if (std::chrono::steady_clock::now() > end) break;
    }
  }
  looks.store(n, std::memory_order_relaxed);
}

Responder::Answer Responder::DoObserve(Command command, In& in) {
  const uint32_t id = in.U32();
  if (command == Command::kObserveEnd) {
    const auto it = observers_.find(id);
    if (it == observers_.end()) return Bad("no such observer");
    Observer& observer = *it->second;
    const bool go_on = in.left() > 0 && in.U8() != 0;
    if (!go_on) observer.Stop();
    const Bytes values = Out()
                             .U64(observer.looks)
                             .U64(observer.changes)
                             .U64(observer.violations);
    if (!go_on) observers_.erase(it);
    return {Result::kDone, values};
  }
  const Memory* memory = FindMemory(id);
  if (memory == nullptr) return Bad("no such aperture");
  const uint8_t kind = in.U8();
  const uint64_t first = in.U64(), second = in.U64();
  const auto fits = [&](uint64_t offset) {
    return memory->bytes.size() >= 8 && offset <= memory->bytes.size() - 8 &&
           reinterpret_cast<uintptr_t>(memory->bytes.data() + offset) % 8 == 0;
  };
  if (!in.ok() || !fits(first) || !fits(second) || observers_.size() >= 16 ||
      (kind != kWholeWords && kind != kInOrder)) {
    return Bad("not two words of the aperture");
  }
  const uint32_t observer = ++ids_;
  observers_[observer] =
      std::make_unique<Observer>(*memory, kind, first, second);
  return {Result::kDone, Out().U32(observer)};
}

}  // namespace tripwire::conform
