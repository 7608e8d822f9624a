// SPDX-License-Identifier: BSD-3-Clause
// Any bodies in the frames outside links, while links are asked for, accepted
// and refused.
#include "tests/fuzz/bytes.h"
#include "tests/unit/datapath/scripted_peer.h"

using namespace tripwire;  // NOLINT: a fuzzer's main file

namespace {

// A well-formed message with some fields from the script, or just bytes.
std::string TakeBody(fuzz::Script& script, uint8_t type, uint32_t token) {
  const uint8_t shape = script.Take();
  const auto text = [&] {
    const auto bytes = script.TakeBytes(script.Take() % 32);
    return std::string(bytes.begin(), bytes.end());
  };
  if ((shape & 1) != 0) return text();
  switch (type) {
    case wire::kDiscover: {
      control::Discover message;
      if ((shape & 2) != 0) message.set_node("nic");
      if ((shape & 4) != 0) message.set_service("svc");
      message.set_token(script.Take<uint32_t>());
      return message.SerializeAsString();
    }
    case wire::kAnnounce: {
      control::Announce message;
      message.set_node((shape & 2) != 0 ? "peer" : text());
      message.add_services((shape & 4) != 0 ? "far" : text());
      message.set_token((shape & 8) != 0 ? token : script.Take<uint32_t>());
      return message.SerializeAsString();
    }
    case wire::kConnect: {
      control::Connect message;
      message.set_link(script.Take());
      message.set_epoch(script.Take());
      message.set_service((shape & 2) != 0 ? "svc" : text());
      message.set_node(text());
      message.set_max_frame_bytes((shape & 4) != 0 ? 1514
                                                   : script.Take<uint32_t>());
      message.set_checksum((shape & 8) != 0);
      message.set_private_data(text());
      return message.SerializeAsString();
    }
    case wire::kAccept: {
      control::Accept message;
      message.set_link(script.Take());
      message.set_epoch(script.Take());
      message.set_max_frame_bytes((shape & 2) != 0 ? 1514
                                                   : script.Take<uint32_t>());
      message.set_checksum((shape & 4) != 0);
      return message.SerializeAsString();
    }
    default: {
      control::Reject message;
      if ((shape & 2) != 0) message.set_reason(control::Reject::NO_SUCH_SERVICE);
      return message.SerializeAsString();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Script script(data, size);
  ScriptedPeer peer;
  uint32_t token = 0, link = 0, epoch = 0;
  std::vector<LinkId> requested;
  for (int steps = 0; steps < 200 && !script.ended(); ++steps) {
    const uint8_t what = script.Take();
    switch (what % 8) {
      case 0:
        peer.connections().Start(peer.context(),
                                 (what & 0x80) != 0 ? "peer" : "", "far", {},
                                 (what & 0x40) != 0 ? kNever : kSecond);
        break;
      case 1:
        peer.Run(uint64_t{what} * 4 * kMicrosecond);
        break;
      case 2:
        for (const Event& event : peer.Events()) {
          if (event.kind != EventKind::kConnectRequest) continue;
          if ((what & 0x80) != 0) {
            peer.connections().Reject(event.link);
          } else {
            fuzz::Require(peer.connections().Accept(event.link, {}),
                          "a request can be accepted");
          }
        }
        break;
      case 3:
        peer.discovery().StartSurvey();
        break;
      default: {
        const auto type = static_cast<uint8_t>(48 + script.Take() % 5);
        wire::FrameHeader header{};
        header.version = wire::kVersion;
        header.type = type;
        header.link = (what & 0x80) != 0 ? script.Take<uint32_t>() : link;
        header.epoch = (what & 0x40) != 0 ? script.Take<uint32_t>() : epoch;
        const std::string body = TakeBody(script, type, token);
        peer.Throw(peer.Frame(header, Bytes(body.begin(), body.end())));
        peer.Run(2 * kMicrosecond);
      }
    }
    // What an honest peer would learn from what it hears.
    for (const Bytes& frame : peer.Take()) {
      const wire::FrameView view = ScriptedPeer::View(frame);
      const int n = static_cast<int>(view.payload.size());
      if (view.type() == wire::kDiscover) {
        control::Discover question;
        fuzz::Require(question.ParseFromArray(view.payload.data(), n),
                      "questions are protobuf");
        token = question.token();
      } else if (view.type() == wire::kConnect) {
        control::Connect connect;
        fuzz::Require(connect.ParseFromArray(view.payload.data(), n) &&
                          connect.epoch() != 0,
                      "attempts are protobuf, with an epoch");
        link = connect.link();
        epoch = connect.epoch();
      }
    }
  }
  return 0;
}
