// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_REMOTE_H_
#define TRIPWIRE_FUSE_CLIENT_REMOTE_H_

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "fs-server/proto/fs.pb.h"
#include "google/protobuf/arena.h"
#include "nic/comm/rpc.h"

namespace tripwire::fuse {

namespace pb = ::tripwire::fs::pb;

// One call to the server: the request and reply messages and their bulk data, in
// memory that needs no allocator for ordinary calls. Lives on the stack of the
// thread that calls. Handles and names longer than 15 bytes cost one allocation
// each (they are std::string).
class Frame {
 public:
  Frame();
  ~Frame();
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

  pb::Call& call() { return *call_; }
  pb::Reply& reply() { return *reply_; }
  const pb::Reply& reply() const { return *reply_; }
  // The bulk reply, after Invoke.
  std::span<const uint8_t> bulk() const {
    return {response.bulk.data(), response.bulk_bytes};
  }

  std::span<const iovec> bulk_request;
  std::shared_ptr<const void> bulk_owner;  // see rpc::Request
  size_t bulk_reply_capacity = 0;
  bool during_recovery = false;
  bool unbounded = false;  // waits as long as it takes, also on a soft mount
  uint64_t timeout_ns = kNever;  // gives up then, also on a hard mount
  rpc::Response response;

 private:
  friend class Remote;
  alignas(16) char block_[3072];
  google::protobuf::Arena arena_;
  pb::Call* call_;
  pb::Reply* reply_;
};

// What a mount does when the server does not answer.
struct Patience {
  bool soft = false;
  uint64_t timeout_ns = 60 * kSecond;  // soft only
  int error = 5;                       // EIO; what a soft mount says then
};

// Makes calls over an RPC client. Thread-safe.
class Remote {
 public:
  explicit Remote(Patience patience) : patience_(patience) {}
  void Attach(rpc::Client* client) { client_ = client; }

  // Sends frame.call(), waits, fills frame.reply(); returns its errno, or one of
  // our own: EINTR (cancelled), EIO or ETIMEDOUT (no answer in time, or the server
  // ended the session), EPROTO (an answer that makes no sense).
  int Invoke(Frame& frame, rpc::CancelToken* cancel);

  // Sends without waiting; nobody hears the answer (close, mostly).
  void Post(const pb::Call& call);
  // The same; `done` hears the reply's errno, or one of our own, on a thread that may not
  // wait for the server.
  void Post(const pb::Call& call, uint64_t timeout_ns, std::function<void(int)> done);

  rpc::Client* client() const { return client_; }

 private:
  int ErrnoOf(const absl::Status& status) const;

  const Patience patience_;
  rpc::Client* client_ = nullptr;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_REMOTE_H_
