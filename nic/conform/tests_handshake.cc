// SPDX-License-Identifier: BSD-3-Clause
// Finding each other, connecting, resets, the end of a link.
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nic/conform/test.h"

namespace tripwire::conform {
namespace {

uint32_t tokens = 0x1000;

std::optional<Body> Discover(Test& t, std::string_view node,
                             std::string_view service,
                             uint64_t within_ns = kAnswerNs) {
  const uint32_t token = ++tokens;
  t.wire.SendControl(type::kDiscover,
                     BodyWriter()
                         .String(field::kDiscoverNode, node)
                         .String(field::kDiscoverService, service)
                         .Fixed32(field::kDiscoverToken, token),
                     0, 0, true);
  std::optional<Body> found;
  t.wire.TakeControl(
      [&](const Packet& p) {
        Body body;
        if (p.type != type::kAnnounce || p.source != t.wire.nic_mac() ||
            !ParseBody(p.payload, &body) ||
            body.Number(field::kAnnounceToken) != token) {
          return false;
        }
        found = body;
        return true;
      },
      within_ns);
  return found;
}

// The NIC has seen, and done with, all that was sent before.
void Settle(Test& t) { t.Need(t.nic.Alive(), "W30", "the NIC is not there"); }

void Discovery(Test& t) {
  t.context();
  const auto named = Discover(t, t.nic.node(), t.service());
  t.Need(named.has_value(), "W72", "no answer to its name and its service");
  const std::string node = named->String(field::kAnnounceNode);
  t.Check(node == t.nic.node(), "W72", "an announce of another name");
  const auto services = named->strings.at(field::kAnnounceServices);
  t.Check(!services.empty() && services.front() == t.service(), "W73",
          "the service that was asked for is not the first");
  t.Check(Discover(t, "", t.service()).has_value(), "W72",
          "no answer to a question for its service");
  t.Check(Discover(t, "", "").has_value(), "W72",
          "no answer to a question for anybody");
  t.Check(Discover(t, t.nic.node(), "nobody-offers-this").has_value(), "W72",
          "no answer to its name because of the service");
  t.Check(!Discover(t, "", "nobody-offers-this", t.Within(5 * kMillisecond)),
          "W72", "an answer for a service that is not offered");
  t.Check(
      !Discover(t, t.nic.node() + "x", t.service(), t.Within(5 * kMillisecond)),
      "W72", "an answer to another's name");
}

void OneAttemptOneLink(Test& t) {
  t.context();
  Peer& peer = t.NewPeer();
  for (int i = 0; i < 3; ++i) peer.SendConnect(t.service(), "again");
  const auto request = t.AwaitEvent(kToldRequest);
  t.Need(request.has_value(), "W74", "a connect led to no request");
  t.Check(std::string(request->data.begin(), request->data.end()) == "again",
          "W74", "connection data did not arrive");
  for (int i = 0; i < 3; ++i) peer.SendConnect(t.service(), "again");
  Settle(t);
  t.Check(!t.AwaitEvent(kToldRequest, 0).has_value(), "W74",
          "one attempt, asked again, made a second request");
  t.nic.Accept(t.context(), request->link);
  const auto first = peer.AwaitAnswer();
  t.Need(first.has_value() && peer.TakeAccept(*first), "W74", "no accept");
  for (int i = 0; i < 3; ++i) {
    peer.SendConnect(t.service(), "again");
    const auto again = peer.AwaitAnswer();
    t.Need(again.has_value(), "W74", "asked again, an attempt is not answered");
    t.Check(again->payload == first->payload, "W74",
            "asked again, an attempt gets another answer");
  }
  t.Check(!t.AwaitEvent(kToldRequest, 0).has_value(), "W74",
          "one attempt, asked again, made a second request");
  t.Need(peer.Flush(), "W74", "the link does not carry data");
  // Another epoch is another attempt.
  Peer& other = t.NewPeer();
  other.SendConnect(t.service(), "new");
  t.Check(t.AwaitEvent(kToldRequest).has_value(), "W74",
          "a second attempt made no request");
}

void SmallerFrameAndChecksum(Test& t) {
  for (const uint32_t bytes : {512u, 700u, 1514u, 60000u}) {
    Peer& peer = t.Open([&](Peer& p) { p.offer_frame_bytes = bytes; });
    t.Check(
        peer.max_frame_bytes() <= bytes, "W76",
        absl::StrFormat("frames of %u bytes were agreed, of at most %u offered",
                        peer.max_frame_bytes(), bytes));
    if (bytes == 512) {
      t.Equal(peer.max_frame_bytes(), 512, "W76", "the agreed frame size");
      // And it keeps to it (the peer checks each frame).
      const Exported aperture = t.Export(4096);
      t.CheckStatus(peer.Read(aperture.name, 0, 4096, nullptr), status::kOk,
                    "W76", "a read in small frames");
    }
  }
  Peer& with = t.Open([](Peer& p) { p.offer_checksum = true; });
  t.Check(with.checksum(), "W76", "a checksum was asked for and not granted");
}

void BadConnects(Test& t) {
  t.context();
  const std::string longest(200, 'n'), too_long(201, 'n'), data(1025, 'd');
  const auto body = [&](uint32_t epoch, const std::string& node,
                        const std::string& private_data, uint32_t frame_bytes) {
    return BodyWriter()
        .Fixed32(field::kConnectLink, t.wire.NewLinkName())
        .Fixed32(field::kConnectEpoch, epoch)
        .String(field::kConnectService, t.service())
        .String(field::kConnectNode, node)
        .String(field::kConnectData, private_data)
        .Varint(field::kConnectFrameBytes, frame_bytes)
        .Varint(field::kConnectChecksum, 1);
  };
  struct Wrong {
    const char* what;
    Bytes bytes;
  };
  const Wrong wrongs[] = {
      {"no protobuf", Pattern(40, 3)},
      {"a body cut short",
       [&] {
         Bytes b = body(5, "n", "d", 1514);
         b.resize(b.size() - 3);
         return b;
       }()},
      {"epoch 0", body(0, "n", "d", 1514)},
      {"a node name of 201 bytes", body(5, too_long, "", 1514)},
      {"connection data of 1025 bytes", body(5, "n", data, 1514)},
      {"frames of 100 bytes", body(5, "n", "d", 100)},
  };
  for (const Wrong& wrong : wrongs) {
    t.wire.control().clear();
    t.wire.SendControl(type::kConnect, wrong.bytes);
    Settle(t);
    t.Check(!t.AwaitEvent(kToldRequest, 0).has_value(), "W70",
            absl::StrCat("a connect with ", wrong.what, " made a request"));
    t.Check(t.wire.control().empty(), "W70",
            absl::StrCat("a connect with ", wrong.what, " was answered"));
  }
  // At the limits, and with fields of the future, it is taken.
  BodyWriter good = body(6, longest, std::string(1024, 'd'), 1514);
  good.Varint(field::kConnectFeatures, 0xffff).Varint(100, 7);
  t.wire.SendControl(type::kConnect,
                     good.String(101, std::string_view("the future")));
  const auto request = t.AwaitEvent(kToldRequest);
  t.Check(request.has_value(), "W71",
          "a connect with unknown fields, and everything as long as it may be, "
          "made no request");
  if (request) {
    t.Equal(request->data.size(), 1024, "W71", "bytes of connection data");
    t.nic.Reject(t.context(), request->link);
  }
  for (const uint8_t type :
       {type::kDiscover, type::kAnnounce, type::kAccept, type::kReject}) {
    t.wire.SendControl(type, Pattern(33, 5));
  }
  Settle(t);
}

void Rejects(Test& t) {
  t.context();
  Peer& nobody = t.NewPeer();
  nobody.SendConnect("nobody-offers-this");
  const auto no_service = nobody.AwaitAnswer();
  t.Need(no_service.has_value(), "W79", "no answer");
  Body body;
  t.Check(no_service->type == type::kReject &&
              ParseBody(no_service->payload, &body) &&
              body.Number(field::kRejectReason) == 1,
          "W79", "not a reject for want of the service");
  Peer& refused = t.NewPeer();
  refused.SendConnect(t.service());
  const auto request = t.AwaitEvent(kToldRequest);
  t.Need(request.has_value(), "W74", "no request");
  t.nic.Reject(t.context(), request->link);
  const auto answer = refused.AwaitAnswer();
  t.Need(answer.has_value(), "W79", "a refused attempt gets no answer");
  t.Check(answer->type == type::kReject && ParseBody(answer->payload, &body) &&
              body.Number(field::kRejectReason) == 0,
          "W79", "not a reject by the application");
}

void EpochsAndNames(Test& t) {
  std::set<uint32_t> epochs, names;
  const Exported aperture = t.Export();
  for (int i = 0; i < 20; ++i) {
    Peer& peer = t.Open();
    t.Check(peer.nic_epoch() != 0, "W17", "epoch 0");
    t.Check(epochs.insert(peer.nic_epoch()).second, "W17",
            "two links of one epoch");
    t.Check(names.insert(peer.nic_link()).second, "W18",
            "the name of an ended link came again");
    const Packet old =
        peer.Make(type::kWrite, WriteBody(aperture.name, 0, Pattern(8)));
    peer.Reset();
    Settle(t);
    // A frame of the link that was, now that its place may be another's.
    t.wire.control().clear();
    peer.Send(old);
    const auto reset = t.wire.TakeControl(
        [](const Packet& p) { return p.type == type::kReset; },
        t.Within(20 * kMillisecond));
    t.Check(reset.has_value(), "W16",
            "a frame of an ended link is not answered with a reset");
  }
  t.Check(t.nic.Peek(aperture, 0, 8) == Bytes(8), "M27",
          "a frame of an ended link reached memory");
}

// A NIC as a new peer finds it after a restart of ours: same MAC, same name of
// the link, another epoch.
void RestartedPeer(Test& t) {
  Peer& before = t.Open();
  const Exported aperture = t.Export();
  before.Forget();
  Peer& after = t.Open();
  Packet old =
      before.Make(type::kWrite, WriteBody(aperture.name, 0, Pattern(8, 3)));
  old.link = after.nic_link();  // old life's epoch on the new link
  t.wire.control().clear();
  before.Send(old);
  t.Need(after.Flush(), "M27", "the new link does not go on");
  t.Check(t.nic.Peek(aperture, 0, 8) == Bytes(8), "M27",
          "a frame of an older epoch was taken");
  // The new life knows nothing of the old one's frames, and says so.
  before.Reset();
  const auto down = t.AwaitEvent(kToldDown);
  t.Check(down && down->link == t.LinkOf(before), "M27",
          "the old link did not end when its peer knew it no more");
  t.Check(after.Flush(), "W57", "a reset ended another link of the same peer");
}

void Resets(Test& t) {
  Peer& peer = t.Open();
  Peer& bystander = t.Open();
  const auto reset = [&](uint32_t link, uint32_t epoch,
                         std::optional<MacAddress> source) {
    Packet packet;
    packet.type = type::kReset;
    packet.payload = Out().U32(link).U32(epoch);
    if (source) packet.source = *source;
    t.wire.control().clear();
    t.wire.Send(packet);
    Settle(t);
    for (const Packet& p : t.wire.control()) {
      t.Check(p.type != type::kReset, "W58",
              "a reset is answered with a reset");
    }
  };
  const MacAddress stranger{{0x02, 0x66, 6, 6, 6, 6}};
  reset(peer.link(), peer.epoch(), stranger);
  reset(peer.link(), peer.epoch() + 2, std::nullopt);
  reset(peer.link() + 100, peer.epoch(), std::nullopt);
  reset(peer.nic_link(), peer.nic_epoch(), std::nullopt);
  reset(0, 0, std::nullopt);
  t.Need(peer.Flush(), "W57",
         "a link was ended by a reset that was not its peer's, or did not name "
         "it");
  t.Check(t.nic.IsUp(t.context(), t.LinkOf(peer)), "M29", "the link is down");
  reset(peer.link(), peer.epoch(), std::nullopt);
  const auto down = t.AwaitEvent(kToldDown);
  t.Check(down && down->link == t.LinkOf(peer), "W57",
          "a reset that names the link, from its peer, did not end it");
  peer.Forget();
  t.Check(bystander.Flush(), "W57", "a reset of one link ended another");
}

void FromTheNic(Test& t) {
  Peer& peer = t.OpenFromNic();
  t.Need(peer.Flush(), "W74", "a link the NIC asked for carries no data");
  t.Check(t.nic.IsUp(t.context(), t.LinkOf(peer)), "W74", "the link is not up");
  // The accept again: it is there already.
  t.wire.SendControl(type::kAccept, peer.AcceptBody(), peer.nic_link(),
                     peer.nic_epoch());
  t.Check(peer.Flush(), "M28", "a repeated accept spoils the link");
  t.Check(!t.AwaitEvent(kToldUp, 0).has_value(), "M28",
          "a repeated accept made a second link");
  // An accept for what was never asked.
  t.wire.control().clear();
  t.wire.SendControl(type::kAccept, peer.AcceptBody(), 0x0badcafe, 0x77);
  const auto reset =
      t.wire.TakeControl([](const Packet& p) { return p.type == type::kReset; },
                         t.Within(20 * kMillisecond));
  t.Need(reset.has_value(), "W78",
         "an accept for no attempt is not answered with a reset");
  t.Check(reset->U32(0) == 0x0badcafe && reset->U32(4) == 0x77, "W78",
          "the reset does not repeat the names");
}

// The answer to `question` of somebody called `node` who has what it asks for.
void Announce(Test& t, const Body& question, std::string_view node,
              const MacAddress& from) {
  Packet packet;
  packet.type = type::kAnnounce;
  packet.source = from;
  packet.payload =
      BodyWriter()
          .String(field::kAnnounceNode, node)
          .String(field::kAnnounceServices,
                  question.String(field::kDiscoverService))
          .Fixed32(
              field::kAnnounceToken,
              static_cast<uint32_t>(question.Number(field::kDiscoverToken)));
  t.wire.Send(packet);
}

void AcceptWithoutChecksum(Test& t) {
  t.context();
  Peer& peer = t.NewPeer();
  std::optional<Packet> connect;
  t.wire.on_control = [&](const Packet& p) {
    if (p.type == type::kConnect && !connect) connect = p;
    Body question;
    if (p.type == type::kDiscover && ParseBody(p.payload, &question) &&
        question.String(field::kDiscoverService) == "w77") {
      Announce(t, question, "w77", t.wire.mac());
    }
  };
  const uint32_t link = t.nic.StartConnect(t.context(), "w77", "w77");
  t.Need(t.wire.Until([&] { return connect.has_value(); }, kAnswerNs), "W77",
         "the NIC sent no connect");
  t.wire.on_control = nullptr;
  Body body;
  ParseBody(connect->payload, &body);
  if (body.Number(field::kConnectChecksum) == 0) {
    t.nic.Close(t.context(), link);
    t.Skip("over this port the NIC asks for no checksums");
  }
  peer.offer_checksum = true;
  t.Need(peer.TakeConnect(*connect), "W70", "the connect makes no sense");
  BodyWriter accept;
  accept.Fixed32(field::kAcceptLink, peer.link());
  accept.Fixed32(field::kAcceptEpoch, peer.epoch());
  accept.Varint(field::kAcceptFrameBytes, 1514);
  t.wire.SendControl(type::kAccept, accept, peer.nic_link(), peer.nic_epoch());
  Settle(t);
  t.Check(!t.nic.IsUp(t.context(), link), "W77",
          "an accept that drops the checksum was taken");
  t.wire.SendControl(type::kAccept, peer.AcceptBody(), peer.nic_link(),
                     peer.nic_epoch());
  t.Check(t.AwaitEvent(kToldUp).has_value(), "W77",
          "an accept with the checksum was not taken");
}

// The node that was found is gone from where it was found.
void LooksAgain(Test& t) {
  t.context();
  const MacAddress nobody = {{0x02, 0x99, 1, 2, 3, 4}};
  int questions = 0, connects = 0, early = 0;
  t.wire.on_control = [&](const Packet& p) {
    if (p.type == type::kConnect) {
      ++connects;
      if (questions < 2) ++early;
    }
    Body question;
    if (p.type != type::kDiscover || !ParseBody(p.payload, &question) ||
        question.String(field::kDiscoverService) != "w81") {
      return;
    }
    const std::string node = question.String(field::kDiscoverNode);
    if (node.empty()) Announce(t, question, "w81", nobody);
    if (node != "w81") return;
    // First somebody else says that he is here.
    const bool other = ++questions == 1;
    Announce(t, question, other ? "not-w81" : "w81", t.wire.mac());
  };
  const uint32_t link = t.nic.StartConnect(t.context(), "", "w81");
  t.wire.Until([&] { return connects > 0; }, 2 * kAnswerNs);
  t.wire.on_control = nullptr;
  t.nic.Close(t.context(), link);
  t.Need(questions > 0, "W81",
         "a node that does not answer connects is not looked for again");
  t.Check(early == 0, "W81",
          "a node of another name was asked in place of the one chosen");
  t.Check(connects > 0, "W81",
          "the node was found elsewhere, and not asked there");
}

void Features(Test& t) {
  Peer& peer = t.Open();
  if (t.nic.Has(kAtomics)) {
    t.Check((peer.nic_features() & 1) != 0, "W80",
            "a NIC with atomics does not announce them");
  }
  Peer& plain = t.Open([](Peer& p) { p.offer_features = 0; });
  if (!t.nic.Has(kAtomics)) return;
  const uint32_t operation = t.nic.Atomic(t.context(), t.LinkOf(plain),
                                          Test::OurName(), 0, kFetchAdd, 1, 0);
  const OperationState state = t.nic.Await(operation);
  t.CheckStatus(state.status, status::kUnknown, "W80",
                "an atomic operation towards a peer without atomics");
}

void Flood(Test& t) {
  t.context();
  for (int i = 0; i < 4200; ++i) {
    BodyWriter body;
    body.Fixed32(field::kConnectLink, t.wire.NewLinkName());
    body.Fixed32(field::kConnectEpoch, 77);
    body.String(field::kConnectService, t.service());
    body.Varint(field::kConnectFrameBytes, 1514);
    body.Varint(field::kConnectChecksum, 1);
    t.wire.SendControl(type::kConnect, body);
    if (i % 64 == 63) Settle(t);
  }
  Settle(t);
  size_t requests = 0;
  for (;;) {
    const auto events = t.nic.Events(t.context(), 512);
    if (events.empty()) break;
    for (const ToldOf& event : events) requests += event.kind == kToldRequest;
  }
  t.Check(requests > 0 && requests <= 4096, "W75",
          absl::StrFormat("%u requests wait; 4096 may", requests));
  Settle(t);
}

}  // namespace

std::vector<TestCase> HandshakeTests() {
  return {
      {"handshake.discovery", Tier::kCore, {"W72", "W73"}, Discovery},
      {"handshake.one-attempt-one-link",
       Tier::kCore,
       {"W74", "M28"},
       OneAttemptOneLink},
      {"handshake.frame-size-and-checksum",
       Tier::kCore,
       {"W76"},
       SmallerFrameAndChecksum},
      {"handshake.bodies", Tier::kCore, {"W70", "W71"}, BadConnects},
      {"handshake.rejects", Tier::kCore, {"W79"}, Rejects},
      {"handshake.epochs-and-names",
       Tier::kFunctional,
       {"W17", "W18", "W16", "M27"},
       EpochsAndNames},
      {"handshake.restarted-peer",
       Tier::kFunctional,
       {"M27", "W57"},
       RestartedPeer},
      {"handshake.resets", Tier::kFunctional, {"W57", "W58", "M29"}, Resets},
      {"handshake.from-the-nic",
       Tier::kCore,
       {"W78", "W74", "M28"},
       FromTheNic},
      {"handshake.accept-without-checksum",
       Tier::kFunctional,
       {"W77"},
       AcceptWithoutChecksum},
      {"handshake.looks-again", Tier::kFunctional, {"W81"}, LooksAgain},
      {"handshake.features", Tier::kFull, {"W80"}, Features},
      {"handshake.flood", Tier::kFull, {"W75", "M30"}, Flood},
  };
}

}  // namespace tripwire::conform
