// SPDX-License-Identifier: BSD-3-Clause
// Our writes and reads of the NIC's apertures: names, rights, bounds, order,
// revocation.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

constexpr uint64_t kTop48 = (uint64_t{1} << 48) - 1;

// A write and a read, which must both end like this.
void BothEnd(Test& t, Peer& peer, const Name& name, uint64_t offset,
             uint64_t length, uint8_t wanted, const char* statement,
             const std::string& what) {
  const uint8_t wrote =
      peer.Try(type::kWrite, WriteBody(name, offset, Pattern(length, 5)));
  t.CheckStatus(wrote, wanted, statement, "a write " + what);
  const uint8_t read = peer.Read(name, offset, length, nullptr);
  t.CheckStatus(read, wanted, wanted == status::kOk ? "W42" : "W41",
                "a read " + what);
}

void Bounds(Test& t) {
  Peer& peer = t.Open();
  const Exported before = t.Export(64), aperture = t.Export(4096),
                 after = t.Export(64);
  struct Place {
    uint64_t offset, length;
    bool inside;
  };
  for (const Place& place :
       {Place{0, 1, true}, Place{0, 64, true}, Place{4095, 1, true},
        Place{4088, 8, true}, Place{4032, 64, true}, Place{4096, 1, false},
        Place{4095, 2, false}, Place{4089, 8, false}, Place{4033, 64, false},
        Place{4097, 1, false}, Place{5000, 8, false}, Place{kTop48, 8, false},
        Place{kTop48 - 7, 8, false}, Place{uint64_t{1} << 47, 8, false},
        Place{uint64_t{1} << 32, 8, false}}) {
    const std::string what = absl::StrFormat("of %u bytes at %u of 4096",
                                             place.length, place.offset);
    BothEnd(t, peer, aperture.name, place.offset, place.length,
            place.inside ? status::kOk : status::kOutOfBounds, "M1", what);
  }
  t.Check(t.nic.Peek(before, 0, 64) == Bytes(64) &&
              t.nic.Peek(after, 0, 64) == Bytes(64),
          "M3", "a write beyond an aperture reached its neighbour");
}

// Lengths of reads for which offset + length passes 2^48, and would pass 2^64
// were they wider.
void BoundsWrap(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096);
  for (const auto& [offset, length] : {std::pair<uint64_t, uint64_t>{8, kTop48},
                                       {8, kTop48 - 7},
                                       {kTop48, kTop48},
                                       {kTop48 - 8, 16},
                                       {1, kTop48},
                                       {0, 4097},
                                       {4096, kTop48}}) {
    t.CheckStatus(peer.Read(aperture.name, offset, length, nullptr),
                  status::kOutOfBounds, "M2",
                  absl::StrFormat("a read of %u bytes at %u", length, offset));
  }
  t.CheckStatus(
      peer.Try(type::kWrite, WriteBody(aperture.name, kTop48 - 3, Pattern(8))),
      status::kOutOfBounds, "M2", "a write whose end wraps");
  t.Check(t.nic.Peek(aperture, 0, 4096) == Bytes(4096), "M2",
          "a write that wraps reached memory");
}

void Names(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  Name name = aperture.name;
  name.handle += 1000;
  BothEnd(t, peer, name, 0, 8, status::kBadHandle, "W36",
          "with no such handle");
  name.handle = 0xffffffff;
  BothEnd(t, peer, name, 0, 8, status::kBadHandle, "W36",
          "with no such handle");
  for (const uint32_t delta : {1u, 0xffffffffu, 0x10000u}) {
    name = aperture.name;
    name.generation += delta;
    BothEnd(t, peer, name, 0, 8, status::kStale, "M1",
            "with another generation");
  }
  t.Check(t.nic.Peek(aperture, 0, 8) == Bytes(8), "M3",
          "a refused write reached memory");
  // A handle of another context is none of ours.
  const std::string other_service = t.service() + "-other";
  const uint32_t other = t.nic.NewContext(other_service);
  Exported foreign;
  for (int i = 0; i < 4; ++i) foreign = t.nic.Export(other, 4096, 3);
  const uint8_t got =
      peer.Try(type::kWrite, WriteBody(foreign.name, 0, Pattern(8)));
  t.Check(got == status::kBadHandle || got == status::kStale, "M1",
          absl::StrCat("a write to an aperture of another context: ",
                       StatusName(got)));
  t.Check(t.nic.Peek(foreign, 0, 8) == Bytes(8), "M1",
          "a write reached an aperture of another context");
  t.nic.EndContext(other);
}

void Rights(Test& t) {
  Peer& peer = t.Open();
  Peer& stranger = t.Open();
  const Exported read_only = t.Export(4096, kReadRight);
  const Exported write_only = t.Export(4096, kWriteRight);
  const Exported nothing = t.Export(4096, 0);
  const Bytes body = Pattern(8, 5);
  const auto write = [&](Peer& from, const Exported& to, uint8_t wanted,
                         const char* statement, const char* what) {
    t.CheckStatus(from.Try(type::kWrite, WriteBody(to.name, 0, body)), wanted,
                  statement, absl::StrCat("a write to ", what));
    t.Check((t.nic.Peek(to, 0, 8) == body) == (wanted == status::kOk), "M3",
            absl::StrCat("memory after a write to ", what));
  };
  const auto read = [&](Peer& from, const Exported& to, uint8_t wanted,
                        const char* statement, const char* what) {
    t.CheckStatus(from.Read(to.name, 0, 8, nullptr), wanted, statement,
                  absl::StrCat("a read of ", what));
  };
  write(peer, read_only, status::kNoRights, "M1", "what may only be read");
  read(peer, read_only, status::kOk, "M1", "what may only be read");
  write(peer, write_only, status::kOk, "M1", "what may only be written");
  read(peer, write_only, status::kNoRights, "W41", "what may only be written");
  write(peer, nothing, status::kNoRights, "M1", "what is granted to nobody");
  read(peer, nothing, status::kNoRights, "M1", "what is granted to nobody");
  const Exported granted = t.Export(4096, 3, t.LinkOf(peer));
  write(peer, granted, status::kOk, "M7", "what is granted to this link");
  read(peer, granted, status::kOk, "M7", "what is granted to this link");
  const Exported private_one = t.Export(4096, 3, t.LinkOf(peer));
  write(stranger, private_one, status::kNoRights, "M7",
        "what is granted to another link");
  read(stranger, private_one, status::kNoRights, "M7",
       "what is granted to another link");
}

// Handle, then generation, then rights, then bounds: the first that fails
// tells.
void OrderOfChecks(Test& t) {
  Peer& peer = t.Open();
  const Exported locked = t.Export(4096, 0);
  Name name = locked.name;
  BothEnd(t, peer, name, 5000, 8, status::kNoRights, "W36",
          "without rights and out of bounds");
  name.generation += 1;
  BothEnd(t, peer, name, 5000, 8, status::kStale, "W36",
          "of another generation, without rights and out of bounds");
  name.handle += 5000;
  BothEnd(t, peer, name, 5000, 8, status::kBadHandle, "W36",
          "with everything wrong");
}

void RefusalsAreCounted(Test& t) {
  t.nic.Require(kCountsDrops, "counters");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(64, kReadRight);
  const Exported writable = t.Export(64);
  Name bad_handle = aperture.name, stale = aperture.name;
  bad_handle.handle += 1000;
  stale.generation += 1;
  struct Case {
    uint8_t counter;
    Name name;
    uint64_t offset;
  };
  for (const Case& c :
       {Case{kRefusedHandle, bad_handle, 0}, Case{kRefusedGeneration, stale, 0},
        Case{kRefusedRights, aperture.name, 0},
        Case{kRefusedBounds, writable.name, 60}}) {
    const uint64_t before = t.nic.CounterValue(c.counter);
    peer.Try(type::kWrite, WriteBody(c.name, c.offset, Pattern(8)));
    t.Equal(t.nic.CounterValue(c.counter), before + 1, "M3",
            absl::StrCat("counter ", c.counter, " of refusals"));
  }
}

void NothingAtAll(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export(64);
  const uint32_t watch = t.nic.Watch(t.context(), aperture, 0, 64);
  t.nic.Arm(watch);
  for (const uint64_t offset : {0u, 32u, 64u}) {
    t.CheckStatus(peer.Try(type::kWrite, WriteBody(aperture.name, offset, {})),
                  status::kOk, "W40",
                  absl::StrCat("a write of nothing at ", offset, " of 64"));
    Bytes data;
    t.CheckStatus(peer.Read(aperture.name, offset, 0, &data), status::kOk,
                  "W42",
                  absl::StrCat("a read of nothing at ", offset, " of 64"));
  }
  t.CheckStatus(peer.Try(type::kWrite, WriteBody(aperture.name, 65, {})),
                status::kOutOfBounds, "W40", "a write of nothing at 65 of 64");
  Name stale = aperture.name;
  stale.generation += 1;
  t.CheckStatus(peer.Try(type::kWrite, WriteBody(stale, 0, {})), status::kStale,
                "W40", "a write of nothing to a stale name");
  t.Equal(t.nic.Count(watch), 0, "W40", "firings by writes of nothing");
}

void Sizes(Test& t) {
  Peer& peer = t.Open();
  constexpr uint64_t kSize = 40000;
  const Exported aperture = t.Export(kSize, 3, kAnyLink);
  Bytes model(kSize);
  uint8_t seed = 1;
  for (const uint64_t length :
       {1u,   2u,   3u,    7u,    8u,    9u,    63u,   64u,   65u,   511u,
        512u, 513u, 1000u, 1436u, 1458u, 1459u, 1500u, 4096u, 9000u, 40000u}) {
    for (const uint64_t place : {0u, 1u, 60u, 4090u}) {
      if (place + length > kSize) continue;
      const Bytes data = Pattern(length, ++seed);
      t.CheckStatus(
          peer.Write(aperture.name, place, data), status::kOk, "M9",
          absl::StrFormat("a write of %u bytes at %u", length, place));
      std::copy(data.begin(), data.end(),
                model.begin() + static_cast<ptrdiff_t>(place));
      Bytes read;
      t.CheckStatus(peer.Read(aperture.name, place, length, &read), status::kOk,
                    "M13", "a read");
      t.Check(read == data, "M13",
              absl::StrFormat("a read of %u bytes at %u gives other bytes than "
                              "were written before it",
                              length, place));
    }
  }
  Bytes all;
  t.CheckStatus(peer.Read(aperture.name, 0, kSize, &all), status::kOk, "M9",
                "a read of all");
  t.Check(all == model, "M9", "memory differs from what was written");
  t.Check(t.nic.Peek(aperture, 0, kSize) == model, "M9",
          "memory, as its owner sees it, differs from what was written");
}

// Frames of one operation are each checked by themselves; it is refused once.
void RefusedOnce(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096);
  const uint64_t first = peer.next();
  peer.Say(type::kWrite, WriteBody(aperture.name, 4000, Pattern(64)), 0);
  for (int i = 1; i < 6; ++i) {
    peer.Say(type::kWrite,
             WriteBody(aperture.name, 4064 + 64u * i, Pattern(64)),
             i == 5 ? flag::kLast : 0);
  }
  t.Need(peer.Flush(), "W51", "the link does not go on");
  int refusals = 0;
  for (uint64_t s = first; s < first + 6; ++s) {
    refusals += peer.StatusOf(s) == status::kOutOfBounds;
  }
  t.Equal(refusals, 1, "W51", "refusals of one operation");
  t.Check(t.nic.Peek(aperture, 4000, 64) == Pattern(64), "W36",
          "the frame of the operation that is in bounds was not placed");
  // And the next operation is judged anew.
  t.CheckStatus(
      peer.Try(type::kWrite, WriteBody(aperture.name, 4090, Pattern(8))),
      status::kOutOfBounds, "W51", "the operation after a refused one");
  t.CheckStatus(peer.Try(type::kWrite, WriteBody(aperture.name, 0, Pattern(8))),
                status::kOk, "W51", "a good operation after a refused one");
}

void Revocation(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t first = peer.next();
  // Two frames wait at the NIC for the one before them, and for revocation.
  peer.SayAt(first + 1, type::kWrite, WriteBody(aperture.name, 0, Pattern(8)));
  peer.SayAt(first + 2, type::kReadRequest, ReadBody(aperture.name, 0, 8));
  t.Need(t.nic.Alive(), "M5", "the NIC is not there");
  t.nic.Revoke(aperture);
  peer.SayAt(first, type::kWrite, WriteBody(aperture.name, 8, Pattern(8)));
  peer.set_next(first + 3);
  t.Need(peer.Flush(), "M5", "the link does not go on");
  t.Check(t.nic.Peek(aperture, 0, 64) == Bytes(64), "M5",
          "a frame that came before the revocation, and was due after it, "
          "reached memory");
  for (uint64_t s = first; s < first + 3; ++s) {
    t.CheckStatus(peer.StatusOf(s), status::kStale, "M5",
                  "an access to a revoked aperture");
  }
  // Its place in the table is used again; the old name is not.
  std::set<std::pair<uint32_t, uint32_t>> names{
      {aperture.name.handle, aperture.name.generation}};
  for (int i = 0; i < 8; ++i) {
    const Exported next = t.Export();
    t.Check(names.insert({next.name.handle, next.name.generation}).second, "M4",
            "the name of a revoked aperture came to mean another");
    t.CheckStatus(
        peer.Try(type::kWrite, WriteBody(aperture.name, 0, Pattern(8))),
        status::kStale, "M4", "a write with the old name");
    t.Check(t.nic.Peek(next, 0, 8) == Bytes(8), "M4",
            "a write with an old name reached a new aperture");
    t.nic.Revoke(next);
  }
}

// A long read whose aperture goes away in the middle.
void RevokedWhileRead(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export(60000);
  t.Need(peer.Flush(), "W43", "the link carries no data");
  peer.reads_fail_late = true;
  peer.credit = 4;
  peer.auto_acknowledge = false;
  peer.SayAck();
  const uint64_t read =
      peer.Say(type::kReadRequest, ReadBody(aperture.name, 0, 60000));
  t.Need(peer.Await(0, type::kReadResponse) != nullptr, "W42", "no answer");
  t.wire.Run(t.Within(0) / 10 + kMillisecond);
  t.nic.Revoke(aperture);
  t.nic.Poke(aperture, 0, Pattern(60000, 9));
  peer.credit = kWindow;
  peer.auto_acknowledge = true;
  peer.SayAck();
  const auto ended = [&] {
    return peer.ReadDone(read) || peer.StatusOf(read) != status::kOk;
  };
  t.Need(peer.Until(ended), "W43",
         "a read under way when it was revoked never ends");
  t.CheckStatus(peer.StatusOf(read), status::kStale, "W43",
                "a read under way when its aperture was revoked");
  const Bytes& data = peer.ReadData(read);
  t.Check(data == Bytes(data.size()), "W43",
          "what its owner wrote after the revocation was read");
}

void EndOfContext(Test& t) {
  const std::string service = t.service() + "-short-lived";
  const uint32_t context = t.nic.NewContext(service);
  const Exported aperture = t.nic.Export(context, 4096, 3);
  Peer& peer = t.NewPeer();
  peer.SendConnect(service, "x");
  std::optional<ToldOf> request;
  const uint64_t end_ns = t.wire.NowNs() + kAnswerNs;
  while (!request && t.wire.NowNs() < end_ns) {
    for (ToldOf& event : t.nic.Events(context, 1)) {
      if (event.kind == kToldRequest) request = event;
    }
  }
  t.Need(request.has_value(), "W74", "no request");
  t.nic.Accept(context, request->link);
  const auto accept = peer.AwaitAnswer();
  t.Need(accept && peer.TakeAccept(*accept), "W74", "no accept");
  t.CheckStatus(peer.Try(type::kWrite, WriteBody(aperture.name, 0, Pattern(8))),
                status::kOk, "M6", "a write");
  t.nic.EndContext(context);
  t.wire.control().clear();
  peer.Say(type::kWrite, WriteBody(aperture.name, 0, Pattern(8, 7)));
  const auto reset =
      t.wire.TakeControl([](const Packet& p) { return p.type == type::kReset; },
                         t.Within(50 * kMillisecond));
  t.Check(peer.closed_by_nic() || reset.has_value(), "M6",
          "the links of an ended context live on");
  peer.Forget();
}

// Reads in all sizes are answered in order and the last frame alone is marked;
// the peer checks the rest of W42.
void LongReads(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export(65536);
  t.nic.Poke(aperture, 0, Pattern(60000, 4));
  const Bytes model = Pattern(60000, 4);
  for (const uint64_t length : {0u, 1u, 1400u, 1462u, 1463u, 5000u, 59990u}) {
    const size_t mark = peer.mark();
    Bytes data;
    t.CheckStatus(peer.Read(aperture.name, 10, length, &data), status::kOk,
                  "W42", absl::StrFormat("a read of %u bytes", length));
    t.Check(std::equal(data.begin(), data.end(), model.begin() + 10) &&
                data.size() == length,
            "W42", absl::StrFormat("the bytes of a read of %u", length));
    const size_t marked = peer.Count(mark, [](const Heard& h) {
      return h.packet.type == type::kReadResponse && !h.repeat &&
             h.packet.has(flag::kLast);
    });
    t.Equal(marked, 1, "W42", "frames of an answer marked as its last");
  }
}

// What a look at memory may see of the i-th write.
Bytes LookedAt(uint8_t kind, uint64_t i) {
  if (kind == kWholeWords) return Word((i & 1) != 0 ? ~uint64_t{0} : 0);
  Bytes data;  // its first word and its last say the same
  for (int k = 0; k < 161; ++k) {
    const Bytes word = Word(i);
    data.insert(data.end(), word.begin(), word.end());
  }
  return data;
}

// A word is whole, and the last of a frame comes last, to whoever looks at
// memory meanwhile. Goes on until somebody has really looked.
void WhileLookedAt(Test& t, uint8_t kind, const char* statement) {
  t.nic.Require(kObserver, "observer of memory");
  constexpr uint64_t kEnoughChanges = 4'000, kFewChanges = 400;
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096);
  const uint32_t observer = kind == kWholeWords
                                ? t.nic.Observe(aperture, kind, 8, 8)
                                : t.nic.Observe(aperture, kind, 1280, 0);
  Observed seen;
  uint64_t i = 0;
  for (int round = 0;
       round < 1000 && seen.changes < kEnoughChanges && seen.violations == 0;
       ++round) {
    for (int n = 0; n < 200; ++n) {
      ++i;
      peer.Say(type::kWrite,
               WriteBody(aperture.name, kind == kWholeWords ? 8 : 0,
                         LookedAt(kind, i)));
    }
    t.Need(peer.Flush(), statement, "writes are not taken");
    seen = t.nic.EndObserve(observer, /*go_on=*/true);
  }
  seen = t.nic.EndObserve(observer);
  t.Check(
      seen.violations == 0, statement,
      absl::StrFormat(
          "%u of %u looks at words that a peer wrote saw them %s",
          seen.violations, seen.looks,
          kind == kWholeWords ? "half written" : "before what they follow"));
  if (seen.violations == 0 && seen.changes < kFewChanges) {
    t.Skip(
        absl::StrFormat("the observer hardly ran: it saw %u changes in %u "
                        "looks, too few to judge",
                        seen.changes, seen.looks));
  }
}

void WholeWords(Test& t) { WhileLookedAt(t, kWholeWords, "M10"); }
void LastWordLast(Test& t) { WhileLookedAt(t, kInOrder, "M11"); }

void PointerAfterData(Test& t) {
  t.nic.Require(kObserver, "observer of memory");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096);
  const uint32_t observer = t.nic.Observe(aperture, kInOrder, 2048, 0);
  for (uint64_t i = 1; i <= 2000; ++i) {
    const uint64_t s = peer.next();
    const Bytes data = WriteBody(aperture.name, 0, Word(i));
    const Bytes pointer = WriteBody(aperture.name, 2048, Word(i));
    peer.SayAt(s + 1, type::kWrite, pointer);  // overtakes on the wire
    peer.SayAt(s, type::kWrite, data);
    peer.set_next(s + 2);
    if (i % 100 == 0) t.Need(peer.Flush(), "M12", "writes are not taken");
  }
  const Observed seen = t.nic.EndObserve(observer);
  t.Check(seen.violations == 0, "M12",
          absl::StrFormat("%u times a pointer was seen before its data",
                          seen.violations));
}

}  // namespace

std::vector<TestCase> MemoryTests() {
  return {
      {"memory.bounds", Tier::kCore, {"M1", "M3", "W36", "W41"}, Bounds},
      {"memory.bounds-wrap", Tier::kCore, {"M2", "W41"}, BoundsWrap},
      {"memory.names", Tier::kCore, {"M1", "W36", "M3"}, Names},
      {"memory.rights", Tier::kCore, {"M1", "M7", "M3", "W41"}, Rights},
      {"memory.order-of-checks", Tier::kCore, {"W36", "M1"}, OrderOfChecks},
      {"memory.refusals-are-counted",
       Tier::kFunctional,
       {"M3"},
       RefusalsAreCounted},
      {"memory.nothing-at-all", Tier::kCore, {"W40", "W42"}, NothingAtAll},
      {"memory.sizes", Tier::kCore, {"M9", "M13", "W45"}, Sizes},
      {"memory.refused-once", Tier::kFunctional, {"W51", "W36"}, RefusedOnce},
      {"memory.revocation", Tier::kFunctional, {"M5", "M4"}, Revocation},
      {"memory.revoked-while-read",
       Tier::kFunctional,
       {"W43", "M5"},
       RevokedWhileRead},
      {"memory.end-of-context", Tier::kFunctional, {"M6"}, EndOfContext},
      {"memory.long-reads", Tier::kCore, {"W42"}, LongReads},
      {"memory.whole-words", Tier::kFunctional, {"M10"}, WholeWords},
      {"memory.last-word-last", Tier::kFunctional, {"M11"}, LastWordLast},
      {"memory.pointer-after-data",
       Tier::kFunctional,
       {"M12", "M9"},
       PointerAfterData},
  };
}

}  // namespace tripwire::conform
