// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/memif_handshake.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tripwire {
namespace {

constexpr uint8_t kLog2RingSize = 10;     // what our clients ask for
constexpr uint8_t kMaxLog2RingSize = 14;  // what our servers allow
constexpr uint16_t kMaxRegion = 63;       // highest index
constexpr int kSteps = 6;                 // of a client

absl::Status Unexpected(MemifMessageType type) {
  return absl::InvalidArgumentError(
      absl::StrCat("unexpected message of type ", static_cast<int>(type)));
}

}  // namespace

absl::StatusOr<bool> MemifHandshake::Continue() {
  while (true) {
    absl::StatusOr<MemifReceived> received = ReceiveMemif(socket());
    if (absl::IsUnavailable(received.status())) return false;
    if (!received.ok()) return received.status();
    if (received->type() == MemifMessageType::kDisconnect) {
      return absl::AbortedError(
          absl::StrCat("the peer refused: ",
                       MemifText(received->body<MemifDisconnect>().reason)));
    }
    absl::StatusOr<bool> done = Handle(*std::move(received));
    if (!done.ok()) {
      MemifDisconnect goodbye{};
      goodbye.code = 1;
      SetMemifText(goodbye.reason, std::string(done.status().message()));
      SendMemif(socket(), MemifMessageType::kDisconnect, goodbye).IgnoreError();
    }
    if (!done.ok() || *done) return done;
  }
}

bool MemifHandshake::PeerIsOurs() const {
  return peer_name_.starts_with(kMemifOurName);
}

absl::Status MemifServerHandshake::Start() {
  channel_ = std::make_unique<MemifChannel>();
  MemifHello hello{};
  SetMemifText(hello.name, kMemifOurName);
  hello.min_version = kMemifVersion;
  hello.max_version = kMemifVersion;
  hello.max_region = kMaxRegion;
  hello.max_log2_ring_size = kMaxLog2RingSize;
  return SendMemif(socket(), MemifMessageType::kHello, hello);
}

absl::StatusOr<bool> MemifServerHandshake::Handle(MemifReceived received) {
  absl::Status status;
  const bool is_introduced = !peer_name_.empty();
  if (!is_introduced && received.type() != MemifMessageType::kInit) {
    return Unexpected(received.type());
  }
  switch (received.type()) {
    case MemifMessageType::kInit: {
      const auto init = received.body<MemifInit>();
      if (is_introduced) return Unexpected(received.type());
      if (init.version.get() != kMemifVersion) {
        return absl::InvalidArgumentError("memif version 2.0 is needed");
      }
      if (init.mode != 0) {
        return absl::InvalidArgumentError("only Ethernet mode is supported");
      }
      peer_name_ = MemifText(init.name);
      if (peer_name_.empty()) peer_name_ = "?";
      break;
    }
    case MemifMessageType::kAddRegion:
      status = channel_->AddRegion(received.body<MemifAddRegion>(),
                                   std::move(received.fd));
      break;
    case MemifMessageType::kAddRing:
      status = channel_->AddRing(received.body<MemifAddRing>(),
                                 std::move(received.fd));
      break;
    case MemifMessageType::kConnect: {
      if (MayStopUs(socket())) channel_->TrustPeer();
      status = channel_->Open(PeerIsOurs());
      if (!status.ok()) return status;
      MemifConnect connected{};
      SetMemifText(connected.name, kMemifOurName);
      status = SendMemif(socket(), MemifMessageType::kConnected, connected);
      if (!status.ok()) return status;
      return true;
    }
    default:
      return Unexpected(received.type());
  }
  if (status.ok()) status = SendMemif(socket(), MemifMessageType::kAck);
  if (!status.ok()) return status;
  return false;
}

absl::StatusOr<bool> MemifClientHandshake::Handle(MemifReceived received) {
  absl::Status status;
  switch (received.type()) {
    case MemifMessageType::kHello:
      if (channel_ != nullptr) return Unexpected(received.type());
      status = OnHello(received.body<MemifHello>());
      break;
    case MemifMessageType::kAck:
      if (channel_ == nullptr) return Unexpected(received.type());
      status = SendNext();
      break;
    case MemifMessageType::kConnected:
      if (step_ != kSteps) return Unexpected(received.type());
      if (MayStopUs(socket())) channel_->TrustPeer();
      channel_->OpenOffered(PeerIsOurs());
      return true;
    default:
      return Unexpected(received.type());
  }
  if (!status.ok()) return status;
  return false;
}

absl::Status MemifClientHandshake::OnHello(const MemifHello& hello) {
  if (hello.min_version.get() > kMemifVersion ||
      hello.max_version.get() < kMemifVersion) {
    return absl::InvalidArgumentError("the server does not speak memif 2.0");
  }
  peer_name_ = MemifText(hello.name);
  auto channel = MemifChannel::Create(
      frame_bytes_, std::min(kLog2RingSize, hello.max_log2_ring_size));
  if (!channel.ok()) return channel.status();
  channel_ = *std::move(channel);
  // Others would map it and never look.
  shows_ = shown_ >= 0 && hello.max_region.get() >= 1 && PeerIsOurs();
  return SendNext();
}

// Each step waits for the acknowledgement of the one before.
absl::Status MemifClientHandshake::SendNext() {
  if (step_ == 2 && !shows_) ++step_;
  switch (step_++) {
    case 0: {
      MemifInit init{};
      init.version = kMemifVersion;
      SetMemifText(init.name, kMemifOurName);
      return SendMemif(socket(), MemifMessageType::kInit, init);
    }
    case 1:
      return SendMemif(socket(), MemifMessageType::kAddRegion,
                       channel_->OfferedRegion(), channel_->memory_fd());
    case 2: {
      MemifAddRegion region{};
      region.index = 1;
      region.size_bytes = shown_bytes_;
      return SendMemif(socket(), MemifMessageType::kAddRegion, region, shown_);
    }
    case 3:
      return SendMemif(socket(), MemifMessageType::kAddRing,
                       channel_->OfferedRing(MemifDirection::kC2s),
                       channel_->doorbell_fd(MemifDirection::kC2s));
    case 4:
      return SendMemif(socket(), MemifMessageType::kAddRing,
                       channel_->OfferedRing(MemifDirection::kS2c),
                       channel_->doorbell_fd(MemifDirection::kS2c));
    case 5: {
      MemifConnect connect{};
      SetMemifText(connect.name, kMemifOurName);
      return SendMemif(socket(), MemifMessageType::kConnect, connect);
    }
    default:
      return absl::InvalidArgumentError("too many acknowledgements");
  }
}

}  // namespace tripwire
