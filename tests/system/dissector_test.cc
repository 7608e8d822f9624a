// SPDX-License-Identifier: BSD-3-Clause
// The Wireshark dissector, through tshark, on captures made here: it must say
// of each frame what nic/wire says of it, and find what belongs together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "nic/port/capture_port.h"
#include "tests/unit/datapath/scripted_peer.h"

namespace tripwire {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kScript[] = TRIPWIRE_ROOT "/nic/tools/wireshark/tripwire.lua";

std::string Hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) absl::StrAppendFormat(&text, "%02x", byte);
  return text;
}

class DissectorTest : public ::testing::Test {
 protected:
  DissectorTest() {
    char name[] = "/tmp/tw-dissector-XXXXXX";
    directory_ = ::mkdtemp(name);
    path_ = directory_ + "/frames.pcapng";
    // Sees every frame, whoever sends it, in order.
    peer_.fabric().SetFilter(
        [this](const MacAddress&, std::span<const uint8_t> frame) {
          if (!paused_) Note(Bytes(frame.begin(), frame.end()));
          return true;
        });
  }
  ~DissectorTest() override { std::filesystem::remove_all(directory_); }

  void Note(const Bytes& frame) { frames_.push_back({now_ns_++, frame}); }

  void WriteCapture() {
    PortInfo info;
    info.name = "test";
    auto file = CaptureFile::Open(path_, info);
    ASSERT_TRUE(file.ok()) << file.status();
    std::vector<uint8_t> blocks;
    for (auto& [time_ns, bytes] : frames_) {
      tripwire::Frame frame;
      frame.data = bytes.data();
      frame.length_bytes = static_cast<uint32_t>(bytes.size());
      AppendPacketBlock(frame, CaptureDirection::kInbound, time_ns, blocks);
    }
    (*file)->Append(blocks, frames_.size());
  }
  // What tshark prints for the capture with these options.
  std::vector<std::string> Tshark(const std::string& options) {
    WriteCapture();
    const std::string command =
        absl::StrCat("HOME=", directory_, " XDG_CONFIG_HOME=", directory_,
                     " timeout 100 tshark -2 -n -X lua_script:", kScript,
                     " -r ", path_, " ", options, " 2>", directory_, "/errors");
    FILE* pipe = ::popen(command.c_str(), "r");
    std::string out;
    char buffer[4096];
    while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) {
      out.append(buffer, n);
    }
    std::stringstream errors;
    errors << std::ifstream(directory_ + "/errors").rdbuf();
    EXPECT_EQ(::pclose(pipe), 0) << errors.str();
    EXPECT_THAT(errors.str(), Not(HasSubstr(".lua"))) << "the script failed";
    return absl::StrSplit(out, '\n', absl::SkipEmpty());
  }
  // One row a frame, one text a field: several values are joined by commas.
  std::vector<std::map<std::string, std::string>> Fields(
      const std::vector<std::string>& names) {
    std::string options = "-T fields -E separator='|'";
    for (const std::string& name : names)
      absl::StrAppend(&options, " -e ", name);
    std::vector<std::map<std::string, std::string>> rows;
    for (const std::string& line : Tshark(options)) {
      const std::vector<std::string> values = absl::StrSplit(line, '|');
      EXPECT_EQ(values.size(), names.size()) << line;
      auto& row = rows.emplace_back();
      for (size_t i = 0; i < std::min(values.size(), names.size()); ++i) {
        row[names[i]] = values[i];
      }
    }
    EXPECT_EQ(rows.size(), frames_.size());
    rows.resize(frames_.size());
    return rows;
  }
  // What tshark says of the frame with this index by expert notes.
  std::vector<std::string> Notes() {
    std::vector<std::string> notes;
    for (auto& row : Fields({"_ws.expert.message"})) {
      notes.push_back(row["_ws.expert.message"]);
    }
    return notes;
  }

  void EveryTypeOfFrame();

  uint64_t now_ns_ = 1'700'000'000'000'000'000;
  std::string directory_, path_;
  bool paused_ = false;
  std::vector<std::pair<uint64_t, Bytes>> frames_;
  std::vector<uint8_t> memory_ = std::vector<uint8_t>(4096);
  Bytes data_ = Bytes(8, 0x42);
  std::vector<uint8_t> into_ = std::vector<uint8_t>(100'000);
  Completion read_, flush_;
  ScriptedPeer peer_;
};

// Leaves at least one frame of each type in `frames_`, with telling values.
void DissectorTest::EveryTypeOfFrame() {
  control::Discover question;
  question.set_token(0x11223344);
  question.set_node("nic");
  peer_.SayControl(wire::kDiscover, question);
  control::Connect connect = peer_.ConnectBody();
  connect.set_service("what?");
  peer_.SayControl(wire::kConnect, connect);
  ASSERT_TRUE(peer_.Connect());
  Engine& engine = peer_.engine();
  const ApertureName mine =
      engine.Export(peer_.context(), memory_, Access::kAny, std::nullopt);
  const ApertureName theirs{2, 9, uint64_t{1} << 40, Access::kAny};
  engine.Write(peer_.link(), theirs, 0x1234567890, data_, nullptr);
  engine.Read(peer_.link(), theirs, 0x80, into_, &read_);
  engine.Flush(peer_.link(), &flush_);
  engine.SendMessage(peer_.link(), data_);
  peer_.Run();
  peer_.Say(wire::kWrite, WriteBody(mine, 8, data_),
            wire::kLast | wire::kAckRequested | wire::kUnordered | 0x0040 |
                (5 << wire::kHopsShift));
  peer_.Say(wire::kReadRequest, ReadBody(mine, 0, 3000));
  peer_.Say(wire::kFlushRequest, {});
  peer_.Say(wire::kAtomicRequest,
            AtomicBody(mine, 16, wire::kCompareAndSwap, ~uint64_t{0}, 77));
  peer_.Say(wire::kWrite, WriteBody(mine, 4090, data_));
  peer_.SayAck();
  wire::FrameHeader header = peer_.Header(wire::kWrite);
  for (const uint32_t ahead : {1u, 3u, 200u}) {
    header.sequence = static_cast<uint32_t>(peer_.sequence()) + ahead;
    peer_.Throw(peer_.Frame(header, WriteBody(mine, 0, data_)));
  }
  peer_.Run();
  header.epoch = 0xdeadbeef;
  peer_.Send(peer_.Frame(header, WriteBody(mine, 0, data_)));
  engine.CloseGracefully(*engine.FindLink(peer_.link()));
  peer_.Run();
}

// The fields of a frame as nic/wire sees them.
std::map<std::string, std::string> Expected(const wire::FrameView& view) {
  std::map<std::string, std::string> row;
  const auto set = [&](const std::string& name, uint64_t value) {
    row["tripwire." + name] = std::to_string(value);
  };
  const auto hex = [&](const std::string& name, uint32_t value) {
    row["tripwire." + name] = absl::StrFormat("0x%08x", value);
  };
  const auto text = [&](const std::string& name, const std::string& value) {
    if (!value.empty()) row["tripwire." + name] = value;
  };
  const wire::FrameHeader& header = *view.header;
  set("version", header.version);
  set("type", header.type);
  row["tripwire.flags"] = absl::StrFormat("0x%04x", header.flags.get());
  set("flags.ack_requested", view.has(wire::kAckRequested));
  set("flags.checksummed", view.has(wire::kChecksummed));
  set("flags.last", view.has(wire::kLast));
  set("flags.unordered", view.has(wire::kUnordered));
  set("flags.hops", view.hops());
  hex("link", header.link.get());
  hex("epoch", header.epoch.get());
  set("sequence", header.sequence.get());
  set("acknowledged", header.acknowledged.get());
  set("credit", header.credit.get());
  set("length", header.length.get());
  set("checksum.status", 1);
  const auto parse = [&](auto message) {
    EXPECT_TRUE(message.ParseFromArray(view.payload.data(),
                                       static_cast<int>(view.payload.size())));
    return message;
  };
  const auto link = [&](const auto& message) {
    hex("sender_link", message.link());
    hex("sender_epoch", message.epoch());
    text("node", message.node());
    set("max_frame_bytes", message.max_frame_bytes());
    set("wants_checksum", message.checksum());
    hex("features", message.features());
  };
  switch (view.type()) {
    case wire::kAck: {
      const auto& body = view.body<wire::AckPayload>();
      std::vector<std::string> early;
      for (uint32_t i = 0; i < 256; ++i) {
        if ((body.received[i / 8] >> (i % 8) & 1) == 0) continue;
        early.push_back(std::to_string(header.acknowledged.get() + 1 + i));
      }
      text("received.sequence", absl::StrJoin(early, ","));
      break;
    }
    case wire::kReset:
      hex("reset.link", view.body<wire::ResetPayload>().link.get());
      hex("reset.epoch", view.body<wire::ResetPayload>().epoch.get());
      break;
    case wire::kWrite: {
      const auto& body = view.body<wire::WritePayload>();
      set("handle", body.handle.get());
      set("generation", body.generation.get());
      set("offset", body.offset.get());
      text("data", Hex(view.data<wire::WritePayload>()));
      break;
    }
    case wire::kReadRequest: {
      const auto& body = view.body<wire::ReadRequestPayload>();
      set("handle", body.handle.get());
      set("generation", body.generation.get());
      set("offset", body.offset.get());
      set("read_length", body.length.get());
      break;
    }
    case wire::kReadResponse:
      set("operation", view.body<wire::ReadResponsePayload>().operation.get());
      set("offset", view.body<wire::ReadResponsePayload>().offset.get());
      text("data", Hex(view.data<wire::ReadResponsePayload>()));
      break;
    case wire::kFlushResponse:
      set("operation", view.body<wire::FlushResponsePayload>().operation.get());
      break;
    case wire::kOpError:
      set("operation", view.body<wire::OpErrorPayload>().operation.get());
      set("status", view.body<wire::OpErrorPayload>().status);
      break;
    case wire::kMessage:
      set("total_length", view.body<wire::MessagePayload>().total_length.get());
      set("offset", view.body<wire::MessagePayload>().offset.get());
      text("data", Hex(view.data<wire::MessagePayload>()));
      break;
    case wire::kAtomicRequest: {
      const auto& body = view.body<wire::AtomicRequestPayload>();
      set("handle", body.handle.get());
      set("generation", body.generation.get());
      set("offset", body.offset.get());
      set("atomic.operation", body.operation);
      set("atomic.operand", body.operand.get());
      set("atomic.expected", body.expected.get());
      break;
    }
    case wire::kAtomicResponse:
      set("operation",
          view.body<wire::AtomicResponsePayload>().operation.get());
      set("atomic.value", view.body<wire::AtomicResponsePayload>().value.get());
      break;
    case wire::kDiscover: {
      const auto body = parse(control::Discover());
      text("node", body.node());
      text("service", body.service());
      hex("token", body.token());
      break;
    }
    case wire::kAnnounce: {
      const auto body = parse(control::Announce());
      text("node", body.node());
      text("service", absl::StrJoin(body.services(), ","));
      hex("token", body.token());
      break;
    }
    case wire::kConnect: {
      const auto body = parse(control::Connect());
      link(body);
      text("service", body.service());
      break;
    }
    case wire::kAccept:
      link(parse(control::Accept()));
      break;
    case wire::kReject:
      set("reason", parse(control::Reject()).reason());
      break;
    default:
      break;
  }
  return row;
}

TEST_F(DissectorTest, SaysOfEveryTypeWhatTheNicSays) {
  EveryTypeOfFrame();
  std::set<int> seen;
  std::set<std::string> names;
  std::vector<std::map<std::string, std::string>> expected;
  for (const auto& [time_ns, frame] : frames_) {
    const wire::FrameView view = ScriptedPeer::View(frame);
    seen.insert(view.type());
    expected.push_back(Expected(view));
    for (const auto& [name, value] : expected.back()) names.insert(name);
  }
  EXPECT_THAT(seen, ElementsAre(1, 2, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
                                48, 49, 50, 51, 52));
  const std::vector<std::string> asked(names.begin(), names.end());
  const auto rows = Fields(asked);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (const auto& [name, value] : rows[i]) {
      auto it = expected[i].find(name);
      EXPECT_EQ(value, it == expected[i].end() ? "" : it->second)
          << "frame " << i + 1 << ", " << name;
    }
  }
}

TEST_F(DissectorTest, FlagsADamagedFrameAndNoOther) {
  EveryTypeOfFrame();
  const size_t damaged = frames_.size() / 2;
  frames_[damaged].second[50] ^= 0x10;
  const auto rows = Fields({"tripwire.checksum.status", "_ws.expert.message"});
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].at("tripwire.checksum.status"), i == damaged ? "0" : "1");
  }
  EXPECT_THAT(rows[damaged].at("_ws.expert.message"),
              HasSubstr("Bad checksum, should be 0x"));
}

TEST_F(DissectorTest, FlagsWhatComesEarlyAndWhatComesTwice) {
  ASSERT_TRUE(peer_.Connect());
  const ApertureName mine = peer_.engine().Export(peer_.context(), memory_,
                                                  Access::kAny, std::nullopt);
  peer_.set_acknowledge(1);
  frames_.clear();
  std::vector<size_t> at;
  for (const uint32_t sequence : {1u, 4u, 2u, 3u, 4u, 5u}) {
    wire::FrameHeader header = peer_.Header(wire::kWrite);
    header.sequence = sequence;
    at.push_back(frames_.size());
    peer_.Send(peer_.Frame(header, WriteBody(mine, 0, data_)));
  }
  const auto rows = Fields(
      {"tripwire.missing", "tripwire.retransmission_of", "_ws.expert.message"});
  std::vector<std::string> missing, repeated;
  for (const size_t i : at) {
    missing.push_back(rows[i].at("tripwire.missing"));
    repeated.push_back(rows[i].at("tripwire.retransmission_of"));
  }
  EXPECT_THAT(missing, ElementsAre("", "2", "", "", "", ""));
  EXPECT_THAT(repeated,
              ElementsAre("", "", "", "", std::to_string(at[1] + 1), ""));
  EXPECT_THAT(rows[at[1]].at("_ws.expert.message"),
              HasSubstr("Early: 2 frames before it are missing"));
  EXPECT_THAT(rows[at[4]].at("_ws.expert.message"), HasSubstr("Sent again"));
}

TEST_F(DissectorTest, LinksRequestsAndAnswers) {
  // The middle of the conversation only, too: without the connect.
  for (const bool whole : {true, false}) {
    SCOPED_TRACE(whole ? "from the start" : "from the middle");
    frames_.clear();
    if (peer_.link() == LinkId{}) {
      ASSERT_TRUE(peer_.Connect());
    }
    const ApertureName mine = peer_.engine().Export(peer_.context(), memory_,
                                                    Access::kAny, std::nullopt);
    const size_t read = frames_.size();
    peer_.Say(wire::kReadRequest, ReadBody(mine, 0, 4000));
    peer_.SayAck();
    const size_t write = frames_.size();
    peer_.Say(wire::kWrite, WriteBody(mine, 4095, data_));
    const size_t atomic = frames_.size();
    peer_.Say(wire::kAtomicRequest, AtomicBody(mine, 8, wire::kFetchAdd, 1));
    std::map<int, std::vector<size_t>> of_type;
    for (size_t i = read; i < frames_.size(); ++i) {
      of_type[ScriptedPeer::View(frames_[i].second).type()].push_back(i);
    }
    ASSERT_EQ(of_type[wire::kReadResponse].size(), 3u);
    const auto number = [](size_t i) { return std::to_string(i + 1); };
    auto rows =
        Fields({"tripwire.response_in", "tripwire.last_response_in",
                "tripwire.refused_in", "tripwire.request_in", "tripwire.time",
                "tripwire.stream", "_ws.expert.message"});
    EXPECT_EQ(rows[read]["tripwire.response_in"],
              number(of_type[wire::kReadResponse][0]));
    EXPECT_EQ(rows[read]["tripwire.last_response_in"],
              number(of_type[wire::kReadResponse][2]));
    for (const size_t i : of_type[wire::kReadResponse]) {
      EXPECT_EQ(rows[i]["tripwire.request_in"], number(read));
      // Times are numbered by nanoseconds here.
      EXPECT_NEAR(std::stod(rows[i]["tripwire.time"]),
                  static_cast<double>(i - read) * 1e-9, 1e-12);
    }
    const size_t error = of_type[wire::kOpError].at(0);
    EXPECT_EQ(rows[write]["tripwire.refused_in"], number(error));
    EXPECT_EQ(rows[error]["tripwire.request_in"], number(write));
    EXPECT_THAT(rows[error]["_ws.expert.message"],
                HasSubstr("Write refused: out of bounds"));
    EXPECT_EQ(rows[atomic]["tripwire.response_in"],
              number(of_type[wire::kAtomicResponse].at(0)));
    // One link, both ways.
    EXPECT_EQ(rows[read]["tripwire.stream"], rows[error]["tripwire.stream"]);
    EXPECT_NE(rows[error]["tripwire.stream"], "");
  }
}

// Whatever the frame, the dissector's verdict is that of the NIC's own gate.
TEST_F(DissectorTest, RefusesWhatTheNicRefuses) {
  EveryTypeOfFrame();
  std::vector<Bytes> good;
  for (auto& [time_ns, frame] : frames_) good.push_back(frame);
  frames_.clear();
  Random random(1);
  for (int i = 0; i < 1500; ++i) {
    Bytes frame = good[random.Below(good.size())];
    const size_t length = ScriptedPeer::View(frame).payload.size();
    const uint64_t kind = random.Below(5);
    if (kind == 0) {
      frame.resize(14 + random.Below(frame.size() - 14));
    } else if (kind == 1) {
      frame[14 + random.Below(frame.size() - 14)] =
          static_cast<uint8_t>(random.Next());
    } else {
      // Wrong, but under a right checksum.
      if (kind == 2) frame[15] = static_cast<uint8_t>(random.Below(64));
      if (kind == 3) frame[14 + random.Below(12)] ^= 1 << random.Below(8);
      const size_t cut = kind == 4 ? random.Below(length + 1) : length;
      frame.resize(wire::kHeaderBytes + length + 64);
      frame.resize(wire::Seal(frame.data(), cut, random.Chance(0.9)));
    }
    Note(frame);
  }
  auto rows = Fields({"_ws.expert.message", "tripwire.checksum.status"});
  std::map<wire::ParseResult, int> verdicts;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Bytes& frame = frames_[i].second;
    wire::FrameView view;
    const wire::ParseResult verdict = wire::Parse(frame, &view);
    ++verdicts[verdict];
    const std::string& notes = rows[i]["_ws.expert.message"];
    SCOPED_TRACE(absl::StrCat("frame ", i + 1, ": ", Hex(frame), ": ", notes));
    const bool is_bad = rows[i]["tripwire.checksum.status"] == "0";
    // Bodies of control frames are beyond the gate.
    const bool is_malformed =
        notes.find("Malformed") != std::string::npos &&
        notes.find("protobuf") == std::string::npos &&
        notes.find("frames of this link have checksums") == std::string::npos;
    if (frame.size() > 16 && (frame[16] & wire::kAuthenticated) != 0) {
      // No place for a checksum is known beside the tag.
      EXPECT_TRUE(is_malformed);
      continue;
    }
    EXPECT_EQ(is_bad, verdict == wire::ParseResult::kBadChecksum);
    EXPECT_EQ(is_malformed, verdict == wire::ParseResult::kMalformed);
  }
  EXPECT_GT(verdicts[wire::ParseResult::kOk], 100);
  EXPECT_GT(verdicts[wire::ParseResult::kMalformed], 100);
  EXPECT_GT(verdicts[wire::ParseResult::kBadChecksum], 100);
}

TEST_F(DissectorTest, SummarisesEachFrameInALine) {
  EveryTypeOfFrame();
  const auto lines = Tshark("");
  EXPECT_THAT(lines, Contains(HasSubstr("Discover who is nic, who offers")));
  EXPECT_THAT(lines, Contains(HasSubstr("Reject: no such service")));
  EXPECT_THAT(lines, Contains(HasSubstr("Write 2/9+78187493520 Len=8 Seq=1")));
  EXPECT_THAT(lines, Contains(HasSubstr("compare-and-swap")));
  EXPECT_THAT(lines, Contains(HasSubstr("out of bounds")));
  EXPECT_THAT(lines, Contains(HasSubstr("Acknowledgement and 3 beyond Ack=")));
}

}  // namespace
}  // namespace tripwire
