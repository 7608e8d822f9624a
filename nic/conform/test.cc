// SPDX-License-Identifier: BSD-3-Clause
#include "nic/conform/test.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tripwire::conform {

const char* ToString(Tier tier) {
  switch (tier) {
    case Tier::kCore:
      return "core";
    case Tier::kFunctional:
      return "functional";
    default:
      return "full";
  }
}

std::vector<TestCase> AllTests() {
  std::vector<TestCase> all;
  for (auto part : {FramingTests, HandshakeTests, SequenceTests, SendingTests,
                    MemoryTests, MessageTests, OperationTests, TripwireTests,
                    AtomicTests, ActionTests, ScaleTests}) {
    std::vector<TestCase> tests = part();
    std::move(tests.begin(), tests.end(), std::back_inserter(all));
  }
  return all;
}

Test::Test(Segment& segment, Subject& subject, int number)
    : wire(segment),
      nic(subject),
      service_(absl::StrCat("conform-", number)) {}

Test::~Test() {
  wire.on_control = nullptr;
  peers_.clear();  // resets what is still open
  if (context_ == 0) return;
  try {
    nic.EndContext(context_);
  } catch (const TestFailure&) {
  } catch (const TestSkipped&) {
  }
}

uint32_t Test::context() {
  if (context_ == 0) context_ = nic.NewContext(service_);
  return context_;
}

Peer& Test::NewPeer() {
  peers_.push_back(std::make_unique<Peer>(wire));
  return *peers_.back();
}

uint32_t Test::LinkOf(const Peer& peer) const {
  const auto it = link_of_.find(&peer);
  return it == link_of_.end() ? kAnyLink : it->second;
}

std::optional<ToldOf> Test::AwaitEvent(uint8_t kind, uint64_t within_ns) {
  const uint64_t end_ns = wire.NowNs() + within_ns;
  for (;;) {
    for (ToldOf& event : nic.Events(context(), 1)) {
      if (event.kind == kind) return std::move(event);
    }
    if (wire.NowNs() >= end_ns) return std::nullopt;
    wire.Run(100 * kMicrosecond);
  }
}

Peer& Test::Open(const std::function<void(Peer&)>& change) {
  context();
  Peer& peer = NewPeer();
  if (change) change(peer);
  const std::string tag = absl::StrFormat("link-%u", peers_.size());
  peer.SendConnect(service_, tag);
  std::optional<ToldOf> request = AwaitEvent(kToldRequest);
  Need(request.has_value(), "W74", "a connect led to no request");
  nic.Accept(context_, request->link);
  const auto answer = peer.AwaitAnswer();
  Need(answer.has_value() && peer.TakeAccept(*answer), "W74",
       "a connect that was accepted got no accept, or one that makes no sense");
  link_of_[&peer] = request->link;
  return peer;
}

Peer& Test::OpenFromNic() {
  context();
  Peer& peer = NewPeer();
  const std::string target = absl::StrCat("target-", service_);
  std::optional<Packet> connect;
  wire.on_control = [&](const Packet& packet) {
    if (packet.type == type::kDiscover) {
      Body question;
      if (!ParseBody(packet.payload, &question) ||
          question.String(field::kDiscoverService) != target) {
        return;
      }
      wire.SendControl(
          type::kAnnounce,
          BodyWriter()
              .String(field::kAnnounceNode, std::string_view("tw-conform"))
              .String(field::kAnnounceServices, target)
              .Fixed32(field::kAnnounceToken,
                       static_cast<uint32_t>(
                           question.Number(field::kDiscoverToken))));
    } else if (packet.type == type::kConnect && !connect) {
      connect = packet;
    }
  };
  const uint32_t link = nic.StartConnect(context_, "tw-conform", target);
  const bool asked = wire.Until([&] { return connect.has_value(); }, kAnswerNs);
  wire.on_control = nullptr;
  Need(asked, "W74", "the NIC found us and sent no connect");
  Need(peer.TakeConnect(*connect), "W70", "the NIC's connect makes no sense");
  wire.SendControl(type::kAccept, peer.AcceptBody(), peer.nic_link(),
                   peer.nic_epoch());
  Need(AwaitEvent(kToldUp).has_value(), "W74",
       "the NIC's attempt was accepted and did not become a link");
  link_of_[&peer] = link;
  return peer;
}

void Test::Check(bool holds, const char* statement, std::string text) {
  if (!holds) {
    findings_.push_back({statement, std::move(text), wire.log().size()});
  }
}

void Test::Need(bool holds, const char* statement, std::string text) {
  if (!holds) throw TestFailure{statement, std::move(text)};
}

void Test::CheckStatus(uint8_t got, uint8_t wanted, const char* statement,
                       std::string what) {
  Check(
      got == wanted, statement,
      absl::StrCat(what, ": ", got == kNoAnswer ? "no answer" : StatusName(got),
                   ", should be ", StatusName(wanted)));
  if (got == kNoAnswer) throw TestFailure{statement, what + ": no answer"};
}

void Test::Equal(uint64_t got, uint64_t wanted, const char* statement,
                 std::string what) {
  Check(got == wanted, statement,
        absl::StrFormat("%s: %u, should be %u", what, got, wanted));
}

}  // namespace tripwire::conform
