// SPDX-License-Identifier: BSD-3-Clause
// The client's waiting. A thread in Invoke drives the NIC itself until its
// reply word changes: nobody wakes it. Two threads of the client's own sleep on
// the NIC until there is something for just them: the engine for links,
// out-of-band messages and asynchronous calls; the notifier for the next
// notification. Each recovery gets a thread for itself.
#include <spdlog/spdlog.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nic/comm/client_core.h"
#include "nic/comm/rpc.h"

namespace tripwire::rpc {
namespace {

uint64_t After(uint64_t now_ns, uint64_t delay_ns) {
  return delay_ns < kNever - now_ns ? now_ns + delay_ns : kNever;
}

// What a CancelToken reaches: its hook may run after the call, and the client,
// are gone.
struct CancelFlag {
  std::mutex mutex;
  Nic* nic = nullptr;  // null once the call has ended
  std::atomic<bool> raised{false};

  void Raise() {
    std::lock_guard lock(mutex);
    raised.store(true, std::memory_order_release);  // pairs with Invoke's look
    if (nic != nullptr) nic->Notify();
  }
};

// Ties a token to a flag for the time of one call.
class CancelScope {
 public:
  CancelScope(CancelToken* token, Nic& nic) : token_(token) {
    if (token_ == nullptr) return;
    flag_ = std::make_shared<CancelFlag>();
    flag_->nic = &nic;
    std::lock_guard lock(token_->state->mutex);
    if (token_->state->cancelled) {
      flag_->raised.store(true, std::memory_order_relaxed);  // our own thread
    } else {
      token_->state->hook = [flag = flag_] { flag->Raise(); };
    }
  }
  ~CancelScope() {
    if (token_ == nullptr) return;
    {
      std::lock_guard lock(token_->state->mutex);
      token_->state->hook = nullptr;
    }
    std::lock_guard lock(flag_->mutex);
    flag_->nic = nullptr;
  }
  bool raised() const {
    return flag_ != nullptr && flag_->raised.load(std::memory_order_acquire);
  }

 private:
  CancelToken* const token_;
  std::shared_ptr<CancelFlag> flag_;
};

class ThreadedClient final : public Client {
 public:
  ThreadedClient(Nic& nic, ClientOptions options)
      : nic_(nic),
        options_(std::move(options)),
        core_(nic, options_, Hooks()) {}

  absl::Status Begin() {
    const uint64_t deadline_ns =
        After(nic_.clock().NowNs(), options_.connect_timeout_ns);
    auto link = core_.context().Connect(options_.node, options_.service,
                                        core_.ConnectData(),
                                        options_.connect_timeout_ns);
    if (!link.ok()) return link.status();
    core_.Begin(*link);
    Event events[16];
    while (!core_.connected()) {
      if (absl::Status ended = core_.ended(); !ended.ok()) return ended;
      const uint64_t now_ns = nic_.clock().NowNs();
      if (now_ns >= deadline_ns) {
        const absl::Status why = core_.last_failure();
        return absl::UnavailableError(absl::StrCat(
            core_.peer(), " does not open the session",
            why.ok() ? "" : ": ", why.message()));
      }
      const size_t count = core_.context().Wait(
          events, std::min(deadline_ns, core_.NextDeadlineNs()));
      core_.Handle({events, count});
    }
    peer_ = core_.peer();
    engine_ = std::thread([this] { RunEngine(); });
    if (options_.on_notify) notifier_ = std::thread([this] { RunNotifier(); });
    return absl::OkStatus();
  }

  ~ThreadedClient() override {
    stop_.store(true, std::memory_order_release);  // pairs with the threads
    core_.Close(absl::CancelledError("rpc: the client is closing"));
    core_.context().Interrupt();
    nic_.Notify();
    if (engine_.joinable()) engine_.join();
    if (notifier_.joinable()) notifier_.join();
    if (recovery_.joinable()) recovery_.join();
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return invoking_ == 0; });
  }

  absl::Status Invoke(const Request& request, Response* response,
                      CancelToken* cancel) override {
    const Visit visit(*this);
    const CancelScope scope(cancel, nic_);
    PendingCall call;
    call.request = request;
    call.response = response;
    const uint64_t deadline_ns =
        request.timeout_ns == kNever
            ? kNever
            : After(nic_.clock().NowNs(), request.timeout_ns);
    if (scope.raised()) return absl::CancelledError("rpc: cancelled");
    core_.Start(&call);
    return WaitFor(call, deadline_ns, scope);
  }

  void InvokeAsync(const Request& request,
                   std::function<void(absl::Status, Response)> done,
                   CancelToken* cancel) override {
    std::unique_ptr<PendingCall> call = core_.NewCall();
    call->request = request;
    call->done_function = std::move(done);
    core_.StartAsync(std::move(call), cancel);
  }

  uint64_t session_id() const override { return core_.session_id(); }
  const std::vector<uint8_t>& greeting_reply() const override {
    return core_.greeting_reply();
  }
  const std::string& peer() const override { return peer_; }
  uint32_t message_bytes() const override { return core_.message_bytes(); }
  uint32_t bulk_bytes() const override { return core_.bulk_bytes(); }
  bool connected() const override { return core_.connected(); }
  bool shares_memory() const override { return core_.shares_memory(); }
  std::span<uint8_t> shown_memory() const override {
    return core_.shown_memory();
  }

 private:
  // Counts the threads inside, for the destructor to wait for.
  class Visit {
   public:
    explicit Visit(ThreadedClient& client) : client_(client) {
      std::lock_guard lock(client_.mutex_);
      ++client_.invoking_;
    }
    ~Visit() {
      std::lock_guard lock(client_.mutex_);
      if (--client_.invoking_ == 0 &&
          client_.stop_.load(std::memory_order_relaxed)) {
        client_.idle_.notify_all();
      }
    }

   private:
    ThreadedClient& client_;
  };

  ClientCore::Hooks Hooks() {
    ClientCore::Hooks hooks;
    hooks.wake = [this] { core_.context().Interrupt(); };
    if (options_.on_recovered) {
      hooks.recover = [this](Octets reply) { Recover(std::move(reply)); };
    }
    return hooks;
  }

  absl::Status WaitFor(PendingCall& call, uint64_t deadline_ns,
                       const CancelScope& scope) {
    bool told = false;  // the server was told of the cancellation
    for (;;) {
      nic_.WaitUntil(
          [&] { return call.Ready() || (!told && scope.raised()); },
          deadline_ns);
      if (core_.Collect(&call)) return std::move(call.status);
      const uint64_t now_ns = nic_.clock().NowNs();
      if (!told && scope.raised()) {
        told = true;
        // If nobody can be told, there is nothing to wait for.
        deadline_ns = core_.Cancel(&call)
                          ? std::min(deadline_ns, After(now_ns, kCancelGraceNs))
                          : now_ns;
      }
      if (now_ns < deadline_ns) continue;
      const absl::Status why =
          told ? absl::CancelledError("rpc: cancelled")
               : absl::DeadlineExceededError("rpc: no answer in time");
      if (core_.Abandon(&call, why)) return why;
      if (core_.Collect(&call)) return std::move(call.status);
      // The NIC still reads the caller's memory: until it has delivered it, or
      // found the link dead, there is no way out.
      nic_.WaitUntil(
          [&] {
            return call.completions == nullptr || call.completions->done();
          },
          After(now_ns, 100 * kMillisecond));
    }
  }

  void RunEngine() {
    Event events[32];
    while (!stop_.load(std::memory_order_acquire)) {
      // Somebody who has calls under way waits here for news of his own.
      const PortWatch watch =
          core_.HasAsyncCalls() ? PortWatch::kTake : PortWatch::kLeave;
      const size_t count =
          core_.context().Wait(events, core_.NextDeadlineNs(), watch);
      core_.Handle({events, count});
      core_.RunCallbacks();
    }
    core_.RunCallbacks();
  }

  void RunNotifier() {
    Octets message;
    for (;;) {
      nic_.WaitUntil(
          [this] {
            return core_.NotificationReady() ||
                   stop_.load(std::memory_order_acquire);
          },
          kNever, PortWatch::kLeave);
      if (stop_.load(std::memory_order_acquire)) return;
      uint64_t ticket;
      if (!core_.TakeNotification(&message, &ticket)) continue;
      options_.on_notify(message);
      core_.AcknowledgeNotification(ticket);
    }
  }

  // On the engine's thread. Recoveries never overlap.
  void Recover(Octets greeting_reply) {
    if (recovery_.joinable()) recovery_.join();
    recovery_ = std::thread([this, reply = std::move(greeting_reply)] {
      options_.on_recovered(reply);
      core_.RecoveryDone();
    });
  }

  Nic& nic_;
  const ClientOptions options_;
  ClientCore core_;
  std::string peer_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable idle_;
  int invoking_ = 0;
  std::thread engine_, notifier_, recovery_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(Nic& nic,
                                                        ClientOptions options) {
  auto client = std::make_unique<ThreadedClient>(nic, std::move(options));
  if (absl::Status s = client->Begin(); !s.ok()) return s;
  return client;
}

}  // namespace tripwire::rpc
