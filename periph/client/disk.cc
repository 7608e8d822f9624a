// SPDX-License-Identifier: BSD-3-Clause
#include "periph/client/disk.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tripwire::periph {
namespace {

using DiskIo = proto::DiskIo;

// Of one large Read or Write.
constexpr size_t kPiecesInFlight = 8;
// A server must not be away over one call for ever.
constexpr uint64_t kLongestZeroing = uint64_t{1} << 30;

bool Changes(DiskIo::Operation operation) {
  return operation == DiskIo::WRITE || operation == DiskIo::DISCARD ||
         operation == DiskIo::WRITE_ZEROES;
}

absl::Status OutOfRange(uint64_t offset, uint64_t length, uint64_t size) {
  if (offset <= size && length <= size - offset) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat(length, " bytes at ", offset, " are not all on a disk of ", size));
}

}  // namespace

absl::StatusOr<RemoteDisk::Start> RemoteDisk::Begin() {
  std::lock_guard lock(mutex_);
  if (!failed_.ok()) return failed_;
  return Start{number_, openings_, era_};
}

std::string RemoteDisk::Message(const Io& io, uint32_t number) {
  proto::Request request;
  DiskIo& message = *request.mutable_disk_io();
  message.set_disk(number);
  message.set_operation(io.operation);
  message.set_offset(io.offset);
  message.set_length(io.length);
  message.set_durable(io.durable);
  message.set_may_unmap(io.may_unmap);
  return request.SerializeAsString();
}

// What an answer means. REQUIRES: `*status` is the call's.
RemoteDisk::Outcome RemoteDisk::Judge(const Io& io, const Start& start, absl::Status* status,
                                      rpc::Bytes message) {
  if (!status->ok()) return Outcome::kDone;
  proto::Reply reply;
  *status = ControlChannel::ParseReply(message, &reply);
  if (absl::IsNotFound(*status)) return Outcome::kOpenAgain;
  if (!status->ok()) return Outcome::kDone;
  if (io.operation == DiskIo::READ) return Outcome::kDone;
  std::lock_guard lock(mutex_);
  // Who did it may have been the machine before it restarted.
  if (era_ != start.era) return Outcome::kDoAgain;
  if (Changes(io.operation) && !io.durable) ++acknowledged_;
  return Outcome::kDone;
}

absl::Status RemoteDisk::Do(const Io& io, rpc::Response* response) {
  const iovec bulk = {const_cast<uint8_t*>(io.data), static_cast<size_t>(io.length)};
  rpc::Request call;
  if (io.data != nullptr) call.bulk = {&bulk, 1};
  if (io.operation == DiskIo::READ) call.bulk_reply_capacity = io.length;
  for (;;) {
    const auto start = Begin();
    if (!start.ok()) return start.status();
    const std::string message = Message(io, start->number);
    call.message = MessageBytes(message);
    absl::Status status = channel_->rpc().Invoke(call, response);
    switch (Judge(io, *start, &status, response->message)) {
      case Outcome::kOpenAgain:
        if (status = OpenAgain(start->openings); !status.ok()) return status;
        break;
      case Outcome::kDoAgain:
        break;
      case Outcome::kDone:
        if (status.ok() && io.operation == DiskIo::READ && response->bulk_bytes != io.length) {
          return absl::InternalError("the server's answer is too short");
        }
        return status;
    }
  }
}

absl::Status RemoteDisk::ReadPiece(uint64_t offset, size_t length, rpc::Response* response) {
  if (auto status = OutOfRange(offset, length, geometry_.size_bytes); !status.ok()) return status;
  Io io;
  io.operation = DiskIo::READ;
  io.offset = offset;
  io.length = length;
  return Do(io, response);
}

absl::Status RemoteDisk::Flush() {
  uint64_t acknowledged, told;
  {
    std::lock_guard lock(mutex_);
    acknowledged = acknowledged_;
    told = losses_told_;
  }
  Io io;
  io.operation = DiskIo::FLUSH;
  rpc::Response response;
  const absl::Status status = Do(io, &response);
  std::lock_guard lock(mutex_);
  if (losses_ > told) {
    losses_told_ = losses_;
    return absl::DataLossError("what was written before the disk's machine restarted may be lost");
  }
  if (status.ok()) flushed_ = std::max(flushed_, acknowledged);
  return status;
}

absl::Status RemoteDisk::Discard(uint64_t offset, uint64_t length) {
  Io io;
  io.operation = DiskIo::DISCARD;
  io.offset = offset;
  io.length = length;
  return DoAll(io);
}

absl::Status RemoteDisk::WriteZeroes(uint64_t offset, uint64_t length, bool may_unmap) {
  Io io;
  io.operation = DiskIo::WRITE_ZEROES;
  io.offset = offset;
  io.length = length;
  io.may_unmap = may_unmap;
  return DoAll(io);
}

absl::Status RemoteDisk::Read(uint64_t offset, std::span<uint8_t> into) {
  Io io;
  io.operation = DiskIo::READ;
  io.offset = offset;
  io.length = into.size();
  io.into = into.data();
  return DoAll(io);
}

absl::Status RemoteDisk::Write(uint64_t offset, std::span<const uint8_t> data, bool durable) {
  if (data.empty()) return OutOfRange(offset, 0, geometry_.size_bytes);
  Io io;
  io.operation = DiskIo::WRITE;
  io.offset = offset;
  io.length = data.size();
  io.durable = durable;
  io.data = data.data();
  return DoAll(io);
}

// ------------------------------------------- operations of more than one piece

// Pieces under way together. For one thread.
class RemoteDisk::Crowd {
 public:
  Crowd(RemoteDisk& disk, size_t size) : disk_(disk), members_(size) {}

  // Sends one if there is a place; false if there is none.
  bool Send(const Io& io) {
    for (Member& member : members_) {
      if (member.busy) continue;
      member.busy = true;
      ++busy_;
      member.io = io;
      const auto start = disk_.Begin();
      if (!start.ok()) {
        Done(&member, start.status(), {});
        return true;
      }
      member.start = *start;
      member.message = Message(io, start->number);
      member.bulk = {const_cast<uint8_t*>(io.data), static_cast<size_t>(io.length)};
      rpc::Request call;
      call.message = MessageBytes(member.message);
      if (io.data != nullptr) call.bulk = {&member.bulk, 1};
      if (io.operation == DiskIo::READ) call.bulk_reply_capacity = io.length;
      disk_.channel_->rpc().InvokeAsync(
          call, [this, &member](absl::Status status, rpc::Response response) {
            Done(&member, std::move(status), std::move(response));
          });
      return true;
    }
    return false;
  }

  bool empty() const { return busy_ == 0; }

  // Waits for one and gives its place free.
  absl::Status Take() {
    Member* member;
    {
      std::unique_lock lock(mutex_);
      news_.wait(lock, [this] { return !done_.empty(); });
      member = done_.front();
      done_.pop_front();
    }
    absl::Status status = member->status;
    const Outcome outcome =
        disk_.Judge(member->io, member->start, &status, member->response.message);
    // What is out of the ordinary is done by itself.
    if (outcome != Outcome::kDone) status = disk_.Do(member->io, &member->response);
    if (status.ok() && member->io.into != nullptr) {
      if (member->response.bulk_bytes == member->io.length) {
        std::memcpy(member->io.into, member->response.bulk.data(), member->io.length);
      } else if (member->io.length > 0) {
        status = absl::InternalError("the server's answer is too short");
      }
    }
    member->response.bulk.Reset();
    member->busy = false;
    --busy_;
    return status;
  }

 private:
  struct Member {
    bool busy = false;
    Io io;
    Start start;
    std::string message;
    iovec bulk = {};
    absl::Status status;
    rpc::Response response;
  };

  void Done(Member* member, absl::Status status, rpc::Response response) {
    std::lock_guard lock(mutex_);
    member->status = std::move(status);
    member->response = std::move(response);
    done_.push_back(member);
    news_.notify_one();  // with the lock: the crowd may go as soon as it is let go
  }

  RemoteDisk& disk_;
  std::vector<Member> members_;
  size_t busy_ = 0;
  std::mutex mutex_;
  std::condition_variable news_;
  std::deque<Member*> done_;
};

absl::Status RemoteDisk::DoAll(const Io& io) {
  if (auto status = OutOfRange(io.offset, io.length, geometry_.size_bytes); !status.ok()) {
    return status;
  }
  const bool has_data = io.data != nullptr || io.into != nullptr;
  const uint64_t piece_bytes = has_data ? piece_bytes_ : kLongestZeroing;
  if (io.length <= piece_bytes) {
    rpc::Response response;
    const absl::Status status = Do(io, &response);
    if (status.ok() && io.into != nullptr && io.length > 0) {
      std::memcpy(io.into, response.bulk.data(), io.length);
    }
    return status;
  }
  Crowd crowd(*this, has_data ? kPiecesInFlight : 1);
  absl::Status worst;
  for (uint64_t done = 0; done < io.length || !crowd.empty();) {
    Io piece = io;
    piece.offset += done;
    piece.length = std::min(piece_bytes, io.length - done);
    if (piece.data != nullptr) piece.data += done;
    if (piece.into != nullptr) piece.into += done;
    if (worst.ok() && done < io.length && crowd.Send(piece)) {
      done += piece.length;
      continue;
    }
    if (crowd.empty()) break;  // after an error nothing more is sent
    worst.Update(crowd.Take());
  }
  return worst;
}

}  // namespace tripwire::periph
