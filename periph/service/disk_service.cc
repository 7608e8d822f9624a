// SPDX-License-Identifier: BSD-3-Clause
#include "periph/service/disk_service.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "periph/service/blocking_pool.h"
#include "spdlog/spdlog.h"

namespace tripwire::periph {
namespace {

using Io = proto::DiskIo;

// Whom a disk belongs to. Lives until the disk is closed and its last operation has
// ended: only then the next user is let in.
struct Claim {
  // Fixed.
  ServedDevice* device = nullptr;
  std::shared_ptr<rpc::ServerSession> session;
  std::string node;
  uint32_t number = 0;
  bool exclusive = false;
  // With the service's mutex.
  bool read_only = false;
  bool closed = false;
  uint64_t wanted_since_ns = 0;  // by others, while the session has no link

  std::atomic<bool> used{false};  // since it was wanted
};

struct OpenedDisk {
  std::shared_ptr<Claim> claim;  // first: the last to go
  Opening opening;
  std::shared_ptr<Disk> disk;
  bool read_only = true;
};
using DiskPtr = std::shared_ptr<OpenedDisk>;

bool InEachOthersWay(const Claim& a, const Claim& b) {
  return (a.exclusive || b.exclusive) && !(a.read_only && b.read_only);
}

uint64_t RandomNumber() {
  std::random_device random;
  return (uint64_t{random()} << 32) | random();
}

class Service final : public DiskService {
 public:
  Service(Registry& registry, Clock& clock, const DiskServiceOptions& options)
      : registry_(registry), clock_(clock), options_(options), pool_(options.threads) {}

  void Serve(ServedCall call) override;
  void EndSession(uint64_t session_id) override;

 private:
  using Key = std::pair<uint64_t, uint32_t>;  // session, number

  absl::StatusOr<proto::Reply> Open(ServedCall& call);
  absl::StatusOr<std::shared_ptr<Claim>> TakeClaim(ServedCall& call, ServedDevice* device);
  absl::Status CheckOthers(const Claim& wanted);
  absl::Status Close(uint64_t session_id, uint32_t number);
  DiskPtr Find(uint64_t session_id, uint32_t number);

  void DoIo(ServedCall call);
  void Read(ServedCall call, DiskPtr disk);
  void Write(ServedCall call, DiskPtr disk);
  static absl::Status Other(const Io& io, Disk& disk);
  // Answers with what `work` returns, from a thread that may wait.
  template <typename F>
  void Later(ServedCall call, F work);

  Registry& registry_;
  Clock& clock_;
  const DiskServiceOptions options_;
  const uint64_t server_ = RandomNumber();

  std::mutex mutex_;
  std::map<Key, DiskPtr> open_;
  std::vector<std::weak_ptr<Claim>> claims_;         // open, or about to be, or closing
  std::map<const ServedDevice*, uint64_t> writers_;  // ever
  BlockingPool pool_;  // last: its work uses the rest
};

// ------------------------------------------------------------------ opening

// REQUIRES: mutex_ held.
absl::Status Service::CheckOthers(const Claim& wanted) {
  std::erase_if(claims_, [](const auto& claim) { return claim.expired(); });
  for (const auto& claim : claims_) {
    const std::shared_ptr<Claim> other = claim.lock();
    if (!other || other->device != wanted.device || !InEachOthersWay(*other, wanted)) continue;
    const std::string about =
        absl::StrCat("disk '", wanted.device->name(), "' is ",
                     other->read_only ? "being read" : "in use", " by ", other->node);
    if (other->closed) {
      return absl::AbortedError(absl::StrCat(about, ", which is about to close it"));
    }
    if (other->session->connected()) {
      other->wanted_since_ns = 0;
      return absl::FailedPreconditionError(about);
    }
    const uint64_t now_ns = clock_.NowNs();
    if (other->used.exchange(false) || other->wanted_since_ns == 0) {
      other->wanted_since_ns = now_ns;
    }
    if (now_ns - other->wanted_since_ns < options_.keep_unreachable_ns) {
      return absl::AbortedError(absl::StrCat(about, ", which cannot be reached at present"));
    }
    spdlog::warn("{}, which cannot be reached: taking it away", about);
    other->closed = true;
    open_.erase({other->session->id(), other->number});  // its last operations may still run
    return absl::AbortedError(absl::StrCat(about, ", which has just lost it"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Claim>> Service::TakeClaim(ServedCall& call, ServedDevice* device) {
  const proto::DiskOpen& asked = call.request().disk_open();
  auto wanted = std::make_shared<Claim>();
  wanted->device = device;
  wanted->session = call.rpc().session();
  wanted->node = call.asker().node;
  wanted->number = asked.disk();
  wanted->exclusive = asked.exclusive();
  wanted->read_only = asked.read_only() || device->access().read_only;
  if (wanted->number == 0) return absl::InvalidArgumentError("a disk's number cannot be 0");
  const uint64_t session_id = wanted->session->id();
  std::lock_guard lock(mutex_);
  // Also those that are still being opened count.
  size_t of_session = 0;
  for (const auto& claim : claims_) {
    const std::shared_ptr<Claim> other = claim.lock();
    if (!other || other->session->id() != session_id || other->closed) continue;
    ++of_session;
    if (other->number == wanted->number) {
      return absl::AlreadyExistsError("the session has a disk of that number");
    }
  }
  if (of_session >= options_.max_disks) {
    return absl::ResourceExhaustedError("too many disks are open in one session");
  }
  if (auto status = CheckOthers(*wanted); !status.ok()) return status;
  claims_.push_back(wanted);
  return wanted;
}

absl::StatusOr<proto::Reply> Service::Open(ServedCall& call) {
  const proto::DiskOpen& asked = call.request().disk_open();
  auto device = registry_.Find(asked.device(), call.asker());
  if (!device.ok()) return device.status();
  auto taken = TakeClaim(call, *device);
  if (!taken.ok()) return taken.status();
  Claim& claim = **taken;
  const auto opened = std::make_shared<OpenedDisk>();
  opened->claim = *std::move(taken);
  ServedDevice::Use use;
  use.kind = UseKind::kDisk;
  use.writes = !claim.read_only;
  use.exclusive = claim.exclusive && use.writes;
  auto opening = (*device)->Open(call.asker(), use);
  if (!opening.ok()) return opening.status();
  opened->opening = *std::move(opening);
  auto disk = (*device)->device().OpenDisk(claim.read_only);
  if (!disk.ok()) return disk.status();
  opened->disk = *std::move(disk);
  Disk::Geometry geometry = opened->disk->geometry();
  geometry.read_only = geometry.read_only || claim.read_only;

  proto::Reply reply;
  proto::DiskOpened& told = *reply.mutable_disk_opened();
  told.set_disk(claim.number);
  told.set_size_bytes(geometry.size_bytes);
  told.set_logical_block_bytes(geometry.logical_block_bytes);
  told.set_physical_block_bytes(geometry.physical_block_bytes);
  told.set_read_only(geometry.read_only);
  told.set_can_discard(geometry.can_discard);
  told.set_rotational(geometry.rotational);
  told.set_verifier(options_.verifier ^ (geometry.appearance * 0x9e3779b97f4a7c15u));
  told.set_medium(geometry.medium);
  told.set_server(server_);
  std::lock_guard lock(mutex_);
  // Before this a session's end is seen here; after it, EndSession finds the disk.
  if (call.rpc().cancelled()) return absl::CancelledError("nobody waits for the disk any more");
  claim.read_only = opened->read_only = geometry.read_only;
  uint64_t& writers = writers_[claim.device];
  if (!claim.read_only) ++writers;
  told.set_writers(writers);
  open_[{claim.session->id(), claim.number}] = opened;
  return reply;
}

DiskPtr Service::Find(uint64_t session_id, uint32_t number) {
  std::lock_guard lock(mutex_);
  const auto it = open_.find({session_id, number});
  return it == open_.end() ? nullptr : it->second;
}

absl::Status Service::Close(uint64_t session_id, uint32_t number) {
  DiskPtr last;  // let go of without the lock: closing may take long
  std::lock_guard lock(mutex_);
  const auto it = open_.find({session_id, number});
  if (it == open_.end()) return absl::NotFoundError("the session has no such disk");
  last = std::move(it->second);
  last->claim->closed = true;
  open_.erase(it);
  return absl::OkStatus();
}

void Service::EndSession(uint64_t session_id) {
  std::vector<DiskPtr> last;
  std::lock_guard lock(mutex_);
  auto it = open_.lower_bound({session_id, 0});
  while (it != open_.end() && it->first.first == session_id) {
    it->second->claim->closed = true;
    last.push_back(std::move(it->second));
    it = open_.erase(it);
  }
}

// --------------------------------------------------------------- operations

void Service::Serve(ServedCall call) {
  const proto::Request& request = call.request();
  if (request.has_disk_io()) return DoIo(std::move(call));
  if (request.has_disk_open()) {
    const auto opened = Open(call);
    return opened.ok() ? call.Answer(*opened) : call.Answer(opened.status());
  }
  if (request.has_disk_close()) {
    return call.Answer(Close(call.rpc().session()->id(), request.disk_close().disk()));
  }
  call.Answer(absl::InvalidArgumentError("that is not a disk's call"));
}

template <typename F>
void Service::Later(ServedCall call, F work) {
  // A function must be copyable, a call is not.
  auto shared = std::make_shared<ServedCall>(std::move(call));
  pool_.Run([shared, work = std::move(work)]() mutable { work(*shared); });
}

void Service::DoIo(ServedCall call) {
  const Io& io = call.request().disk_io();
  DiskPtr disk = Find(call.rpc().session()->id(), io.disk());
  if (!disk) return call.Answer(absl::NotFoundError("the session has no such disk"), false);
  disk->claim->used.store(true, std::memory_order_relaxed);
  const bool changes = io.operation() != Io::READ && io.operation() != Io::FLUSH;
  if (changes && disk->read_only) {
    return call.Answer(absl::PermissionDeniedError("the disk is open read-only"), false);
  }
  switch (io.operation()) {
    case Io::READ:
      return Read(std::move(call), std::move(disk));
    case Io::WRITE:
      return Write(std::move(call), std::move(disk));
    case Io::FLUSH:
    case Io::DISCARD:
    case Io::WRITE_ZEROES:
      return Later(std::move(call), [disk = std::move(disk)](ServedCall& now) {
        now.Answer(Other(now.request().disk_io(), *disk->disk));
      });
    default:
      call.Answer(absl::InvalidArgumentError("no such operation on a disk"));
  }
}

// A read may as well run again when its answer was lost: its reply is not kept.
void Service::Read(ServedCall call, DiskPtr disk) {
  const Io& io = call.request().disk_io();
  if (io.length() > call.rpc().bulk_reply_capacity()) {
    return call.Answer(absl::InvalidArgumentError("there is no room for what would be read"),
                       false);
  }
  const auto length = static_cast<size_t>(io.length());
  rpc::BulkBuffer buffer;
  if (length > 0) buffer = call.rpc().AllocateBulk(length);
  if (disk->disk->ReadAtOnce(io.offset(), {buffer.data(), length})) {
    return call.Answer(proto::Reply(), std::move(buffer), length, false);
  }
  buffer.Reset();  // waiting must not hold memory of the session's
  Later(std::move(call), [disk = std::move(disk), length](ServedCall& now) {
    rpc::BulkBuffer into;
    if (length > 0) into = now.rpc().AllocateBulk(length);
    const absl::Status status =
        disk->disk->Read(now.request().disk_io().offset(), {into.data(), length});
    if (!status.ok()) return now.Answer(status, false);
    now.Answer(proto::Reply(), std::move(into), length, false);
  });
}

void Service::Write(ServedCall call, DiskPtr disk) {
  const Io& io = call.request().disk_io();
  if (io.length() != call.rpc().bulk_request().size()) {
    return call.Answer(absl::InvalidArgumentError("the data to write is not as long as said"));
  }
  if (!io.durable()) {  // into the kernel's memory: that does not wait, as a rule
    return call.Answer(disk->disk->Write(io.offset(), call.rpc().bulk_request(), false));
  }
  Later(std::move(call), [disk = std::move(disk)](ServedCall& now) {
    now.Answer(disk->disk->Write(now.request().disk_io().offset(), now.rpc().bulk_request(), true));
  });
}

absl::Status Service::Other(const Io& io, Disk& disk) {
  switch (io.operation()) {
    case Io::FLUSH:
      return disk.Flush();
    case Io::DISCARD:
      return disk.Discard(io.offset(), io.length());
    default:
      return disk.WriteZeroes(io.offset(), io.length(), io.may_unmap());
  }
}

}  // namespace

std::unique_ptr<DiskService> MakeDiskService(Registry& registry, Clock& clock,
                                             const DiskServiceOptions& options) {
  return std::make_unique<Service>(registry, clock, options);
}

}  // namespace tripwire::periph
