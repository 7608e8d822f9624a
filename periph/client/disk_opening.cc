// SPDX-License-Identifier: BSD-3-Clause
// How a remote disk is opened, and opened again after its server was away.
#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "periph/client/disk.h"
#include "spdlog/spdlog.h"

namespace tripwire::periph {
namespace {

// Registered buffers are of this size; see rpc::ClientOptions::bulk_buffers.
constexpr size_t kBufferBytes = 1u << 20;
// Numbers that a server may refuse because it knows them already: none, of an
// honest one, but once in four thousand million times.
constexpr int kNumbers = 4;
constexpr absl::Duration kBetweenTries = absl::Milliseconds(200);

uint32_t RandomNumber() {
  std::random_device random;
  return std::max(random(), 1u);  // 0 is no number
}

}  // namespace

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
  call.message = MessageBytes(message);
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
  call.message = MessageBytes(message);
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
