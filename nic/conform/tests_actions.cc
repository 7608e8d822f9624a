// SPDX-License-Identifier: BSD-3-Clause
// Tripwires with conditions, thresholds and actions; operations in pieces,
// fences and unordered writes of the NIC.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

constexpr uint64_t kNoCounter = UINT64_MAX;

uint8_t WriteWord(Peer& peer, const Exported& aperture, uint64_t offset,
                  uint64_t value) {
  return peer.Try(type::kWrite, WriteBody(aperture.name, offset, Word(value)));
}

bool Holds(uint8_t predicate, uint64_t word, uint64_t operand, uint64_t mask) {
  switch (predicate) {
    case kEqualTo:
      return word == operand;
    case kNotEqualTo:
      return word != operand;
    case kAtLeast:
      return word >= operand;
    case kMaskedEqual:
      return (word & mask) == operand;
    default:
      return true;
  }
}

void Predicates(Test& t) {
  t.nic.Require(kPredicates, "conditions on tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  constexpr uint64_t kTop = uint64_t{1} << 63;
  struct Case {
    uint8_t predicate;
    uint64_t operand, mask;
  };
  for (const Case& c :
       {Case{kEqualTo, 10, 0}, Case{kNotEqualTo, 10, 0}, Case{kAtLeast, 10, 0},
        Case{kAtLeast, kTop, 0}, Case{kMaskedEqual, 0x0a, 0x0f},
        Case{kMaskedEqual, kTop, kTop}, Case{kEqualTo, 0x0a00000000, 0}}) {
    WatchOptions options;
    options.predicate = c.predicate;
    options.operand = c.operand;
    options.mask = c.mask;
    const uint32_t watch = t.nic.Watch(t.context(), aperture, 64, 16, options);
    t.nic.Arm(watch);
    uint64_t wanted = 0;
    for (const uint64_t value :
         {uint64_t{10}, uint64_t{9}, uint64_t{11}, uint64_t{0}, uint64_t{26},
          kTop, kTop - 1, kTop + 10, uint64_t{0x0a00000000}, ~uint64_t{0}}) {
      t.CheckStatus(WriteWord(peer, aperture, 64, value), status::kOk, "M40",
                    "a write");
      wanted += Holds(c.predicate, value, c.operand, c.mask);
      const uint64_t count = t.nic.Count(watch);
      t.Need(
          count == wanted, "M40",
          absl::StrFormat("condition %u of %x: %u firings after %x; it should "
                          "be %u",
                          c.predicate, c.operand, count, value, wanted));
    }
    t.nic.Unwatch(watch);
  }
  // What a write in two frames leaves in the end is what counts.
  WatchOptions options;
  options.predicate = kEqualTo;
  options.operand = 5;
  const uint32_t watch = t.nic.Watch(t.context(), aperture, 64, 8, options);
  t.nic.Arm(watch);
  peer.Say(type::kWrite, WriteBody(aperture.name, 64, Word(5)), 0);
  peer.Say(type::kWrite, WriteBody(aperture.name, 64, Word(6)));
  t.Need(peer.Flush(), "M40", "the link does not go on");
  t.Equal(t.nic.Count(watch), 0, "M40",
          "firings by a write that passed the value and left another");
  peer.Say(type::kWrite, WriteBody(aperture.name, 64, Word(6)), 0);
  peer.Say(type::kWrite, WriteBody(aperture.name, 64, Word(5)));
  t.Need(peer.Flush(), "M40", "the link does not go on");
  t.Equal(t.nic.Count(watch), 1, "M40",
          "firings by a write that left the value in the end");
}

void Thresholds(Test& t) {
  t.nic.Require(kPredicates, "thresholds of tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  for (const uint64_t every : {1u, 2u, 3u, 10u}) {
    WatchOptions options;
    options.every = every;
    const uint32_t watch = t.nic.Watch(t.context(), aperture, 0, 8, options);
    t.nic.Arm(watch);
    for (uint64_t i = 1; i <= 21; ++i) {
      WriteWord(peer, aperture, 0, i);
      t.Need(t.nic.Count(watch) == i / every, "M41",
             absl::StrFormat("%u firings after %u accesses, of every %uth",
                             t.nic.Count(watch), i, every));
    }
    // Armed again, it counts anew.
    t.nic.Disarm(watch);
    t.nic.Arm(watch);
    const uint64_t before = t.nic.Count(watch);
    for (uint64_t i = 1; i < every; ++i) WriteWord(peer, aperture, 0, i);
    t.Equal(t.nic.Count(watch), before, "M41",
            absl::StrFormat("firings, armed again, of every %uth access, one "
                            "access before its turn",
                            every));
    WriteWord(peer, aperture, 0, 1);
    t.Equal(
        t.nic.Count(watch), before + 1, "M41",
        absl::StrFormat("firings, armed again, of every %uth access", every));
    t.nic.Unwatch(watch);
  }
}

void DisarmTells(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  for (const uint8_t mode : {kPersistent, kOneShot}) {
    WatchOptions options;
    options.mode = mode;
    const uint32_t watch = t.nic.Watch(t.context(), aperture, 0, 8, options);
    t.nic.Arm(watch);
    t.Check(!t.nic.Disarm(watch), "M42", "it says it had fired; nothing came");
    WriteWord(peer, aperture, 0, 1);
    t.Equal(t.nic.Count(watch), 0, "M42", "firings after disarm said no");
    t.nic.Arm(watch);
    WriteWord(peer, aperture, 0, 2);
    t.Check(t.nic.Disarm(watch), "M42", "it says it had not fired; it had");
    t.nic.Arm(watch);
    WriteWord(peer, aperture, 0, 3);
    t.nic.Events(t.context(), 64);
    t.Check(t.nic.Disarm(watch), "M42",
            "it says it had not fired, once its event was taken");
    t.nic.Arm(watch);
    t.Check(!t.nic.Disarm(watch), "M42",
            "it says it had fired; that was before it was armed");
    t.nic.Unwatch(watch);
  }
}

void Overlapping(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  struct Range {
    uint64_t offset, length;
  };
  std::vector<std::pair<Range, uint32_t>> watches;
  for (const Range& range :
       {Range{0, 4096}, Range{0, 8}, Range{0, 8}, Range{4, 8}, Range{8, 8},
        Range{0, 64}, Range{60, 8}, Range{63, 1}, Range{64, 64},
        Range{1, 4000}}) {
    const uint32_t id =
        t.nic.Watch(t.context(), aperture, range.offset, range.length);
    t.nic.Arm(id);
    watches.push_back({range, id});
  }
  std::vector<uint64_t> wanted(watches.size());
  for (const Range& probe : {Range{0, 1}, Range{7, 2}, Range{60, 8},
                             Range{62, 3}, Range{64, 1}, Range{4090, 6}}) {
    peer.Try(type::kWrite,
             WriteBody(aperture.name, probe.offset, Pattern(probe.length)));
    for (size_t i = 0; i < watches.size(); ++i) {
      const Range& r = watches[i].first;
      wanted[i] += probe.offset < r.offset + r.length &&
                   r.offset < probe.offset + probe.length;
      t.Equal(t.nic.Count(watches[i].second), wanted[i], "M43",
              absl::StrFormat("firings of a watch on %u at %u after %u at %u",
                              r.length, r.offset, probe.length, probe.offset));
    }
  }
}

void Counters(Test& t) {
  t.nic.Require(kActions, "actions of tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint32_t watch =
      t.nic.Chain(t.context(), aperture, 0, 8, kWriteRight, 1024, nullptr);
  t.nic.Arm(watch);
  for (uint64_t i = 1; i <= 20; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(i)));
    peer.Say(type::kWrite, WriteBody(aperture.name, 8, Word(i)));
  }
  t.Need(peer.Flush(), "M44", "the link does not go on");
  t.Equal(t.nic.PeekWord(aperture, 1024), 20, "M44", "a counter of 20 firings");
  t.Equal(t.nic.Count(watch), 20, "M44", "firings");
}

// Writes of the NIC to the peer, from `mark` on.
std::vector<const Heard*> Writes(const Peer& peer, size_t mark) {
  std::vector<const Heard*> found;
  for (size_t i = mark; i < peer.heard().size(); ++i) {
    const Heard& h = peer.heard()[i];
    if (h.packet.type == type::kWrite && !h.repeat) found.push_back(&h);
  }
  return found;
}

void Chained(Test& t) {
  t.nic.Require(kActions, "actions of tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  ChainTo chain;
  chain.link = t.LinkOf(peer);
  chain.name = Test::OurName();
  chain.offset = 4096;
  chain.sends_word = true;
  const uint32_t watch =
      t.nic.Chain(t.context(), aperture, 0, 8, kWriteRight, kNoCounter, &chain);
  t.nic.Arm(watch);
  const size_t mark = peer.mark();
  for (uint64_t i = 1; i <= 10; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(100 + i)));
  }
  t.Need(peer.Flush(), "M45", "the link does not go on");
  peer.Until([&] { return Writes(peer, mark).size() >= 10; });
  const auto writes = Writes(peer, mark);
  t.Equal(writes.size(), 10, "M45", "writes chained to ten firings");
  for (size_t i = 0; i < writes.size(); ++i) {
    const Packet& p = writes[i]->packet;
    t.Equal(p.U48(8), 4096, "M45", "where a chained write goes");
    t.Equal(p.U64(14), 101 + i, "M45",
            "the word of a chained write, as it was at its firing");
    t.Equal(p.flags >> flag::kHopsShift, 1, "W63",
            "the hops of a chained write");
  }
}

void Hops(Test& t) {
  t.nic.Require(kActions, "actions of tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  ChainTo chain;
  chain.link = t.LinkOf(peer);
  chain.name = Test::OurName();
  chain.data = Pattern(24, 3);
  const uint32_t watch =
      t.nic.Chain(t.context(), aperture, 0, 8, kWriteRight, kNoCounter, &chain);
  t.nic.Arm(watch);
  for (const int hops : {0, 1, 5, 13, 14}) {
    const size_t mark = peer.mark();
    peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(1)),
             static_cast<uint16_t>(flag::kLast | hops << flag::kHopsShift));
    const Heard* write = peer.Await(mark, type::kWrite, kAnswerNs);
    t.Need(write != nullptr, "M45", "a firing led to no write");
    t.Equal(write->packet.flags >> flag::kHopsShift, hops + 1, "W63",
            absl::StrFormat("the hops of a write after an access of %d", hops));
    t.Check(write->packet.payload == WriteBody(chain.name, 0, chain.data),
            "M45", "a chained write carries other bytes than were given");
  }
  const size_t mark = peer.mark();
  const uint64_t count = t.nic.Count(watch);
  peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(1)),
           static_cast<uint16_t>(flag::kLast | 15 << flag::kHopsShift));
  t.Need(peer.Flush(), "M46", "the link does not go on");
  t.wire.Run(kMillisecond);
  t.Check(Writes(peer, mark).empty(), "M46",
          "a write was chained to an access of 15 hops");
  t.Equal(t.nic.Count(watch), count + 1, "M46",
          "firings: the access counts, only its action does not happen");
  if (t.nic.Has(kCountsDrops)) {
    t.Check(t.nic.CounterValue(kChainsStopped) > 0, "M46",
            "an action that was not performed is not counted");
  }
  // What the program writes has no hops.
  const size_t own = peer.mark();
  t.nic.Write(t.context(), t.LinkOf(peer), Test::OurName(), 0, Word(1));
  const Heard* write = peer.Await(own, type::kWrite);
  t.Need(write != nullptr, "W30", "no write was sent");
  t.Equal(write->packet.flags >> flag::kHopsShift, 0, "W63",
          "the hops of a write of the program's own");
}

void NoHopsKnown(Test& t) {
  t.nic.Require(kActions, "actions of tripwires");
  Peer& peer = t.Open([](Peer& p) { p.offer_features = 1; });
  const Exported aperture = t.Export();
  ChainTo chain;
  chain.link = t.LinkOf(peer);
  chain.name = Test::OurName();
  chain.sends_word = true;
  const uint32_t watch =
      t.nic.Chain(t.context(), aperture, 0, 8, kWriteRight, kNoCounter, &chain);
  t.nic.Arm(watch);
  const size_t mark = peer.mark();
  peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  t.Need(peer.Flush(), "W64", "the link does not go on");
  t.wire.Run(kMillisecond);
  t.Check(Writes(peer, mark).empty(), "W64",
          "a chained write went to a peer that counts no hops");
  // And unordered writes are ordered for it.
  if (!t.nic.Has(kUnordered)) return;
  const uint32_t write =
      t.nic.Write(t.context(), t.LinkOf(peer), Test::OurName(), 0, Word(1),
                  kTracked | kUnorderedWrite);
  t.CheckStatus(t.nic.Await(write).status, status::kOk, "W62",
                "an unordered write to a peer that knows only ordered ones");
}

void Fences(Test& t) {
  t.nic.Require(kUnordered | kFences, "unordered writes and fences");
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W62", "the link carries no data");
  const uint32_t link = t.LinkOf(peer);
  const auto write = [&](uint64_t i) {
    return t.nic.Write(t.context(), link, Test::OurName(), 8 * i, Word(i),
                       kTracked | kUnorderedWrite);
  };
  peer.auto_acknowledge = false;
  const size_t mark = peer.mark();
  const uint32_t before = write(1);
  t.nic.Fence(t.context(), link);
  const uint32_t after = write(2);
  const Heard* second = peer.Await(
      mark,
      [](const Heard& h) {
        return h.packet.type == type::kWrite && h.packet.U48(8) == 16;
      },
      kAnswerNs / 4);
  if (second != nullptr) {  // it may also wait
    t.Check(
        !second->packet.has(flag::kUnordered), "W62",
        "an unordered write passes a fence: what is before is not complete");
  }
  peer.auto_acknowledge = true;
  peer.SayAck();
  t.CheckStatus(t.nic.Await(before).status, status::kOk, "M39", "a write");
  t.CheckStatus(t.nic.Await(after).status, status::kOk, "M39", "a write");
  const auto writes = Writes(peer, mark);
  t.Equal(writes.size(), 2, "M39", "writes");
  t.Check(writes[0]->packet.U48(8) == 8, "M39",
          "writes about a fence changed places");
}

void Pieces(Test& t) {
  t.nic.Require(kPieces, "operations in pieces");
  Peer& peer = t.Open();
  const uint32_t link = t.LinkOf(peer);
  for (const size_t n : {size_t{1}, size_t{50}, size_t{1436}, size_t{9000}}) {
    const Bytes data = Pattern(n, static_cast<uint8_t>(n));
    const size_t mark = peer.mark();
    const uint32_t write = t.nic.Write(t.context(), link, Test::OurName(), 64,
                                       data, kTracked | kInPieces);
    t.CheckStatus(t.nic.Await(write).status, status::kOk, "M36",
                  "a gathered write");
    Bytes got;
    uint64_t marked = 0;
    for (const Heard* h : Writes(peer, mark)) {
      t.Equal(h->packet.U48(8), 64 + got.size(), "M36",
              "where a frame of a gathered write begins");
      const auto bytes = h->packet.From(14);
      got.insert(got.end(), bytes.begin(), bytes.end());
      marked += h->packet.has(flag::kLast);
    }
    t.Check(got == data, "M36", "a gathered write carries other bytes");
    t.Equal(marked, 1, "M36", "operations of one gathered write");
    const size_t read_mark = peer.mark();
    const uint32_t read =
        t.nic.Read(t.context(), link, Test::OurName(), 0,
                   static_cast<uint32_t>(n), kTracked | kInPieces);
    const Heard* request = peer.Await(read_mark, type::kReadRequest);
    t.Need(request != nullptr, "W30", "no read request was sent");
    t.Equal(request->packet.U48(14), n, "M36",
            "the length of a scattered read");
    for (size_t at = 0; at < n; at += 1000) {
      const size_t piece = std::min<size_t>(1000, n - at);
      peer.Say(type::kReadResponse,
               Out()
                   .U32(static_cast<uint32_t>(request->sequence))
                   .U48(at)
                   .Add(std::span(data).subspan(at, piece)),
               at + piece == n ? flag::kLast : 0);
    }
    const OperationState state = t.nic.Await(read);
    t.CheckStatus(state.status, status::kOk, "M36", "a scattered read");
    t.Check(state.data == data, "M36", "a scattered read gives other bytes");
  }
}

void OnNothing(Test& t) {
  Peer& peer = t.Open();
  const uint32_t link = t.LinkOf(peer);
  const size_t mark = peer.mark();
  const uint32_t write =
      t.nic.Write(t.context(), link, Test::OurName(), 64, Bytes());
  t.CheckStatus(t.nic.Await(write).status, status::kOk, "M37",
                "a write of nothing");
  t.Equal(Writes(peer, mark).size(), 1, "M37", "frames of a write of nothing");
  const uint32_t read = t.nic.Read(t.context(), link, Test::OurName(), 64, 0);
  const Heard* request = peer.Await(mark, type::kReadRequest);
  t.Need(request != nullptr, "M37", "a read of nothing asks nobody");
  peer.Say(type::kReadResponse,
           Out().U32(static_cast<uint32_t>(request->sequence)).U48(0));
  t.CheckStatus(t.nic.Await(read).status, status::kOk, "M37",
                "a read of nothing");
  const Exported aperture = t.Export(64);
  const uint32_t watch = t.nic.Watch(t.context(), aperture, 0, 64);
  t.nic.Arm(watch);
  t.CheckStatus(peer.Try(type::kWrite, WriteBody(aperture.name, 8, {})),
                status::kOk, "M37", "a write of nothing");
  t.Equal(t.nic.Count(watch), 0, "M37", "firings by a write of nothing");
}

// Whether the responder says that the NIC refused it.
bool Refused(const std::function<void()>& command) {
  try {
    command();
    return false;
  } catch (const TestFailure&) {
    return true;
  }
}

void Quotas(Test& t) {
  t.nic.Require(kQuotas, "quotas");
  const uint32_t context =
      t.nic.NewLimitedContext(t.service() + "-limited", 3, 4);
  std::vector<Exported> apertures;
  for (int i = 0; i < 3; ++i) apertures.push_back(t.nic.Export(context, 64, 3));
  t.Check(Refused([&] { t.nic.Export(context, 64, 3); }), "M48",
          "a context exports more apertures than its quota");
  std::vector<uint32_t> watches;
  for (int i = 0; i < 4; ++i) {
    watches.push_back(t.nic.Watch(context, apertures[0], 0, 8));
  }
  t.Check(Refused([&] { t.nic.Watch(context, apertures[0], 0, 8); }), "M48",
          "a context makes more tripwires than its quota");
  t.nic.Unwatch(watches.back());
  t.Check(!Refused([&] { t.nic.Watch(context, apertures[0], 0, 8); }), "M48",
          "a tripwire that was removed still counts");
  t.nic.Revoke(apertures.back());
  t.Check(!Refused([&] { t.nic.Export(context, 64, 3); }), "M48",
          "an aperture that was revoked still counts");
  // Others are not concerned.
  t.Check(!Refused([&] { t.Export(64); }), "M48",
          "one context's quota holds for another");
  t.nic.EndContext(context);
}

void WaitsEnd(Test& t) {
  t.nic.Require(kOutbound, "out-bound tripwires");
  Peer& peer = t.Open();
  const uint32_t link = t.LinkOf(peer);
  const Exported aperture = t.Export();
  const uint32_t inbound = t.nic.Watch(t.context(), aperture, 0, 8);
  const uint32_t outbound =
      t.nic.WatchRemote(t.context(), link, Test::OurName(), 0, 8);
  t.nic.Arm(inbound);
  t.nic.Arm(outbound);
  t.Equal(t.nic.WaitAny({outbound, inbound}, {0, 0}), 255, "M47",
          "which of two has fired, when none has");
  WriteWord(peer, aperture, 0, 1);
  t.Equal(t.nic.WaitAny({outbound, inbound}, {0, 0}), 1, "M47",
          "which of two has fired");
  t.Equal(t.nic.WaitAny({outbound, inbound}, {0, 1}), 255, "M47",
          "which of two has fired again, when none has");
  peer.Reset();
  t.Need(t.AwaitEvent(kToldDown).has_value(), "M26", "the link is not lost");
  t.Equal(t.nic.WaitAny({outbound, inbound}, {0, 1}), 0, "M47",
          "which of two to look at, when the link of one is lost");
}

}  // namespace

std::vector<TestCase> ActionTests() {
  return {
      {"action.predicates", Tier::kFull, {"M40"}, Predicates},
      {"action.thresholds", Tier::kFull, {"M41"}, Thresholds},
      {"action.disarm-tells", Tier::kFull, {"M42"}, DisarmTells},
      {"action.overlapping", Tier::kFull, {"M43"}, Overlapping},
      {"action.counters", Tier::kFull, {"M44"}, Counters},
      {"action.chained", Tier::kFull, {"M45", "W63"}, Chained},
      {"action.hops", Tier::kFull, {"M46", "W63", "M45"}, Hops},
      {"action.no-hops-known", Tier::kFull, {"W64", "W62"}, NoHopsKnown},
      {"action.fences", Tier::kFull, {"W62", "M39"}, Fences},
      {"action.pieces", Tier::kFull, {"M36"}, Pieces},
      {"action.on-nothing", Tier::kFull, {"M37"}, OnNothing},
      {"action.quotas", Tier::kFull, {"M48"}, Quotas},
      {"action.waits-end", Tier::kFull, {"M47", "M26"}, WaitsEnd},
  };
}

}  // namespace tripwire::conform
