// SPDX-License-Identifier: BSD-3-Clause
// Messages both ways, and the close of a link.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

std::optional<Bytes> Take(Test& t, Peer& peer) {
  return t.nic.TakeMessage(t.context(), t.LinkOf(peer));
}

void Whole(Test& t) {
  Peer& peer = t.Open();
  for (const size_t n : {size_t{0}, size_t{1}, size_t{100}, size_t{1464},
                         size_t{1465}, size_t{5000}, size_t{100000}}) {
    const Bytes message = Pattern(n, static_cast<uint8_t>(n));
    peer.SayMessage(message);
    t.Need(peer.Flush(), "M14", "a message stops the link");
    t.Check(
        Take(t, peer) == message, "M14",
        absl::StrFormat("a message of %u bytes does not arrive as it was", n));
  }
  t.Check(!Take(t, peer).has_value(), "M14", "a message that nobody sent");
  for (uint8_t i = 1; i <= 50; ++i) peer.SayMessage(Pattern(i, i));
  t.Need(peer.Flush(), "M14", "messages stop the link");
  for (uint8_t i = 1; i <= 50; ++i) {
    t.Check(Take(t, peer) == Pattern(i, i), "M14", "messages out of order");
  }
}

void FromTheNic(Test& t) {
  Peer& peer = t.Open();
  for (const size_t n :
       {size_t{0}, size_t{1}, size_t{1464}, size_t{1465}, size_t{20000}}) {
    const Bytes message = Pattern(n, static_cast<uint8_t>(n + 1));
    peer.messages().clear();
    t.nic.Message(t.context(), t.LinkOf(peer), message);
    t.Need(peer.Until([&] { return !peer.messages().empty(); }), "M14",
           "the NIC's message does not arrive");
    t.Check(peer.messages().front() == message, "M14",
            absl::StrFormat("a message of the NIC of %u bytes is not as it was",
                            n));
  }
}

void InOrderWithWrites(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t first = peer.next();
  // The message comes on the wire before the write that precedes it.
  peer.SayAt(first + 1, type::kMessage, MessageBody(3, 0, Pattern(3)));
  t.Need(t.nic.Alive(), "M14", "the NIC is not there");
  t.Check(!Take(t, peer).has_value(), "M14",
          "a message was delivered before a write that precedes it");
  peer.SayAt(first, type::kWrite, WriteBody(aperture.name, 0, Word(7)));
  peer.set_next(first + 2);
  t.Need(peer.Flush(), "M14", "the link does not go on");
  t.Check(Take(t, peer) == Pattern(3), "M14", "a message did not arrive");
  t.Equal(t.nic.PeekWord(aperture, 0), 7, "M14", "the word written before it");
}

void Contradictions(Test& t) {
  Peer& peer = t.Open();
  struct Wrong {
    const char* what;
    Bytes body;
    uint16_t flags;
  };
  const Wrong wrongs[] = {
      {"more than 1 MiB", MessageBody((1 << 20) + 1, 0, Pattern(10)), 0},
      {"the largest length", MessageBody(0xffffffff, 0, Pattern(10)), 0},
      {"an offset without what is before it", MessageBody(100, 50, Pattern(50)),
       flag::kLast},
      {"more data than its length", MessageBody(5, 0, Pattern(10)),
       flag::kLast},
      {"an end before its length", MessageBody(20, 0, Pattern(10)),
       flag::kLast},
      {"all its length and no end", MessageBody(10, 0, Pattern(10)), 0},
  };
  for (const Wrong& wrong : wrongs) {
    const uint64_t s = peer.Say(type::kMessage, wrong.body, wrong.flags);
    t.Need(peer.Flush(), "W54", "the link does not go on");
    t.CheckStatus(peer.StatusOf(s), status::kTooLarge, "W54",
                  absl::StrCat("a message with ", wrong.what));
    t.Check(!Take(t, peer).has_value(), "W54",
            absl::StrCat("a message with ", wrong.what, " was delivered"));
  }
  // A frame that does not go on where the last one ended.
  peer.Say(type::kMessage, MessageBody(100, 0, Pattern(10)), 0);
  const uint64_t gap =
      peer.Say(type::kMessage, MessageBody(100, 20, Pattern(80)));
  t.Need(peer.Flush(), "W54", "the link does not go on");
  t.CheckStatus(peer.StatusOf(gap), status::kTooLarge, "W54",
                "a message with a gap");
  peer.SayMessage(Pattern(30));
  t.Need(peer.Flush(), "W54", "the link does not go on");
  t.Check(Take(t, peer) == Pattern(30), "W54",
          "a good message after a bad one is not delivered");
  t.Check(!Take(t, peer).has_value(), "W54", "a bad message was delivered");
}

void Close(Test& t) {
  Peer& peer = t.Open();
  const Exported aperture = t.Export();
  const uint64_t first = peer.next();
  // Held behind a gap: a write, a close, and a write after the close.
  peer.SayAt(first + 1, type::kWrite, WriteBody(aperture.name, 0, Word(1)));
  peer.SayAt(first + 2, type::kClose, {});
  peer.SayAt(first + 3, type::kWrite, WriteBody(aperture.name, 8, Word(2)));
  t.Need(t.nic.Alive(), "W55", "the NIC is not there");
  t.Check(t.nic.IsUp(t.context(), t.LinkOf(peer)), "W55",
          "a close took effect before its turn");
  peer.SayAt(first, type::kWrite, WriteBody(aperture.name, 16, Word(3)));
  peer.set_next(first + 3);
  const auto down = t.AwaitEvent(kToldDown);
  t.Need(down && down->link == t.LinkOf(peer), "W55",
         "a close does not end the link");
  t.Check(peer.nic_acknowledged() == first + 3, "W55",
          "a close is not acknowledged, or more than it is");
  t.Equal(t.nic.PeekWord(aperture, 0), 1, "W55",
          "a word written before a close");
  t.Equal(t.nic.PeekWord(aperture, 16), 3, "W55",
          "a word written before a close");
  t.Equal(t.nic.PeekWord(aperture, 8), 0, "W55",
          "a word written after a close");
  peer.Forget();
}

void CloseByTheNic(Test& t) {
  Peer& peer = t.Open();
  for (uint64_t i = 0; i < 20; ++i) {
    t.nic.Write(t.context(), t.LinkOf(peer), Test::OurName(), 8 * i, Word(i),
                0);
  }
  t.nic.Message(t.context(), t.LinkOf(peer), Pattern(3000));
  t.nic.Close(t.context(), t.LinkOf(peer));
  t.Need(peer.Until([&] { return peer.closed_by_nic(); }), "W55",
         "the NIC's close does not come");
  t.Equal(peer.Count(0,
                     [](const Heard& h) {
                       return h.packet.type == type::kWrite && !h.repeat;
                     }),
          20, "W55", "writes that came before the close");
  t.Check(peer.messages().size() == 1, "W55",
          "a message before a close was lost");
  t.wire.Run(2 * kMillisecond);  // anything after it is a complaint
  t.Check(!t.nic.IsUp(t.context(), t.LinkOf(peer)), "W55",
          "a closed link counts as up");
}

void Unread(Test& t) {
  Peer& peer = t.Open();
  Bytes big = Pattern(1 << 20, 7);
  for (int i = 0; i < 16; ++i) peer.SayMessage(big);
  t.Need(peer.Until([&] { return peer.nic_acknowledged() >= peer.next(); },
                    20 * kSecond),
         "W33", "16 MiB of messages are not taken");
  const uint64_t extra =
      peer.Say(type::kMessage, MessageBody(4, 0, Pattern(4)));
  const Exported aperture = t.Export();
  const uint64_t write =
      peer.Say(type::kWrite, WriteBody(aperture.name, 0, Word(5)),
               flag::kLast | flag::kAckRequested);
  t.Need(t.nic.Alive(), "W33", "the NIC is not there");
  t.Check(peer.nic_acknowledged() <= extra, "W33",
          "a message there is no room for is acknowledged");
  t.Equal(t.nic.PeekWord(aperture, 0), 0, "W33",
          "a word after a message there is no room for");
  for (int i = 0; i < 3; ++i) {
    const auto message = Take(t, peer);
    t.Check(message.has_value() && message->size() == big.size(), "W33",
            "a message that was acknowledged is not there");
  }
  Packet again = peer.Make(type::kMessage, MessageBody(4, 0, Pattern(4)));
  again.sequence = static_cast<uint32_t>(extra);
  peer.Send(again);
  Packet write_again = peer.Make(
      type::kWrite, WriteBody(aperture.name, 0, Word(5)), flag::kLast);
  write_again.sequence = static_cast<uint32_t>(write);
  peer.Send(write_again);
  t.Need(peer.Flush(), "W33", "with room again, the link does not go on");
  t.Equal(t.nic.PeekWord(aperture, 0), 5, "W33", "the word after it");
}

}  // namespace

std::vector<TestCase> MessageTests() {
  return {
      {"message.whole", Tier::kCore, {"M14"}, Whole},
      {"message.from-the-nic", Tier::kCore, {"M14", "W38"}, FromTheNic},
      {"message.in-order-with-writes", Tier::kCore, {"M14"}, InOrderWithWrites},
      {"message.contradictions",
       Tier::kFunctional,
       {"W54", "M14"},
       Contradictions},
      {"message.close", Tier::kFunctional, {"W55"}, Close},
      {"message.close-by-the-nic", Tier::kFunctional, {"W55"}, CloseByTheNic},
      {"message.unread", Tier::kFull, {"W33", "M30"}, Unread},
  };
}

}  // namespace tripwire::conform
