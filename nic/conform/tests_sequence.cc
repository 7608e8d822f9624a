// SPDX-License-Identifier: BSD-3-Clause
// Our frames into their order at the NIC: duplicates, gaps, early frames, what
// it acknowledges and when.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

constexpr uint64_t kAtOnceNs = 200 * kMicrosecond;

bool AcknowledgedAll(Peer& peer) {
  return peer.Until([&] { return peer.nic_acknowledged() >= peer.next(); });
}

void InOrder(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  for (uint64_t i = 1; i <= 100; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 8 * (i % 64), Word(i)));
  }
  t.Need(peer.Flush(), "W19", "a run of frames is not taken");
  for (uint64_t i = 37; i <= 100; ++i) {
    t.Equal(t.nic.PeekWord(aperture, 8 * (i % 64)), i, "W19", "a word");
  }
  t.Need(AcknowledgedAll(peer), "W27", "not all is acknowledged");
}

void Duplicates(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const Packet write =
      peer.Make(type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  peer.Say(type::kWrite, write.payload);
  t.Need(peer.Flush(), "W20", "a write is not taken");
  t.nic.Poke(aperture, 0, Word(77));
  size_t mark = peer.mark();
  peer.Send(write);
  const Heard* ack = peer.Await(
      mark, [&](const Heard& h) { return h.packet.type == type::kAck; },
      t.Within(kAtOnceNs));
  t.Check(ack != nullptr, "W26",
          "a repeated frame is not acknowledged at once");
  for (int i = 0; i < 5; ++i) peer.Send(write);
  t.Need(peer.Flush(), "W20", "duplicates stop the link");
  t.Equal(t.nic.PeekWord(aperture, 0), 77, "W20",
          "a word that a duplicate names");
  // A message twice is one message.
  const Packet message =
      peer.Make(type::kMessage, MessageBody(5, 0, Pattern(5)));
  peer.Say(type::kMessage, message.payload);
  peer.Send(message);
  t.Need(peer.Flush(), "W20", "duplicates stop the link");
  peer.Send(message);
  t.Need(peer.Flush(), "W20", "duplicates stop the link");
  t.Check(t.nic.TakeMessage(t.context(), t.LinkOf(peer)) == Pattern(5), "M14",
          "a message did not arrive");
  t.Check(!t.nic.TakeMessage(t.context(), t.LinkOf(peer)), "W20",
          "a message that came twice was delivered twice");
  // A read request twice is answered once (the peer sees to that).
  const Packet read =
      peer.Make(type::kReadRequest, ReadBody(aperture.name, 0, 8));
  peer.Say(type::kReadRequest, read.payload);
  peer.Send(read);
  t.Need(peer.Flush(), "W20", "duplicates stop the link");
  peer.Send(read);
  t.Need(peer.Flush(), "W20", "duplicates stop the link");
}

void EarlyFrames(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t first = peer.next();
  size_t mark = peer.mark();
  // 3rd, 2nd, then the 1st: all write the same word.
  peer.SayAt(first + 2, type::kWrite, WriteBody(aperture.name, 0, Word(3)));
  const Heard* ack = peer.Await(mark, type::kAck, t.Within(kAtOnceNs));
  t.Check(ack != nullptr, "W26", "an early frame is not answered at once");
  t.Need(t.nic.Alive(), "W20", "the NIC is not there");
  t.Check(t.nic.PeekWord(aperture, 0) == 0, "W20",
          "an early frame was placed before its turn");
  mark = peer.mark();
  peer.SayAt(first + 1, type::kWrite, WriteBody(aperture.name, 0, Word(2)));
  ack = peer.Await(mark, type::kAck, t.Within(kAtOnceNs));
  t.Check(ack != nullptr, "W26", "an early frame is not answered at once");
  if (ack != nullptr) {
    t.Equal(Expand(ack->packet.acknowledged, first), first, "W20",
            "what is acknowledged before the missing frame came");
  }
  t.Check(peer.reported() == std::set<uint64_t>({first + 1, first + 2}), "W56",
          "the frames that came early are not those that are reported");
  t.Check(t.nic.PeekWord(aperture, 0) == 0, "W20",
          "an early frame was placed before its turn");
  // The same early frame again changes nothing.
  peer.SayAt(first + 2, type::kWrite, WriteBody(aperture.name, 0, Word(9)));
  peer.SayAt(first, type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  peer.set_next(first + 3);
  t.Need(peer.Flush(), "W20", "the link does not go on when the gap is filled");
  t.Equal(t.nic.PeekWord(aperture, 0), 3, "W20",
          "the word three frames wrote, the last of them first");
}

void ReportedBits(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t first = peer.next();
  std::set<uint64_t> sent;
  for (const uint64_t ahead : {1u, 7u, 8u, 9u, 64u, 100u, 200u, 254u, 255u}) {
    peer.SayAt(first + ahead, type::kWrite,
               WriteBody(aperture.name, ahead * 8, Word(ahead)));
    sent.insert(first + ahead);
  }
  peer.Until([&] { return peer.reported() == sent; },
             t.Within(20 * kMillisecond));
  t.Check(peer.reported() == sent, "W56",
          absl::StrFormat("%u frames came early, %u are reported", sent.size(),
                          peer.reported().size()));
  t.Check(!peer.reported().empty(), "W21", "no early frame is held");
  for (uint64_t ahead = 0; ahead < 256; ++ahead) {
    if (sent.contains(first + ahead)) continue;
    peer.SayAt(first + ahead, type::kWrite,
               WriteBody(aperture.name, ahead * 8, Word(ahead)));
  }
  peer.set_next(first + 256);
  t.Need(peer.Flush(), "W21", "held frames are not delivered in their turn");
  for (uint64_t i = 0; i < 256; ++i) {
    t.Equal(t.nic.PeekWord(aperture, i * 8), i, "W21", "a word");
  }
}

void TooFarAhead(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t first = peer.next();
  for (const uint64_t ahead : {256u, 257u, 1000u, 100000u, 0x7fffff00u}) {
    peer.SayAt(first + ahead, type::kWrite,
               WriteBody(aperture.name, 0, Word(ahead)));
  }
  // What is half of all numbers and more ahead is behind.
  Packet behind = peer.Make(type::kWrite, WriteBody(aperture.name, 0, Word(5)));
  behind.sequence += 0x90000000u;
  peer.Send(behind);
  t.Need(t.nic.Alive(), "W23", "the NIC is not there");
  t.Check(peer.reported().empty(), "W23",
          "a frame 256 or more ahead is reported as received");
  t.Need(peer.Flush(), "W23", "the link does not go on");
  for (uint64_t i = 1; i < 300; ++i) peer.Say(type::kFlushRequest, {});
  t.Need(AcknowledgedAll(peer), "W23", "the link does not go on");
  t.Equal(t.nic.PeekWord(aperture, 0), 0, "W23",
          "a word that only frames too far ahead wrote");
}

void AcknowledgesWhatWasNeverSent(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  t.Need(peer.Flush(), "W25", "the link carries no data");
  const uint32_t operation =
      t.nic.Write(t.context(), t.LinkOf(peer), Test::OurName(), 0, Word(1));
  t.Need(peer.Await(0, type::kWrite) != nullptr, "W30", "no write was sent");
  for (const uint32_t beyond : {1u, 100u, 0x40000000u}) {
    Packet packet =
        peer.Make(type::kWrite, WriteBody(aperture.name, 0, Word(beyond)));
    packet.acknowledged = static_cast<uint32_t>(peer.highest() + beyond);
    packet.credit = 256;
    peer.Send(packet);
  }
  t.Need(t.nic.Alive(), "W25", "the NIC is not there");
  t.Equal(t.nic.PeekWord(aperture, 0), 0, "W25",
          "a word written by a frame that acknowledges what was never sent");
  t.Need(peer.Flush(), "W25", "the link does not go on");
  const OperationState state = t.nic.Await(operation);
  t.CheckStatus(state.status, status::kOk, "M15", "a write");
}

void AcknowledgedAtOnce(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  size_t mark = peer.mark();
  const uint64_t write =
      peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(1)),
               flag::kLast | flag::kAckRequested);
  t.Check(peer.Await(
              mark,
              [&](const Heard& h) {
                return Expand(h.packet.acknowledged, write) == write + 1;
              },
              t.Within(kAtOnceNs)) != nullptr,
          "W26", "a frame that asks is not acknowledged at once");
  mark = peer.mark();
  peer.SayAck(flag::kAckRequested);
  t.Check(peer.Await(mark, type::kAck, t.Within(kAtOnceNs)) != nullptr, "W26",
          "an acknowledgement that asks for one gets none at once");
}

void AcknowledgedInTheEnd(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t one =
      peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  t.Check(peer.Until([&] { return peer.nic_acknowledged() > one; },
                     t.Within(kMillisecond)),
          "W27", "a single frame is not acknowledged within 0.5 ms");
  const uint64_t first = peer.next();
  for (int i = 0; i < 33; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  }
  t.Check(peer.Until([&] { return peer.nic_acknowledged() > first; },
                     t.Within(300 * kMicrosecond)),
          "W27", "32 frames in a row are not acknowledged");
}

// Each frame that is refused must be refused before it is acknowledged, also
// when the refusal cannot be sent.
void RefusedBeforeAcknowledged(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  t.Need(peer.Flush(), "W31", "the link carries no data");
  peer.credit = 0;
  peer.SayAck();
  const uint64_t good =
      peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  const uint64_t bad =
      peer.Say(type::kWrite, WriteBody(aperture.name, 4096, Word(1)));
  const uint64_t after =
      peer.Say(type::kWrite, WriteBody(aperture.name, 8, Word(2)),
               flag::kLast | flag::kAckRequested);
  peer.Until([&] { return peer.nic_acknowledged() > bad; },
             t.Within(2 * kMillisecond));
  t.Check(peer.nic_acknowledged() <= bad, "W31",
          "a refused frame, or one after it, is acknowledged while its refusal "
          "cannot be sent");
  t.Check(peer.StatusOf(bad) == status::kOk, "W24",
          "an error frame was sent to a peer that takes none");
  t.Check(peer.nic_acknowledged() > good, "W27",
          "what came before a refused frame is not acknowledged");
  peer.credit = kWindow;
  peer.SayAck();
  t.Check(peer.Until([&] { return peer.nic_acknowledged() > after; }), "W31",
          "with credit again, a refused frame is never acknowledged");
  t.CheckStatus(peer.StatusOf(bad), status::kOutOfBounds, "W31", "the refusal");
}

void FlushWaitsForWhatCameBefore(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t write = peer.next();
  const uint64_t flush = write + 1;
  peer.SayAt(flush, type::kFlushRequest, {});
  t.Need(t.nic.Alive(), "W46", "the NIC is not there");
  t.Check(!peer.FlushDone(flush), "W46",
          "a flush is answered while a frame before it is missing");
  const uint64_t read = flush + 1;
  peer.SayAt(read, type::kReadRequest, ReadBody(aperture.name, 0, 8));
  t.Need(t.nic.Alive(), "W45", "the NIC is not there");
  t.Check(!peer.ReadDone(read), "W45",
          "a read is answered while a frame before it is missing");
  peer.SayAt(write, type::kWrite, WriteBody(aperture.name, 0, Word(42)));
  peer.set_next(read + 1);
  t.Need(
      peer.Until([&] { return peer.FlushDone(flush) && peer.ReadDone(read); }),
      "W46", "the gap is filled, and a flush or a read is not answered");
  t.Equal(In(peer.ReadData(read)).U64(), 42, "W45",
          "a word read after it was written");
  t.Equal(t.nic.PeekWord(aperture, 0), 42, "M17",
          "a word when its flush ended");
}

// 600 frames in a scrambled order with duplicates: as if in order.
void Scrambled(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export(600 * 8);
  uint32_t die = 12345;
  const auto roll = [&](uint32_t bound) {
    die = die * 1664525u + 1013904223u;
    return (die >> 8) % bound;
  };
  const uint64_t first = peer.next();
  for (uint64_t base = 0; base < 600; base += 50) {
    std::vector<uint64_t> order;
    for (uint64_t i = 0; i < 50; ++i) order.push_back(base + i);
    for (size_t i = 49; i > 0; --i) std::swap(order[i], order[roll(i + 1)]);
    for (const uint64_t i : order) {
      const Bytes body = WriteBody(aperture.name, (i % 10) * 8, Word(i));
      peer.SayAt(first + i, type::kWrite, body);
      if (roll(4) == 0) peer.SayAt(first + i, type::kWrite, body);
    }
    peer.set_next(first + base + 50);
    t.Need(AcknowledgedAll(peer), "W20", "a scrambled run is not taken");
  }
  for (uint64_t i = 590; i < 600; ++i) {
    t.Equal(t.nic.PeekWord(aperture, (i % 10) * 8), i, "M9",
            "a word after scrambled writes to it");
  }
}

// The numbers pass 2^32: only NICs that begin elsewhere get there.
void Wrap(Test& t) {
  const uint64_t start = t.wire.first_sequence();
  constexpr uint64_t kWrap = uint64_t{1} << 32;
  if (start % kWrap < kWrap - 100000) {
    t.Skip("needs a NIC that begins to number near 2^32 (--first-sequence)");
  }
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t end = (start / kWrap + 1) * kWrap + 300;
  while (peer.next() < end) {
    const uint64_t i = peer.next();
    // Every other pair comes the wrong way round, and the later one twice.
    const Bytes even = WriteBody(aperture.name, 0, Word(i));
    const Bytes odd = WriteBody(aperture.name, 0, Word(i + 1));
    peer.SayAt(i + 1, type::kWrite, odd);
    peer.SayAt(i, type::kWrite, even);
    peer.SayAt(i + 1, type::kWrite, odd);
    peer.set_next(i + 2);
    if (i % 64 < 2) {
      t.Need(AcknowledgedAll(peer), "W19",
             "the link stops at the numbers' wrap");
      t.Equal(t.nic.PeekWord(aperture, 0), i + 1, "W19",
              "the word written last");
    }
  }
  t.Need(peer.Flush(), "W19", "the link stops after the numbers' wrap");
  // And the NIC's own numbers.
  const uint64_t behind = end - std::min(end, peer.highest());
  for (uint64_t i = 0; i < behind; i += 8) {
    for (int j = 0; j < 8; ++j) peer.Say(type::kFlushRequest, {});
    t.Need(peer.Flush(), "W19", "the NIC's own numbers stop at the wrap");
  }
  Bytes data;
  t.CheckStatus(peer.Read(aperture.name, 0, 4096, &data), status::kOk, "W19",
                "a read after the wrap");
}

}  // namespace

std::vector<TestCase> SequenceTests() {
  return {
      {"sequence.in-order", Tier::kCore, {"W19", "W27", "M9"}, InOrder},
      {"sequence.duplicates", Tier::kCore, {"W20", "W26", "M14"}, Duplicates},
      {"sequence.early-frames",
       Tier::kCore,
       {"W20", "W56", "W26"},
       EarlyFrames},
      {"sequence.reported-bits", Tier::kCore, {"W56", "W21"}, ReportedBits},
      {"sequence.too-far-ahead", Tier::kCore, {"W23"}, TooFarAhead},
      {"sequence.acknowledges-the-unsent",
       Tier::kCore,
       {"W25"},
       AcknowledgesWhatWasNeverSent},
      {"sequence.acknowledged-at-once",
       Tier::kCore,
       {"W26"},
       AcknowledgedAtOnce},
      {"sequence.acknowledged-in-the-end",
       Tier::kCore,
       {"W27"},
       AcknowledgedInTheEnd},
      {"sequence.refused-before-acknowledged",
       Tier::kFunctional,
       {"W31", "W24"},
       RefusedBeforeAcknowledged},
      {"sequence.flush-waits",
       Tier::kCore,
       {"W46", "W45", "M17", "M13"},
       FlushWaitsForWhatCameBefore},
      {"sequence.scrambled", Tier::kFunctional, {"M9", "W20"}, Scrambled},
      {"sequence.wrap", Tier::kFunctional, {"W19"}, Wrap},
  };
}

}  // namespace tripwire::conform
