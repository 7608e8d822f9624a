// SPDX-License-Identifier: BSD-3-Clause
// Fetch-add and compare-and-swap, both ways.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

constexpr uint8_t kAllRights = 7;

void Values(Test& t) {
  t.nic.Require(kAtomics, "atomic operations");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096, kAllRights);
  uint64_t before = 0, model = 0;
  for (const uint64_t addend :
       {uint64_t{1}, uint64_t{41}, ~uint64_t{0}, uint64_t{1} << 63,
        uint64_t{1} << 63, uint64_t{0x0102030405060708}}) {
    t.CheckStatus(peer.Atomic(aperture.name, 8, kFetchAdd, addend, 0, &before),
                  status::kOk, "W48", "a fetch-add");
    t.Equal(before, model, "M31", "what a fetch-add gives");
    model += addend;
    t.Equal(t.nic.PeekWord(aperture, 8), model, "M31", "the word after it");
  }
  t.CheckStatus(
      peer.Atomic(aperture.name, 8, kCompareSwap, 5, model + 1, &before),
      status::kOk, "W48", "a compare-and-swap");
  t.Equal(before, model, "M31", "what a compare-and-swap that fails gives");
  t.Equal(t.nic.PeekWord(aperture, 8), model, "M31",
          "the word after a compare-and-swap that fails");
  t.CheckStatus(peer.Atomic(aperture.name, 8, kCompareSwap, 5, model, &before),
                status::kOk, "W48", "a compare-and-swap");
  t.Equal(before, model, "M31", "what a compare-and-swap gives");
  t.Equal(t.nic.PeekWord(aperture, 8), 5, "M31", "the word after it");
  t.Equal(t.nic.PeekWord(aperture, 0), 0, "M31", "its neighbour");
  t.Equal(t.nic.PeekWord(aperture, 16), 0, "M31", "its neighbour");
}

void Refused(Test& t) {
  t.nic.Require(kAtomics, "atomic operations");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096, kAllRights);
  const Exported plain = t.Export(4096, kWriteRight | kReadRight);
  const auto check = [&](const Name& name, uint64_t offset, uint8_t operation,
                         uint8_t wanted, const char* what) {
    t.CheckStatus(peer.Atomic(name, offset, operation, 1, 0, nullptr), wanted,
                  "M33", absl::StrCat("an atomic operation ", what));
  };
  Name name = aperture.name;
  name.handle += 1000;
  check(name, 0, kFetchAdd, status::kBadHandle, "on no such handle");
  name = aperture.name;
  ++name.generation;
  check(name, 0, kFetchAdd, status::kStale, "on a stale name");
  check(plain.name, 0, kFetchAdd, status::kNoRights, "without the right");
  check(aperture.name, 4096, kFetchAdd, status::kOutOfBounds, "at the end");
  check(aperture.name, 4089, kFetchAdd, status::kOutOfBounds, "across the end");
  check(aperture.name, 4088, kFetchAdd, status::kOk, "on the last word");
  for (const uint64_t offset : {1u, 4u, 7u}) {
    check(aperture.name, offset, kFetchAdd, status::kMisaligned, "misaligned");
  }
  for (const uint8_t operation : {0, 3, 255}) {
    check(aperture.name, 0, operation, status::kUnknown, "of an unknown code");
    check(aperture.name, 1, operation, status::kUnknown,
          "of an unknown code, misaligned");
  }
  // Aligned is what its owner's memory says.
  const Exported odd = t.Export(4096, kAllRights, kAnyLink, 4);
  check(odd.name, 0, kFetchAdd, status::kMisaligned, "misaligned in memory");
  check(odd.name, 4, kFetchAdd, status::kOk, "aligned in memory");
  t.Check(t.nic.Peek(aperture, 0, 16) == Bytes(16), "M33",
          "a refused atomic operation changed memory");
  t.Check(t.nic.Peek(plain, 0, 16) == Bytes(16), "M33",
          "a refused atomic operation changed memory");
}

void Once(Test& t) {
  t.nic.Require(kAtomics, "atomic operations");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096, kAllRights);
  const uint64_t first = peer.next();
  const Bytes add = AtomicBody(aperture.name, 0, kFetchAdd, 1, 0);
  // Out of order, three times each.
  for (const uint64_t ahead : {3u, 1u, 2u, 0u}) {
    for (int i = 0; i < 3; ++i) {
      peer.SayAt(first + ahead, type::kAtomicRequest, add);
    }
    if (ahead != 0) {
      t.Need(t.nic.Alive(), "W48", "the NIC is not there");
      t.Equal(t.nic.PeekWord(aperture, 0), 0, "M32",
              "a word whose first fetch-add is missing");
    }
  }
  peer.set_next(first + 4);
  t.Need(peer.Flush(), "W48", "the link does not go on");
  t.Equal(t.nic.PeekWord(aperture, 0), 4, "W48",
          "a word after four fetch-adds that each came three times");
  peer.SayAt(first + 1, type::kAtomicRequest, add);
  t.Need(peer.Flush(), "W48", "the link does not go on");
  t.Equal(t.nic.PeekWord(aperture, 0), 4, "M31", "after one more duplicate");
}

void Ordered(Test& t) {
  t.nic.Require(kAtomics, "atomic operations");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096, kAllRights);
  for (uint64_t i = 1; i <= 50; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(1000 * i)));
    uint64_t before = 0;
    t.CheckStatus(peer.Atomic(aperture.name, 0, kFetchAdd, i, 0, &before),
                  status::kOk, "M32", "a fetch-add");
    t.Equal(before, 1000 * i, "M32", "a fetch-add after a write");
    Bytes data;
    t.CheckStatus(peer.Read(aperture.name, 0, 8, &data), status::kOk, "M32",
                  "a read");
    t.Equal(In(data).U64(), 1001 * i, "M32", "a read after a fetch-add");
  }
}

void Trips(Test& t) {
  t.nic.Require(kAtomics, "atomic operations");
  t.nic.Require(kTripwires, "tripwires");
  Peer& peer = t.Open();
  const Exported aperture = t.Export(4096, kAllRights);
  WatchOptions atomics, writes;
  atomics.access = kAtomicRight;
  writes.access = kWriteRight | kReadRight;
  const uint32_t on_atomics = t.nic.Watch(t.context(), aperture, 0, 8, atomics);
  const uint32_t on_writes = t.nic.Watch(t.context(), aperture, 0, 8, writes);
  t.nic.Arm(on_atomics);
  t.nic.Arm(on_writes);
  peer.Atomic(aperture.name, 0, kFetchAdd, 1, 0, nullptr);
  t.Equal(t.nic.Count(on_atomics), 1, "W49", "firings by a fetch-add");
  peer.Atomic(aperture.name, 0, kCompareSwap, 9, 77, nullptr);
  t.Equal(t.nic.Count(on_atomics), 2, "W49",
          "firings by a compare-and-swap that changed nothing");
  peer.Atomic(aperture.name, 0, kCompareSwap, 9, 1, nullptr);
  t.Equal(t.nic.Count(on_atomics), 3, "W49", "firings by a compare-and-swap");
  peer.Atomic(aperture.name, 8, kFetchAdd, 1, 0, nullptr);
  peer.Atomic(aperture.name, 0, 99, 1, 0, nullptr);
  peer.Try(type::kWrite, WriteBody(aperture.name, 0, Word(3)));
  t.Equal(t.nic.Count(on_atomics), 3, "M34",
          "firings by what is no atomic operation on it");
  t.Equal(t.nic.Count(on_writes), 1, "M34",
          "firings of a watch on writes and reads");
}

void OfTheNic(Test& t) {
  t.nic.Require(kAtomics, "atomic operations");
  Peer& peer = t.Open();
  const uint32_t link = t.LinkOf(peer);
  const Name ours = Test::OurName();
  WatchOptions options;
  options.access = kAtomicRight;
  const uint32_t watch =
      t.nic.Has(kOutbound)
          ? t.nic.WatchRemote(t.context(), link, ours, 64, 8, options)
          : 0;
  if (watch != 0) t.nic.Arm(watch);
  const uint32_t add = t.nic.Atomic(t.context(), link, ours, 64, kFetchAdd,
                                    0x1122334455667788, 0);
  const Heard* request = peer.Await(0, type::kAtomicRequest);
  t.Need(request != nullptr, "W30", "no atomic request was sent");
  t.Check(request->packet.payload ==
              AtomicBody(ours, 64, kFetchAdd, 0x1122334455667788, 0),
          "W47", "an atomic request that says something else");
  const auto named = static_cast<uint32_t>(request->sequence);
  // Answers to what was not asked.
  peer.Say(type::kAtomicResponse, Out().U32(named + 100).U64(1));
  peer.Say(type::kReadResponse, Out().U32(named).U48(0).U64(1));
  peer.Say(type::kFlushResponse, Out().U32(named));
  t.Need(peer.Flush(), "W50", "the link does not go on");
  t.Check(t.nic.Operation(add).status == status::kPending, "W50",
          "a fetch-add ended by an answer that is not its own");
  if (watch != 0)
    t.Equal(t.nic.Count(watch), 0, "M34", "firings before the answer");
  peer.Say(type::kAtomicResponse, Out().U32(named).U64(0xfeedfacecafebeef));
  OperationState state = t.nic.Await(add);
  t.CheckStatus(state.status, status::kOk, "M15", "a fetch-add");
  t.Equal(state.result, 0xfeedfacecafebeef, "M31", "its result");
  if (watch != 0)
    t.Equal(t.nic.Count(watch), 1, "M34", "firings after the answer");
  peer.Say(type::kAtomicResponse, Out().U32(named).U64(1));
  t.Need(peer.Flush(), "W50", "a second answer stops the link");
  t.Equal(t.nic.Operation(add).result, 0xfeedfacecafebeef, "W50",
          "the result of an operation that had ended");
  const size_t mark = peer.mark();
  const uint32_t swap =
      t.nic.Atomic(t.context(), link, ours, 8, kCompareSwap, 6, 5);
  request = peer.Await(mark, type::kAtomicRequest);
  t.Need(request != nullptr, "W30", "no atomic request was sent");
  t.Check(request->packet.payload == AtomicBody(ours, 8, kCompareSwap, 6, 5),
          "W47", "an atomic request that says something else");
  peer.Say(type::kError, Out()
                             .U32(static_cast<uint32_t>(request->sequence))
                             .U8(status::kMisaligned)
                             .Add(Bytes(3)));
  t.CheckStatus(t.nic.Await(swap).status, status::kMisaligned, "M15",
                "a compare-and-swap that was refused");
}

void ToAPeerWithout(Test& t) {
  t.nic.Require(kAtomics, "atomic operations");
  Peer& peer = t.Open([](Peer& p) { p.offer_features = 0; });
  const uint32_t operation = t.nic.Atomic(t.context(), t.LinkOf(peer),
                                          Test::OurName(), 0, kFetchAdd, 1, 0);
  t.CheckStatus(t.nic.Await(operation).status, status::kUnknown, "M35",
                "an atomic operation towards a peer without them");
  t.Need(peer.Flush(), "M35", "the link does not go on");
  t.Equal(peer.Count(0,
                     [](const Heard& h) {
                       return h.packet.type == type::kAtomicRequest;
                     }),
          0, "M35", "atomic requests sent to a peer without them");
}

}  // namespace

std::vector<TestCase> AtomicTests() {
  return {
      {"atomic.values", Tier::kFull, {"M31", "W48"}, Values},
      {"atomic.refused", Tier::kFull, {"W47", "M33"}, Refused},
      {"atomic.once", Tier::kFull, {"W48", "M31", "M32"}, Once},
      {"atomic.ordered", Tier::kFull, {"M32"}, Ordered},
      {"atomic.trips", Tier::kFull, {"W49", "M34"}, Trips},
      {"atomic.of-the-nic",
       Tier::kFull,
       {"W50", "W47", "M34", "M31"},
       OfTheNic},
      {"atomic.to-a-peer-without", Tier::kFull, {"M35", "W80"}, ToAPeerWithout},
  };
}

}  // namespace tripwire::conform
