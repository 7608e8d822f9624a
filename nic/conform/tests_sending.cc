// SPDX-License-Identifier: BSD-3-Clause
// The NIC's own frames: window, credit, loss, refusals in a full window,
// silence.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

// Lets the NIC issue `n` writes of a word each, of which word i says i.
std::vector<uint32_t> IssueWrites(Test& t, Peer& peer, int n) {
  std::vector<uint32_t> operations;
  for (int i = 0; i < n; ++i) {
    operations.push_back(t.nic.Write(t.context(), t.LinkOf(peer),
                                     Test::OurName(), 8u * i, Word(i)));
  }
  return operations;
}

// Writes of the NIC that are here, in order.
uint64_t WritesHere(const Peer& peer) {
  return peer.Count(0, [](const Heard& h) {
    return h.packet.type == type::kWrite && !h.repeat;
  });
}

void Credit(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W22", "the link carries no data");
  for (const uint16_t credit : {0, 1, 5, 40}) {
    // The answer to this flush is here before the credit counts.
    const uint64_t operation_limit = peer.expected() + credit;
    peer.credit = credit;
    peer.auto_acknowledge = false;
    peer.SayAck();
    t.Need(t.nic.Alive(), "W22", "the NIC is not there");
    const size_t mark = peer.mark();
    std::vector<uint32_t> operations = IssueWrites(t, peer, 60);
    t.wire.Run(t.wire.world().SlackNs() / 10 + 2 * kMillisecond);
    const size_t fresh = peer.Count(mark, [](const Heard& h) {
      return h.packet.type == type::kWrite && !h.repeat;
    });
    t.Check(fresh <= credit && peer.highest() <= operation_limit, "W22",
            absl::StrFormat("with a credit of %u, %u frames were sent", credit,
                            fresh));
    peer.credit = kWindow;
    peer.auto_acknowledge = true;
    peer.SayAck();
    t.Check(t.nic.Await(operations.back()).status == status::kOk, "W22",
            "with credit again, what waited is not sent");
  }
}

void Window(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W22", "the link carries no data");
  peer.auto_acknowledge = false;
  const uint64_t start = peer.expected();
  peer.SayAck();
  const std::vector<uint32_t> operations = IssueWrites(t, peer, 300);
  t.wire.Run(t.wire.world().SlackNs() / 10 + 2 * kMillisecond);
  t.Check(peer.highest() > start, "W30", "nothing was sent");
  t.Check(peer.highest() <= start + 248, "W22",
          absl::StrFormat("%u frames on their way without an acknowledgement",
                          peer.highest() - start));
  peer.auto_acknowledge = true;
  peer.SayAck();
  t.Check(t.nic.Await(operations.back()).status == status::kOk, "W30",
          "after an acknowledgement the rest is not sent");
}

void SentAgain(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W30", "the link carries no data");
  int nth = 0;
  peer.lose = [&](const Packet& packet, uint64_t) {
    return packet.type == type::kWrite && ++nth % 3 == 0;
  };
  const std::vector<uint32_t> operations = IssueWrites(t, peer, 120);
  for (const uint32_t operation : operations) {
    t.Need(t.nic.Await(operation, 20 * kSecond).status == status::kOk, "W30",
           "a frame that was lost is not sent again until it is there");
  }
  t.Check(peer.Count(0, [](const Heard& h) { return h.repeat; }) > 0, "W30",
          "nothing was sent again");
}

// The first of a burst is lost; the rest is reported, and need not come again. Returns
// how many did.
size_t ReportedAndSentAgain(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W30", "the link carries no data");
  uint64_t lost = 0;
  peer.lose = [&](const Packet& packet, uint64_t sequence) {
    if (packet.type != type::kWrite || lost != 0) return false;
    lost = sequence;
    return true;
  };
  const std::vector<uint32_t> operations = IssueWrites(t, peer, 30);
  t.Need(t.nic.Await(operations.back()).status == status::kOk, "W30",
         "a lost frame is not sent again");
  const size_t repeats = peer.Count(0, [](const Heard& h) { return h.repeat; });
  t.Check(repeats > 0, "W30", "nothing was sent again");
  peer.lose = nullptr;
  return peer.Count(
      0, [&](const Heard& h) { return h.repeat && h.sequence != lost; });
}

// A report of ours that is late, since the machine was busy, says nothing of a NIC that
// could not wait for it any longer: hence several attempts.
void OnlyWhatIsMissing(Test& t) {
  constexpr size_t kFew = 2;
  size_t needless = 0;
  for (int attempt = 0; attempt < 4; ++attempt) {
    needless = ReportedAndSentAgain(t);
    if (needless <= kFew) return;
  }
  t.Check(false, "W29",
          absl::StrFormat("%u frames that had been reported came again", needless));
}

void LostAcknowledgements(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W30", "the link carries no data");
  peer.auto_acknowledge = false;
  peer.acknowledge = peer.expected();
  const std::vector<uint32_t> operations = IssueWrites(t, peer, 3);
  t.Need(peer.Await(0, type::kWrite) != nullptr, "W30", "no write was sent");
  // What it has of ours changes meanwhile; a frame sent again must not say so.
  const Exported aperture = t.Export();
  for (uint64_t i = 0; i < 5; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(i)));
  }
  const Heard* again = peer.Await(0, [](const Heard& h) { return h.repeat; });
  t.Check(again != nullptr, "W30",
          "a frame that is not acknowledged is not sent again");
  t.Check(t.nic.Operation(operations[0]).status == status::kPending, "M16",
          "a write is done that was never acknowledged");
  peer.auto_acknowledge = true;
  peer.acknowledge.reset();
  peer.SayAck();
  t.Check(t.nic.Await(operations.back()).status == status::kOk, "M15",
          "an acknowledged write does not end");
}

// The NIC must not take an acknowledgement for more than it says: refusals that
// were sent before it may still be on their way.
void RefusalOnTheWay(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W32", "the link carries no data");
  peer.auto_acknowledge = false;
  const uint32_t operation =
      t.nic.Write(t.context(), t.LinkOf(peer), Test::OurName(), 0, Word(1));
  const Heard* write = peer.Await(0, type::kWrite);
  t.Need(write != nullptr, "W30", "no write was sent");
  const uint64_t named = write->sequence;
  // "I have it", says a frame numbered after one that is not there yet.
  const uint64_t error = peer.next();
  Packet ack = peer.Make(type::kAck, Bytes(32), 0);
  ack.sequence = static_cast<uint32_t>(error + 1);
  ack.acknowledged = static_cast<uint32_t>(named + 1);
  peer.Send(ack);
  t.Need(t.nic.Alive(), "W32", "the NIC is not there");
  t.Check(t.nic.Operation(operation).status == status::kPending, "W32",
          "a write is done while its refusal may be on the way");
  peer.SayAt(error, type::kError,
             Out()
                 .U32(static_cast<uint32_t>(named))
                 .U8(status::kNoRights)
                 .Add(Bytes(3)));
  peer.set_next(error + 1);
  peer.auto_acknowledge = true;
  peer.SayAck();
  const OperationState state = t.nic.Await(operation);
  t.CheckStatus(state.status, status::kNoRights, "W32",
                "a write that was acknowledged and then refused");
}

// 300 refusals at once, while none is acknowledged.
void ManyRefusals(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  t.Need(peer.Flush(), "W24", "the link carries no data");
  peer.auto_acknowledge = false;
  const uint64_t first = peer.next();
  for (int i = 0; i < 250; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 4096, Word(1)));
  }
  t.wire.Run(t.wire.world().SlackNs() / 10 + 2 * kMillisecond);
  t.Check(peer.StatusOf(first) == status::kOutOfBounds, "W51",
          "a refused frame is not answered");
  peer.auto_acknowledge = true;
  peer.SayAck();
  for (int i = 0; i < 50; ++i) {
    peer.Say(type::kWrite, WriteBody(aperture.name, 4096, Word(1)));
  }
  t.Need(peer.Flush(), "W24", "the link stops in refusals");
  for (uint64_t s = first; s < first + 300; ++s) {
    t.Check(peer.StatusOf(s) == status::kOutOfBounds, "M3",
            "a refusal was not reported");
  }
}

// Both windows full of what the other refuses, and nothing acknowledged: the
// last numbers are for refusals, and let both go on.
void TwoFullWindows(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  t.Need(peer.Flush(), "W24", "the link carries no data");
  peer.auto_acknowledge = false;
  IssueWrites(t, peer, 300);
  t.wire.Run(t.wire.world().SlackNs() / 10 + 2 * kMillisecond);
  const uint64_t refused =
      peer.Say(type::kWrite, WriteBody(aperture.name, 4096, Word(1)));
  t.Check(peer.Await(0, type::kError, t.Within(20 * kMillisecond)) != nullptr,
          "W24", "a refusal waits for room in the window behind operations");
  peer.auto_acknowledge = true;
  peer.SayAck();
  t.Need(peer.Flush(20 * kSecond), "W24", "the link does not go on");
  t.CheckStatus(peer.StatusOf(refused), status::kOutOfBounds, "W24",
                "the refusal");
}

void ShrinksWithLoss(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W35", "the link carries no data");
  const auto burst = [&] {
    peer.auto_acknowledge = false;
    const uint64_t before = peer.highest();
    IssueWrites(t, peer, 280);
    t.wire.Run(kMillisecond);
    return peer.highest() - before;
  };
  std::vector<uint32_t> warm = IssueWrites(t, peer, 1000);
  t.Need(t.nic.Await(warm.back()).status == status::kOk, "W30", "no progress");
  const uint64_t wide = burst();
  peer.lose = [](const Packet&, uint64_t) { return true; };
  t.wire.Run(200 * kMillisecond);
  peer.lose = nullptr;
  peer.auto_acknowledge = true;
  peer.SayAck();
  t.Need(t.nic.Alive(), "W30", "the NIC is not there");
  t.Need(peer.Until([&] { return WritesHere(peer) >= 1280; }, 20 * kSecond),
         "W30", "the link does not recover");
  peer.auto_acknowledge = false;
  t.Check(wide >= 32, "W35",
          absl::StrFormat("only %u frames on their way without loss", wide));
  const size_t after_loss =
      peer.Count(0, [](const Heard& h) { return h.repeat; });
  t.Check(after_loss > 0, "W30", "nothing was sent again");
}

// Frames there is no room for: answers that cannot be sent.
void NoRoomForAnswers(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W33", "the link carries no data");
  peer.credit = 0;
  peer.auto_acknowledge = false;
  peer.SayAck();
  t.Need(t.nic.Alive(), "W33", "the NIC is not there");
  const uint64_t first = peer.next();
  for (int i = 0; i < 4600; ++i) {
    peer.Say(type::kFlushRequest, {},
             i % 32 == 31 ? flag::kLast | flag::kAckRequested : flag::kLast);
    if (i % 128 != 127) continue;
    const uint64_t said = peer.next();
    if (!peer.Until([&] { return peer.nic_acknowledged() >= said; },
                    t.Within(5 * kMillisecond))) {
      break;
    }
  }
  const uint64_t taken = peer.nic_acknowledged() - first;
  t.Check(
      taken <= 4096, "W33",
      absl::StrFormat("%u requests were taken whose answers cannot be sent; "
                      "4096 may",
                      taken));
  const uint64_t last = peer.next() - 1;
  peer.credit = kWindow;
  peer.auto_acknowledge = true;
  peer.SayAck();
  // What was not acknowledged is ours to send again.
  const auto answered = [&] {
    return peer.FlushDone(static_cast<uint32_t>(last));
  };
  for (int turn = 0; turn < 1000 && !answered(); ++turn) {
    const uint64_t from = peer.nic_acknowledged();
    for (uint64_t s = from; s <= last && s < from + 64; ++s) {
      if (peer.reported().contains(s)) continue;
      Packet again = peer.Make(type::kFlushRequest, {});
      again.sequence = static_cast<uint32_t>(s);
      peer.Send(again);
    }
    peer.Until(
        [&] { return answered() || peer.nic_acknowledged() >= from + 64; },
        5 * kMillisecond);
  }
  t.Check(answered(), "W33",
          "with room again, the requests that waited are not answered");
}

void Silence(Test& t) {
  Peer& deaf = t.Open();
  t.Need(deaf.Flush(), "W34", "the link carries no data");
  deaf.auto_acknowledge = false;
  const uint32_t operation =
      t.nic.Write(t.context(), t.LinkOf(deaf), Test::OurName(), 0, Word(1));
  const uint32_t read =
      t.nic.Read(t.context(), t.LinkOf(deaf), Test::OurName(), 0, 64);
  const uint32_t watch = t.nic.Has(kOutbound)
                             ? t.nic.WatchRemote(t.context(), t.LinkOf(deaf),
                                                 Test::OurName(), 0, 8)
                             : 0;
  if (watch != 0) t.nic.Arm(watch);
  deaf.lose = [](const Packet&, uint64_t) { return true; };
  const uint64_t start_ns = t.wire.NowNs();
  const size_t mark = deaf.mark();
  std::optional<ToldOf> down;
  while (!down && t.wire.NowNs() < start_ns + 12 * kSecond) {
    down = t.AwaitEvent(kToldDown, 500 * kMillisecond);
  }
  const uint64_t took_ns = t.wire.NowNs() - start_ns;
  t.Need(down.has_value(), "W34", "a peer that is silent is never given up");
  t.Check(
      took_ns >= 5 * kSecond, "W34",
      absl::StrFormat("given up after %u ms of silence", took_ns / 1000000));
  const size_t asked = deaf.Count(mark, [](const Heard& h) {
    return h.packet.type == type::kAck && h.packet.has(flag::kAckRequested);
  });
  t.Check(asked >= 3, "W34",
          absl::StrFormat("given up after %u unanswered questions", asked));
  t.CheckStatus(t.nic.Operation(operation).status, status::kLinkLost, "M15",
                "a write when its link is lost");
  t.CheckStatus(t.nic.Operation(read).status, status::kLinkLost, "M15",
                "a read when its link is lost");
  t.Check(!t.nic.IsUp(t.context(), t.LinkOf(deaf)), "M26",
          "the link still counts as up");
}

// A quiet link whose peer answers stays.
void QuietButAlive(Test& t) {
  Peer& peer = t.Open();
  t.Need(peer.Flush(), "W34", "the link carries no data");
  const size_t mark = peer.mark();
  const Heard* question = peer.Await(
      mark,
      [](const Heard& h) {
        return h.packet.type == type::kAck && h.packet.has(flag::kAckRequested);
      },
      t.Within(1500 * kMillisecond));
  t.Check(question != nullptr, "W34",
          "after a second of silence the NIC does not ask");
  t.Check(peer.Flush(), "W34", "a quiet link is gone");
}

}  // namespace

std::vector<TestCase> SendingTests() {
  return {
      {"sending.credit", Tier::kFunctional, {"W22"}, Credit},
      {"sending.window", Tier::kFunctional, {"W22", "W30"}, Window},
      {"sending.sent-again", Tier::kFunctional, {"W30", "W28"}, SentAgain},
      {"sending.only-what-is-missing",
       Tier::kFunctional,
       {"W29", "W30"},
       OnlyWhatIsMissing},
      {"sending.lost-acknowledgements",
       Tier::kFunctional,
       {"W30", "W28", "M16", "M15"},
       LostAcknowledgements},
      {"sending.refusal-on-the-way",
       Tier::kFunctional,
       {"W32", "M16"},
       RefusalOnTheWay},
      {"sending.many-refusals",
       Tier::kFunctional,
       {"W24", "W51", "M3"},
       ManyRefusals},
      {"sending.two-full-windows", Tier::kFunctional, {"W24"}, TwoFullWindows},
      {"sending.shrinks-with-loss",
       Tier::kFull,
       {"W35", "W30"},
       ShrinksWithLoss},
      {"sending.no-room-for-answers",
       Tier::kFull,
       {"W33", "M30"},
       NoRoomForAnswers},
      {"sending.quiet-but-alive", Tier::kFunctional, {"W34"}, QuietButAlive},
      {"sending.silence", Tier::kFunctional, {"W34", "M15", "M26"}, Silence},
  };
}

}  // namespace tripwire::conform
