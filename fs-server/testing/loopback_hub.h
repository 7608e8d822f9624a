// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_TESTING_LOOPBACK_HUB_H_
#define TRIPWIRE_FS_SERVER_TESTING_LOOPBACK_HUB_H_

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fs-server/testing/loopback.h"

// The insides of the loopback. One mutex (Hub::mutex) guards everything;
// callbacks of server and client run without it.
namespace tripwire::rpc {

class LoopbackServer;
class LoopbackClient;
class LoopbackSession;

// One call a client waits for.
struct PendingCall {
  uint32_t slot = 0;
  uint64_t sequence = 0;
  std::vector<uint8_t> message;
  std::vector<uint8_t> staged;
  size_t bulk_reply_capacity = 0;
  bool during_recovery = false;
  bool abandoned = false;  // nobody waits any more; frees the slot when answered
  bool cancelled = false;
  bool done = false;
  absl::Status status;
  Response response;
  std::function<void(absl::Status, Response)> callback;  // InvokeAsync
};

// A thread that runs functions in order, or several threads that do so at once.
class TaskQueue {
 public:
  explicit TaskQueue(uint32_t threads);
  ~TaskQueue() { Stop(); }
  void Post(std::function<void()> task);
  void Stop();  // runs what is queued, then joins; what comes later is dropped

 private:
  void Run();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

struct Loopback::Hub {
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<LoopbackServer> server;  // null: down
  bool cut = false;
  bool deliver_calls = false;  // cut one way only: replies are lost
  std::map<uint64_t, LoopbackClient*> clients;
  uint64_t calls = 0;
  uint64_t notifications = 0;
};

// One call at the server.
class LoopbackCall final : public CallImpl {
 public:
  LoopbackCall(std::shared_ptr<LoopbackSession> session,
               std::shared_ptr<PendingCall> pending);
  ~LoopbackCall() override;  // unanswered: the client's Invoke ends ABORTED

  Bytes request() const override { return message_; }
  std::span<const uint8_t> bulk_request() const override { return pending_->staged; }
  size_t bulk_reply_capacity() const override { return pending_->bulk_reply_capacity; }
  BulkBuffer AllocateBulk(size_t bytes) override;
  const std::shared_ptr<ServerSession>& session() const override { return base_session_; }
  uint32_t slot() const override { return pending_->slot; }
  uint64_t sequence() const override { return pending_->sequence; }
  bool cancelled() const override;
  void OnCancel(std::function<void()> f) override;
  void Reply(Bytes message, BulkBuffer bulk, size_t bulk_bytes, bool cache) override;

  void Cancel();

 private:
  const std::shared_ptr<LoopbackSession> session_;
  const std::shared_ptr<ServerSession> base_session_;
  const std::shared_ptr<PendingCall> pending_;
  const std::vector<uint8_t> message_;
  mutable std::mutex mutex_;
  bool cancelled_ = false;
  bool answered_ = false;
  std::function<void()> on_cancel_;
};

class LoopbackSession final : public ServerSession,
                              public std::enable_shared_from_this<LoopbackSession> {
 public:
  LoopbackSession(std::shared_ptr<Loopback::Hub> hub, LoopbackServer* server,
                  uint64_t id, std::string peer)
      : hub_(std::move(hub)), server_(server), id_(id), peer_(std::move(peer)) {}

  uint64_t id() const override { return id_; }
  const std::string& peer() const override { return peer_; }
  bool connected() const override;
  bool lost() const override { return lost_; }
  void Notify(Bytes message, std::function<void(absl::Status)> done) override;
  void Expel(const std::string& why) override;

  // REQUIRES: hub mutex held.
  void Submit(const std::shared_ptr<PendingCall>& pending);
  void FlushNotices();
  void End(const absl::Status& why);
  void Lose();

  void Answer(const std::shared_ptr<PendingCall>& pending, Bytes message,
              BulkBuffer bulk, size_t bulk_bytes, bool cache, absl::Status status);

  struct SlotState {
    uint64_t sequence = 0;
    bool running = false;
    bool cached = false;
    std::vector<uint8_t> reply;
    std::weak_ptr<LoopbackCall> call;
  };
  std::map<uint32_t, SlotState> slots;  // guarded by the hub mutex
  struct Notice {
    std::vector<uint8_t> message;
    std::function<void(absl::Status)> done;
  };
  std::deque<Notice> notices;  // not yet delivered
  bool ended = false;
  bool closed = false;  // the service's `close` has returned
  bool killed = false;

 private:
  friend class LoopbackServer;
  void Close();
  std::atomic<bool> lost_{false};
  const std::shared_ptr<Loopback::Hub> hub_;
  LoopbackServer* const server_;
  const uint64_t id_;
  const std::string peer_;
};

class LoopbackServer : public std::enable_shared_from_this<LoopbackServer> {
 public:
  LoopbackServer(std::shared_ptr<Loopback::Hub> hub, ServerOptions options,
                 Server::Callbacks callbacks);
  ~LoopbackServer();

  const ServerOptions& options() const { return options_; }
  const Server::Callbacks& callbacks() const { return callbacks_; }
  void Post(std::function<void()> task) { workers_->Post(std::move(task)); }
  // Opens a session for a client. Runs the service's `open` in this thread.
  absl::StatusOr<std::vector<uint8_t>> OpenSession(LoopbackClient* client);
  void Stop();  // ends sessions, runs their handlers to the end

  std::map<uint64_t, std::shared_ptr<LoopbackSession>> sessions;  // hub mutex
  std::map<std::pair<uint64_t, uint32_t>, std::pair<uint64_t, std::vector<uint8_t>>> restored;
  bool killed = false;

 private:
  const std::shared_ptr<Loopback::Hub> hub_;
  const ServerOptions options_;
  const Server::Callbacks callbacks_;
  std::unique_ptr<TaskQueue> workers_;
};

class LoopbackClient final : public Client {
 public:
  LoopbackClient(std::shared_ptr<Loopback::Hub> hub, ClientOptions options, uint64_t id);
  ~LoopbackClient() override;

  absl::Status Invoke(const Request& request, Response* response,
                      CancelToken* cancel) override;
  void InvokeAsync(const Request& request,
                   std::function<void(absl::Status, Response)> done,
                   CancelToken* cancel) override;
  uint64_t session_id() const override { return id_; }
  const std::vector<uint8_t>& greeting_reply() const override { return greeting_reply_; }
  const std::string& peer() const override { return peer_; }
  uint32_t message_bytes() const override { return server_options_.message_bytes; }
  uint32_t bulk_bytes() const override { return server_options_.bulk_bytes; }
  bool connected() const override;
  bool shares_memory() const override { return true; }

  absl::Status Open();  // the first session; in the connecting thread
  const ClientOptions& options() const { return options_; }
  void PostNotice(std::function<void()> task) { notices_->Post(std::move(task)); }

  // REQUIRES: hub mutex held.
  void Recover();  // opens the session anew, on a thread of its own
  void Resend();
  void Complete(const std::shared_ptr<PendingCall>& pending);
  void FailAll(const absl::Status& why);
  bool session_is_lost() const { return session_ && session_->lost(); }

 private:
  friend class LoopbackSession;
  absl::Status Start(const Request& request, uint64_t deadline_ns, CancelToken* cancel,
                     std::function<void(absl::Status, Response)> callback,
                     std::shared_ptr<PendingCall>* pending);
  void Send(const std::shared_ptr<PendingCall>& pending);  // hub mutex held
  void Abandon(const std::shared_ptr<PendingCall>& pending);
  void CancelAsync(const std::shared_ptr<PendingCall>& pending);  // hub mutex held

  const std::shared_ptr<Loopback::Hub> hub_;
  const ClientOptions options_;
  const uint64_t id_;
  std::string peer_ = "loopback";
  ServerOptions server_options_;
  std::vector<uint8_t> greeting_reply_;
  std::shared_ptr<LoopbackSession> session_;  // null: must be opened anew
  bool recovering_ = false;
  bool closing_ = false;
  absl::Status dead_;  // not OK: expelled
  struct Slot {
    uint64_t sequence = 0;
    bool busy = false;
  };
  std::vector<Slot> slots_;
  std::vector<std::shared_ptr<PendingCall>> pending_;
  std::unique_ptr<TaskQueue> notices_;
  std::unique_ptr<TaskQueue> recovery_;
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_FS_SERVER_TESTING_LOOPBACK_HUB_H_
