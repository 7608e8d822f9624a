// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_COMM_RPC_H_
#define TRIPWIRE_NIC_COMM_RPC_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/clock.h"

namespace tripwire {
class Nic;
}

// Remote procedure calls over apertures and tripwires.
//
// A client's session owns a fixed number of call slots. To call, it writes its
// bulk data into the slot's staging area and then the message into the slot, in
// the server's aperture; a tripwire there tells the server. The server writes
// reply bulk data straight into a buffer the call named in the client's
// aperture, then the reply message into the client's reply slot, whose tripwire
// tells the caller. Slots carry sequence numbers, and the server keeps each
// slot's last reply, so a call whose reply was lost with its link is answered
// from the cache and never run twice; a session outlives its links.
namespace tripwire::rpc {

using Bytes = std::span<const uint8_t>;

// A piece of registered memory from which, or into which, bulk data moves
// without further copies. 4096-byte aligned. Movable; returns itself to its
// pool when destroyed. Thread-safe to destroy anywhere.
class BulkBuffer {
 public:
  BulkBuffer() = default;
  BulkBuffer(uint8_t* data, size_t capacity, std::function<void()> release)
      : data_(data), capacity_(capacity), release_(std::move(release)) {}
  BulkBuffer(BulkBuffer&& other) noexcept { *this = std::move(other); }
  BulkBuffer& operator=(BulkBuffer&& other) noexcept {
    if (this == &other) return *this;
    Reset();
    data_ = std::exchange(other.data_, nullptr);
    capacity_ = std::exchange(other.capacity_, 0);
    release_ = std::exchange(other.release_, nullptr);
    return *this;
  }
  ~BulkBuffer() { Reset(); }

  uint8_t* data() const { return data_; }
  size_t capacity() const { return capacity_; }
  explicit operator bool() const { return data_ != nullptr; }
  void Reset() {
    data_ = nullptr;
    capacity_ = 0;
    if (auto release = std::exchange(release_, nullptr)) release();
  }

 private:
  uint8_t* data_ = nullptr;
  size_t capacity_ = 0;
  std::function<void()> release_;
};

// ---------------------------------------------------------------- server side

class ServerSession;  // one client's session; outlives its links

// What a Call does, behind the handle; implemented by the server here and by
// in-process stand-ins in tests. Methods as in Call.
class CallImpl {
 public:
  virtual ~CallImpl() = default;
  virtual Bytes request() const = 0;
  virtual std::span<const uint8_t> bulk_request() const = 0;
  virtual size_t bulk_reply_capacity() const = 0;
  virtual BulkBuffer AllocateBulk(size_t bytes) = 0;
  virtual const std::shared_ptr<ServerSession>& session() const = 0;
  virtual uint32_t slot() const = 0;
  virtual uint64_t sequence() const = 0;
  virtual bool cancelled() const = 0;
  virtual void OnCancel(std::function<void()> f) = 0;
  virtual void Reply(Bytes message, BulkBuffer bulk, size_t bulk_bytes,
                     bool cache) = 0;
};

// One call being served. Movable to another thread and may be answered later,
// from any thread, exactly once; a call destroyed unanswered makes the client's
// Invoke fail with ABORTED.
class Call {
 public:
  explicit Call(std::shared_ptr<CallImpl> impl) : impl_(std::move(impl)) {}
  Call(Call&&) = default;
  Call& operator=(Call&&) = default;

  // The message: a private copy, safe from the peer. Valid as long as the call.
  Bytes request() const { return impl_->request(); }
  // Bulk data the client staged before the call. The memory is the client's to
  // write until the reply, so its *content* may change under the reader; its
  // bounds cannot.
  std::span<const uint8_t> bulk_request() const {
    return impl_->bulk_request();
  }
  // How many bytes of bulk reply the client has room for (0: none wanted).
  size_t bulk_reply_capacity() const { return impl_->bulk_reply_capacity(); }
  // A buffer to build the bulk reply in; at least `bytes` large. Never fails
  // (memory permitting). REQUIRES: bytes <= bulk_reply_capacity().
  BulkBuffer AllocateBulk(size_t bytes) { return impl_->AllocateBulk(bytes); }

  const std::shared_ptr<ServerSession>& session() const {
    return impl_->session();
  }
  // (session id, slot, sequence) names this call for ever, across reconnects
  // and server restarts.
  uint32_t slot() const { return impl_->slot(); }
  uint64_t sequence() const { return impl_->sequence(); }

  // True once the client gave up on the call (deadline, interrupt, session
  // gone). The call must still be answered.
  bool cancelled() const { return impl_->cancelled(); }
  // `f` runs once if the client cancels; at once if it has. Must not block.
  void OnCancel(std::function<void()> f) { impl_->OnCancel(std::move(f)); }

  // Answers. `bulk_bytes` of `bulk` arrive in the client's buffer before the
  // message does. REQUIRES: bulk_bytes <= bulk_reply_capacity(), message no
  // longer than the session's message size. With `cache` (the default) the
  // session keeps the message (not the bulk data) for re-sends; without, a call
  // repeated after a reconnect runs again (right for idempotent calls).
  void Reply(Bytes message, BulkBuffer bulk = {}, size_t bulk_bytes = 0,
             bool cache = true) {
    impl_->Reply(message, std::move(bulk), bulk_bytes, cache);
  }

 private:
  std::shared_ptr<CallImpl> impl_;
};

class ServerSession {
 public:
  virtual ~ServerSession() = default;
  virtual uint64_t id() const = 0;           // random, unique, chosen by client
  virtual const std::string& peer() const = 0;  // node name, for messages
  virtual bool connected() const = 0;
  // Of a session that is gone: its client did not come back in time. Should it
  // yet come, the session is opened anew, and what it was not answered is sent
  // again.
  virtual bool lost() const { return false; }
  // Calls the client: a small message, delivered in order after every reply the
  // server sent before. `done` runs once, in a server thread: OK when the
  // client answered, or why it never will (its session ended). Thread-safe,
  // never blocks.
  virtual void Notify(Bytes message,
                      std::function<void(absl::Status)> done) = 0;
  // Ends the session: its link is closed and it cannot come back.
  virtual void Expel(const std::string& why) = 0;
};

struct ServerOptions {
  std::string service = "rpc";  // what clients ask for, beside the node name
  uint32_t slots = 64;              // calls in flight for each session
  uint32_t message_bytes = 8192;    // largest message either way
  uint32_t bulk_bytes = 1u << 20;   // largest bulk request, each staging slot
  uint32_t staging_slots = 16;      // bulk requests in flight for each session
  uint32_t workers = 4;             // threads that may run handlers at once
  // How long a lost client may return.
  uint64_t session_timeout_ns = 60 * kSecond;
  // How long after a call it is still first to be woken by frames (PortWatch).
  // For programs of which other threads wait for frames, too: else who keeps
  // the watch, though the frames are others', is woken for each.
  uint64_t watch_ns = kNever;
};

// What a server's threads did; see docs/communication.md.
struct ServerStats {
  uint64_t calls = 0;       // handlers started
  uint64_t handovers = 0;   // times another thread was woken to help
  uint64_t takeovers = 0;   // times a handler kept the NIC waiting too long
  uint64_t timers_set = 0;  // system calls to watch over long handlers
  uint64_t by_reference = 0;  // calls whose bulk data was read where it lay
};

class Server {
 public:
  struct Callbacks {
    // Serves one call. May block (another worker takes over the network).
    std::function<void(Call)> call;
    // A client opened a session (before its first call) with these bytes of
    // greeting; the returned bytes go back to it; an error refuses it.
    std::function<absl::StatusOr<std::vector<uint8_t>>(
        const std::shared_ptr<ServerSession>&, Bytes greeting)>
        open;
    // The session is gone: closed, expelled, or lost (timed out). Calls of it
    // may still run. A lost one is opened anew only when they are answered and
    // this has returned.
    std::function<void(const std::shared_ptr<ServerSession>&)> close;
  };
  // Starts listening on `nic`, which must outlive the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(Nic& nic,
                                                       ServerOptions options,
                                                       Callbacks callbacks);
  virtual ~Server() = default;  // stops; open calls are finished first

  // For a durable reply cache: the program gives back what it stored of a
  // session, after a restart before any client returns, or within `open`. Else
  // calls of a session that is opened anew may run again. See Call::Reply.
  virtual void RestoreReply(uint64_t session_id, uint32_t slot,
                            uint64_t sequence, Bytes message) = 0;
  virtual ServerStats stats() const { return {}; }
};

// ---------------------------------------------------------------- client side

struct ClientOptions {
  std::string node;                 // empty: the only node offering the service
  std::string service = "rpc";
  uint64_t connect_timeout_ns = 5 * kSecond;
  uint32_t bulk_buffers = 32;       // 1 MiB reply buffers to begin with; grows
  // Serves a server-to-client call; returning is the answer. Runs on a thread
  // of its own, in order; may block.
  std::function<void(Bytes message)> on_notify;
  // The session was opened anew because the server forgot it (restart). Gets
  // what the server's `open` returned. Pending calls are sent again after it
  // returns, under the same (session id, slot, sequence). It may call Invoke
  // with Request::during_recovery set. Runs on a thread of its own.
  std::function<void(Bytes greeting_reply)> on_recovered;
  std::function<void(bool connected, const std::string& why)> on_connection;
  std::vector<uint8_t> greeting;    // given to the server's `open`
};

struct Request {
  Bytes message;
  std::span<const iovec> bulk;  // data to stage, total <= server's bulk_bytes
  // If set, keeps `bulk` in place and unchanged for as long as anybody holds
  // it. Then one piece of it within Client::shown_memory() is not sent: the
  // server reads it where it lies. The client holds on to it until the server
  // has answered, also when the call was given up before.
  std::shared_ptr<const void> bulk_owner;
  size_t bulk_reply_capacity = 0;   // room wanted for bulk reply data
  uint64_t timeout_ns = kNever;  // how long to wait; kNever rides through loss
  bool during_recovery = false;     // only inside on_recovered
};

struct Response {
  std::vector<uint8_t> message;     // capacity reused from call to call
  BulkBuffer bulk;                  // the bulk reply, in registered memory
  size_t bulk_bytes = 0;
};

// Cancels one call from another thread (a signal, a FUSE interrupt).
// Thread-safe; may be used before, during or after the call. For one call at a
// time.
class CancelToken {
 public:
  void Cancel() {
    std::function<void()> hook;
    {
      std::lock_guard<std::mutex> lock(state->mutex);
      if (std::exchange(state->cancelled, true)) return;
      hook = state->hook;
    }
    if (hook) hook();
  }
  // For the client that serves the call: it looks at `cancelled` and sets
  // `hook` while the call runs. The hook may still run once after it was
  // cleared.
  struct State {
    std::mutex mutex;
    bool cancelled = false;
    std::function<void()> hook;
  };
  const std::shared_ptr<State> state = std::make_shared<State>();
};

class Client {
 public:
  static absl::StatusOr<std::unique_ptr<Client>> Connect(Nic& nic,
                                                         ClientOptions options);
  // Closes the session; pending calls end CANCELLED.
  virtual ~Client() = default;

  // Makes a call and waits for its answer. Thread-safe; many threads may call
  // at once, each waiting thread drives the NIC itself where it can. Errors:
  // DEADLINE_EXCEEDED (timeout; the server is told to give up and the slot is
  // reclaimed once it has), CANCELLED (token, see below; client closing),
  // UNAVAILABLE (the session was expelled, or cannot be opened again), ABORTED
  // (the server dropped the call unanswered), INVALID_ARGUMENT (too large).
  //
  // A cancelled call that the server has is cancelled there: its handler's
  // OnCancel runs, and the answer that follows, whichever it is, is returned as
  // any other, so that the caller knows what became of its request. CANCELLED
  // is returned for a call that was not sent, and when no answer comes within a
  // second, or there is no link to the server; the call may then have run.
  virtual absl::Status Invoke(const Request& request, Response* response,
                              CancelToken* cancel = nullptr) = 0;

  // The same without waiting: `done` runs once, on a thread of the client's
  // own, one call's after another's, and must not block; it may call
  // InvokeAsync. Message and bulk memory must stay valid until then. The token
  // need not outlive this call; cancelling is as with Invoke, from any thread,
  // also while `done` runs, when it does nothing any more. `done` may be empty:
  // nobody hears of the answer, and nobody is woken for it; the message need
  // then stay valid only during this call (if there is no bulk data, timeout or
  // token).
  virtual void InvokeAsync(const Request& request,
                           std::function<void(absl::Status, Response)> done,
                           CancelToken* cancel = nullptr) = 0;

  virtual uint64_t session_id() const = 0;
  virtual const std::vector<uint8_t>& greeting_reply() const = 0;
  virtual const std::string& peer() const = 0;  // the server's node name
  virtual uint32_t message_bytes() const = 0;
  virtual uint32_t bulk_bytes() const = 0;
  virtual bool connected() const = 0;
  // The server is reached through memory it shares with us: it is on this
  // machine.
  virtual bool shares_memory() const = 0;
  // Memory for bulk requests that the server can read where it lies, see
  // Request; empty if it cannot. As long as the NIC lives.
  virtual std::span<uint8_t> shown_memory() const { return {}; }
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_NIC_COMM_RPC_H_
