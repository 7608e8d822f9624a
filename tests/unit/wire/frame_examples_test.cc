// SPDX-License-Identifier: BSD-3-Clause
// The worked examples in docs/wire-format.md are what the engine sends, byte for
// byte. TRIPWIRE_UPDATE_DOCS=1 writes them anew.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/unit/datapath/scripted_peer.h"

namespace tripwire {
namespace {

constexpr char kDocument[] = TRIPWIRE_ROOT "/docs/wire-format.md";

struct Field {
  const char* name;
  size_t bytes;  // 0: all that is left of the payload
};

std::vector<Field> PayloadFields(uint8_t type) {
  switch (type) {
    case wire::kAck: return {{"received", 32}};
    case wire::kReset: return {{"link", 4}, {"epoch", 4}};
    case wire::kWrite:
      return {{"handle", 4}, {"generation", 4}, {"offset", 6}, {"data", 0}};
    case wire::kReadRequest:
      return {{"handle", 4}, {"generation", 4}, {"offset", 6}, {"length", 6}};
    case wire::kReadResponse:
      return {{"operation", 4}, {"offset", 6}, {"data", 0}};
    case wire::kFlushResponse: return {{"operation", 4}};
    case wire::kOpError:
      return {{"operation", 4}, {"status", 1}, {"reserved", 3}};
    case wire::kMessage:
      return {{"total length", 4}, {"offset", 4}, {"data", 0}};
    case wire::kAtomicRequest:
      return {{"handle", 4},    {"generation", 4}, {"offset", 6},
              {"atomic", 1},    {"reserved", 1},   {"operand", 8},
              {"expected", 8}};
    case wire::kAtomicResponse: return {{"operation", 4}, {"value", 8}};
    case wire::kFlushRequest:
    case wire::kClose: return {};
    default: return {{"body", 0}};
  }
}

// One line a field: its name and its bytes.
std::string Describe(const Bytes& frame) {
  const wire::FrameView view = ScriptedPeer::View(frame);
  std::string text;
  size_t at = 0;
  const auto line = [&](const char* name, size_t bytes) {
    char buffer[32];
    for (size_t i = 0; i < bytes; ++i, ++at) {
      if (i % 16 == 0) {
        std::snprintf(buffer, sizeof buffer, "%s%-13s", i > 0 ? "\n" : "",
                      i == 0 ? name : "");
        text += buffer;
      }
      std::snprintf(buffer, sizeof buffer, " %02x", frame[at]);
      text += buffer;
    }
    if (bytes > 0) text += '\n';
  };
  line("destination", 6);
  line("source", 6);
  line("EtherType", 2);
  line("version", 1);
  line("type", 1);
  line("flags", 2);
  line("link", 4);
  line("epoch", 4);
  line("sequence", 4);
  line("acknowledged", 4);
  line("credit", 2);
  line("length", 2);
  const size_t payload_end = at + view.payload.size();
  for (const Field& field : PayloadFields(view.type())) {
    line(field.name, field.bytes != 0 ? field.bytes : payload_end - at);
  }
  EXPECT_EQ(at, payload_end);
  if (view.has(wire::kChecksummed)) line("checksum", 4);
  line("padding", frame.size() - at);
  return text;
}

class FrameExamples : public ::testing::Test {
 protected:
  // Keeps the first frame of this type that was heard now.
  void Keep(const char* name, uint8_t type) {
    const auto frames = peer_.Take(type);
    ASSERT_FALSE(frames.empty()) << name;
    examples_[name] = Describe(frames[0]);
  }

  void Outside() {
    control::Discover question;
    question.set_token(0x11223344);
    peer_.SayControl(wire::kDiscover, question);
    Keep("announce", wire::kAnnounce);
    const LinkId link = peer_.connections().Start(peer_.context(), "peer",
                                                  "far", {}, kNever);
    peer_.Run();
    const auto questions = peer_.Take(wire::kDiscover);
    ASSERT_FALSE(questions.empty());
    examples_["discover"] = Describe(questions[0]);
    const wire::FrameView view = ScriptedPeer::View(questions[0]);
    ASSERT_TRUE(question.ParseFromArray(view.payload.data(),
                                        static_cast<int>(view.payload.size())));
    control::Announce answer;
    answer.set_node("peer");
    answer.set_token(question.token());
    answer.add_services("far");
    peer_.SayControl(wire::kAnnounce, answer);
    Keep("connect", wire::kConnect);
    peer_.engine().EndLink(*peer_.engine().FindLink(link),
                           LinkEnd::kClosedHere, false);
    peer_.engine().FreeLink(*peer_.engine().FindLink(link));
    control::Connect connect = peer_.ConnectBody();
    connect.set_service("what?");
    peer_.SayControl(wire::kConnect, connect);
    Keep("reject", wire::kReject);
    connect.set_service("svc");
    connect.set_epoch(1);
    peer_.SayControl(wire::kConnect, connect);
    ASSERT_TRUE(peer_.connections().Accept(peer_.Events().at(0).link, {}));
    peer_.Run();
    Keep("accept", wire::kAccept);
  }

  void OnALink() {
    ASSERT_TRUE(peer_.Connect());
    const ApertureName mine = peer_.engine().Export(
        peer_.context(), memory_, Access::kAny, std::nullopt);
    const ApertureName theirs{2, 1, 4096, Access::kAny};
    const uint64_t word = 0x0123456789abcdef;
    Engine& engine = peer_.engine();
    engine.Write(peer_.link(), theirs, 0x40,
                 {reinterpret_cast<const uint8_t*>(&word), 8}, nullptr);
    peer_.Run();
    Keep("write", wire::kWrite);
    std::vector<uint8_t> into(16);
    Completion read, flush;
    engine.Read(peer_.link(), theirs, 0x80, into, &read);
    peer_.Run();
    Keep("read request", wire::kReadRequest);
    engine.Flush(peer_.link(), &flush);
    peer_.Run();
    Keep("flush request", wire::kFlushRequest);
    const char hello[] = "hello";
    engine.SendMessage(peer_.link(),
                       {reinterpret_cast<const uint8_t*>(hello), 5});
    peer_.Run();
    Keep("message", wire::kMessage);
    peer_.Say(wire::kWrite, WriteBody(mine, 8, Bytes(8, 0x42)));
    peer_.Say(wire::kReadRequest, ReadBody(mine, 0, 16));
    Keep("read response", wire::kReadResponse);
    peer_.Say(wire::kFlushRequest, {});
    Keep("flush response", wire::kFlushResponse);
    peer_.Say(wire::kWrite, WriteBody(mine, 4090, Bytes(8, 0x42)));
    Keep("error", wire::kOpError);
    Completion atomic;
    engine.Atomic(peer_.link(), theirs, 0x48, wire::kCompareAndSwap, 6, 5,
                  nullptr, &atomic);
    peer_.Run();
    Keep("atomic request", wire::kAtomicRequest);
    peer_.Say(wire::kAtomicRequest, AtomicBody(mine, 8, wire::kFetchAdd, 1));
    Keep("atomic response", wire::kAtomicResponse);
    // Two that came early, and what is missing before them.
    wire::FrameHeader header = peer_.Header(wire::kWrite);
    for (const uint32_t ahead : {1u, 3u}) {
      header.sequence = static_cast<uint32_t>(peer_.sequence()) + ahead;
      peer_.Throw(peer_.Frame(header, WriteBody(mine, 0, Bytes(8, 1))));
    }
    peer_.Take();
    peer_.Run();
    Keep("ack", wire::kAck);
    header.epoch = 0xdeadbeef;
    peer_.Send(peer_.Frame(header, WriteBody(mine, 0, Bytes(8, 1))));
    Keep("reset", wire::kReset);
    engine.CloseGracefully(*engine.FindLink(peer_.link()));
    peer_.Run();
    Keep("close", wire::kClose);
    const LinkId link = peer_.link();
    if (Link* open = engine.FindLink(link)) {
      engine.EndLink(*open, LinkEnd::kClosedHere, false);
    }
  }

  std::vector<uint8_t> memory_ = std::vector<uint8_t>(4096);
  ScriptedPeer peer_;
  std::map<std::string, std::string> examples_;
};

TEST_F(FrameExamples, AreWhatTheEngineSends) {
  Outside();
  OnALink();
  if (HasFatalFailure()) return;
  std::ostringstream read;
  read << std::ifstream(kDocument).rdbuf();
  std::string document = read.str();
  const bool update = std::getenv("TRIPWIRE_UPDATE_DOCS") != nullptr;
  for (const auto& [name, example] : examples_) {
    const std::string start = "<!-- frame: " + name + " -->\n```\n";
    const size_t at = document.find(start);
    if (at == std::string::npos) {
      ADD_FAILURE() << "no example of " << name;
      continue;
    }
    const size_t begin = at + start.size();
    const size_t end = document.find("```", begin);
    ASSERT_NE(end, std::string::npos);
    if (update) {
      document.replace(begin, end - begin, example);
    } else {
      EXPECT_EQ(document.substr(begin, end - begin), example) << name;
    }
  }
  if (update) std::ofstream(kDocument) << document;
}

}  // namespace
}  // namespace tripwire
