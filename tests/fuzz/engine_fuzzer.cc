// SPDX-License-Identifier: BSD-3-Clause
// A whole NIC with one open link, whose peer says anything in any order, while
// the application here does anything it may. Memory that was not granted must
// stay as it is, counts must add up, and everything must come to an end.
#include <atomic>
#include <deque>
#include <memory>

#include "tests/fuzz/bytes.h"
#include "tests/unit/datapath/scripted_peer.h"

using namespace tripwire;  // NOLINT: a fuzzer's main file

namespace {

constexpr size_t kSize = 512;

class Run {
 public:
  Run(const uint8_t* data, size_t size)
      : script_(data, size), first_sequence_(ChooseFirst(script_.Take())) {}

  void Go() {
    EngineOptions options;
    options.first_sequence = first_sequence_;
    peer_ = std::make_unique<ScriptedPeer>(options);
    if (!peer_->Connect()) std::abort();
    Export(writable_, Access::kAny, std::nullopt);
    Export(read_only_, Access::kRead, std::nullopt);
    Export(others_, Access::kAny, LinkId{0x77});
    for (int step = 0; step < 300 && !script_.ended(); ++step) Step();
    CheckUntouched();
    peer_.reset();  // frees everything; aborts if a frame is lost
    for (const Operation& operation : operations_) {
      fuzz::Require(operation.completion.done(), "operations end");
      fuzz::Require(operation.times_done == 1, "operations end once");
    }
  }

 private:
  struct Operation : Completion {
    Completion& completion = *this;
    int times_done = 0;
    uint64_t result = 0;
    std::unique_ptr<uint8_t[]> memory;
  };
  struct Watch {
    uint32_t id;
    uint64_t seen;
  };

  static uint64_t ChooseFirst(uint8_t choice) {
    return choice % 2 == 0 ? 1 : (uint64_t{1} << 32) - choice % 40;
  }
  void Export(std::unique_ptr<uint8_t[]>& memory, Access rights,
              std::optional<LinkId> only) {
    memory = std::make_unique<uint8_t[]>(kSize);
    std::memset(memory.get(), 0x5a, kSize);
    names_.push_back(peer_->engine().Export(
        peer_->context(), {memory.get(), kSize}, rights, only));
  }
  void CheckUntouched() {
    for (size_t i = 0; i < kSize; ++i) {
      fuzz::Require(read_only_[i] == 0x5a && others_[i] == 0x5a,
                    "memory not granted for writing stays as it is");
    }
  }

  ApertureName TakeName() {
    const uint8_t choice = script_.Take();
    ApertureName name = names_[choice % names_.size()];
    if (choice >= 224) name.handle = script_.Take();
    if (choice >= 240) name.generation = script_.Take();
    return name;
  }
  uint64_t TakeOffset() {
    const uint8_t choice = script_.Take();
    if (choice < 200) return choice * 3u;
    return script_.Take<uint64_t>() & Le48::kMax;
  }

  Bytes TakePayload(uint8_t type) {
    const auto data = [&] { return script_.TakeBytes(script_.Take()); };
    const auto operation = [&] {
      return static_cast<uint32_t>(first_sequence_ + script_.Take());
    };
    switch (type) {
      case wire::kWrite: {
        const ApertureName name = TakeName();
        const uint64_t offset = TakeOffset();
        return WriteBody(name, offset, data());
      }
      case wire::kReadRequest: {
        const ApertureName name = TakeName();
        const uint64_t offset = TakeOffset();
        return ReadBody(name, offset, TakeOffset());
      }
      case wire::kReadResponse: {
        const uint32_t what = operation();
        const uint64_t offset = TakeOffset();
        return ReadResponseBody(what, offset, data());
      }
      case wire::kFlushResponse: return BytesOf(Le32(operation()));
      case wire::kAtomicRequest: {
        const ApertureName name = TakeName();
        const uint64_t offset = TakeOffset();
        const uint8_t what = script_.Take();
        return AtomicBody(name, offset, what % 4, what);
      }
      case wire::kAtomicResponse: {
        const uint32_t what = operation();
        return AtomicResponseBody(what, script_.Take());
      }
      case wire::kOpError: {
        const uint32_t what = operation();
        return ErrorBody(what, script_.Take());
      }
      case wire::kMessage: {
        const uint32_t total = script_.Take();
        const uint32_t offset = script_.Take();
        return MessageBody(total, offset, data());
      }
      case wire::kAck: {
        Bytes bitmap = script_.TakeBytes(32);
        bitmap.resize(32);
        return bitmap;
      }
      case wire::kReset: {
        wire::ResetPayload body;
        body.link = ScriptedPeer::kLink;
        body.epoch = ScriptedPeer::kEpoch + script_.Take() % 4;
        return BytesOf(body);
      }
      default: return {};
    }
  }

  void SayAnything(uint8_t what) {
    static constexpr uint8_t kTypes[] = {
        wire::kAck,           wire::kWrite,         wire::kReadRequest,
        wire::kReadResponse,  wire::kFlushRequest,  wire::kFlushResponse,
        wire::kOpError,       wire::kMessage,       wire::kWrite,
        wire::kAtomicRequest, wire::kAtomicResponse, wire::kWrite,
        wire::kReadRequest,   wire::kAck,           wire::kClose,
        wire::kReset};
    const uint8_t type = kTypes[script_.Take() % 16];
    wire::FrameHeader header = peer_->Header(type);
    // Any flags but that of a tag, which no parser lets pass; and some hops.
    const uint8_t flags = script_.Take();
    header.flags =
        static_cast<uint16_t>((flags & 0x17) | (flags >> 5) << 13);
    const bool in_order = (what & 0x10) == 0;
    uint64_t sequence = peer_->sequence();
    if (in_order) {
      if (wire::IsSequenced(type)) peer_->set_sequence(sequence + 1);
    } else {
      sequence += static_cast<uint64_t>(script_.Take<int8_t>());
    }
    header.sequence = static_cast<uint32_t>(sequence);
    if ((what & 0x20) != 0) {
      header.acknowledged = static_cast<uint32_t>(
          peer_->expected() + static_cast<uint64_t>(script_.Take<int8_t>()));
    }
    if ((what & 0x40) != 0) header.credit = script_.Take();
    if ((what & 0x80) != 0 && script_.Take() % 8 == 0) {
      header.epoch = script_.Take<uint32_t>();
    }
    peer_->Throw(peer_->Frame(header, TakePayload(type)));
  }

  void Operate(uint8_t what) {
    const ApertureName theirs{1, 1, 1 << 20, Access::kAny};
    operations_.emplace_back();
    Operation& operation = operations_.back();
    operation.on_done = [](Completion* c) {
      ++static_cast<Operation*>(c)->times_done;
    };
    const size_t bytes = script_.Take() * (1u + what % 32);
    operation.memory = std::make_unique<uint8_t[]>(bytes);
    const std::span<uint8_t> memory(operation.memory.get(), bytes);
    bool begun = false;
    Engine& engine = peer_->engine();
    switch (what / 32) {
      case 0: begun = engine.Write(peer_->link(), theirs, 64, memory, &operation); break;
      case 1: begun = engine.Read(peer_->link(), theirs, 64, memory, &operation); break;
      case 2: begun = engine.Flush(peer_->link(), &operation); break;
      case 4: begun = engine.Atomic(peer_->link(), theirs, 64, wire::kFetchAdd, what, 0, &operation.result, &operation); break;
      case 5: {
        const std::span<const uint8_t> parts[] = {memory.first(bytes / 3), {},
                                                  memory.subspan(bytes / 3)};
        engine.Fence(peer_->link());
        begun = engine.WriteGather(peer_->link(), theirs, 64, parts, &operation,
                                   {.is_unordered = bytes % 2 == 0});
        break;
      }
      case 6: {
        const std::span<uint8_t> parts[] = {memory.first(bytes / 3), {},
                                            memory.subspan(bytes / 3)};
        begun = engine.ReadScatter(peer_->link(), theirs, 64, parts, &operation);
        break;
      }
      default:
        engine.SendMessage(peer_->link(), memory);
        engine.Write(peer_->link(), theirs, 64, memory, nullptr);
    }
    if (!begun) operations_.pop_back();
  }

  void ChangeWatches(uint8_t what) {
    Engine& engine = peer_->engine();
    if (what % 2 == 0 || watches_.empty()) {
      TripwireSpec entry;
      entry.context = peer_->context();
      entry.offset = script_.Take() % kSize;
      entry.length = 1 + script_.Take() % (kSize - entry.offset);
      entry.access = static_cast<Access>(1 + what / 2 % 7);
      entry.one_shot = (what & 8) != 0;
      entry.wants_events = (what & 16) == 0;
      entry.outbound = (what & 32) != 0;
      entry.link = peer_->link();
      const ApertureName& name = names_[(what >> 6) % names_.size()];
      entry.handle = entry.outbound ? 1 : name.handle;
      entry.generation = entry.outbound ? 1 : name.generation;
      const uint8_t extra = script_.Take();
      if ((extra & 1) != 0) entry.extra.every = 1 + extra / 64;
      if ((extra & 2) != 0) entry.extra.counter = &counter_;
      if ((extra & 4) != 0) {
        entry.extra.condition = {static_cast<Compare>(extra / 16 % 5), extra, 3};
      }
      if ((extra & 8) != 0) {
        ChainedWrite write;
        write.link = peer_->link();
        write.to = {1, 1, 1 << 20, Access::kAny};
        write.sends_word = extra >= 128;
        write.data.resize(extra);
        entry.extra.write = write;
      }
      const uint32_t id = engine.Watch(entry);
      for (const Watch& watch : watches_) {
        fuzz::Require(watch.id != id, "live tripwires have distinct ids");
      }
      engine.Arm(id);
      watches_.push_back({id, 0});
    } else {
      Watch& watch = watches_[script_.Take() % watches_.size()];
      if ((what & 2) != 0) {
        engine.Unwatch(watch.id);
        watch = watches_.back();
        watches_.pop_back();
      } else if ((what & 4) != 0) {
        engine.Disarm(watch.id);
      } else {
        engine.Arm(watch.id);
      }
    }
  }

  // Revocation is exact: the memory is freed at once.
  void RevokeAndExportAgain() {
    while (!watches_.empty()) {
      peer_->engine().Unwatch(watches_.back().id);
      watches_.pop_back();
    }
    peer_->engine().Revoke(peer_->context(), names_[0]);
    writable_.reset();
    const auto old = names_[0];
    Export(writable_, Access::kAny, std::nullopt);
    fuzz::Require(names_.back().handle != old.handle ||
                      names_.back().generation != old.generation,
                  "names are not used again");
    names_[0] = names_.back();
    names_.back() = old;  // stale from now on, still tried
    if (names_.size() > 8) names_.pop_back();
  }

  void Step() {
    const uint8_t what = script_.Take();
    Engine& engine = peer_->engine();
    switch (what % 16) {
      case 0: Operate(script_.Take()); break;
      case 1: ChangeWatches(script_.Take()); break;
      case 2: peer_->Events(); break;
      case 3: engine.TakeMessage(peer_->link()); break;
      case 4: peer_->Run(script_.Take() * (what >= 0x80 ? kMillisecond / 4 : kMicrosecond)); break;
      case 5: RevokeAndExportAgain(); break;
      case 6:
        if (what >= 0xe0) {
          if (Link* link = engine.FindLink(peer_->link())) {
            engine.CloseGracefully(*link);
          }
        } else {
          peer_->SayAck();
        }
        break;
      case 7: engine.FlushAcks(); break;
      default: SayAnything(what);
    }
    if (what % 2 == 0) peer_->Run(2 * kMicrosecond);
    if (Link* link = engine.FindLink(peer_->link())) {
      fuzz::Require(link->InFlight() <= kWindowFrames, "the window is kept");
      fuzz::Require(link->next_sequence - link->acked <= kWindowFrames,
                    "no more than the window is outstanding");
      fuzz::Require(link->early_count < kWindowFrames, "held frames are few");
    }
    for (Watch& watch : watches_) {
      const uint64_t count = engine.tripwire(watch.id).count;
      fuzz::Require(count >= watch.seen, "counts only grow");
      watch.seen = count;
    }
  }

  fuzz::Script script_;
  const uint64_t first_sequence_;
  std::unique_ptr<uint8_t[]> writable_, read_only_, others_;
  std::unique_ptr<ScriptedPeer> peer_;
  std::vector<ApertureName> names_;
  std::deque<Operation> operations_;
  std::vector<Watch> watches_;
  std::atomic<uint64_t> counter_{0};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Run(data, size).Go();
  return 0;
}
