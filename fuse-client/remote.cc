// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/remote.h"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "spdlog/spdlog.h"

namespace tripwire::fuse {
namespace {

// The reply message's buffer, reused by the thread's next call.
thread_local std::vector<uint8_t> spare_message;

google::protobuf::ArenaOptions ArenaIn(char* block, size_t size) {
  google::protobuf::ArenaOptions options;
  options.initial_block = block;
  options.initial_block_size = size;
  return options;
}

constexpr int kLargestErrno = 4095;  // of the kernel's ABI

int CheckedErrno(const pb::Reply& reply) {
  const int error = reply.error();
  return error < 0 || error > kLargestErrno ? EPROTO : error;
}

}  // namespace

Frame::Frame() : arena_(ArenaIn(block_, sizeof(block_))) {
  call_ = google::protobuf::Arena::CreateMessage<pb::Call>(&arena_);
  reply_ = google::protobuf::Arena::CreateMessage<pb::Reply>(&arena_);
  response.message.swap(spare_message);
}

Frame::~Frame() { spare_message.swap(response.message); }

int Remote::ErrnoOf(const absl::Status& status) const {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return EINTR;
    case absl::StatusCode::kDeadlineExceeded:
      return patience_.error;
    case absl::StatusCode::kInvalidArgument:
      return E2BIG;  // longer than a message may be
    default:
      spdlog::debug("call failed: {}", std::string(status.message()));
      return EIO;
  }
}

int Remote::Invoke(Frame& frame, rpc::CancelToken* cancel) {
  uint8_t small[1024];
  std::vector<uint8_t> large;
  const size_t size = frame.call_->ByteSizeLong();
  uint8_t* message = small;
  if (size > sizeof(small)) {
    large.resize(size);
    message = large.data();
  }
  frame.call_->SerializeWithCachedSizesToArray(message);

  rpc::Request request;
  request.message = {message, size};
  request.bulk = frame.bulk_request;
  request.bulk_owner = frame.bulk_owner;
  request.bulk_reply_capacity = frame.bulk_reply_capacity;
  request.during_recovery = frame.during_recovery;
  request.timeout_ns = frame.timeout_ns;
  if (patience_.soft && !frame.unbounded) {
    request.timeout_ns = std::min(request.timeout_ns, patience_.timeout_ns);
  }
  const absl::Status status = client_->Invoke(request, &frame.response, cancel);
  if (!status.ok()) return ErrnoOf(status);
  frame.reply_->Clear();
  const std::vector<uint8_t>& answer = frame.response.message;
  if (!frame.reply_->ParseFromArray(answer.data(), static_cast<int>(answer.size()))) {
    spdlog::warn("the server's reply is not a Reply message");
    return EPROTO;
  }
  if (frame.response.bulk_bytes > frame.bulk_reply_capacity) return EPROTO;
  return CheckedErrno(*frame.reply_);
}

void Remote::Post(const pb::Call& call) { Post(call, kNever, nullptr); }

void Remote::Post(const pb::Call& call, uint64_t timeout_ns,
                  std::function<void(int)> done) {
  auto message = std::make_shared<std::vector<uint8_t>>(call.ByteSizeLong());
  call.SerializeWithCachedSizesToArray(message->data());
  rpc::Request request;
  request.message = *message;
  request.timeout_ns = timeout_ns;
  if (!done) return client_->InvokeAsync(request, nullptr);
  client_->InvokeAsync(
      request, [this, message, done = std::move(done)](absl::Status status,
                                                       rpc::Response response) {
        if (!status.ok()) return done(ErrnoOf(status));
        pb::Reply reply;
        const bool whole = reply.ParseFromArray(response.message.data(),
                                                static_cast<int>(response.message.size()));
        done(whole ? CheckedErrno(reply) : EPROTO);
      });
}

}  // namespace tripwire::fuse
