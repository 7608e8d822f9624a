// SPDX-License-Identifier: BSD-3-Clause
// A peer that says what no honest NIC would: every field of every frame wrong.
// Nothing outside what was granted changes, and each refusal has its reason.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/unit/datapath/scripted_peer.h"

namespace tripwire {
namespace {

class HostileFrames : public ::testing::Test {
 protected:
  static constexpr size_t kGuard = 256, kSize = 1024;

  void SetUp() override {
    ASSERT_TRUE(peer_.Connect());
    aperture_ = peer_.engine().Export(peer_.context(), Memory(),
                                      Access::kWrite | Access::kRead,
                                      std::nullopt);
    secret_ = peer_.engine().Export(peer_.context(), secret_memory_,
                                    Access::kAny, LinkId{0x123});
  }
  std::span<uint8_t> Memory() {
    return std::span<uint8_t>(all_).subspan(kGuard, kSize);
  }
  bool Untouched() const {
    return std::all_of(all_.begin(), all_.end(),
                       [](uint8_t b) { return b == 0x5a; }) &&
           std::all_of(secret_memory_.begin(), secret_memory_.end(),
                       [](uint8_t b) { return b == 0x77; });
  }
  // The refusals heard since the last call, by status.
  std::vector<OpStatus> Refusals() {
    peer_.Run();
    std::vector<OpStatus> statuses;
    for (const Bytes& frame : peer_.Take(wire::kOpError)) {
      statuses.push_back(static_cast<OpStatus>(
          ScriptedPeer::View(frame).body<wire::OpErrorPayload>().status));
    }
    peer_.SayAck();
    return statuses;
  }
  void ExpectUp() {
    ASSERT_NE(peer_.engine().FindLink(peer_.link()), nullptr);
    EXPECT_EQ(peer_.engine().FindLink(peer_.link())->state, LinkState::kOpen);
  }
  // The link still works: a write arrives and is told of.
  void ExpectWorks() {
    ExpectUp();
    peer_.Say(wire::kWrite, WriteBody(aperture_, 8, Bytes(8, 0x99)));
    EXPECT_EQ(Memory()[8], 0x99);
    EXPECT_EQ(Memory()[15], 0x99);
    EXPECT_EQ(Memory()[16], 0x5a);
    std::fill_n(Memory().begin() + 8, 8, 0x5a);
  }

  std::vector<uint8_t> all_ = std::vector<uint8_t>(2 * kGuard + kSize, 0x5a);
  std::vector<uint8_t> secret_memory_ = std::vector<uint8_t>(64, 0x77);
  ScriptedPeer peer_;
  ApertureName aperture_, secret_;
};

TEST_F(HostileFrames, WritesWithEachFieldWrong) {
  struct Case {
    const char* what;
    std::function<void(wire::WritePayload&)> change;
    size_t bytes;
    OpStatus expected;
    uint64_t NicCounters::*counter;
  };
  const Case cases[] = {
      {"unknown handle", [](auto& w) { w.handle = 4711; }, 8,
       OpStatus::kBadHandle, &NicCounters::refused_handle},
      {"highest handle", [](auto& w) { w.handle = UINT32_MAX; }, 8,
       OpStatus::kBadHandle, &NicCounters::refused_handle},
      {"old generation", [](auto& w) { w.generation = 0; }, 8,
       OpStatus::kStaleGeneration, &NicCounters::refused_generation},
      {"future generation", [](auto& w) { w.generation = 2; }, 8,
       OpStatus::kStaleGeneration, &NicCounters::refused_generation},
      {"another link's aperture", [&](auto& w) { w.handle = secret_.handle; },
       8, OpStatus::kNoRights, &NicCounters::refused_rights},
      {"offset at the end", [](auto& w) { w.offset = kSize; }, 1,
       OpStatus::kOutOfBounds, &NicCounters::refused_bounds},
      {"one byte too long", [](auto& w) { w.offset = kSize - 7; }, 8,
       OpStatus::kOutOfBounds, &NicCounters::refused_bounds},
      {"longer than all", [](auto& w) { w.offset = 0; }, kSize + 1,
       OpStatus::kOutOfBounds, &NicCounters::refused_bounds},
      {"highest offset", [](auto& w) { w.offset = Le48::kMax; }, 8,
       OpStatus::kOutOfBounds, &NicCounters::refused_bounds},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    wire::WritePayload body;
    body.handle = aperture_.handle;
    body.generation = aperture_.generation;
    body.offset = 0;
    c.change(body);
    const uint64_t before = peer_.counters().*c.counter;
    peer_.Say(wire::kWrite, BytesOf(body) + Bytes(c.bytes, 0xff));
    EXPECT_EQ(Refusals(), (std::vector<OpStatus>{c.expected}));
    EXPECT_EQ(peer_.counters().*c.counter, before + 1);
    EXPECT_TRUE(Untouched());
  }
  ExpectWorks();
}

TEST_F(HostileFrames, ReadsWithEachFieldWrong) {
  struct Case {
    uint32_t handle, generation;
    uint64_t offset, length;
    OpStatus expected;
  };
  const uint32_t handle = aperture_.handle, generation = aperture_.generation;
  const ApertureName write_only = peer_.engine().Export(
      peer_.context(), Memory(), Access::kWrite, std::nullopt);
  const Case cases[] = {
      {99, generation, 0, 8, OpStatus::kBadHandle},
      {handle, generation + 1, 0, 8, OpStatus::kStaleGeneration},
      {secret_.handle, secret_.generation, 0, 8, OpStatus::kNoRights},
      {write_only.handle, write_only.generation, 0, 8, OpStatus::kNoRights},
      {handle, generation, kSize, 1, OpStatus::kOutOfBounds},
      {handle, generation, 1, kSize, OpStatus::kOutOfBounds},
      {handle, generation, 0, Le48::kMax, OpStatus::kOutOfBounds},
      {handle, generation, Le48::kMax, Le48::kMax, OpStatus::kOutOfBounds},
      {handle, generation, 8, Le48::kMax - 7, OpStatus::kOutOfBounds},
  };
  for (const Case& c : cases) {
    ApertureName name;
    name.handle = c.handle;
    name.generation = c.generation;
    peer_.Say(wire::kReadRequest, ReadBody(name, c.offset, c.length));
    peer_.Run();
    const auto heard = peer_.Take();
    EXPECT_TRUE(std::none_of(heard.begin(), heard.end(), [](const Bytes& f) {
      return ScriptedPeer::View(f).type() == wire::kReadResponse;
    })) << "nothing of the memory is told";
    const auto error =
        std::find_if(heard.begin(), heard.end(), [](const Bytes& f) {
          return ScriptedPeer::View(f).type() == wire::kOpError;
        });
    ASSERT_NE(error, heard.end());
    EXPECT_EQ(ScriptedPeer::View(*error).body<wire::OpErrorPayload>().status,
              static_cast<uint8_t>(c.expected));
    peer_.SayAck();
  }
  ExpectWorks();
}

TEST_F(HostileFrames, AnswersToWhatWasNeverAskedChangeNothing) {
  peer_.Say(wire::kReadResponse, ReadResponseBody(1, 0, Bytes(8, 0xff)));
  peer_.Say(wire::kReadResponse,
            ReadResponseBody(UINT32_MAX, Le48::kMax, Bytes(8, 0xff)));
  peer_.Say(wire::kFlushResponse, Bytes(4, 0xff));
  peer_.Say(wire::kFlushResponse, Bytes(4, 0));
  for (const uint8_t status : {0, 1, 2, 7, 8, 255}) {
    peer_.Say(wire::kOpError, ErrorBody(status * 3u, status));
    peer_.Say(wire::kOpError, ErrorBody(UINT32_MAX - status, status));
  }
  EXPECT_TRUE(Untouched());
  EXPECT_TRUE(peer_.Events().empty());
  ExpectWorks();
}

TEST_F(HostileFrames, ReadAnswersOutOfPlaceNeverReachTheReader) {
  std::vector<uint8_t> into(64 + 128, 0x11);
  Completion completion;
  const ApertureName theirs{5, 1, 1 << 20, Access::kRead};
  ASSERT_TRUE(peer_.engine().Read(peer_.link(), theirs, 0,
                                  std::span(into).subspan(64, 64),
                                  &completion));
  peer_.Run();
  const auto asked = peer_.Take(wire::kReadRequest);
  ASSERT_EQ(asked.size(), 1u);
  const uint32_t operation = ScriptedPeer::View(asked[0]).sequence();
  const auto is_untouched = [&] {
    return std::all_of(into.begin(), into.end(),
                       [](uint8_t b) { return b == 0x11; });
  };
  const Bytes bad(8, 0xff);
  peer_.Say(wire::kReadResponse, ReadResponseBody(operation, 64, bad), 0);
  peer_.Say(wire::kReadResponse, ReadResponseBody(operation, 8, bad), 0);
  peer_.Say(wire::kReadResponse, ReadResponseBody(operation, Le48::kMax, bad), 0);
  peer_.Say(wire::kReadResponse,
            ReadResponseBody(operation, 0, Bytes(65, 0xff)), 0);
  peer_.Say(wire::kFlushResponse, BytesOf(Le32(operation)));  // wrong kind
  EXPECT_TRUE(is_untouched());
  EXPECT_FALSE(completion.done());
  EXPECT_EQ(peer_.counters().drop_malformed, 4u);
  // Too short, and called the last: the read fails, it does not lie.
  peer_.Say(wire::kReadResponse, ReadResponseBody(operation, 0, Bytes(8, 0x22)));
  EXPECT_EQ(completion.status.load(), OpStatus::kOutOfBounds);
  // After its end, nothing more of it is placed.
  std::fill(into.begin(), into.end(), 0x11);
  peer_.Say(wire::kReadResponse, ReadResponseBody(operation, 8, bad));
  EXPECT_TRUE(is_untouched());
  ExpectWorks();
}

TEST_F(HostileFrames, MessagesThatContradictThemselvesAreRefused) {
  const auto refused = [&](const Bytes& body, uint16_t flags) {
    peer_.Say(wire::kMessage, body, flags);
    EXPECT_EQ(Refusals(), (std::vector<OpStatus>{OpStatus::kTooLarge}));
    for (const Event& event : peer_.Events()) {
      ADD_FAILURE() << "event " << static_cast<int>(event.kind);
    }
    EXPECT_FALSE(peer_.engine().TakeMessage(peer_.link()).has_value());
  };
  const Bytes data(16, 0xab);
  refused(MessageBody(kMaxMessageBytes + 1, 0, data), 0);
  refused(MessageBody(UINT32_MAX, 0, data), 0);
  refused(MessageBody(8, 0, data), wire::kLast);     // more than its total
  refused(MessageBody(32, 16, data), wire::kLast);   // its beginning is missing
  refused(MessageBody(16, 0, data), 0);              // complete, not the last
  refused(MessageBody(17, 0, data), wire::kLast);    // the last, not complete
  refused(MessageBody(16, UINT32_MAX, data), wire::kLast);
  peer_.Say(wire::kMessage, MessageBody(16, 0, data));
  EXPECT_EQ(peer_.engine().TakeMessage(peer_.link()), data);
  ExpectWorks();
}

TEST_F(HostileFrames, HeadersWithEachFieldWrong) {
  const Bytes body = WriteBody(aperture_, 0, Bytes(8, 0xff));
  const auto send = [&](const std::function<void(wire::FrameHeader&)>& change,
                        bool checksum = true) {
    wire::FrameHeader header = peer_.Header(wire::kWrite);
    change(header);
    peer_.Send(peer_.Frame(header, body, checksum));
    EXPECT_TRUE(Untouched());
    ExpectUp();
  };
  const NicCounters& c = peer_.counters();
  send([](auto& h) { h.version = 2; });
  EXPECT_EQ(c.drop_malformed, 1u);
  send([](auto& h) { h.type = 99; });
  EXPECT_EQ(c.drop_malformed, 2u);
  send([](auto&) {}, /*checksum=*/false);  // this link's must be checksummed
  EXPECT_EQ(c.drop_malformed, 3u);
  send([](auto& h) { h.epoch = h.epoch.get() ^ 1; });
  EXPECT_EQ(c.drop_epoch, 1u);
  send([](auto& h) { h.link = h.link.get() + 1; });
  send([](auto& h) { h.link = UINT32_MAX; });
  send([](auto& h) { h.link = h.link.get() ^ (1u << 20); });
  EXPECT_EQ(c.drop_unknown_link, 3u);
  EXPECT_EQ(peer_.Take(wire::kReset).size(), 4u);
  const uint32_t next = static_cast<uint32_t>(peer_.sequence());
  send([&](auto& h) { h.sequence = next + kWindowFrames; });
  send([&](auto& h) { h.sequence = next + 0x7fffffff; });
  send([&](auto& h) { h.sequence = next + 0x80000000; });
  EXPECT_EQ(c.drop_window, 3u);
  send([&](auto& h) { h.sequence = next - 1; });
  EXPECT_EQ(c.duplicate_frames, 1u);
  // What it says of our frames must not be more than we sent.
  const uint64_t malformed = c.drop_malformed;
  wire::FrameHeader header = peer_.Header(wire::kAck);
  for (const uint32_t distance : {1u, 256u, 0x7fffffffu, 0x80000001u}) {
    header.acknowledged = static_cast<uint32_t>(peer_.expected()) + distance;
    peer_.Send(peer_.Frame(header, Bytes(32, 0xff)));
    ExpectUp();
  }
  EXPECT_EQ(c.drop_malformed, malformed + 4);
  ExpectWorks();
}

TEST_F(HostileFrames, FramesFromGroupAddressesAreNotAnswered) {
  Bytes frame = peer_.Frame(peer_.Header(wire::kWrite), Bytes(14));
  frame[6] |= 1;
  peer_.Take();
  peer_.Send(frame);
  EXPECT_EQ(peer_.counters().drop_malformed, 1u);
  EXPECT_TRUE(peer_.Take().empty());
}

TEST_F(HostileFrames, DamagedFramesAreCountedAndLost) {
  Bytes frame = peer_.Frame(peer_.Header(wire::kWrite),
                            WriteBody(aperture_, 0, Bytes(8, 0xff)));
  for (size_t at = 14; at < 14 + 24 + 14 + 8 + 4; ++at) {
    Bytes damaged = frame;
    damaged[at] ^= 0x10;
    peer_.Send(damaged);
    EXPECT_TRUE(Untouched());
  }
  EXPECT_EQ(peer_.counters().drop_checksum + peer_.counters().drop_malformed,
            50u);
  ExpectWorks();
}

TEST_F(HostileFrames, OnlyWhoSawTheLinkCanResetIt) {
  const auto reset = [&](uint32_t link, uint32_t epoch, uint8_t mac_change) {
    wire::ResetPayload body;
    body.link = link;
    body.epoch = epoch;
    wire::FrameHeader header{};
    header.version = wire::kVersion;
    header.type = wire::kReset;
    Bytes frame = peer_.Frame(header, BytesOf(body));
    frame[11] ^= mac_change;
    peer_.Send(frame);
  };
  reset(ScriptedPeer::kLink, ScriptedPeer::kEpoch ^ 1, 0);
  reset(ScriptedPeer::kLink + 1, ScriptedPeer::kEpoch, 0);
  reset(0, 0, 0);
  reset(peer_.link().value, peer_.epoch(), 0);  // our name of it, not theirs
  reset(ScriptedPeer::kLink, ScriptedPeer::kEpoch, 1);  // somebody else's MAC
  ExpectWorks();
  EXPECT_EQ(peer_.counters().drop_unknown_link, 5u);
  reset(ScriptedPeer::kLink, ScriptedPeer::kEpoch, 0);
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kLinkDown);
  EXPECT_EQ(events[0].end, LinkEnd::kPeerRestarted);
}

TEST_F(HostileFrames, ALinkHearsOnlyItsPeer) {
  Bytes frame = peer_.Frame(peer_.Header(wire::kWrite),
                            WriteBody(aperture_, 0, Bytes(8, 0xff)));
  frame[11] ^= 1;  // another source
  peer_.Send(frame);
  EXPECT_TRUE(Untouched());
  EXPECT_EQ(peer_.counters().drop_unknown_link, 1u);
  ExpectWorks();
}

// Two peers may choose the same name and epoch; each resets only its own.
TEST_F(HostileFrames, APeerWithTheSameNamesResetsOnlyItsOwnLink) {
  wire::FrameHeader header{};
  header.version = wire::kVersion;
  header.type = wire::kConnect;
  const std::string body = peer_.ConnectBody().SerializeAsString();
  Bytes connect = peer_.Frame(header, Bytes(body.begin(), body.end()));
  connect[11] ^= 1;
  peer_.Send(connect);
  const auto requests = peer_.Events();
  ASSERT_EQ(requests.size(), 1u);
  ASSERT_TRUE(peer_.connections().Accept(requests[0].link, {}));
  wire::ResetPayload reset;
  reset.link = ScriptedPeer::kLink;
  reset.epoch = ScriptedPeer::kEpoch;
  header.type = wire::kReset;
  peer_.Send(peer_.Frame(header, BytesOf(reset)));
  const auto events = peer_.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].link, peer_.link());
  EXPECT_EQ(peer_.engine().FindLink(requests[0].link)->state, LinkState::kOpen);
}

TEST_F(HostileFrames, AResetIsNeverAnswered) {
  wire::FrameHeader header{};
  header.version = wire::kVersion;
  header.type = wire::kReset;
  peer_.Take();
  peer_.Send(peer_.Frame(header, Bytes(8, 0x42)));
  EXPECT_TRUE(peer_.Take().empty());
}

TEST_F(HostileFrames, AfterRevokeNothingArrives) {
  const Bytes late = peer_.Frame(peer_.Header(wire::kWrite),
                                 WriteBody(aperture_, 0, Bytes(8, 0xff)));
  peer_.Throw(late);  // on its way when the revocation happens
  peer_.engine().Revoke(peer_.context(), aperture_);
  const ApertureName again = peer_.engine().Export(
      peer_.context(), Memory(), Access::kWrite, std::nullopt);
  EXPECT_EQ(again.handle, aperture_.handle) << "the slot is used again";
  peer_.Run();
  EXPECT_TRUE(Untouched());
  EXPECT_EQ(peer_.counters().refused_generation, 1u);
}

// A peer that never hears our refusals must not make us remember them all.
TEST_F(HostileFrames, RefusalsQueuedForADeafPeerAreBounded) {
  peer_.set_acknowledge(peer_.expected());  // for ever
  peer_.set_credit(4);
  ApertureName wrong = aperture_;
  wrong.handle = 999;
  for (int i = 0; i < 20000; ++i) {
    peer_.Say(wire::kWrite, WriteBody(wrong, 0, Bytes(8, 1)));
  }
  EXPECT_LE(peer_.engine().FindLink(peer_.link())->ops.size(), 600u);
  EXPECT_GT(peer_.counters().drop_window, 0u);
  EXPECT_TRUE(Untouched());
}

}  // namespace
}  // namespace tripwire
