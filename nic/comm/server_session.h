// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_SERVER_SESSION_H_
#define TRIPWIRE_NIC_COMM_SERVER_SESSION_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nic/api/context.h"
#include "nic/comm/mapping.h"
#include "nic/comm/rpc.h"
#include "nic/comm/rpc_control.h"

namespace tripwire::rpc {

class ServedCall;
class ServerCore;

// The way from sessions and calls, which users may keep, to the core, which
// goes away before them.
struct ServerGate {
  std::mutex mutex;
  ServerCore* core = nullptr;  // null once the server has stopped
};

enum class SlotPhase : uint8_t { kIdle, kRunning, kAnswered };

// One call slot of a session, at the server.
struct ServerSlot {
  SlotPhase phase = SlotPhase::kIdle;
  bool cached = false;            // may be answered again from `image`
  uint64_t last_sequence = 0;     // the newest call taken in
  ServedCall* call = nullptr;     // while running
  // Where the bulk reply goes; meaningful on the link whose epoch this is.
  uint64_t target_epoch = 0;
  ApertureName target;
  uint64_t target_offset = 0;
  uint32_t target_capacity = 0;
  // The answer as it lies in the client's slot, message and tail.
  std::vector<uint8_t> image;
  uint32_t attempt = 0;         // counts runs, also those of one call
  uint32_t outgoing = 0;        // bulk writes of this answer under way
  bool waits_for_outgoing = false;  // to be sent again after those
  // Bulk data of the answer that no link has delivered.
  BulkBuffer bulk;
  uint32_t bulk_bytes = 0;
};

enum class OpenState : uint8_t { kNew, kOpening, kOpen, kEnded };

// One client's session. All fields are guarded by the gate's mutex, except
// the constant ones and the atomic ones.
class Session final : public ServerSession,
                      public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<ServerGate> gate, uint64_t id)
      : gate(std::move(gate)), session_id(id) {}

  uint64_t id() const override { return session_id; }
  const std::string& peer() const override { return peer_name; }
  bool connected() const override {
    return up.load(std::memory_order_relaxed);  // only news, orders nothing
  }
  bool lost() const override {
    return did_not_return.load(
        std::memory_order_relaxed);  // set before `close`
  }
  void Notify(Bytes message, std::function<void(absl::Status)> done) override;
  void Expel(const std::string& why) override;

  struct Notification {
    std::vector<uint8_t> message;
    std::function<void(absl::Status)> done;
  };

  const std::shared_ptr<ServerGate> gate;
  const uint64_t session_id;
  std::string peer_name;  // set before anybody else sees the session
  std::atomic<bool> up{false};
  std::atomic<bool> did_not_return{false};

  uint32_t index = 0;
  OpenState state = OpenState::kNew;
  // The user's functions that run for it or are about to: its opening, its
  // calls, its close.
  uint32_t busy = 0;
  // Its opening waits for those of an earlier session of its id; and then says:
  bool waits_to_open = false;
  std::vector<uint8_t> greeting;
  uint64_t incarnation = 0;  // tells this session from an earlier one of its id
  std::vector<uint8_t> greeting_reply;
  std::vector<ServerSlot> slots;

  // The memory its client writes: mapped once, exported for each link.
  Mapping call_area, staging;
  PeerMemory shown;  // what its client shows us on this link
  bool has_link = false;
  bool welcomed = false;  // on this link
  LinkId link;
  uint64_t epoch = 0;     // counts links
  uint64_t lost_at_ns = 0;
  Hello hello;
  RemoteAperture reply_area;
  Aperture call_aperture, staging_aperture;
  std::vector<Tripwire> tripwires;

  // Notifications `acked + 1` ... ; the first `sent - acked` of them are sent.
  std::deque<Notification> notifications;
  uint64_t notify_acked = 0, notify_sent = 0;
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_NIC_COMM_SERVER_SESSION_H_
