// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_CLIENT_CORE_H_
#define TRIPWIRE_NIC_COMM_CLIENT_CORE_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "nic/api/context.h"
#include "nic/base/random.h"
#include "nic/comm/bulk_pool.h"
#include "nic/comm/mapping.h"
#include "nic/comm/rpc.h"
#include "nic/comm/rpc_control.h"
#include "nic/comm/rpc_layout.h"

namespace tripwire::rpc {

// How long a cancelled call may take to say what became of it.
inline constexpr uint64_t kCancelGraceNs = 1 * kSecond;

// Follows the bulk writes of one call, over however many links they took.
struct CompletionSet {
  std::vector<std::unique_ptr<Completion>> items;
  size_t used = 0;

  Completion* Next() {
    if (used == items.size()) items.push_back(std::make_unique<Completion>());
    Completion* next = items[used++].get();
    // Relaxed: handed to the NIC under its lock.
    next->status.store(OpStatus::kPending, std::memory_order_relaxed);
    return next;
  }
  bool done() const {
    for (size_t i = 0; i < used; ++i) {
      if (!items[i]->done()) return false;
    }
    return true;
  }
};

class ClientCore;
struct PendingCall;

// What the token of an asynchronous call reaches: its hook may run when the
// call, and the client, are gone. Lock order: `mutex` before the core's.
struct AsyncCancel {
  std::mutex mutex;
  ClientCore* core = nullptr;  // null once the call has ended
  PendingCall* call = nullptr;
  std::shared_ptr<CancelToken::State> token;
};

// One call as its caller sees it. Owned by the caller, who keeps it in place
// until Ready() and Collect, or (asynchronous) until `done_function` has it.
struct PendingCall {
  Request request;
  Response* response = nullptr;
  // Set for an asynchronous call; the core then owns the call.
  std::function<void(absl::Status, Response)> done_function;
  Response own_response;
  // An asynchronous call whose answer nobody hears: it is taken when somebody
  // else makes a call, or is short of a slot.
  bool unheard = false;
  Octets own_message;
  uint64_t deadline_ns = kNever;  // asynchronous calls only, as the next three
  std::shared_ptr<AsyncCancel> cancel;
  bool started = false, cancelled = false;

  // Whether it has ended and the NIC is done with the caller's memory. Takes no
  // lock: for Nic::WaitUntil, whose lock orders it with the NIC's stores.
  bool Ready() const {
    if (!done.load(std::memory_order_acquire)) {  // pairs with Finish
      const uint8_t* at = word.load(std::memory_order_acquire);  // with Publish
      if (at == nullptr || std::memcmp(at, &sequence_word, 8) != 0)
        return false;
    }
    return completions == nullptr || completions->done();
  }

  // The core's, guarded by its mutex, except as Ready reads it.
  std::atomic<bool> done{false};
  std::atomic<const uint8_t*> word{nullptr};  // of the reply slot
  Le64 sequence_word;                         // what it will hold
  absl::Status status;
  CompletionSet* completions = nullptr;
  int32_t slot = -1;
};

// The client without threads: sessions, links, slots. A simulation drives it
// with Progress alone; the threaded Client (client.cc) adds the waiting.
//
// Thread safety: all methods, from any thread. One mutex guards everything; it
// is held across calls of the NIC, never while a user's function runs.
//
// Invariants:
//  1. A slot's sequence grows with every call put into it, for as long as the
//     client lives; so (slot, sequence) never names two calls.
//  2. A slot, and its reply buffer, is reused only after the server answered
//     the slot's call, or said on a new link that it does not have it.
//  3. Reply memory is written by one link only: the one bound. Its apertures
//     are revoked before anything looks at the memory for the next.
class ClientCore {
 public:
  struct Hooks {
    // The engine sleeps too long: have it call Progress or Handle.
    std::function<void()> wake;
    // Begin recovery; RecoveryDone follows, now or later, from any thread.
    std::function<void(Octets greeting_reply)> recover;
    std::function<void(bool connected, const std::string& why)> on_connection;
  };

  ClientCore(Nic& nic, ClientOptions options, Hooks hooks,
             Random random = Random::FromSystem());
  ~ClientCore();  // REQUIRES: no call is pending
  ClientCore(const ClientCore&) = delete;

  Context& context() { return *context_; }
  uint64_t session_id() const { return session_id_; }

  // Begins the session: over a link made by Context::Connect with
  // ConnectData(), or, without one, by connecting.
  Octets ConnectData() const;
  void Begin(std::optional<LinkId> link);

  // --- The engine: one thread at a time -------------------------------------
  void Handle(std::span<const Event> events);
  // Runs what has become due outside the lock: callbacks of ended calls and
  // connection news. Returns whether there was anything.
  bool RunCallbacks();
  uint64_t NextDeadlineNs();
  bool Progress();  // all of it, without waiting

  // --- Calls ----------------------------------------------------------------
  void Start(PendingCall* call);
  void StartAsync(std::unique_ptr<PendingCall> call,
                  CancelToken* token = nullptr);
  void CancelAsync(PendingCall* call);  // for the token
  std::unique_ptr<PendingCall> NewCall();  // for StartAsync; recycled
  // Whether asynchronous calls are under way, or their callbacks still to run.
  bool HasAsyncCalls() const {
    return async_calls_.load(std::memory_order_relaxed) > 0;  // a hint
  }
  // Once Ready(): takes the answer; false if it was not ready after all.
  bool Collect(PendingCall* call);
  // Tells the server to give up on the call; false if there is nobody to tell.
  bool Cancel(PendingCall* call);
  // Gives the call up. False when an answer has just come (Collect it), or
  // while the NIC still uses the caller's memory (until the data is delivered,
  // or the link declared lost).
  bool Abandon(PendingCall* call, const absl::Status& why);

  void RecoveryDone();

  // --- Notifications --------------------------------------------------------
  // Lock-free, for Nic::WaitUntil.
  bool NotificationReady() const;
  // Takes the next one in; `ticket` goes back with its acknowledgement.
  bool TakeNotification(Octets* message, uint64_t* ticket);
  void AcknowledgeNotification(uint64_t ticket);

  // Ends everything: calls with `why`; the server is told.
  void Close(const absl::Status& why);

  // --- State ----------------------------------------------------------------
  bool connected() const {
    return connected_.load(std::memory_order_relaxed);  // only news
  }
  bool shares_memory() const {
    return shares_memory_.load(std::memory_order_relaxed);  // only news
  }
  std::span<uint8_t> shown_memory() const;
  // OK while the session lives.
  absl::Status ended();
  // Why the last attempt to connect failed; OK if none did.
  absl::Status last_failure();
  std::string peer();
  const Octets& greeting_reply() const {
    return *greeting_reply_.load(std::memory_order_acquire);  // with OnWelcome
  }
  uint32_t message_bytes() const {
    return message_bytes_.load(std::memory_order_relaxed);  // a number
  }
  uint32_t bulk_bytes() const {
    return bulk_bytes_.load(std::memory_order_relaxed);  // a number
  }

 private:
  using Lock = std::lock_guard<std::mutex>;
  enum class State : uint8_t {
    kIdle,        // no link; connecting again at reconnect_at_
    kConnecting,
    kGreeting,    // linked, hello sent
    kRecovering,  // welcomed anew; only recovery's calls go
    kReady,
    kEnded,
  };
  enum class Phase : uint8_t { kFree, kPending, kSent, kAbandoned };
  struct Slot {
    Phase phase = Phase::kFree;
    bool on_wire = false;  // sent over some link
    bool known = false;    // the server said on this link that it has it
    bool armed = false;    // its tripwire tells the engine
    bool unheard = false;  // is in unheard_
    uint64_t sequence = 0;
    PendingCall* call = nullptr;
    uint32_t staging = kNoStaging;
    // Of a call given up whose bulk data the server may yet look at.
    std::shared_ptr<const void> bulk_owner;
    BulkBuffer bulk;
    uint32_t bulk_capacity = 0;
    uint64_t word = 0;  // what the reply word held when last looked at
    Octets image;       // message and tail, as written
  };

  // client_link.cc
  void HandleEvent(const Event& event);
  void OnLinkUp(LinkId link);
  void OnMessage(Bytes message);
  void OnWelcome(const Welcome& welcome);
  void Connect();
  void LoseLink(const std::string& why, bool close);
  void End(const absl::Status& why);
  void BecomeReady();
  void StartRecovery();
  void RunTimers();
  void Retry(const absl::Status& why);

  // client_memory.cc
  void BindLink(const ConnectAnswer& answer);
  bool FitSlots(const ConnectAnswer& answer);
  void ExportChunks();
  void PublishNotify();

  // client_async.cc
  void LinkToken(PendingCall* call, CancelToken* token);
  static void UnlinkToken(PendingCall* call);
  void Hasten(PendingCall* call, uint64_t deadline_ns);
  void RunDeadlines(uint64_t now_ns);

  // client_calls.cc
  bool Validate(PendingCall* call);
  bool Assign(PendingCall* call);
  void AssignAndSend(PendingCall* call);
  bool WaitsUnheard(uint32_t index) const;
  bool IsAnswered(uint32_t index) const;
  void NoteUnheard(uint32_t index);
  void ForgetUnheard();
  void TakeUnheard();
  void ListenForUnheard();
  void Pump();
  bool MaySend(const PendingCall& call) const;
  void Listen(uint32_t index);
  void Send(uint32_t index);
  bool IsShown(const Request& request) const;
  bool TakeStaging(Slot& slot, const Request& request);
  bool PlaceBulk(uint32_t index);
  void PutBack(uint32_t index);
  void StageBulk(Slot& slot);
  void WriteCall(uint32_t index, bool again);
  void Resume(uint32_t index);
  void SendCancel(uint32_t index);
  bool Harvest(uint32_t index);
  void FinishSlot(uint32_t index, absl::Status status);
  void Finish(PendingCall* call, absl::Status status);
  void Free(uint32_t index);
  bool AbandonLocked(PendingCall* call, const absl::Status& why);
  void GiveCompletions(PendingCall* call);
  void FlushNotify();
  const uint8_t* ReplyEnd(uint32_t index) const;
  uint64_t ReadWord(uint32_t index) const;

  uint64_t Now() { return nic_.clock().NowNs(); }

  Nic& nic_;
  const ClientOptions options_;
  const Hooks hooks_;
  const uint64_t session_id_;
  std::unique_ptr<Context> context_;
  mutable std::mutex mutex_;

  // The session and its link.
  State state_ = State::kIdle;
  absl::Status ended_, last_failure_;
  std::string peer_;
  LinkId link_;
  uint64_t incarnation_ = 0;
  bool needs_recovery_ = false, recovering_ = false, recover_again_ = false;
  uint64_t reconnect_at_ = kNever, backoff_ns_ = 0, greet_by_ = kNever;
  ConnectAnswer server_;
  RemoteAperture call_area_, staging_area_;
  std::span<uint8_t> shown_;  // our memory that this link's server can read
  std::atomic<bool> connected_{false};
  std::atomic<uint32_t> message_bytes_{0}, bulk_bytes_{0};
  // Readers may hold any.
  std::vector<std::unique_ptr<Octets>> greeting_replies_;
  std::atomic<const Octets*> greeting_reply_;
  std::atomic<bool> shares_memory_{false};

  // Memory the server writes.
  Mapping reply_area_;
  Aperture reply_aperture_;
  std::vector<Tripwire> tripwires_;
  BulkPool bulk_pool_;
  std::vector<Aperture> chunk_apertures_;

  // Slots. Slot 0 and (of two or more) staging slot 0 are recovery's.
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<uint32_t> free_slots_, free_staging_;
  bool recovery_slot_free_ = false, recovery_staging_free_ = false;
  std::deque<PendingCall*> waiting_;
  bool notify_ = false;  // calls ended whose callers may be asleep
  std::vector<std::unique_ptr<CompletionSet>> completion_sets_;
  std::vector<CompletionSet*> free_completion_sets_;

  std::vector<uint32_t> unheard_, taking_;  // calls nobody hears: slots, once
  // Asynchronous calls with deadlines, and those ended; news for the user.
  std::vector<PendingCall*> timed_;
  uint64_t next_deadline_ns_ = kNever;
  std::deque<PendingCall*> finished_;
  std::vector<std::unique_ptr<PendingCall>> spare_calls_;
  std::atomic<uint32_t> async_calls_{0};
  std::deque<std::function<void()>> news_;

  // Notifications.
  uint64_t notify_received_ = 0, notify_acked_ = 0;
  std::atomic<const uint8_t*> notify_word_{nullptr};
  std::atomic<uint64_t> notify_expected_{0};
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_NIC_COMM_CLIENT_CORE_H_
