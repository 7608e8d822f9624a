// SPDX-License-Identifier: BSD-3-Clause
// Tripwires, in-bound and out-bound.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

WatchOptions Watching(uint8_t access, uint8_t mode = kPersistent) {
  WatchOptions options;
  options.access = access;
  options.mode = mode;
  return options;
}

// What the context's events say of one tripwire: how many, and their counts.
struct Told {
  uint64_t events = 0, count = 0;
};
Told Tell(Test& t, uint32_t watch) {
  Told told;
  for (const ToldOf& event : t.nic.Events(t.context(), 256)) {
    if (event.kind != kToldTripwire || event.cookie != watch) continue;
    ++told.events;
    told.count += event.count;
  }
  return told;
}

void Say(Test& t, Peer& peer, const Exported& aperture, uint64_t offset,
         uint64_t length) {
  t.CheckStatus(
      peer.Try(type::kWrite, WriteBody(aperture.name, offset, Pattern(length))),
      status::kOk, "M20", "a write");
}

// A link to the NIC, memory there, and a watch on 8 bytes of it, armed.
struct Watched {
  Peer& peer;
  Exported aperture;
  uint32_t watch;
};
Watched OpenAndWatch(Test& t, uint64_t offset) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint32_t watch = t.nic.Watch(t.context(), aperture, offset, 8);
  t.nic.Arm(watch);
  return {peer, aperture, watch};
}

// Watches of all kinds of ranges, and writes at and around both their ends.
void Ranges(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  struct Range {
    uint64_t offset, length;
  };
  const Range ranges[] = {{0, 1},     {64, 8},     {60, 8},   {128, 64},
                          {127, 66},  {256, 256},  {300, 1},  {512, 1024},
                          {1000, 24}, {2000, 100}, {4095, 1}, {0, 4096}};
  for (const Range& range : ranges) {
    // Alone, and among others of the same aperture.
    for (const int others : {0, 7}) {
      const Exported aperture = t.Export(4096);
      std::vector<uint32_t> more;
      for (int i = 0; i < others; ++i) {
        more.push_back(t.nic.Watch(t.context(), aperture, 3000 + 64u * i, 8));
      }
      const uint32_t watch =
          t.nic.Watch(t.context(), aperture, range.offset, range.length);
      t.nic.Arm(watch);
      const uint64_t end = range.offset + range.length;
      struct Probe {
        int64_t offset;
        uint64_t length;
      };
      const auto first = static_cast<int64_t>(range.offset);
      const auto past = static_cast<int64_t>(end);
      const Probe probes[] = {{first - 1, 1},
                              {first - 8, 8},
                              {first, 1},
                              {first - 1, 2},
                              {past - 1, 1},
                              {past, 1},
                              {past, 8},
                              {past - 1, 2},
                              {first - 64, 64},
                              {past, 64},
                              {first - 3, range.length + 6}};
      uint64_t wanted = 0;
      for (const Probe& probe : probes) {
        if (probe.offset < 0 || probe.length > 1400 ||
            probe.offset + static_cast<int64_t>(probe.length) > 4096) {
          continue;
        }
        const auto offset = static_cast<uint64_t>(probe.offset);
        Say(t, peer, aperture, offset, probe.length);
        wanted += offset < end && range.offset < offset + probe.length;
        const uint64_t count = t.nic.Count(watch);
        t.Need(count == wanted, "M20",
               absl::StrFormat("a watch on %u bytes at %u fired %u times; its "
                               "%uth is a write of %u at %u",
                               range.length, range.offset, count, wanted,
                               probe.length, offset));
      }
      t.nic.Revoke(aperture);
    }
  }
}

void Kinds(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint32_t writes =
      t.nic.Watch(t.context(), aperture, 0, 64, Watching(kWriteRight));
  const uint32_t reads =
      t.nic.Watch(t.context(), aperture, 0, 64, Watching(kReadRight));
  const uint32_t both = t.nic.Watch(t.context(), aperture, 0, 64,
                                    Watching(kWriteRight | kReadRight));
  const uint32_t unarmed =
      t.nic.Watch(t.context(), aperture, 0, 64, Watching(7));
  for (const uint32_t watch : {writes, reads, both}) t.nic.Arm(watch);
  Say(t, peer, aperture, 8, 8);
  Say(t, peer, aperture, 100, 8);
  Bytes data;
  t.CheckStatus(peer.Read(aperture.name, 0, 8, &data), status::kOk, "M20",
                "a read");
  t.CheckStatus(peer.Read(aperture.name, 56, 100, &data), status::kOk, "M20",
                "a read");
  t.CheckStatus(peer.Read(aperture.name, 64, 100, &data), status::kOk, "M20",
                "a read");
  t.Need(peer.Flush(), "M20", "the link does not go on");
  t.Equal(t.nic.Count(writes), 1, "M20", "writes counted");
  t.Equal(t.nic.Count(reads), 2, "M20", "reads counted");
  t.Equal(t.nic.Count(both), 3, "M20", "writes and reads counted");
  t.Equal(t.nic.Count(unarmed), 0, "M20", "firings of what was never armed");
  // A refused access touches nothing.
  peer.Try(type::kWrite, WriteBody(aperture.name, 4090, Pattern(8)));
  Name stale = aperture.name;
  ++stale.generation;
  peer.Try(type::kWrite, WriteBody(stale, 8, Pattern(8)));
  t.Equal(t.nic.Count(writes), 1, "M20", "writes counted after refused ones");
}

void Coalesced(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  t.nic.Events(t.context(), 256);
  const uint32_t a = t.nic.Watch(t.context(), aperture, 0, 8);
  const uint32_t b = t.nic.Watch(t.context(), aperture, 0, 64);
  t.nic.Arm(a);
  t.nic.Arm(b);
  uint64_t told_a = 0;
  for (const uint64_t burst : {1u, 2u, 37u, 200u}) {
    for (uint64_t i = 0; i < burst; ++i) {
      peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(i)));
    }
    t.Need(peer.Flush(), "M22", "the link does not go on");
    uint64_t events = 0;
    for (const ToldOf& event : t.nic.Events(t.context(), 256)) {
      if (event.kind != kToldTripwire) continue;
      ++events;
      t.Equal(event.count, burst, "M22", "the count of a coalesced event");
      if (event.cookie == a) told_a += event.count;
    }
    t.Equal(events, 2, "M22", "events for two tripwires that fired");
    t.Check(t.nic.Events(t.context(), 256).empty(), "M22",
            "an event told twice");
  }
  t.Equal(told_a, 240, "M22", "firings told in all");
  t.Equal(t.nic.Count(a), 240, "M22", "firings counted in all");
}

void OnceForEachAccess(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(8192);
  const uint32_t start = t.nic.Watch(t.context(), aperture, 0, 8);
  const uint32_t all = t.nic.Watch(t.context(), aperture, 0, 8192);
  const uint32_t end = t.nic.Watch(t.context(), aperture, 4092, 8);
  for (const uint32_t watch : {start, all, end}) t.nic.Arm(watch);
  // One write in four frames: nothing fires before the last of them.
  for (int i = 0; i < 4; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 1024u * i, Pattern(1024)),
             i == 3 ? flag::kLast : 0);
    if (i == 3) break;
    t.Need(t.nic.Alive(), "W39", "the NIC is not there");
    t.Check(t.nic.Count(start) == 0 && t.nic.Count(all) == 0, "M19",
            "a tripwire fired before the last frame of the write");
  }
  t.Need(peer.Flush(), "W39", "the link does not go on");
  t.Equal(t.nic.Count(start), 1, "W39", "firings: one write, its first frame");
  t.Equal(t.nic.Count(all), 1, "M21", "firings: one write, all its frames");
  t.Equal(t.nic.Count(end), 1, "W39", "firings: one write, its last frame");
  // A duplicate of a frame fires nothing.
  const Packet again =
      peer.Make(type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  peer.Say(type::kWrite, again.payload);
  peer.Send(again);
  t.Need(peer.Flush(), "M21", "the link does not go on");
  peer.Send(again);
  t.Need(peer.Flush(), "M21", "the link does not go on");
  t.Equal(t.nic.Count(start), 2, "M21",
          "firings after a write that came thrice");
  // A long read counts once as well.
  const uint32_t read =
      t.nic.Watch(t.context(), aperture, 0, 8192, Watching(kReadRight));
  t.nic.Arm(read);
  t.CheckStatus(peer.Read(aperture.name, 0, 8192, nullptr), status::kOk, "M21",
                "a long read");
  t.Equal(t.nic.Count(read), 1, "M21", "firings by one read in many frames");
}

void AfterTheData(Test& t) {
  const auto [peer, aperture, watch] = OpenAndWatch(t, 8);
  const uint64_t first = peer.next();
  peer.SayAt(first + 1, type::kWrite, WriteBody(aperture.name, 8, Word(2)));
  t.Need(t.nic.Alive(), "M19", "the NIC is not there");
  t.Equal(t.nic.Count(watch), 0, "M19",
          "firings by a write whose predecessor is missing");
  peer.SayAt(first, type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  peer.set_next(first + 2);
  uint64_t count = 0;
  const uint64_t end_ns = t.wire.NowNs() + kAnswerNs;
  while (count == 0 && t.wire.NowNs() < end_ns) count = t.nic.Count(watch);
  t.Equal(count, 1, "M19", "firings when the gap is filled");
  t.Equal(t.nic.PeekWord(aperture, 8), 2, "M19",
          "the watched word when it fired");
  t.Equal(t.nic.PeekWord(aperture, 0), 1, "M19",
          "the word written before it when it fired");
  t.Check(t.nic.Events(t.context(), 64).size() == 1, "M19", "its event");
}

// Flag 0010: placed early perhaps, but trips in its turn.
void Unordered(Test& t) {
  const auto [peer, aperture, watch] = OpenAndWatch(t, 8);
  const uint64_t first = peer.next();
  const uint16_t flags = flag::kLast | flag::kUnordered;
  peer.SayAt(first + 1, type::kWrite, WriteBody(aperture.name, 8, Word(2)),
             flags);
  peer.SayAt(first + 2, type::kWrite, WriteBody(aperture.name, 5000, Word(2)),
             flags);
  t.Need(t.nic.Alive(), "W59", "the NIC is not there");
  t.Equal(t.nic.Count(watch), 0, "W59",
          "firings by an unordered write before its turn");
  t.Check(peer.nic_acknowledged() <= first, "W59",
          "an unordered write was acknowledged before its turn");
  t.Check(peer.StatusOf(first + 2) == status::kOk, "W59",
          "an unordered write was refused before its turn");
  peer.SayAt(first, type::kWrite, WriteBody(aperture.name, 0, Word(1)), flags);
  peer.set_next(first + 3);
  t.Need(peer.Flush(), "W59", "the link does not go on");
  t.Equal(t.nic.Count(watch), 1, "W59", "firings by an unordered write");
  t.Equal(t.nic.PeekWord(aperture, 8), 2, "W59", "the word it wrote");
  t.CheckStatus(peer.StatusOf(first + 2), status::kOutOfBounds, "W59",
                "an unordered write out of bounds");
}

// In many frames, the last of them first: told of once, and then whole.
void UnorderedBulk(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(16384);
  const uint32_t watch = t.nic.Watch(t.context(), aperture, 0, 16384);
  t.nic.Arm(watch);
  const Bytes data = Pattern(8000, 6);
  const uint64_t first = peer.next();
  const auto say = [&](uint64_t i) {
    peer.SayAt(first + i, type::kWrite,
               WriteBody(aperture.name, 1000 * i,
                         std::span(data).subspan(1000 * i, 1000)),
               i == 7 ? flag::kLast | flag::kUnordered : flag::kUnordered);
  };
  for (uint64_t i = 7; i >= 1; --i) {
    say(i);
    if (i % 2 == 0) say(i);
    t.Need(t.nic.Alive(), "M49", "the NIC is not there");
    t.Equal(t.nic.Count(watch), 0, "M49",
            "firings by an unordered write of which a frame is missing");
  }
  say(0);
  peer.set_next(first + 8);
  t.Need(peer.Flush(), "M49", "the link does not go on");
  t.Equal(t.nic.Count(watch), 1, "M49", "firings by an unordered write");
  t.Check(
      t.nic.Peek(aperture, 0, 8000) == data, "M49",
      "an unordered write is not there whole when a flush after it is done");
}

void OneShot(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint32_t watch =
      t.nic.Watch(t.context(), aperture, 0, 8, Watching(kWriteRight, kOneShot));
  for (uint64_t round = 1; round <= 3; ++round) {
    t.nic.Arm(watch);
    for (int i = 0; i < 5; ++i) {
      peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(i)));
    }
    t.Need(peer.Flush(), "M23", "the link does not go on");
    t.Equal(t.nic.Count(watch), round, "M23",
            "firings of a one-shot tripwire, armed so often");
    const Told told = Tell(t, watch);
    t.Check(told.events == 1 && told.count == 1, "M23",
            absl::StrFormat("%u events of %u firings of a one-shot tripwire",
                            told.events, told.count));
  }
}

void ArmExpected(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint32_t watch = t.nic.Watch(t.context(), aperture, 64, 8,
                                     Watching(kWriteRight, kOneShot));
  t.nic.Poke(aperture, 64, Word(5));
  t.Check(t.nic.ArmExpected(watch, 5), "M24",
          "not armed although the word holds what was expected");
  t.CheckStatus(peer.Try(type::kWrite, WriteBody(aperture.name, 64, Word(6))),
                status::kOk, "M24", "a write");
  t.Equal(t.nic.Count(watch), 1, "M24", "firings of what was armed");
  t.Check(!t.nic.ArmExpected(watch, 5), "M24",
          "armed although the word has changed");
  Say(t, peer, aperture, 64, 8);
  t.Equal(t.nic.Count(watch), 1, "M24", "firings of what was not armed");
  // Each byte of the word counts.
  for (int byte = 0; byte < 8; ++byte) {
    t.nic.Poke(aperture, 64, Word(uint64_t{1} << 8 * byte));
    t.Check(!t.nic.ArmExpected(watch, 0), "M24",
            absl::StrFormat("armed although byte %d has changed", byte));
    t.Check(t.nic.ArmExpected(watch, uint64_t{1} << 8 * byte), "M24",
            "not armed although the word holds what was expected");
    t.nic.Disarm(watch);
  }
}

void Disarm(Test& t) {
  const auto [peer, aperture, watch] = OpenAndWatch(t, 0);
  t.Check(!t.nic.Disarm(watch), "M20", "disarm says it fired; nothing came");
  Say(t, peer, aperture, 0, 8);
  t.Equal(t.nic.Count(watch), 0, "M20", "firings of what was disarmed");
  t.Check(Tell(t, watch).events == 0, "M20", "an event of what was disarmed");
  t.nic.Arm(watch);
  Say(t, peer, aperture, 0, 8);
  t.Check(t.nic.Disarm(watch), "M20", "disarm says it never fired; it had");
  const Told told = Tell(t, watch);
  t.Check(told.events == 1 && told.count == 1, "M20",
          "what had fired before it was disarmed is not told");
}

void Removed(Test& t) {
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  t.nic.Events(t.context(), 256);
  // Fired, not yet told, and removed: nothing is told.
  const uint32_t watch = t.nic.Watch(t.context(), aperture, 0, 8);
  t.nic.Arm(watch);
  Say(t, peer, aperture, 0, 8);
  t.nic.Unwatch(watch);
  const uint32_t next = t.nic.Watch(t.context(), aperture, 512, 8);
  t.nic.Arm(next);
  for (const ToldOf& event : t.nic.Events(t.context(), 256)) {
    t.Check(event.kind != kToldTripwire, "M25",
            "a removed tripwire, or its successor, told something");
  }
  // Touched by the first frame of a write, and replaced before the last.
  const uint32_t touched = t.nic.Watch(t.context(), aperture, 0, 8);
  t.nic.Arm(touched);
  peer.Say(type::kWrite, WriteBody(aperture.name, 0, Pattern(64)), 0);
  t.Need(t.nic.Alive(), "M25", "the NIC is not there");
  t.nic.Unwatch(touched);
  const uint32_t successor = t.nic.Watch(t.context(), aperture, 1024, 8);
  t.nic.Arm(successor);
  peer.Say(type::kWrite, WriteBody(aperture.name, 64, Pattern(64)));
  t.Need(peer.Flush(), "M25", "the link does not go on");
  t.Equal(t.nic.Count(successor), 0, "M25",
          "firings of a tripwire in the place of a removed one");
  for (const ToldOf& event : t.nic.Events(t.context(), 256)) {
    t.Check(event.kind != kToldTripwire, "M25",
            "a removed tripwire told something");
  }
}

void Outbound(Test& t) {
  t.nic.Require(kOutbound, "out-bound tripwires");
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "M19", "the link carries no data");
  const uint32_t link = t.LinkOf(peer);
  const Name ours = Test::OurName();
  const uint32_t watch = t.nic.WatchRemote(t.context(), link, ours, 64, 64,
                                           Watching(kWriteRight | kReadRight));
  t.nic.Arm(watch);
  peer.auto_acknowledge = false;
  const uint32_t inside = t.nic.Write(t.context(), link, ours, 64, Word(1));
  const uint32_t outside = t.nic.Write(t.context(), link, ours, 128, Word(2));
  t.Need(peer.Await(0,
                    [](const Heard& h) {
                      return h.packet.type == type::kWrite &&
                             h.packet.U48(8) == 128;
                    }) != nullptr,
         "W30", "no write was sent");
  t.Equal(t.nic.Count(watch), 0, "M19",
          "out-bound firings by a write that is not acknowledged");
  peer.auto_acknowledge = true;
  peer.SayAck();
  t.CheckStatus(t.nic.Await(inside).status, status::kOk, "M15", "a write");
  t.CheckStatus(t.nic.Await(outside).status, status::kOk, "M15", "a write");
  t.Equal(t.nic.Count(watch), 1, "M20",
          "out-bound firings by two writes, one inside");
  const size_t mark = peer.mark();
  const uint32_t read = t.nic.Read(t.context(), link, ours, 100, 8);
  const Heard* request = peer.Await(mark, type::kReadRequest);
  t.Need(request != nullptr, "W30", "no read request was sent");
  t.Equal(t.nic.Count(watch), 1, "M19",
          "out-bound firings by a read not answered");
  peer.Say(type::kReadResponse,
           Out().U32(static_cast<uint32_t>(request->sequence)).U48(0).U64(9));
  t.CheckStatus(t.nic.Await(read).status, status::kOk, "M15", "a read");
  t.Equal(t.nic.Count(watch), 2, "M20", "out-bound firings by a read answered");
  // Refused, it was no access.
  peer.auto_acknowledge = false;
  const size_t before = peer.mark();
  const uint32_t refused = t.nic.Write(t.context(), link, ours, 64, Word(1));
  const Heard* write = peer.Await(before, type::kWrite);
  t.Need(write != nullptr, "W30", "no write was sent");
  peer.Say(type::kError, Out()
                             .U32(static_cast<uint32_t>(write->sequence))
                             .U8(status::kNoRights)
                             .Add(Bytes(3)));
  peer.auto_acknowledge = true;
  peer.SayAck();
  t.CheckStatus(t.nic.Await(refused).status, status::kNoRights, "M16",
                "a write");
  t.Equal(t.nic.Count(watch), 2, "M20", "out-bound firings by a refused write");
}

}  // namespace

std::vector<TestCase> TripwireTests() {
  return {
      {"tripwire.ranges", Tier::kFunctional, {"M20"}, Ranges},
      {"tripwire.kinds", Tier::kFunctional, {"M20"}, Kinds},
      {"tripwire.coalesced", Tier::kFunctional, {"M22"}, Coalesced},
      {"tripwire.once-for-each-access",
       Tier::kFunctional,
       {"M21", "W39", "M19"},
       OnceForEachAccess},
      {"tripwire.after-the-data", Tier::kFunctional, {"M19"}, AfterTheData},
      {"tripwire.unordered", Tier::kFull, {"W59"}, Unordered},
      {"tripwire.unordered-bulk", Tier::kFull, {"M49", "W59"}, UnorderedBulk},
      {"tripwire.one-shot", Tier::kFunctional, {"M23"}, OneShot},
      {"tripwire.arm-expected", Tier::kFunctional, {"M24"}, ArmExpected},
      {"tripwire.disarm", Tier::kFunctional, {"M20"}, Disarm},
      {"tripwire.removed", Tier::kFunctional, {"M25"}, Removed},
      {"tripwire.out-bound",
       Tier::kFunctional,
       {"M19", "M20", "M15"},
       Outbound},
  };
}

}  // namespace tripwire::conform
