// SPDX-License-Identifier: BSD-3-Clause
// Set-up and discovery against a peer that floods, repeats itself and lies.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "nic/control/unreadable.h"
#include "tests/unit/datapath/scripted_peer.h"

namespace tripwire {
namespace {

template <typename Message>
std::vector<Message> Bodies(const std::vector<Bytes>& frames) {
  std::vector<Message> bodies;
  for (const Bytes& frame : frames) {
    const wire::FrameView view = ScriptedPeer::View(frame);
    bodies.emplace_back();
    EXPECT_TRUE(bodies.back().ParseFromArray(
        view.payload.data(), static_cast<int>(view.payload.size())));
  }
  return bodies;
}

class ControlTest : public ::testing::Test {
 protected:
  uint64_t Links() {
    uint64_t links = 0;
    peer_.engine().ForEachLink([&](Link&) { ++links; });
    return links;
  }
  // What the engine says when the application asks for a link; the token of its
  // question.
  uint32_t StartAndHearQuestion(const std::string& node) {
    link_ = peer_.connections().Start(peer_.context(), node, "far", {}, kNever);
    peer_.Run();
    const auto questions =
        Bodies<control::Discover>(peer_.Take(wire::kDiscover));
    EXPECT_EQ(questions.size(), 1u);
    if (questions.empty()) return 0;
    EXPECT_EQ(questions[0].node(), node);
    EXPECT_EQ(questions[0].service(), "far");
    return questions[0].token();
  }
  void Announce(const std::string& node, uint32_t token,
                const std::string& service = "far") {
    control::Announce answer;
    answer.set_node(node);
    answer.set_token(token);
    answer.add_services(service);
    peer_.SayControl(wire::kAnnounce, answer);
  }
  control::Accept AcceptBody() {
    control::Accept accept;
    accept.set_link(ScriptedPeer::kLink);
    accept.set_epoch(ScriptedPeer::kEpoch);
    accept.set_max_frame_bytes(1514);
    accept.set_checksum(true);
    return accept;
  }

  ScriptedPeer peer_;
  LinkId link_;
};

TEST_F(ControlTest, OneAttemptMakesOneLinkHoweverOftenItAsks) {
  for (int i = 0; i < 5; ++i) {
    peer_.SayControl(wire::kConnect, peer_.ConnectBody());
  }
  auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kConnectRequest);
  EXPECT_TRUE(peer_.Take(wire::kAccept).empty()) << "nobody accepted";
  const uint8_t hello[] = {1, 2, 3};
  EXPECT_TRUE(peer_.connections().Accept(events[0].link, hello));
  EXPECT_FALSE(peer_.connections().Accept(events[0].link, hello));
  for (int i = 0; i < 3; ++i) {
    peer_.SayControl(wire::kConnect, peer_.ConnectBody());
  }
  const auto accepts = Bodies<control::Accept>(peer_.Take(wire::kAccept));
  ASSERT_EQ(accepts.size(), 4u);
  for (const auto& accept : accepts) {
    EXPECT_EQ(accept.SerializeAsString(), accepts[0].SerializeAsString());
    EXPECT_EQ(accept.private_data(), "\1\2\3");
  }
  EXPECT_EQ(Links(), 1u);
  EXPECT_TRUE(peer_.Events().empty());
}

TEST_F(ControlTest, AFloodOfAttemptsIsBounded) {
  control::Connect connect = peer_.ConnectBody();
  for (uint32_t i = 1; i <= 10000; ++i) {
    connect.set_epoch(i);
    peer_.SayControl(wire::kConnect, connect);
  }
  EXPECT_LE(Links(), 4096u);
  // Once they are dealt with, others have their turn.
  uint64_t rejected = 0;
  for (auto events = peer_.Events(); !events.empty(); events = peer_.Events()) {
    for (const Event& event : events) {
      ASSERT_EQ(event.kind, EventKind::kConnectRequest);
      peer_.connections().Reject(event.link);
      ++rejected;
    }
  }
  EXPECT_EQ(rejected, 4096u);
  EXPECT_EQ(Links(), 0u);
  peer_.Run();
  peer_.Take();
  EXPECT_TRUE(peer_.Connect());
}

TEST_F(ControlTest, AttemptsThatMakeNoSenseAreDroppedAndCounted) {
  const auto refused = [&](auto change) {
    control::Connect connect = peer_.ConnectBody();
    change(connect);
    const uint64_t before = peer_.counters().drop_malformed;
    peer_.SayControl(wire::kConnect, connect);
    EXPECT_EQ(peer_.counters().drop_malformed, before + 1);
    EXPECT_TRUE(peer_.Take().empty());
  };
  refused([](auto& c) { c.set_epoch(0); });
  refused([](auto& c) { c.set_max_frame_bytes(0); });
  refused([](auto& c) { c.set_max_frame_bytes(511); });
  refused([](auto& c) { c.set_private_data(std::string(1025, 'x')); });
  refused([](auto& c) { c.set_service(std::string(256, 'x')); });
  refused([](auto& c) { c.set_node(std::string(256, 'x')); });
  EXPECT_EQ(Links(), 0u);
}

TEST_F(ControlTest, BodiesThatAreNoProtobufAreDroppedAndCounted) {
  ASSERT_TRUE(peer_.Connect());
  const uint8_t types[] = {wire::kDiscover, wire::kAnnounce, wire::kConnect,
                           wire::kAccept, wire::kReject};
  const uint64_t before = peer_.counters().drop_malformed;
  for (const uint8_t type : types) {
    wire::FrameHeader header{};
    header.version = wire::kVersion;
    header.type = type;
    peer_.Send(peer_.Frame(header, Bytes(20, 0xff)));
  }
  EXPECT_EQ(peer_.counters().drop_malformed, before + 5);
}

// Nor do they fill a log. (That of names which are no UTF-8 is what protobuf
// tells.)
TEST_F(ControlTest, UnreadableNamesAreCountedAndNotTold) {
  KeepQuietAboutUnreadable();
  const uint64_t before = peer_.counters().drop_malformed;
  ::testing::internal::CaptureStderr();
  // A connect whose service, field 3, is one byte that begins no character.
  wire::FrameHeader header{};
  header.version = wire::kVersion;
  header.type = wire::kConnect;
  peer_.Send(peer_.Frame(header, {0x1a, 1, 0xff}));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(peer_.counters().drop_malformed, before + 1);
}

TEST_F(ControlTest, TheSmallerFrameAndTheStricterSideWin) {
  control::Connect connect = peer_.ConnectBody();
  connect.set_max_frame_bytes(900);
  connect.set_checksum(false);
  peer_.SayControl(wire::kConnect, connect);
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  ASSERT_TRUE(peer_.connections().Accept(events[0].link, {}));
  peer_.Run();
  const auto accepts = Bodies<control::Accept>(peer_.Take(wire::kAccept));
  ASSERT_EQ(accepts.size(), 1u);
  EXPECT_EQ(accepts[0].max_frame_bytes(), 900u);
  EXPECT_TRUE(accepts[0].checksum());
}

TEST_F(ControlTest, FeaturesAreExchanged) {
  const uint32_t ours = peer_.engine().options().features;
  EXPECT_NE(ours & wire::kFeatureAtomics, 0u);
  control::Connect connect = peer_.ConnectBody();
  connect.set_features(2);
  peer_.SayControl(wire::kConnect, connect);
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  ASSERT_TRUE(peer_.connections().Accept(events[0].link, {}));
  peer_.Run();
  EXPECT_EQ(peer_.engine().FindLink(events[0].link)->peer_features, 2u);
  const auto accepts = Bodies<control::Accept>(peer_.Take(wire::kAccept));
  ASSERT_EQ(accepts.size(), 1u);
  EXPECT_EQ(accepts[0].features(), ours);
  // And when this side asks.
  Announce("peer", StartAndHearQuestion("peer"));
  const auto connects = Bodies<control::Connect>(peer_.Take(wire::kConnect));
  ASSERT_EQ(connects.size(), 1u);
  EXPECT_EQ(connects[0].features(), ours);
  control::Accept accept = AcceptBody();
  accept.set_epoch(7);
  accept.set_features(4);
  peer_.SayControl(wire::kAccept, accept, link_.value, connects[0].epoch());
  EXPECT_EQ(peer_.engine().FindLink(link_)->peer_features, 4u);
}

TEST_F(ControlTest, UnknownFieldsAndFeaturesAreIgnored) {
  control::Connect connect = peer_.ConnectBody();
  connect.set_features(UINT32_MAX);
  // Field 1000, a varint: of a later version.
  connect.MergeFromString(std::string("\xc0\x3e\x01", 3));
  peer_.SayControl(wire::kConnect, connect);
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(peer_.connections().Accept(events[0].link, {}));
  EXPECT_EQ(peer_.counters().drop_malformed, 0u);
}

// Frames without a checksum are taken only where both sides agreed on it.
TEST_F(ControlTest, AnAcceptThatDropsTheChecksumIsNotTaken) {
  const uint32_t token = StartAndHearQuestion("peer");
  Announce("peer", token);
  const auto connects = Bodies<control::Connect>(peer_.Take(wire::kConnect));
  ASSERT_EQ(connects.size(), 1u);
  ASSERT_TRUE(connects[0].checksum());
  control::Accept accept = AcceptBody();
  accept.set_checksum(false);
  const uint64_t malformed = peer_.counters().drop_malformed;
  peer_.SayControl(wire::kAccept, accept, link_.value, connects[0].epoch());
  EXPECT_EQ(peer_.counters().drop_malformed, malformed + 1);
  EXPECT_EQ(peer_.counters().links_up, 0u);
  accept.set_checksum(true);
  peer_.SayControl(wire::kAccept, accept, link_.value, connects[0].epoch());
  EXPECT_EQ(peer_.counters().links_up, 1u);
}

TEST_F(ControlTest, AskingForWhatIsNotOfferedIsRejectedWithTheReason) {
  control::Connect connect = peer_.ConnectBody();
  connect.set_service("other");
  peer_.SayControl(wire::kConnect, connect);
  const auto rejects = Bodies<control::Reject>(peer_.Take(wire::kReject));
  ASSERT_EQ(rejects.size(), 1u);
  EXPECT_EQ(rejects[0].reason(), control::Reject::NO_SUCH_SERVICE);
  EXPECT_EQ(Links(), 0u);
}

TEST_F(ControlTest, ConnectsToTheNodeThatWasNamed) {
  const uint32_t token = StartAndHearQuestion("peer");
  Announce("peer", token + 1);   // another question's answer
  Announce("mallory", token);    // another node
  EXPECT_TRUE(peer_.Take(wire::kConnect).empty());
  Announce("peer", token);
  const auto connects = Bodies<control::Connect>(peer_.Take(wire::kConnect));
  ASSERT_EQ(connects.size(), 1u);
  EXPECT_EQ(connects[0].service(), "far");
  EXPECT_EQ(connects[0].link(), link_.value);
  // Asked again until it is answered.
  peer_.Run(kSecond);
  const auto again = Bodies<control::Connect>(peer_.Take(wire::kConnect));
  EXPECT_GE(again.size(), 3u);
  for (const auto& c : again) EXPECT_EQ(c.epoch(), connects[0].epoch());

  // Answers that are not to this attempt open nothing.
  const uint32_t epoch = connects[0].epoch();
  peer_.SayControl(wire::kAccept, AcceptBody(), link_.value, epoch ^ 1);
  EXPECT_EQ(peer_.Take(wire::kReset).size(), 1u);
  peer_.SayControl(wire::kAccept, AcceptBody(), link_.value + 1, epoch);
  EXPECT_EQ(peer_.Take(wire::kReset).size(), 1u);
  control::Accept bad = AcceptBody();
  bad.set_max_frame_bytes(100);
  peer_.SayControl(wire::kAccept, bad, link_.value, epoch);
  EXPECT_TRUE(peer_.Events().empty());
  peer_.SayControl(wire::kAccept, AcceptBody(), link_.value, epoch);
  peer_.SayControl(wire::kAccept, AcceptBody(), link_.value, epoch);
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kLinkUp);
  EXPECT_EQ(events[0].link, link_);
}

// Has found "peer", and asked it three times in vain.
class SilentNodeTest : public ControlTest {
 protected:
  void FindAndHearNoMore(const std::string& asked_for) {
    Announce("peer", StartAndHearQuestion(asked_for));
    for (int connects = 0; connects < 3;) {
      peer_.Run(kMillisecond);
      connects += static_cast<int>(peer_.Take(wire::kConnect).size());
    }
  }
  // That question again, and its token.
  uint32_t HearQuestionAgain() {
    peer_.Run(85 * kMillisecond);
    const auto questions =
        Bodies<control::Discover>(peer_.Take(wire::kDiscover));
    EXPECT_EQ(questions.size(), 1u);
    if (questions.empty()) return 0;
    EXPECT_EQ(questions[0].node(), "peer");
    EXPECT_EQ(questions[0].service(), "far");
    return questions[0].token();
  }
  void AnnounceFrom(const MacAddress& mac, const std::string& node,
                    uint32_t token) {
    peer_.set_source(mac);
    Announce(node, token);
    peer_.set_source(peer_.mac());
  }
  std::vector<control::Connect> ConnectsAt(Port& port) {
    std::vector<Bytes> heard;
    Frame frame;
    while (port.Receive({&frame, 1}) > 0) {
      Bytes bytes(frame.data, frame.data + frame.length_bytes);
      port.Release({&frame, 1});
      if (ScriptedPeer::View(bytes).type() == wire::kConnect) {
        heard.push_back(std::move(bytes));
      }
    }
    return Bodies<control::Connect>(heard);
  }
};

TEST_F(SilentNodeTest, IsAskedForAgainAndConnectedToWhereItIsNow) {
  const auto port = peer_.fabric().AddPort("the peer's new NIC");
  const MacAddress now_at = port->info().mac;
  FindAndHearNoMore("peer");
  AnnounceFrom(now_at, "peer", HearQuestionAgain());
  peer_.Run(30 * kMillisecond);
  const auto connects = ConnectsAt(*port);
  ASSERT_GE(connects.size(), 1u);
  EXPECT_EQ(connects[0].link(), link_.value);
  peer_.Run(300 * kMillisecond);
  EXPECT_TRUE(peer_.Take(wire::kConnect).empty()) << "nobody is there";

  // Whoever is there after all is told that it is too late.
  peer_.SayControl(wire::kAccept, AcceptBody(), link_.value,
                   connects[0].epoch());
  EXPECT_EQ(peer_.Take(wire::kReset).size(), 1u);
  EXPECT_TRUE(peer_.Events().empty());
  peer_.set_source(now_at);
  peer_.SayControl(wire::kAccept, AcceptBody(), link_.value,
                   connects[0].epoch());
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kLinkUp);
}

TEST_F(SilentNodeTest, IsNotExchangedForAnotherThoughNoneWasNamed) {
  const auto port = peer_.fabric().AddPort("mallory");
  FindAndHearNoMore("");
  const uint32_t token = HearQuestionAgain();
  AnnounceFrom(port->info().mac, "mallory", token);
  peer_.Run(kSecond);
  EXPECT_TRUE(ConnectsAt(*port).empty());
  EXPECT_FALSE(peer_.Take(wire::kConnect).empty()) << "still asks the first";
}

TEST_F(SilentNodeTest, ThatAnswersTheQuestionKeepsItsRequest) {
  const auto port = peer_.fabric().AddPort("the peer's second NIC");
  FindAndHearNoMore("peer");
  // Both of its NICs answer.
  const uint32_t token = HearQuestionAgain();
  AnnounceFrom(port->info().mac, "peer", token);
  Announce("peer", token);
  peer_.Run(2 * kSecond);
  EXPECT_TRUE(ConnectsAt(*port).empty());
  // Nor is it asked more often than otherwise.
  const auto connects = Bodies<control::Connect>(peer_.Take(wire::kConnect));
  EXPECT_GE(connects.size(), 4u);
  EXPECT_LE(connects.size(), 6u);
}

TEST_F(ControlTest, ARefusalEndsTheAttempt) {
  const uint32_t token = StartAndHearQuestion("peer");
  Announce("peer", token);
  const auto connects = Bodies<control::Connect>(peer_.Take(wire::kConnect));
  ASSERT_EQ(connects.size(), 1u);
  control::Reject reject;
  peer_.SayControl(wire::kReject, reject, link_.value,
                   connects[0].epoch() ^ 1);
  EXPECT_TRUE(peer_.Events().empty());
  peer_.SayControl(wire::kReject, reject, link_.value, connects[0].epoch());
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].end, LinkEnd::kRefused);
  peer_.Take();
  peer_.Run(2 * kSecond);
  EXPECT_TRUE(peer_.Take().empty()) << "asks no more";
}

TEST_F(ControlTest, AnswersQuestionsThatConcernItAndNoOthers) {
  const auto ask = [&](const std::string& node, const std::string& service) {
    control::Discover question;
    question.set_node(node);
    question.set_service(service);
    question.set_token(77);
    peer_.SayControl(wire::kDiscover, question);
    return Bodies<control::Announce>(peer_.Take(wire::kAnnounce));
  };
  EXPECT_EQ(ask("", "").size(), 1u);
  EXPECT_EQ(ask("", "svc").size(), 1u);
  EXPECT_EQ(ask("nic", "").size(), 1u);
  EXPECT_TRUE(ask("", "other").empty());
  EXPECT_TRUE(ask("other", "svc").empty());
  // By name: answers, so that the asker learns that the service is not here.
  const auto answers = ask("nic", "other");
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].node(), "nic");
  EXPECT_EQ(answers[0].token(), 77u);
  ASSERT_EQ(answers[0].services_size(), 1);
  EXPECT_EQ(answers[0].services(0), "svc");
}

// More services than a frame can name: the answer names the one that is asked
// for, and as many others as fit.
TEST_F(ControlTest, AnswersForAnyOfManyServices) {
  for (int i = 0; i < 300; ++i) {
    EXPECT_TRUE(peer_.discovery().Offer(
        "a service with a rather long name, number " + std::to_string(i),
        peer_.context()));
  }
  control::Discover question;
  question.set_service("svc");
  peer_.SayControl(wire::kDiscover, question);
  auto answers = Bodies<control::Announce>(peer_.Take(wire::kAnnounce));
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].services(0), "svc");
  EXPECT_GT(answers[0].services_size(), 20);
}

TEST_F(ControlTest, SurveysCollectEachNodeOnce) {
  peer_.discovery().StartSurvey();
  peer_.Run();
  const auto questions = Bodies<control::Discover>(peer_.Take(wire::kDiscover));
  ASSERT_EQ(questions.size(), 1u);
  Announce("peer", questions[0].token());
  Announce("peer", questions[0].token());
  Announce("", questions[0].token());
  ASSERT_EQ(peer_.discovery().survey().size(), 1u);
  EXPECT_EQ(peer_.discovery().survey()[0].node, "peer");
}

}  // namespace
}  // namespace tripwire
