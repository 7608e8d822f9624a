// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_SERVER_CORE_H_
#define TRIPWIRE_NIC_COMM_SERVER_CORE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/api/context.h"
#include "nic/base/random.h"
#include "nic/base/ring_queue.h"
#include "nic/comm/bulk_pool.h"
#include "nic/comm/rpc.h"
#include "nic/comm/rpc_control.h"
#include "nic/comm/server_call.h"
#include "nic/comm/server_session.h"

namespace tripwire::rpc {

// The server without threads: turns NIC events into jobs, and jobs' results
// into writes. Whoever owns it takes events from context(), gives them to
// Handle, and runs the jobs it finds; a simulation does so in one loop, the
// threaded Server (server.cc) from its workers.
//
// Thread safety: all methods but the constructor, Stop and the destructor, from
// any thread. One mutex (the gate's) guards everything, sessions included; it
// is held across calls of the NIC, never while a user's function runs.
//
// Invariants:
//  1. A call of a session's slot becomes a job once: only if its sequence is
//     greater than the slot's last one, and the last one was answered.
//  2. Of a session, at most one link is bound, and only it can reach the
//     session's memory.
//  3. A session that is opened anew is so when all calls of the earlier one are
//     answered and its close has returned: what they left is there to be found.
//  4. Bulk memory given to a reply is held until the NIC is done with it.
class ServerCore {
 public:
  // What there is to run. Exactly one of the two is set.
  struct Job {
    std::shared_ptr<ServedCall> call;
    std::function<void()> other;  // opening, closing, a notification's end
    explicit operator bool() const { return call != nullptr || other; }
  };

  static absl::StatusOr<std::unique_ptr<ServerCore>> Create(
      Nic& nic, ServerOptions options, Server::Callbacks callbacks,
      Random random = Random::FromSystem());
  // REQUIRES: Stop was called and nothing else runs.
  ~ServerCore();
  ServerCore(const ServerCore&) = delete;

  Context& context() { return *context_; }
  const ServerOptions& options() const { return options_; }

  void Handle(std::span<const Event> events);
  // When Handle must be called even without events.
  uint64_t NextDeadlineNs();
  // The oldest job there is, or an empty one. Calls only if `calls`.
  Job TakeJob(bool calls = true);
  size_t CallsPending();
  bool HasJobs(bool calls);
  // Runs it, on this thread. The core need not be locked.
  void Run(Job job);

  // One turn of a single-threaded owner: everything that is due, and the jobs
  // that follow from it. Returns whether anything happened.
  bool Progress();

  void RestoreReply(uint64_t session_id, uint32_t slot, uint64_t sequence,
                    Bytes message);
  // Closes all links and ends every parked call (their answers go nowhere; the
  // clients will ask the next server). Jobs not yet run are dropped.
  void Stop();

  // Called when a job was queued by a thread that is not in Handle or Run.
  std::function<void()> on_job;

  uint64_t calls_started() const { return calls_started_; }
  uint64_t calls_by_reference() const { return calls_by_reference_; }

 private:
  friend class Session;
  friend class ServedCall;
  // A bulk reply under way.
  struct Outgoing {
    Completion completion;
    BulkBuffer buffer;
    std::shared_ptr<Session> session;
    uint32_t slot = 0;
    uint32_t attempt = 0;
  };
  using Lock = std::unique_lock<std::mutex>;

  ServerCore(Nic& nic, ServerOptions options, Server::Callbacks callbacks,
             Random random);

  // server_core.cc: events, each with the gate's mutex held.
  void HandleEvent(const Event& event);
  void OnConnectRequest(LinkId link);
  void OnLinkDown(LinkId link);
  void OnMessage(LinkId link, Bytes message);
  void OnTripwire(uint64_t cookie);
  void RunTimers();
  std::shared_ptr<Session> SessionOf(uint64_t id);
  void Refuse(LinkId link, const std::string& why);

  // server_session.cc: a session's life.
  void Bind(const std::shared_ptr<Session>& session, LinkId link);
  void Unbind(Session& session, bool close);
  void OnHello(const std::shared_ptr<Session>& session, const Hello& hello);
  void Open(const std::shared_ptr<Session>& session, Octets greeting);
  void Opened(const std::shared_ptr<Session>& session,
              absl::StatusOr<Octets> result);
  void Leave(Session& session);
  void QueueClose(const std::shared_ptr<Session>& session);
  void SendWelcome(Session& session);
  void End(const std::shared_ptr<Session>& session, const std::string& why,
           bool expelled);
  void PumpNotifications(Session& session);
  void OnNotifyAck(Session& session);

  // server_call.cc: calls.
  void Intake(const std::shared_ptr<Session>& session, uint32_t slot);
  bool BulkIsInBounds(const Session& session, const CallTail& tail) const;
  void StartCall(const std::shared_ptr<Session>& session, uint32_t slot,
                 const CallTail& tail, const uint8_t* message);
  void OnCancel(const std::shared_ptr<Session>& session, const Cancel& cancel);
  void Answer(ServedCall& call, uint32_t status, Bytes message,
              BulkBuffer bulk, size_t bulk_bytes, bool cache);
  void SendReply(const std::shared_ptr<Session>& session, uint32_t slot);
  void AnswerAgain(const std::shared_ptr<Session>& session, uint32_t slot);
  void ReapOutgoing();
  Octets TakeOctets();
  void GiveOctets(Octets octets);

  void Queue(std::function<void()> job) {
    other_jobs_.push_back(std::move(job));
  }
  uint64_t Now() { return nic_.clock().NowNs(); }

  Nic& nic_;
  const ServerOptions options_;
  const Server::Callbacks callbacks_;
  const std::shared_ptr<ServerGate> gate_;
  const uint64_t buffer_bytes_;
  Random random_;
  std::unique_ptr<Context> context_;
  bool stopped_ = false;
  std::atomic<uint64_t> calls_started_{0}, calls_by_reference_{0};

  // Sessions by index (part of tripwire cookies), by id, and by bound link.
  std::vector<std::shared_ptr<Session>> sessions_;
  std::vector<uint32_t> free_indexes_;
  absl::flat_hash_map<uint64_t, uint32_t> index_of_id_;
  absl::flat_hash_map<uint32_t, uint32_t> index_of_link_;
  // How many ended sessions of an id are still busy.
  absl::flat_hash_map<uint64_t, uint32_t> ending_;
  // Ended for ever; bounded, oldest forgotten first.
  absl::flat_hash_set<uint64_t> expelled_;
  std::deque<uint64_t> expelled_order_;
  uint64_t next_timer_ns_ = kNever;
  std::deque<std::pair<uint64_t, LinkId>> refused_;  // closed at that time

  // What RestoreReply said, until the session is opened: by id, then slot.
  struct Restored {
    uint64_t sequence = 0;
    Octets message;
  };
  absl::flat_hash_map<uint64_t, absl::flat_hash_map<uint32_t, Restored>>
      restored_;

  RingQueue<std::shared_ptr<ServedCall>> calls_;
  std::deque<std::function<void()>> other_jobs_;

  BulkPool bulk_pool_;
  std::vector<std::unique_ptr<Outgoing>> outgoing_, spare_outgoing_;
  std::vector<Octets> spare_octets_;
  std::shared_ptr<CallMemory> call_memory_;
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_NIC_COMM_SERVER_CORE_H_
