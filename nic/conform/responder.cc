// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/responder.h"

#include <algorithm>
#include <array>

#include "nic/conform/responder_state.h"

namespace tripwire::conform {
namespace {

constexpr uint64_t kLongestSleepNs =
    100 * kMillisecond;                   // between looks at `stop`
constexpr size_t kMaxShown = 512 * 1024;  // of a message that is taken
constexpr size_t kMaxObjects = 200'000;
constexpr uint64_t kMaxExported = uint64_t{16} << 30;  // reserved, not touched

std::string_view TextOf(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

Responder::Responder(Nic& nic) : nic_(nic), control_(nic.CreateContext()) {}

Responder::~Responder() {
  observers_.clear();
  watched_.clear();
  memories_.clear();
  contexts_.clear();
  control_.reset();  // what it waited for is gone
}

absl::Status Responder::Start() { return control_->Listen(kControlService); }

void Responder::Run(const std::atomic<bool>& stop) {
  while (!stop.load(std::memory_order_relaxed)) {
    while (Step()) {
    }
    std::array<Event, 1> event;
    if (control_->Wait(event, nic_.clock().NowNs() + kLongestSleepNs) > 0) {
      Handle(event[0]);
    }
  }
}

void Responder::Handle(const Event& event) {
  switch (event.kind) {
    case EventKind::kConnectRequest:
      if (control_->Accept(event.link, {}).ok()) links_.push_back(event.link);
      break;
    case EventKind::kMessage:
      Serve(event.link);
      break;
    case EventKind::kLinkDown:
      std::erase(links_, event.link);
      break;
    default:
      break;
  }
}

bool Responder::Step() {
  std::array<Event, 16> events;
  const size_t n = control_->Poll(events);
  for (const Event& event : std::span(events).first(n)) Handle(event);
  return n > 0;
}

void Responder::Serve(LinkId link) {
  while (auto message = control_->TakeMessage(link)) {
    In in(*message);
    const uint32_t token = in.U32();
    const auto command = static_cast<Command>(in.U8());
    if (!in.ok()) continue;
    Answer answer = Do(command, in);
    if (answer.result == Result::kDone && !in.ok()) {
      answer = Bad("arguments are missing");
    }
    const Bytes reply = Out()
                            .U32(token)
                            .U8(static_cast<uint8_t>(answer.result))
                            .Add(answer.values);
    (void)control_->SendMessage(link, reply);
  }
}

Responder::Answer Responder::Bad(std::string_view why) {
  return {Result::kBadRequest, Out().Text(why)};
}

Responder::Answer Responder::Failed(const absl::Status& status) {
  return {Result::kFailed, Out().Text(std::string(status.message()))};
}

Responder::Answer Responder::Do(Command command, In& in) {
  if (contexts_.size() + memories_.size() + watched_.size() +
          operations_.size() >
      kMaxObjects) {
    return {Result::kFailed, Out().Text("too many objects")};
  }
  switch (command) {
    case Command::kHello:
      return Hello();
    case Command::kContextNew:
      return NewContext(in, false);
    case Command::kLimitedContext:
      return NewContext(in, true);
    case Command::kContextEnd:
      return EndContext(in);
    case Command::kExport:
    case Command::kRevoke:
    case Command::kPeek:
    case Command::kPoke:
      return DoMemory(command, in);
    case Command::kWatch:
    case Command::kWatchRemote:
    case Command::kChain:
    case Command::kWaitAny:
    case Command::kUnwatch:
    case Command::kArm:
    case Command::kArmExpected:
    case Command::kDisarm:
    case Command::kCount:
      return DoTripwire(command, in);
    case Command::kEvents:
      return Events(in);
    case Command::kAccept:
    case Command::kReject:
    case Command::kConnect:
    case Command::kClose:
    case Command::kLinkState:
    case Command::kTakeMessage:
      return DoLink(command, in);
    case Command::kWrite:
    case Command::kRead:
    case Command::kFlush:
    case Command::kAtomic:
    case Command::kFence:
    case Command::kMessage:
      return DoIssue(command, in);
    case Command::kOperation:
      return OperationState(in);
    case Command::kObserve:
    case Command::kObserveEnd:
      return DoObserve(command, in);
    case Command::kCounters:
      return Counters();
  }
  return {Result::kNotSupported, {}};
}

Responder::Answer Responder::Hello() {
  return {Result::kDone,
          Out()
              .U8(kProtocolVersion)
              .U32(kTripwires | kOutbound | kAtomics | kObserver |
                   kCountsDrops | kUnordered | kPredicates | kActions |
                   kPieces | kFences | kQuotas)
              .Text("Tripwire, the software NIC")};
}

Context* Responder::FindContext(uint32_t id) {
  const auto it = contexts_.find(id);
  return it == contexts_.end() ? nullptr : it->second->context.get();
}

Responder::Answer Responder::NewContext(In& in, bool limited) {
  ContextQuotas quotas;
  if (limited) {
    quotas.apertures = in.U64();
    quotas.tripwires = in.U64();
  }
  auto entry = std::make_unique<ContextEntry>();
  entry->context = nic_.CreateContext(quotas);
  const absl::Status status = entry->context->Listen(TextOf(in.Rest()));
  if (!status.ok()) return Failed(status);
  const uint32_t id = ++ids_;
  contexts_[id] = std::move(entry);
  return {Result::kDone, Out().U32(id)};
}

// Also what hangs on it: the memory goes with its aperture.
Responder::Answer Responder::EndContext(In& in) {
  const uint32_t id = in.U32();
  if (FindContext(id) == nullptr) return Bad("no such context");
  std::erase_if(observers_,
                [&](const auto& o) { return o.second->memory->context == id; });
  std::erase_if(watched_,
                [&](const auto& w) { return w.second.context == id; });
  std::erase_if(memories_, [&](const auto& m) {
    if (m.second->context != id) return false;
    exported_bytes_ -= m.second->bytes.size();
    return true;
  });
  contexts_.erase(id);  // ends what its operations still wait for
  std::erase_if(operations_,
                [&](const auto& o) { return o.second->context == id; });
  return {};
}

// ---------------------------------------------------------------------- memory

Responder::Memory* Responder::FindMemory(uint32_t id) {
  const auto it = memories_.find(id);
  return it == memories_.end() ? nullptr : it->second.get();
}

Responder::Answer Responder::Export(In& in) {
  const uint32_t context_id = in.U32();
  const uint64_t length = in.U64();
  const auto rights = static_cast<Access>(in.U8());
  const uint8_t misalign = in.U8();
  const uint32_t only = in.U32();
  Context* context = FindContext(context_id);
  if (context == nullptr) return Bad("no such context");
  if (length > kMaxExported - exported_bytes_ || misalign > 63) {
    return {Result::kFailed, Out().Text("too much memory")};
  }
  auto memory = std::make_unique<Memory>(length, misalign);
  if (memory->bytes.data() == nullptr) {
    return {Result::kFailed, Out().Text("no memory")};
  }
  memory->context = context_id;
  auto aperture = context->TryExport(
      memory->bytes, rights,
      only == kAnyLink ? std::nullopt : std::optional(LinkId{only}));
  if (!aperture.ok()) return Failed(aperture.status());
  memory->aperture = *std::move(aperture);
  std::array<uint8_t, ApertureName::kWireBytes> name;
  memory->aperture.name().Serialize(name.data());
  exported_bytes_ += length;
  const uint32_t id = ++ids_;
  memories_[id] = std::move(memory);
  return {Result::kDone, Out().U32(id).Add(name)};
}

Responder::Answer Responder::DoMemory(Command command, In& in) {
  if (command == Command::kExport) return Export(in);
  const uint32_t id = in.U32();
  Memory* memory = FindMemory(id);
  if (memory == nullptr) return Bad("no such aperture");
  if (command == Command::kRevoke) {
    std::erase_if(watched_,
                  [&](const auto& w) { return w.second.aperture == id; });
    memory->aperture.Revoke();
    return {};
  }
  const uint64_t offset = in.U64();
  const uint64_t length =
      command == Command::kPeek ? in.U32() : uint64_t{in.left()};
  if (offset > memory->bytes.size() || length > memory->bytes.size() - offset ||
      length > 64 * 1024) {
    return Bad("beyond the aperture");
  }
  if (command == Command::kPoke) {
    memory->Store(offset, in.Rest());
    return {};
  }
  return {Result::kDone, memory->Load(offset, length)};
}

// ------------------------------------------------------------------- tripwires

Responder::Answer Responder::Watch(In& in, bool remote) {
  Watched watched;
  watched.context = in.U32();
  Context* context = FindContext(watched.context);
  if (context == nullptr) return Bad("no such context");
  uint64_t size = 0;
  RemoteAperture remote_aperture;
  Memory* memory = nullptr;
  if (remote) {
    const LinkId link{in.U32()};
    const auto name = in.Take(ApertureName::kWireBytes);
    if (!in.ok()) return Bad("arguments are missing");
    remote_aperture = context->Import(link, ApertureName::Parse(name.data()));
    size = remote_aperture.name.length_bytes;
  } else {
    watched.aperture = in.U32();
    memory = FindMemory(watched.aperture);
    if (memory == nullptr || !memory->aperture ||
        memory->context != watched.context) {
      return Bad("no such aperture");
    }
    size = memory->bytes.size();
  }
  const uint64_t offset = in.U64(), length = in.U64();
  TripwireOptions options;
  options.access = static_cast<Access>(in.U8());
  options.mode =
      in.U8() == kOneShot ? TripwireMode::kOneShot : TripwireMode::kPersistent;
  options.events = in.U8() != 0;
  const uint8_t predicate = in.U8();
  options.condition = {static_cast<Compare>(predicate), in.U64(), in.U64()};
  options.every = in.U64();
  const uint32_t id = ++ids_;
  options.cookie = id;
  if (!in.ok() || length == 0 || offset > size || length > size - offset ||
      predicate > kMaskedEqual) {
    return Bad("a range beyond the aperture, or an unknown condition");
  }
  watched.takes_expected =
      memory != nullptr && length >= 8 &&
      reinterpret_cast<uintptr_t>(memory->bytes.data() + offset) % 8 == 0;
  auto tripwire =
      remote ? context->Watch(remote_aperture, offset, length, options)
             : context->Watch(memory->aperture, offset, length, options);
  if (!tripwire.ok()) return Failed(tripwire.status());
  watched.tripwire = *std::move(tripwire);
  watched_[id] = std::move(watched);
  return {Result::kDone, Out().U32(id)};
}

// A persistent tripwire with actions: a counter in exported memory, a write.
Responder::Answer Responder::Chain(In& in) {
  Watched watched;
  watched.context = in.U32();
  watched.aperture = in.U32();
  Context* context = FindContext(watched.context);
  Memory* memory = FindMemory(watched.aperture);
  if (context == nullptr || memory == nullptr || !memory->aperture) {
    return Bad("no such context or aperture");
  }
  const uint64_t offset = in.U64(), length = in.U64();
  TripwireOptions options;
  options.access = static_cast<Access>(in.U8());
  options.events = false;
  const uint64_t counter_at = in.U64();
  if (counter_at != UINT64_MAX) {
    auto* word = memory->bytes.data() + counter_at;
    if (memory->bytes.size() < 8 || counter_at > memory->bytes.size() - 8 ||
        reinterpret_cast<uintptr_t>(word) % 8 != 0) {
      return Bad("no word for a counter");
    }
    options.counter = reinterpret_cast<std::atomic<uint64_t>*>(word);
  }
  if (in.U8() != 0) {
    const LinkId link{in.U32()};
    const auto name = in.Take(ApertureName::kWireBytes);
    if (!in.ok()) return Bad("arguments are missing");
    ChainedWriteTo& write = options.write.emplace();
    write.to = context->Import(link, ApertureName::Parse(name.data()));
    write.offset = in.U64();
    write.sends_word = in.U8() != 0;
    write.data = in.Rest();
  }
  if (!in.ok()) return Bad("arguments are missing");
  auto tripwire = context->Watch(memory->aperture, offset, length, options);
  if (!tripwire.ok()) return Failed(tripwire.status());
  watched.tripwire = *std::move(tripwire);
  const uint32_t id = ++ids_;
  watched_[id] = std::move(watched);
  return {Result::kDone, Out().U32(id)};
}

Responder::Answer Responder::WaitAny(In& in) {
  std::vector<const Tripwire*> tripwires;
  std::vector<uint64_t> seen;
  Context* context = nullptr;
  for (uint8_t n = in.U8(); n > 0; --n) {
    const auto it = watched_.find(in.U32());
    if (it == watched_.end()) return Bad("no such tripwire");
    context = FindContext(it->second.context);
    tripwires.push_back(&it->second.tripwire);
    seen.push_back(in.U64());
  }
  if (context == nullptr) return Bad("no tripwires");
  const auto which = context->WaitAny(tripwires, seen, nic_.clock().NowNs());
  return {Result::kDone, Out().U8(static_cast<uint8_t>(which.value_or(255)))};
}

Responder::Answer Responder::DoTripwire(Command command, In& in) {
  if (command == Command::kWatch) return Watch(in, false);
  if (command == Command::kWatchRemote) return Watch(in, true);
  if (command == Command::kChain) return Chain(in);
  if (command == Command::kWaitAny) return WaitAny(in);
  const uint32_t id = in.U32();
  const auto it = watched_.find(id);
  if (it == watched_.end()) return Bad("no such tripwire");
  Tripwire& tripwire = it->second.tripwire;
  switch (command) {
    case Command::kUnwatch:
      watched_.erase(it);
      return {};
    case Command::kArm:
      tripwire.Arm();
      return {};
    case Command::kArmExpected: {
      if (!it->second.takes_expected) return Bad("watches no aligned word");
      const bool armed = tripwire.Arm(in.U64());
      return {Result::kDone, Out().U8(armed ? 1 : 0)};
    }
    case Command::kDisarm: {
      const bool fired = tripwire.Disarm();
      return {Result::kDone, Out().U8(fired ? 1 : 0)};
    }
    default:
      return {Result::kDone, Out().U64(tripwire.count())};
  }
}

Responder::Answer Responder::Events(In& in) {
  Context* context = FindContext(in.U32());
  if (context == nullptr) return Bad("no such context");
  std::vector<Event> events(std::min<size_t>(in.U16(), 1024));
  events.resize(context->Poll(events));
  Out out;
  out.U16(static_cast<uint16_t>(events.size()));
  for (const Event& event : events) {
    Bytes data;
    if (event.kind == EventKind::kConnectRequest) {
      const auto info = context->Describe(event.link);
      if (info.ok()) data = info->private_data;
    }
    out.U8(ToldKind(event.kind))
        .U8(static_cast<uint8_t>(event.status))
        .U8(static_cast<uint8_t>(event.end))
        .U32(event.link.value)
        .U64(event.cookie)
        .U64(event.count)
        .U16(static_cast<uint16_t>(data.size()))
        .Add(data);
  }
  return {Result::kDone, out};
}

// ----------------------------------------------------------------------- links

Responder::Answer Responder::DoLink(Command command, In& in) {
  Context* context = FindContext(in.U32());
  if (context == nullptr) return Bad("no such context");
  if (command == Command::kConnect) {
    const auto node = in.Take(in.U8());
    const auto service = in.Take(in.U8());
    if (!in.ok()) return Bad("arguments are missing");
    const auto link = context->StartConnect(TextOf(node), TextOf(service), {});
    if (!link.ok()) return Failed(link.status());
    return {Result::kDone, Out().U32(link->value)};
  }
  const LinkId link{in.U32()};
  switch (command) {
    case Command::kAccept: {
      const absl::Status status = context->Accept(link, in.Rest());
      if (!status.ok()) return Failed(status);
      return {};
    }
    case Command::kReject:
      context->Reject(link);
      return {};
    case Command::kClose:
      context->Close(link);
      return {};
    case Command::kTakeMessage: {
      const auto message = context->TakeMessage(link);
      if (!message) return {Result::kDone, Out().U8(0)};
      // The longest message does not fit into a reply.
      const size_t shown = std::min(message->size(), kMaxShown);
      return {Result::kDone, Out()
                                 .U8(1)
                                 .U32(static_cast<uint32_t>(message->size()))
                                 .Add(std::span(*message).first(shown))};
    }
    default:
      return {Result::kDone, Out().U8(context->IsUp(link) ? 1 : 0)};
  }
}

}  // namespace tripwire::conform
