// SPDX-License-Identifier: BSD-3-Clause
#include "periph/client/disk.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "spdlog/spdlog.h"

namespace tripwire::periph {
namespace {

using DiskIo = proto::DiskIo;

// Registered buffers are of this size; see rpc::ClientOptions::bulk_buffers.
constexpr size_t kBufferBytes = 1u << 20;
// Of one large Read or Write.
constexpr size_t kPiecesInFlight = 8;
// A server must not be away over one call for ever.
constexpr uint64_t kLongestZeroing = uint64_t{1} << 30;
// Numbers that a server may refuse because it knows them already: none, of an
// honest one, but once in four thousand million times.
constexpr int kNumbers = 4;
constexpr absl::Duration kBetweenTries = absl::Milliseconds(200);

bool Changes(DiskIo::Operation operation) {
  return operation == DiskIo::WRITE || operation == DiskIo::DISCARD ||
         operation == DiskIo::WRITE_ZEROES;
}

uint32_t RandomNumber() {
  std::random_device random;
  return std::max(random(), 1u);  // 0 is no number
}

rpc::Bytes View(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

absl::Status OutOfRange(uint64_t offset, uint64_t length, uint64_t size) {
  if (offset <= size && length <= size - offset) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat(length, " bytes at ", offset, " are not all on a disk of ", size));
}

}  // namespace

// ------------------------------------------------------------------ opening

RemoteDisk::RemoteDisk(std::shared_ptr<ControlChannel> channel, Options options)
    : channel_(std::move(channel)), options_(std::move(options)) {}

absl::StatusOr<std::shared_ptr<RemoteDisk>> RemoteDisk::Open(
    std::shared_ptr<ControlChannel> channel, Options options) {
  std::shared_ptr<RemoteDisk> disk(new RemoteDisk(std::move(channel), std::move(options)));
  if (auto status = disk->FirstOpen(); !status.ok()) return status;
  disk->on_restart_ = disk->channel_->OnRestart([raw = disk.get()] { raw->Restarted(); });
  return disk;
}

RemoteDisk::~RemoteDisk() {
  if (on_restart_ == 0) return;  // it was never open
  channel_->Forget(on_restart_);
  AskToClose(number_, false);
}

void RemoteDisk::AskToClose(uint32_t number, bool during_recovery) {
  proto::Request request;
  request.mutable_disk_close()->set_disk(number);
  const std::string message = request.SerializeAsString();
  rpc::Request call;
  call.message = View(message);
  call.during_recovery = during_recovery;
  if (during_recovery) {
    rpc::Response response;
    channel_->rpc().Invoke(call, &response).IgnoreError();
  } else {
    channel_->rpc().InvokeAsync(call, {});  // nobody waits for it
  }
}

absl::Status RemoteDisk::FirstOpen() {
  const absl::Time give_up = absl::Now() + absl::Nanoseconds(options_.patience_ns);
  bool said = false;
  for (;;) {
    bool is_over = false;
    auto opened = AskToOpen(false, &is_over);
    if (opened.ok()) {
      piece_bytes_ = std::min<size_t>(channel_->rpc().bulk_bytes(), kBufferBytes);
      if (piece_bytes_ == 0) return MakesNoSense();  // of a disk of which nothing can be read
      return Accept(*opened, false);
    }
    const absl::Status& status = opened.status();
    if (!absl::IsAborted(status) || is_over || absl::Now() > give_up) return status;
    if (!std::exchange(said, true)) {
      spdlog::info("{}; waiting for it", std::string(status.message()));
    }
    absl::SleepFor(kBetweenTries);
  }
}

absl::StatusOr<proto::DiskOpened> RemoteDisk::AskToOpen(bool during_recovery, bool* is_over) {
  for (int tries = 1;; ++tries) {
    auto opened = AskToOpenAs(RandomNumber(), during_recovery, is_over);
    if (!absl::IsAlreadyExists(opened.status()) || *is_over || tries == kNumbers) return opened;
  }
}

absl::StatusOr<proto::DiskOpened> RemoteDisk::AskToOpenAs(uint32_t number, bool during_recovery,
                                                          bool* is_over) {
  proto::Request request;
  proto::DiskOpen& open = *request.mutable_disk_open();
  open.set_device(options_.device);
  open.set_read_only(options_.read_only);
  open.set_exclusive(options_.exclusive);
  open.set_disk(number);
  const std::string message = request.SerializeAsString();
  rpc::Request call;
  call.message = View(message);
  call.during_recovery = during_recovery;
  rpc::Response response;
  *is_over = true;
  if (auto status = channel_->rpc().Invoke(call, &response); !status.ok()) return status;
  *is_over = false;
  proto::Reply reply;
  if (auto status = ControlChannel::ParseReply(response.message, &reply); !status.ok()) {
    return status;
  }
  if (!reply.has_disk_opened() || reply.disk_opened().disk() != open.disk()) {
    return MakesNoSense();
  }
  return std::move(*reply.mutable_disk_opened());
}

absl::Status RemoteDisk::CheckSame(const proto::DiskOpened& opened) const {
  const auto refuse = [&](const std::string& why) {
    return absl::FailedPreconditionError(
        absl::StrCat("disk '", options_.device, "' of ", channel_->node(), " ", why));
  };
  if (opened.size_bytes() != last_.size_bytes() ||
      opened.logical_block_bytes() != last_.logical_block_bytes()) {
    return refuse(absl::StrCat("has another size now, ", opened.size_bytes(), " bytes"));
  }
  if (opened.medium() != last_.medium()) return refuse("is another disk now");
  if (opened.read_only() && !last_.read_only()) return refuse("is read-only now");
  const uint64_t ours = opened.read_only() ? 0 : 1;
  if (options_.exclusive && opened.server() == last_.server() &&
      opened.writers() != last_.writers() + ours) {
    return refuse("was written to by another while we could not reach it");
  }
  return absl::OkStatus();
}

absl::Status RemoteDisk::Accept(const proto::DiskOpened& opened, bool during_recovery) {
  const absl::Status status = Examine(opened);
  if (!status.ok()) {
    spdlog::error("{}; it cannot be used any more", std::string(status.message()));
    AskToClose(opened.disk(), during_recovery);
  }
  return status;
}

absl::Status RemoteDisk::Examine(const proto::DiskOpened& opened) {
  std::lock_guard lock(mutex_);
  if (openings_ == 0) {
    // What no file can be.
    if (opened.size_bytes() > INT64_MAX) return failed_ = MakesNoSense();
    geometry_.size_bytes = opened.size_bytes();
    geometry_.logical_block_bytes = opened.logical_block_bytes();
    geometry_.physical_block_bytes = opened.physical_block_bytes();
    geometry_.read_only = opened.read_only();
    geometry_.can_discard = opened.can_discard();
    geometry_.rotational = opened.rotational();
    geometry_.medium = opened.medium();
    geometry_.appearance = opened.verifier();
  } else {
    if (auto status = CheckSame(opened); !status.ok()) return failed_ = status;
    if (opened.verifier() != last_.verifier()) {
      ++era_;
      if (flushed_ != acknowledged_) {
        spdlog::error(
            "disk '{}' of {}: its machine restarted; what was written and not flushed may be lost",
            options_.device, channel_->node());
        ++losses_;
        flushed_ = acknowledged_;
      }
    }
    spdlog::info("disk '{}' of {} is open again", options_.device, channel_->node());
  }
  last_ = opened;
  number_ = opened.disk();
  ++openings_;
  return absl::OkStatus();
}

// The server knows nothing of us any more; calls wait until this returns.
void RemoteDisk::Restarted() {
  // Who holds it asks for the disk himself; his call is sent again after this.
  std::unique_lock opening(opening_mutex_, std::try_to_lock);
  if (!opening.owns_lock()) return;
  {
    std::lock_guard lock(mutex_);
    if (!failed_.ok()) return;
  }
  bool is_over = false;
  const auto opened = AskToOpen(true, &is_over);
  // If it was refused, the next operation finds the disk closed, and has more patience.
  if (opened.ok()) Accept(*opened, true).IgnoreError();
}

absl::Status RemoteDisk::OpenAgain(uint64_t openings) {
  std::lock_guard opening(opening_mutex_);
  const absl::Time begin = absl::Now();
  for (bool said = false;;) {
    {
      std::lock_guard lock(mutex_);
      if (!failed_.ok()) return failed_;
      if (openings_ != openings) return absl::OkStatus();
    }
    bool is_over = false;
    const auto opened = AskToOpen(false, &is_over);
    if (opened.ok()) return Accept(*opened, false);
    const absl::Status& status = opened.status();
    const bool is_absent = absl::IsUnavailable(status);
    const bool is_busy = absl::IsAborted(status) || absl::IsFailedPrecondition(status);
    if (is_over || !(is_absent || (is_busy && absl::Now() - begin <
                                                  absl::Nanoseconds(options_.patience_ns)))) {
      std::lock_guard lock(mutex_);
      spdlog::error("disk '{}' of {} is lost: {}", options_.device, channel_->node(),
                    std::string(status.message()));
      return failed_ = status;
    }
    if (!std::exchange(said, true)) {
      spdlog::warn("disk '{}' of {} cannot be opened again yet: {}", options_.device,
                   channel_->node(), std::string(status.message()));
    }
    absl::SleepFor(kBetweenTries);
  }
}

// --------------------------------------------------------------- operations

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
    call.message = View(message);
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
      call.message = View(member.message);
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

absl::StatusOr<std::shared_ptr<Disk>> OpenRemoteDisk(std::shared_ptr<ControlChannel> channel,
                                                     const std::string& device, bool read_only,
                                                     bool exclusive) {
  RemoteDisk::Options options;
  options.device = device;
  options.read_only = read_only;
  options.exclusive = exclusive;
  return RemoteDisk::Open(std::move(channel), std::move(options));
}

}  // namespace tripwire::periph
