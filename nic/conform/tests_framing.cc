// SPDX-License-Identifier: BSD-3-Clause
// What is a frame, and what is dropped.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

// A link and an aperture, and frames that would change it were they not wrong.
struct Target {
  explicit Target(Test& test)
      : t(test), peer(test.Open()), aperture(test.Export()) {}

  // A good write of the next number, to be spoilt.
  Packet Good() {
    return peer.Make(type::kWrite,
                     WriteBody(aperture.name, 0, Pattern(16, ++seed)));
  }
  // Sends it. It must change nothing, take up no number, and not be answered.
  void MustBeDropped(const Packet& packet, const char* statement,
                     const std::string& what, bool may_be_reset = false) {
    peer.Send(packet);
    After(statement, what, may_be_reset);
  }
  void MustBeDropped(const Bytes& frame, const char* statement,
                     const std::string& what, bool may_be_reset = false) {
    t.wire.Transmit(frame);
    After(statement, what, may_be_reset);
  }
  void After(const char* statement, const std::string& what,
             bool may_be_reset) {
    const bool went_on = peer.Flush();
    t.Need(went_on, statement, absl::StrCat(what, ": the link does not go on"));
    t.Check(t.nic.Peek(aperture, 0, 16) == Bytes(16), statement,
            absl::StrCat(what, ": it reached memory"));
    if (!may_be_reset) {
      t.Check(!Reset(), statement, absl::StrCat(what, ": it was answered"));
    }
    t.nic.Poke(aperture, 0, Bytes(16));
    t.wire.control().clear();
  }
  bool Reset() const {
    for (const Packet& p : t.wire.control()) {
      if (p.type == type::kReset) return true;
    }
    return false;
  }

  Test& t;
  Peer& peer;
  Exported aperture;
  uint8_t seed = 1;
};

void OtherEtherTypes(Test& t) {
  Target target(t);
  for (const uint8_t low : {0xb6, 0x00}) {
    Packet packet = target.Good();
    packet.ether_type = {0x88, low};
    target.MustBeDropped(packet, "W1",
                         absl::StrFormat("EtherType 88%02x", low));
  }
  // And the same frame with the right one is taken.
  target.peer.Say(type::kWrite,
                  WriteBody(target.aperture.name, 0, Pattern(16)));
  t.Need(target.peer.Flush(), "W1", "a good frame is not taken");
  t.Check(t.nic.Peek(target.aperture, 0, 16) == Pattern(16), "W1",
          "a good frame is not taken");
}

void OtherVersions(Test& t) {
  Target target(t);
  for (const int version : {0, 2, 3, 255}) {
    Packet packet = target.Good();
    packet.version = static_cast<uint8_t>(version);
    target.MustBeDropped(packet, "W2", absl::StrCat("version ", version));
  }
}

void UnknownTypes(Test& t) {
  Target target(t);
  for (int type = 0; type < 256; ++type) {
    const bool known = type == 1 || type == 2 || (type >= 16 && type <= 25) ||
                       (type >= 48 && type <= 52);
    if (known) continue;
    Packet packet = target.Good();
    packet.type = static_cast<uint8_t>(type);
    target.peer.Send(packet);
  }
  target.After("W2", "frames of all unknown types", false);
}

void ShortFrames(Test& t) {
  Target target(t);
  const Bytes good = Encode(target.Good());
  for (size_t n = 14; n < kHeaderBytes + 30 + 4; n += 3) {
    target.MustBeDropped(
        Bytes(good.begin(), good.begin() + static_cast<ptrdiff_t>(n)), "W3",
        absl::StrFormat("a frame cut to %u bytes", n));
  }
  for (const int length : {1, 13, 14 + 17, 64, 1000, 65535}) {
    Packet packet = target.Good();
    packet.length = static_cast<uint16_t>(length);
    target.MustBeDropped(packet, "W3",
                         absl::StrCat("a length field of ", length));
  }
  struct Fixed {
    uint8_t type;
    size_t bytes;
  };
  for (const Fixed fixed :
       {Fixed{type::kAck, 32}, Fixed{type::kWrite, 14},
        Fixed{type::kReadRequest, 20}, Fixed{type::kReadResponse, 10},
        Fixed{type::kFlushResponse, 4}, Fixed{type::kError, 8},
        Fixed{type::kMessage, 8}, Fixed{type::kAtomicRequest, 32},
        Fixed{type::kAtomicResponse, 12}}) {
    Packet packet = target.Good();
    packet.type = fixed.type;
    packet.payload.resize(fixed.bytes - 1);
    target.MustBeDropped(
        packet, "W3",
        absl::StrFormat("%s one byte too short", TypeName(fixed.type)));
  }
}

void WrongChecksums(Test& t) {
  Target target(t);
  const Bytes good = Encode(target.Good());
  const size_t end = kHeaderBytes + 30 + 4;
  for (size_t at = 14; at < end; at += 1) {
    if (at == 16) continue;  // the flag itself: then it has none
    Bytes bad = good;
    bad[at] ^= static_cast<uint8_t>(1u << (at % 8));
    t.wire.Transmit(bad);
    if (at % 8 == 7 || at + 1 == end) {
      target.After("W4",
                   absl::StrFormat("a bit flipped at or before byte %u", at),
                   false);
    }
  }
  for (const uint32_t spoil : {1u, 0x80000000u, 0xffffffffu}) {
    Packet packet = target.Good();
    packet.spoil_checksum = spoil;
    target.MustBeDropped(packet, "W4", "a wrong checksum");
  }
}

void ChecksumsWhereTheyMustBe(Test& t) {
  Target target(t);
  if (target.peer.checksum()) {
    Packet packet = target.Good();
    packet.checksum = false;
    target.MustBeDropped(packet, "W6", "a frame without a checksum");
  }
  // Outside links: a reset, and a connect.
  Packet reset;
  reset.type = type::kReset;
  reset.payload = Out().U32(target.peer.link()).U32(target.peer.epoch());
  reset.checksum = false;
  t.wire.Send(reset);
  t.Need(target.peer.Flush(), "W5",
         "a reset without a checksum ended the link");
  Peer& other = t.NewPeer();
  Packet connect;
  connect.type = type::kConnect;
  connect.payload = other.ConnectBody("nobody-offers-this");
  connect.checksum = false;
  t.wire.Send(connect);
  t.Need(target.peer.Flush(), "W5", "the link does not go on");
  t.Check(!other.AwaitAnswer(0).has_value(), "W5",
          "a connect without a checksum is answered");
  connect.checksum = true;
  t.wire.Send(connect);
  t.Check(other.AwaitAnswer().has_value(), "W5",
          "a connect with a checksum is not answered");
}

void BytesBeyond(Test& t) {
  Target target(t);
  Packet padded = target.Good();
  padded.payload.resize(16);  // 2 bytes of data: the frame is padded
  padded.padding = 0xa5;
  padded.sequence = static_cast<uint32_t>(target.peer.next());
  target.peer.SayAt(target.peer.next(), type::kFlushRequest, {});
  const uint64_t flush = target.peer.next();
  target.peer.set_next(flush + 1);
  t.Need(target.peer.Until([&] { return target.peer.FlushDone(flush); }), "W7",
         "a flush is not answered");
  // Padding that is not zero, and bytes after the checksum.
  Packet flush_packet = target.peer.Make(type::kFlushRequest, {});
  flush_packet.padding = 0xa5;
  const uint64_t second = target.peer.next();
  target.peer.set_next(second + 1);
  target.peer.SayAt(second, type::kFlushRequest, Bytes{});  // registers it
  target.peer.Send(flush_packet);
  // Bytes of a payload that this version does not know.
  const uint64_t third = target.peer.Say(type::kFlushRequest, Pattern(7, 3));
  t.Check(target.peer.Until([&] { return target.peer.FlushDone(third); }), "W7",
          "a flush with bytes behind its (empty) fixed part is not taken");
  const uint64_t read = target.peer.Say(
      type::kReadRequest,
      Out().Add(ReadBody(target.aperture.name, 0, 8)).Add(Pattern(9)));
  t.Check(target.peer.Until([&] { return target.peer.ReadDone(read); }), "W7",
          "a read request with bytes behind its fixed part is not taken");
  Packet trailing = target.Good();
  Bytes bytes = Encode(trailing);
  const Bytes more = Pattern(40, 9);
  bytes.insert(bytes.end(), more.begin(), more.end());
  t.wire.Transmit(bytes);
  target.peer.SayAt(target.peer.next(), type::kWrite, trailing.payload);
  target.peer.set_next(target.peer.next() + 1);
  t.Need(target.peer.Flush(), "W7", "bytes behind the checksum stop the link");
}

void Flags(Test& t) {
  Target target(t);
  Packet tagged = target.Good();
  tagged.flags |= flag::kAuthenticated;
  target.MustBeDropped(tagged, "W9", "a frame with flag 0008");
  const Bytes tag(12);
  tagged = target.Good();
  tagged.flags |= flag::kAuthenticated;
  Bytes bytes = Encode(tagged);
  bytes.insert(bytes.end(), tag.begin(), tag.end());
  target.MustBeDropped(bytes, "W9", "a frame with a tag");
  for (int bit = 5; bit < 12; ++bit) {
    const uint8_t got = target.peer.Try(
        type::kWrite, WriteBody(target.aperture.name, 8u * bit, Word(bit)),
        static_cast<uint16_t>(flag::kLast | 1u << bit));
    t.CheckStatus(
        got, status::kOk, "W11",
        absl::StrFormat("a write with reserved flag %04x", 1u << bit));
    t.Equal(t.nic.PeekWord(target.aperture, 8u * bit), bit, "W11",
            "what it wrote");
  }
  for (const int hops : {1, 7, 15}) {
    const auto flags =
        static_cast<uint16_t>(flag::kLast | hops << flag::kHopsShift);
    const uint8_t got = target.peer.Try(
        type::kWrite, WriteBody(target.aperture.name, 256, Word(hops)), flags);
    t.CheckStatus(got, status::kOk, "W61",
                  absl::StrCat("a write of hops ", hops));
    t.Equal(t.nic.PeekWord(target.aperture, 256), hops, "W61", "what it wrote");
    const uint8_t refused = target.peer.Try(
        type::kWrite, WriteBody(target.aperture.name, 4096, Word(hops)), flags);
    t.CheckStatus(refused, status::kOutOfBounds, "W61",
                  absl::StrCat("a write out of bounds of hops ", hops));
  }
  // Flag 0010 says something on writes alone.
  const uint64_t read =
      target.peer.Say(type::kReadRequest, ReadBody(target.aperture.name, 0, 8),
                      flag::kLast | flag::kUnordered);
  t.Check(target.peer.Until([&] { return target.peer.ReadDone(read); }), "W60",
          "a read request with flag 0010 is not answered");
  t.CheckStatus(
      target.peer.Try(type::kFlushRequest, {}, flag::kLast | flag::kUnordered),
      status::kOk, "W60", "a flush with flag 0010");
}

void Addresses(Test& t) {
  Target target(t);
  Packet group = target.Good();
  group.source = {{0x03, 0x54, 0, 0, 0, 9}};
  target.MustBeDropped(group, "W12", "a frame from a group address");
  group = target.Good();
  group.source = {{0x03, 0x54, 0, 0, 0, 9}};
  group.link = 0x12345678;
  target.MustBeDropped(group, "W12", "a frame of no link from a group address");
  Packet elsewhere = target.Good();
  elsewhere.destination = {{0x02, 0x99, 1, 2, 3, 4}};
  target.MustBeDropped(elsewhere, "W13", "a frame to another station");
}

void NameNoLink(Test& t) {
  Target target(t);
  struct Wrong {
    const char* what;
    uint32_t link, epoch;
  };
  const uint32_t link = target.peer.nic_link(), epoch = target.peer.nic_epoch();
  for (const Wrong& wrong :
       {Wrong{"another epoch", link, epoch + 1}, Wrong{"epoch 0", link, 0},
        Wrong{"another link", link + 1, epoch},
        Wrong{"no link at all", 0xfffffff0u, 0x12345678u}}) {
    Packet packet = target.Good();
    packet.link = wrong.link;
    packet.epoch = wrong.epoch;
    t.wire.control().clear();
    target.peer.Send(packet);
    const auto reset = t.wire.TakeControl(
        [](const Packet& p) { return p.type == type::kReset; },
        t.Within(20 * kMillisecond));
    t.Check(reset.has_value(), "W16",
            absl::StrCat("a frame that names ", wrong.what,
                         " is not answered with a reset"));
    if (reset) {
      t.Check(reset->U32(0) == wrong.link && reset->U32(4) == wrong.epoch,
              "W16", "a reset does not repeat what the frame said");
    }
    target.After("W15", absl::StrCat("a frame that names ", wrong.what), true);
  }
  // The right names, from somebody else.
  Packet stranger = target.Good();
  stranger.source = {{0x02, 0x66, 6, 6, 6, 6}};
  target.MustBeDropped(stranger, "W15", "a frame from another station", true);
}

void CountedByReason(Test& t) {
  t.nic.Require(kCountsDrops, "counters");
  Target target(t);
  const auto counted = [&](uint8_t counter, const Packet& packet,
                           const char* statement, const char* what) {
    const uint64_t before = t.nic.CounterValue(counter);
    target.peer.Send(packet);
    t.Need(target.peer.Flush(), statement, "the link does not go on");
    t.Equal(t.nic.CounterValue(counter), before + 1, statement,
            absl::StrCat("the counter of ", what));
  };
  Packet packet = target.Good();
  packet.version = 9;
  counted(kDropMalformed, packet, "W2", "malformed frames");
  packet = target.Good();
  packet.spoil_checksum = 1;
  counted(kDropChecksum, packet, "W4", "frames with a wrong checksum");
  packet = target.Good();
  packet.epoch ^= 1;
  counted(kDropEpoch, packet, "W15", "frames of another epoch");
}

}  // namespace

std::vector<TestCase> FramingTests() {
  return {
      {"framing.other-ethertypes", Tier::kCore, {"W1"}, OtherEtherTypes},
      {"framing.other-versions", Tier::kCore, {"W2"}, OtherVersions},
      {"framing.unknown-types", Tier::kCore, {"W2"}, UnknownTypes},
      {"framing.short-frames", Tier::kCore, {"W3"}, ShortFrames},
      {"framing.wrong-checksums", Tier::kCore, {"W4"}, WrongChecksums},
      {"framing.missing-checksums",
       Tier::kCore,
       {"W5", "W6"},
       ChecksumsWhereTheyMustBe},
      {"framing.bytes-beyond", Tier::kCore, {"W7", "W8"}, BytesBeyond},
      {"framing.flags", Tier::kCore, {"W11", "W9", "W10", "W60", "W61"}, Flags},
      {"framing.addresses", Tier::kCore, {"W12", "W13"}, Addresses},
      {"framing.names-no-link", Tier::kCore, {"W16", "W15", "M29"}, NameNoLink},
      {"framing.drops-are-counted",
       Tier::kFunctional,
       {"W2", "W4", "W15"},
       CountedByReason},
  };
}

}  // namespace tripwire::conform
