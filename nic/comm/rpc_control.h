// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_RPC_CONTROL_H_
#define TRIPWIRE_NIC_COMM_RPC_CONTROL_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nic/datapath/types.h"

// What an RPC client and server say beside calls: the connection data of their
// link and the out-of-band messages on it. The bytes are little-endian and
// packed in the order of the fields; see docs/communication.md. The Parse
// functions accept any bytes and give nothing for what breaks the rules.
namespace tripwire::rpc {

inline constexpr uint16_t kProtocolVersion = 1;

// Connection data, client to server.
struct ConnectRequest {
  uint16_t version = kProtocolVersion;
  uint64_t session_id = 0;  // never 0
};

inline constexpr uint32_t kTakesReferences = 1;  // ConnectAnswer::features

// Connection data, server to client.
struct ConnectAnswer {
  std::string refused;  // not empty: why there will be no session
  uint32_t slots = 0;
  uint32_t message_bytes = 0;
  uint32_t bulk_bytes = 0;
  uint32_t staging_slots = 0;
  ApertureName call_area;
  ApertureName staging;
  uint32_t features = 0;  // what this server can do on this link
};

enum class MessageType : uint8_t {
  kHello = 1,    // client, first on a link
  kWelcome = 2,  // server's answer to it
  kRefused = 3,  // or this one
  kCancel = 4,   // client gives up on a call
  kBye = 5,      // either side ends the session
};

struct Hello {
  uint64_t incarnation = 0;      // of the session, as last welcomed; 0: never
  uint64_t notify_received = 0;  // notifications taken in ...
  uint64_t notify_acked = 0;     // ... and served
  uint32_t notify_slots = 0;
  ApertureName reply_area;
  std::vector<uint8_t> greeting;
};

struct Welcome {
  bool resumed = false;       // else the session was opened anew
  uint64_t incarnation = 0;
  std::vector<uint64_t> sequences;  // for each slot, the newest call it has
  std::vector<uint8_t> greeting_reply;
};

struct Refused {
  uint32_t code = 0;  // an absl::StatusCode
  std::string why;
};

struct Cancel {
  uint32_t slot = 0;
  uint64_t sequence = 0;
};

struct Bye {
  std::string why;
};

using Octets = std::vector<uint8_t>;
using OctetView = std::span<const uint8_t>;

Octets Serialize(const ConnectRequest& request);
Octets Serialize(const ConnectAnswer& answer);
Octets Serialize(const Hello& hello);
Octets Serialize(const Welcome& welcome);
Octets Serialize(const Refused& refused);
Octets Serialize(const Cancel& cancel);
Octets Serialize(const Bye& bye);

std::optional<ConnectRequest> ParseConnectRequest(OctetView bytes);
// Limits (rpc_layout.h) are checked, and that the apertures are large enough.
std::optional<ConnectAnswer> ParseConnectAnswer(OctetView bytes);
std::optional<MessageType> TypeOf(OctetView message);
std::optional<Hello> ParseHello(OctetView message);
std::optional<Welcome> ParseWelcome(OctetView message);
std::optional<Refused> ParseRefused(OctetView message);
std::optional<Cancel> ParseCancel(OctetView message);
std::optional<Bye> ParseBye(OctetView message);

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_NIC_COMM_RPC_CONTROL_H_
