// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SIM_RPC_ENDS_H_
#define TRIPWIRE_TESTS_SIM_RPC_ENDS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "nic/comm/client_core.h"
#include "nic/comm/server_core.h"
#include "tests/sim/rpc_orders.h"
#include "tests/sim/sim_network.h"

// A server that answers orders, and a client that makes them and checks what it
// gets.
namespace tripwire::rpc {

class SimServer {
 public:
  SimServer(SimNetwork& net, const Plan& plan, Journal& journal)
      : net_(net), plan_(plan), journal_(journal) {}
  ~SimServer() { Crash(); }

  void Start() {
    nic_ = &net_.AddNode("server");
    ServerOptions options;
    options.slots = kSlots;
    options.message_bytes = kMessageBytes;
    options.bulk_bytes = kBulkBytes;
    options.staging_slots = 3;
    options.session_timeout_ns = (plan_.forgets ? 2 : 60) * kSecond;
    Server::Callbacks callbacks;
    callbacks.call = [this](Call call) { Serve(std::move(call)); };
    callbacks.open =
        [this](const std::shared_ptr<ServerSession>& session,
               Bytes greeting) -> absl::StatusOr<std::vector<uint8_t>> {
      EXPECT_TRUE(open_.insert(session->id()).second) << "opened twice";
      for (const Parked& parked : parked_) {
        EXPECT_NE(parked.call.session()->id(), session->id())
            << "opened anew before all was answered";
      }
      next_note_[session.get()] = 0;
      ++journal_.openings[session->id()];
      RestoreReplies(session->id());
      return std::vector<uint8_t>(greeting.begin(), greeting.end());
    };
    callbacks.close = [this](const std::shared_ptr<ServerSession>& session) {
      EXPECT_EQ(open_.erase(session->id()), 1u) << "closed, but not open";
      next_note_.erase(session.get());
    };
    auto core = ServerCore::Create(*nic_, options, callbacks,
                                   Random(net_.random().Next()));
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
  }

  // Dies without a word: its wire must be cut. What it answered is durable.
  void Crash() {
    if (core_ == nullptr) return;
    core_->Stop();
    parked_.clear();
    core_.reset();
    open_.clear();
    next_note_.clear();
    net_.RemoveNode(*nic_);
  }

  bool Step() {
    bool any = core_->Progress();
    for (size_t i = 0; i < parked_.size();) {
      const Parked& parked = parked_[i];
      if (net_.clock().NowNs() < parked.until_ns ||
          (!parked.call.cancelled() && !net_.random().Chance(0.2))) {
        ++i;
        continue;
      }
      Call call = std::move(parked_[i].call);
      parked_.erase(parked_.begin() + static_cast<ptrdiff_t>(i));
      Answer(std::move(call));
      any = true;
    }
    return any;
  }

  uint64_t NextDeadlineNs() {
    uint64_t next_ns = core_->NextDeadlineNs();
    for (const Parked& parked : parked_) {
      if (parked.until_ns > net_.clock().NowNs()) {
        next_ns = std::min(next_ns, parked.until_ns);
      }
    }
    return next_ns;
  }
  void SetWire(bool up) { net_.SetWire(*nic_, up); }
  size_t sessions() const { return open_.size(); }
  int notified = 0, notify_ended = 0;

 private:
  static Order Parse(const Call& call) {
    Order order;
    EXPECT_GE(call.request().size(), sizeof order);
    std::memcpy(&order, call.request().data(), sizeof order);
    return order;
  }

  // What this or an earlier server answered in earlier openings of the session.
  void RestoreReplies(uint64_t session) {
    for (const auto& [place, entry] : journal_.replies) {
      if (place.first != session) continue;
      core_->RestoreReply(session, place.second, entry.sequence, entry.reply);
    }
  }

  void Serve(Call call) {
    const Order order = Parse(call);
    if (order.stubborn != 0) {
      const uint64_t ns = net_.random().Below(30 * kSecond);
      parked_.push_back({std::move(call), net_.clock().NowNs() + ns});
    } else if (order.park != 0) {
      parked_.push_back({std::move(call), 0});
    } else {
      Answer(std::move(call));
    }
  }

  void Answer(Call call) {
    const Order order = Parse(call);
    EXPECT_TRUE(IsPattern(order.client, order.number,
                          call.request().subspan(sizeof order)));
    EXPECT_EQ(call.bulk_request().size(), order.bulk_in);
    EXPECT_TRUE(IsPattern(order.client, order.number, call.bulk_request()))
        << "staged data of " << order.client << "/" << order.number;
    if (net_.random().Chance(0.1)) Notify(call);
    const auto reply =
        PatternBytes(order.client, order.number + 1, order.reply_bytes);
    if (order.reclaim == 0) {
      const CallName name{order.client, order.number};
      ++journal_.runs[name];
      journal_.ran_in[name] = {journal_.openings[call.session()->id()],
                               journal_.links[order.client]};
    }
    if (order.cached != 0) {
      journal_.replies[{call.session()->id(), call.slot()}] = {call.sequence(),
                                                               reply};
    }
    BulkBuffer bulk;
    if (order.bulk_out > 0) {
      bulk = call.AllocateBulk(order.bulk_out);
      const auto bytes =
          PatternBytes(order.client, order.number + 2, order.bulk_out);
      std::memcpy(bulk.data(), bytes.data(), bytes.size());
    }
    call.Reply(reply, std::move(bulk), order.bulk_out, order.cached != 0);
  }

  void Notify(const Call& call) {
    // Nobody hears those of a session that has closed.
    const auto next = next_note_.find(call.session().get());
    const uint32_t note = next == next_note_.end() ? 0 : next->second++;
    ++notified;
    call.session()->Notify(
        {reinterpret_cast<const uint8_t*>(&note), sizeof note},
        [this](absl::Status) { ++notify_ended; });
  }

  SimNetwork& net_;
  const Plan& plan_;
  Journal& journal_;
  Nic* nic_ = nullptr;
  std::unique_ptr<ServerCore> core_;
  struct Parked {
    Call call;
    uint64_t until_ns;
  };
  std::deque<Parked> parked_;
  std::set<uint64_t> open_;
  std::map<const ServerSession*, uint32_t> next_note_;
};

class SimClient {
 public:
  SimClient(SimNetwork& net, const Plan& plan, Journal& journal, uint32_t id,
            uint32_t calls)
      : net_(net), plan_(plan), journal_(journal), id_(id), to_make_(calls) {
    nic_ = &net.AddNode("client" + std::to_string(id));
    ClientOptions options;
    options.node = "server";
    options.bulk_buffers = 2;
    options.on_connection = [this](bool connected, const std::string&) {
      if (connected) ++journal_.links[id_];
    };
    ClientCore::Hooks hooks;
    hooks.recover = [this](Octets) {
      next_note = 0;  // a new session numbers anew
      ++recoveries;
      Order order;
      order.client = id_;
      order.reclaim = 1;
      Make(order, /*recovery=*/true,
           [this](absl::Status) { core_->RecoveryDone(); });
    };
    core_ = std::make_unique<ClientCore>(*nic_, options, hooks,
                                         Random(net.random().Next()));
    core_->Begin(std::nullopt);
  }
  ~SimClient() { Crash(); }

  void Crash() {
    if (core_ == nullptr) return;
    closing_ = true;
    core_.reset();
    held_.clear();
    net_.RemoveNode(*nic_);
  }

  bool Step() {
    bool any = core_->Progress();
    Octets note;
    uint64_t ticket;
    while (core_->NotificationReady() &&
           core_->TakeNotification(&note, &ticket)) {
      uint32_t number = ~0u;
      ASSERT_TRUE_OR(note.size() == sizeof number);
      std::memcpy(&number, note.data(), sizeof number);
      EXPECT_EQ(number, next_note) << "notification to client " << id_;
      next_note = number + 1;
      core_->AcknowledgeNotification(ticket);
      any = true;
    }
    while (core_->connected() && made_ < to_make_ && in_flight_ < kSlots + 3) {
      MakeRandom();
      any = true;
    }
    return any;
  }

  uint32_t made() const { return made_; }
  bool done() const { return made_ == to_make_ && in_flight_ == 0; }
  uint64_t NextDeadlineNs() { return core_->NextDeadlineNs(); }
  void SetWire(bool up) { net_.SetWire(*nic_, up); }
  ClientCore& core() { return *core_; }

  void Check(Reached* reached) const {
    for (const auto& [number, outcome] : outcomes_) {
      const CallName name{id_, number};
      auto it = journal_.runs.find(name);
      const int runs = it == journal_.runs.end() ? 0 : it->second;
      if (outcome.cached) {
        EXPECT_LE(runs, 1) << "call " << id_ << "/" << number;
      }
      if (!outcome.ok) continue;
      ASSERT_GE(runs, 1) << "call " << id_ << "/" << number;
      if (!outcome.cached) continue;
      const Journal::Place& ran_in = journal_.ran_in.at(name);
      if (ran_in.opening <= outcome.recoveries) {
        ++reached->given_back;
      } else if (ran_in.link < outcome.link) {
        ++reached->from_slot;
      }
    }
  }

  uint32_t next_note = 0;
  int recoveries = 0;

 private:
  static void ASSERT_TRUE_OR(bool holds) { EXPECT_TRUE(holds); }

  struct Outcome {
    bool cached, ok;
    int recoveries, link;  // when it ended
  };
  struct Held {
    Order order;
    Response response;
  };

  void MakeRandom() {
    Random& random = net_.random();
    Order order;
    order.client = id_;
    order.number = made_++;
    order.cached = random.Chance(0.7);
    order.park = random.Chance(0.3);
    order.stubborn = plan_.forgets && random.Chance(0.02);
    order.reply_bytes = static_cast<uint32_t>(random.Below(kMessageBytes + 1));
    if (random.Chance(0.3)) {
      order.bulk_in = static_cast<uint32_t>(1 + random.Below(kBulkBytes));
    }
    // A durable reply does not keep bulk data, so such calls ask for none.
    const bool may_ask = order.cached == 0 || !plan_.IsDurable();
    if (may_ask && random.Chance(0.5)) {
      order.bulk_out = static_cast<uint32_t>(1 + random.Below(kBulkBytes));
    }
    Make(order, /*recovery=*/false, [](absl::Status) {});
  }

  void Make(const Order& order, bool recovery,
            std::function<void(absl::Status)> then) {
    auto memory = std::make_shared<std::vector<uint8_t>>(
        PatternBytes(id_, order.number, order.bulk_in));
    auto message = std::make_shared<std::vector<uint8_t>>(sizeof order);
    std::memcpy(message->data(), &order, sizeof order);
    const auto tail =
        PatternBytes(id_, order.number,
                     net_.random().Below(kMessageBytes - sizeof order + 1));
    message->insert(message->end(), tail.begin(), tail.end());
    auto piece = std::make_shared<iovec>(iovec{memory->data(), memory->size()});
    auto call = std::make_unique<PendingCall>();
    call->request.message = *message;
    if (order.bulk_in > 0) call->request.bulk = {piece.get(), 1};
    call->request.bulk_reply_capacity = order.bulk_out;
    call->request.during_recovery = recovery;
    if (!recovery && net_.random().Chance(0.1)) {
      call->request.timeout_ns = 1 + net_.random().Below(50 * kMillisecond);
    }
    call->done_function = [this, order, memory, message, piece,
                           then = std::move(then)](absl::Status status,
                                                   Response response) {
      // The caller may do with its memory what it likes from now on.
      std::fill(memory->begin(), memory->end(), 0xee);
      std::fill(message->begin(), message->end(), 0xee);
      if (closing_) return;
      if (order.reclaim == 0) {
        --in_flight_;
        outcomes_[order.number] = {order.cached != 0, status.ok(), recoveries,
                                   journal_.links[id_]};
        EXPECT_TRUE(status.ok() || absl::IsDeadlineExceeded(status)) << status;
      }
      if (status.ok()) Verify(order, std::move(response));
      then(status);
    };
    if (order.reclaim == 0) ++in_flight_;
    core_->StartAsync(std::move(call));
  }

  void Verify(const Order& order, Response response) {
    EXPECT_EQ(response.message.size(), order.reply_bytes);
    EXPECT_TRUE(IsPattern(id_, order.number + 1, response.message));
    EXPECT_EQ(response.bulk_bytes, order.bulk_out);
    CheckBulk(order, response);
    // Nothing late may touch what the caller holds.
    if (response.bulk_bytes > 0) held_.push_back({order, std::move(response)});
    while (held_.size() > 4) {
      CheckBulk(held_.front().order, held_.front().response);
      held_.pop_front();
    }
  }

  void CheckBulk(const Order& order, const Response& response) {
    if (response.bulk_bytes == 0) return;
    EXPECT_TRUE(IsPattern(id_, order.number + 2,
                          {response.bulk.data(), response.bulk_bytes}))
        << "bulk reply of " << id_ << "/" << order.number;
  }

  SimNetwork& net_;
  const Plan& plan_;
  Journal& journal_;
  const uint32_t id_;
  const uint32_t to_make_;
  Nic* nic_ = nullptr;
  std::unique_ptr<ClientCore> core_;
  uint32_t made_ = 0, in_flight_ = 0;
  bool closing_ = false;
  std::map<uint32_t, Outcome> outcomes_;
  std::deque<Held> held_;
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_TESTS_SIM_RPC_ENDS_H_
