// SPDX-License-Identifier: BSD-3-Clause
// The NIC's own operations on our apertures: how they are cut, when they are
// done, what bad answers may do.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

uint32_t Named(const Heard& heard) {
  return static_cast<uint32_t>(heard.sequence);
}

Bytes ReadAnswer(uint32_t operation, uint64_t offset,
                 std::span<const uint8_t> data) {
  return Out().U32(operation).U48(offset).Add(data);
}

Bytes ErrorBody(uint32_t operation, uint8_t why) {
  return Out().U32(operation).U8(why).Add(Bytes(3));
}

void LongWrites(Test& t) {
  Peer& peer = t.Open();
  const Name target = Test::OurName();
  for (const auto& [offset, length] : {std::pair<uint64_t, uint64_t>{0, 5000},
                                       {8, 5000},
                                       {61, 9000},
                                       {1, 1},
                                       {100, 0},
                                       {64, 1436}}) {
    const size_t mark = peer.mark();
    const Bytes data = Pattern(length, static_cast<uint8_t>(offset + 1));
    const uint32_t operation =
        t.nic.Write(t.context(), t.LinkOf(peer), target, offset, data);
    t.CheckStatus(t.nic.Await(operation).status, status::kOk, "M15", "a write");
    Bytes got;
    uint64_t at = offset, marked = 0;
    bool after_last = false;
    for (size_t i = mark; i < peer.heard().size(); ++i) {
      const Packet& p = peer.heard()[i].packet;
      if (p.type != type::kWrite || peer.heard()[i].repeat) continue;
      t.Check(p.U32(0) == target.handle && p.U32(4) == target.generation, "W36",
              "a write that names another aperture");
      t.Equal(p.U48(8), at, "W37", "where a frame of a long write begins");
      t.Check(at == offset || at % 64 == 0, "W37",
              absl::StrFormat("a write is cut at %u", at));
      t.Check(!after_last, "W38", "a frame follows the last of its operation");
      after_last = p.has(flag::kLast);
      marked += after_last;
      const auto data_here = p.From(14);
      got.insert(got.end(), data_here.begin(), data_here.end());
      at += data_here.size();
    }
    t.Equal(marked, 1, "W38", "frames marked as the last of one write");
    t.Check(got == data, "M9", "a write carries other bytes than were given");
  }
}

void ReadsAndAnswers(Test& t) {
  Peer& peer = t.Open();
  const Name from = Test::OurName();
  const uint32_t link = t.LinkOf(peer);
  const auto issue = [&](uint32_t length, const Heard** request) {
    const size_t mark = peer.mark();
    const uint32_t operation = t.nic.Read(t.context(), link, from, 16, length);
    *request = peer.Await(mark, type::kReadRequest);
    t.Need(*request != nullptr, "W30", "no read request was sent");
    t.Check(
        (*request)->packet.U48(8) == 16 && (*request)->packet.U48(14) == length,
        "W41", "a read request that names another place");
    return operation;
  };
  const Heard* request = nullptr;
  uint32_t operation = issue(100, &request);
  uint32_t named = Named(*request);
  const Bytes data = Pattern(100, 3);
  peer.Say(type::kReadResponse, ReadAnswer(named, 0, std::span(data).first(60)),
           0);
  t.Need(t.nic.Alive(), "W44", "the NIC is not there");
  t.Check(t.nic.Operation(operation).status == status::kPending, "M15",
          "a read is done before all of its data is there");
  peer.Say(type::kReadResponse,
           ReadAnswer(named, 60, std::span(data).subspan(60)));
  OperationState state = t.nic.Await(operation);
  t.CheckStatus(state.status, status::kOk, "M15", "a read that was answered");
  t.Check(state.data == data, "M13",
          "a read gives other bytes than its answer");
  // Answered again, with other bytes: it is over.
  peer.Say(type::kReadResponse, ReadAnswer(named, 0, Pattern(100, 9)));
  t.Need(t.nic.Alive(), "W44", "the NIC is not there");
  t.Check(t.nic.Operation(operation).data == data, "M18",
          "an answer changed the memory of a read that had ended");

  // Answers out of place, or too long, or of what was never asked.
  operation = issue(64, &request);
  named = Named(*request);
  const Bytes evil = Pattern(64, 8);
  peer.Say(type::kReadResponse, ReadAnswer(named + 1000, 0, evil), 0);
  peer.Say(type::kReadResponse, ReadAnswer(named, 32, evil), 0);
  peer.Say(type::kReadResponse,
           ReadAnswer(named, 16, std::span(evil).first(16)), 0);
  peer.Say(type::kReadResponse, ReadAnswer(named, 1, std::span(evil).first(63)),
           0);
  peer.Say(type::kReadResponse, ReadAnswer(named, 64, evil), 0);
  peer.Say(type::kReadResponse, ReadAnswer(named, uint64_t{1} << 47, evil), 0);
  peer.Say(type::kReadResponse, ReadAnswer(named, 0, Pattern(65, 8)), 0);
  peer.Say(type::kFlushResponse, Out().U32(named));
  peer.Say(type::kFlushResponse, Out().U32(named + 500));
  peer.Say(type::kError, ErrorBody(named + 500, status::kNoRights));
  t.Need(peer.Flush(), "W44", "bad answers stop the link");
  state = t.nic.Operation(operation);
  t.Check(state.status == status::kPending, "W44",
          "a read ended by an answer that is not its own, or out of place");
  t.Check(state.data == Bytes(64), "M8",
          "an answer out of place reached the reader's memory");
  const Bytes good = Pattern(64, 4);
  peer.Say(type::kReadResponse, ReadAnswer(named, 0, good));
  state = t.nic.Await(operation);
  t.CheckStatus(state.status, status::kOk, "W44",
                "a read answered well after bad answers");
  t.Check(state.data == good, "W44", "its bytes");
}

void ReadRefusedOrLost(Test& t) {
  Peer& peer = t.Open();
  const uint32_t link = t.LinkOf(peer);
  const uint32_t refused =
      t.nic.Read(t.context(), link, Test::OurName(), 0, 64);
  const Heard* request = peer.Await(0, type::kReadRequest);
  t.Need(request != nullptr, "W30", "no read request was sent");
  const uint32_t named = Named(*request);
  peer.Say(type::kReadResponse, ReadAnswer(named, 0, Pattern(16, 2)), 0);
  peer.Say(type::kError, ErrorBody(named, status::kStale));
  t.CheckStatus(t.nic.Await(refused).status, status::kStale, "M15",
                "a read refused in the middle");
  const Bytes then = t.nic.Operation(refused).data;
  peer.Say(type::kReadResponse, ReadAnswer(named, 16, Pattern(48, 2)));
  peer.Say(type::kError, ErrorBody(named, status::kNoRights));
  t.Need(peer.Flush(), "W53", "an error for what has ended stops the link");
  t.CheckStatus(t.nic.Operation(refused).status, status::kStale, "W53",
                "a read that had ended, refused again");
  t.Check(t.nic.Operation(refused).data == then, "M18",
          "an answer changed the memory of a read that had been refused");
  const uint32_t lost = t.nic.Read(t.context(), link, Test::OurName(), 0, 64);
  const uint32_t flush = t.nic.Flush(t.context(), link);
  const uint32_t write =
      t.nic.Write(t.context(), link, Test::OurName(), 0, Word(1));
  t.Need(peer.Await(0, type::kFlushRequest) != nullptr, "W30",
         "no flush was sent");
  peer.auto_acknowledge = false;
  peer.Reset();
  for (const uint32_t operation : {lost, flush}) {
    t.CheckStatus(t.nic.Await(operation).status, status::kLinkLost, "M15",
                  "an operation when its link is lost");
  }
  const uint8_t end = t.nic.Await(write).status;
  t.Check(end == status::kLinkLost || end == status::kOk, "M15",
          "a write when its link is lost does not end");
  const auto down = t.AwaitEvent(kToldDown);
  t.Check(down && down->link == link, "M26",
          "nobody is told that a link is lost");
}

void FlushOfTheNic(Test& t) {
  Peer& peer = t.Open();
  const uint32_t link = t.LinkOf(peer);
  const uint32_t flush = t.nic.Flush(t.context(), link);
  const Heard* request = peer.Await(0, type::kFlushRequest);
  t.Need(request != nullptr, "W30", "no flush was sent");
  t.Need(t.nic.Alive(), "M17", "the NIC is not there");
  t.Check(t.nic.Operation(flush).status == status::kPending, "M17",
          "a flush is done when it is acknowledged, not when it is answered");
  peer.Say(type::kFlushResponse, Out().U32(Named(*request) + 1));
  t.Need(t.nic.Alive(), "M17", "the NIC is not there");
  t.Check(t.nic.Operation(flush).status == status::kPending, "W44",
          "a flush is done by the answer to another");
  peer.Say(type::kFlushResponse, Out().U32(Named(*request)));
  t.CheckStatus(t.nic.Await(flush).status, status::kOk, "M17",
                "a flush that was answered");
}

void WritesDone(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "M16", "the link carries no data");
  peer.auto_acknowledge = false;
  const uint32_t write = t.nic.Write(t.context(), t.LinkOf(peer),
                                     Test::OurName(), 0, Pattern(4000));
  t.Need(peer.Await(0,
                    [](const Heard& h) {
                      return h.packet.type == type::kWrite &&
                             h.packet.has(flag::kLast);
                    }) != nullptr,
         "W30", "no write was sent");
  const uint64_t last = peer.highest() - 1;
  // All but the last of its frames.
  Packet ack = peer.Make(type::kAck, Bytes(32), 0);
  ack.acknowledged = static_cast<uint32_t>(last);
  peer.Send(ack);
  t.Need(t.nic.Alive(), "M16", "the NIC is not there");
  t.Check(t.nic.Operation(write).status == status::kPending, "M16",
          "a write is done before its last frame is acknowledged");
  // Reported as received is not acknowledged.
  ack.acknowledged = static_cast<uint32_t>(last - 1);
  ack.payload[0] = 1;
  peer.Send(ack);
  t.Need(t.nic.Alive(), "M16", "the NIC is not there");
  t.Check(t.nic.Operation(write).status == status::kPending, "M16",
          "a write is done that only came early");
  peer.auto_acknowledge = true;
  peer.SayAck();
  t.CheckStatus(t.nic.Await(write).status, status::kOk, "M15",
                "a write that was acknowledged");
}

void Refusals(Test& t) {
  Peer& peer = t.Open();
  const uint32_t link = t.LinkOf(peer);
  for (const auto& [said, counts_as] :
       {std::pair<uint8_t, uint8_t>{status::kBadHandle, status::kBadHandle},
        {status::kStale, status::kStale},
        {status::kNoRights, status::kNoRights},
        {status::kOutOfBounds, status::kOutOfBounds},
        {0, status::kBadHandle},
        {1, status::kBadHandle},
        {100, status::kBadHandle},
        {255, status::kBadHandle}}) {
    const size_t mark = peer.mark();
    peer.auto_acknowledge = false;
    const uint32_t write =
        t.nic.Write(t.context(), link, Test::OurName(), 0, Word(1));
    const Heard* heard = peer.Await(mark, type::kWrite);
    t.Need(heard != nullptr, "W30", "no write was sent");
    // The refusal goes first, and says nothing about having it.
    const uint64_t s = peer.next();
    Packet error = peer.Make(type::kError, ErrorBody(Named(*heard), said));
    error.acknowledged = static_cast<uint32_t>(heard->sequence);
    peer.Say(type::kError, error.payload);
    (void)s;
    peer.auto_acknowledge = true;
    peer.SayAck();
    t.CheckStatus(t.nic.Await(write).status, counts_as, "W52",
                  absl::StrFormat("a write refused with status %u", said));
  }
  // Without anybody waiting for it, a refusal is an event.
  const size_t mark = peer.mark();
  peer.auto_acknowledge = false;
  t.nic.Write(t.context(), link, Test::OurName(), 0, Word(1), 0);
  const Heard* heard = peer.Await(mark, type::kWrite);
  t.Need(heard != nullptr, "W30", "no write was sent");
  peer.Say(type::kError, ErrorBody(Named(*heard), status::kNoRights));
  peer.auto_acknowledge = true;
  peer.SayAck();
  const auto event = t.AwaitEvent(kToldFailed);
  t.Need(event.has_value(), "M3",
         "the initiator of a refused write is not told");
  t.CheckStatus(event->status, status::kNoRights, "M3", "the event");
}

}  // namespace

std::vector<TestCase> OperationTests() {
  return {
      {"operation.long-writes",
       Tier::kCore,
       {"W37", "W38", "M9", "M15"},
       LongWrites},
      {"operation.reads-and-answers",
       Tier::kFunctional,
       {"W44", "M8", "M18", "M15"},
       ReadsAndAnswers},
      {"operation.refused-or-lost",
       Tier::kFunctional,
       {"M15", "W53", "M18", "M26"},
       ReadRefusedOrLost},
      {"operation.flush", Tier::kCore, {"M17", "W44"}, FlushOfTheNic},
      {"operation.writes-done", Tier::kFunctional, {"M16", "M15"}, WritesDone},
      {"operation.refusals", Tier::kFunctional, {"W52", "M3"}, Refusals},
  };
}

}  // namespace tripwire::conform
