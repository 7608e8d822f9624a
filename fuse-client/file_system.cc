// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/file_system.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "fs-server/proto/machine.h"
#include "fuse-client/op.h"
#include "spdlog/spdlog.h"

namespace tripwire::fuse {

size_t FsOptions::DefaultUnstableBytes() {
  constexpr size_t kLeast = size_t{256} << 20;
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return kLeast;
  return std::max(kLeast, static_cast<size_t>(pages) / 16 *
                              static_cast<size_t>(page_bytes));
}

FileSystem::FileSystem(FsOptions options)
    : options_(std::move(options)),
      remote_(options_.patience),
      buffers_(kRequestBytes),
      unstable_(&nodes_, options_.unstable_bytes),
      lease_keeper_(
          &nodes_, [this](Node& node) { RenewLease(node, &renewal_cancel_); },
          [this](Node& node) { DropPages(node); },
          [this](Node& node) { DropLapsedPages(node); }) {}

FileSystem::~FileSystem() { Stop(); }

void FileSystem::Configure(rpc::ClientOptions* options) {
  pb::Greeting greeting;
  greeting.set_protocol_version(pb::PROTOCOL_VERSION);
  greeting.set_export_name(options_.export_name);
  greeting.set_client_name(options_.client_name);
  greeting.set_read_only(options_.read_only);
  const std::string bytes = greeting.SerializeAsString();
  options->greeting.assign(bytes.begin(), bytes.end());
  options->on_notify = [this](rpc::Bytes message) { OnNotify(message); };
  options->on_recovered = [this](rpc::Bytes reply) { OnRecovered(reply); };
  options->on_connection = [this](bool connected, const std::string& why) {
    OnConnection(connected, why);
  };
}

absl::Status FileSystem::Start(rpc::Client* client) {
  remote_.Attach(client);
  buffers_.Show(client->shown_memory());
  const std::vector<uint8_t>& reply = client->greeting_reply();
  if (!greeting_.ParseFromArray(reply.data(), static_cast<int>(reply.size())) ||
      greeting_.root().empty() || greeting_.root().size() > 64 ||
      (greeting_.root_attr().mode() & S_IFMT) != S_IFDIR) {
    return absl::InternalError("the server's greeting makes no sense");
  }
  if (greeting_.protocol_version() != pb::PROTOCOL_VERSION) {
    return absl::FailedPreconditionError(
        "the server speaks another version of the file protocol");
  }
  NoteServer(greeting_);
  lease_ms_ = greeting_.lease_ms();
  lock_waiters_.Begin(greeting_.lock_epoch());
  const uint32_t read_max = greeting_.info().read_max();
  max_read_ = std::max(4096u, read_max ? std::min(options_.max_read, read_max)
                                       : options_.max_read);
  nodes_.SetRoot({greeting_.root(), greeting_.root_attr().ino(),
                  greeting_.root_attr().fsid(), S_IFDIR});
  committer_ = std::thread([this] { CommitterLoop(); });
  lease_keeper_.Start(lease_ms_);
  return absl::OkStatus();
}

void FileSystem::NoteServer(const pb::GreetingReply& greeting) {
  boot_verifier_.store(greeting.boot_verifier());
  root_fsid_.store(greeting.root_attr().fsid());
  acts_as_caller_.store(greeting.acts_as_caller());
  // Copies of a running virtual machine have one boot; they have no memory in common.
  same_kernel_.store(greeting.machine() != 0 &&
                     greeting.machine() == fs::ThisMachine() &&
                     remote_.client()->shares_memory());
}

void FileSystem::AttachKernel(KernelCache* kernel) { kernel_.store(kernel); }

void FileSystem::Stop() {
  stopping_.store(true);
  kernel_.store(nullptr);
  unstable_.Stop();
  if (committer_.joinable()) {
    // What it is waiting for may never come; after a last try, the server keeps
    // what it was given as well as it can.
    if (remote_.client()->connected()) CommitEverything(5 * kSecond, nullptr);
    committer_cancel_.Cancel();
    committer_.join();
  }
  renewal_cancel_.Cancel();
  lease_keeper_.Stop();
  for (const LockWaiters::Ref& wait : lock_waiters_.Stop()) {
    fuse_req_interrupt_func(wait->req, nullptr, nullptr);
    fuse_reply_err(wait->req, EINTR);
  }
  invalidator_.Stop();
}

void FileSystem::Init(fuse_conn_info* conn) {
  const auto want = [conn](unsigned capability, bool wanted) {
    if (!wanted) {
      conn->want &= ~capability;
    } else if (conn->capable & capability) {
      conn->want |= capability;
    }
  };
  want(FUSE_CAP_ASYNC_READ, true);
  want(FUSE_CAP_POSIX_LOCKS, !options_.local_posix);
  want(FUSE_CAP_FLOCK_LOCKS, !options_.local_flock);
  want(FUSE_CAP_ATOMIC_O_TRUNC, true);
  want(FUSE_CAP_EXPORT_SUPPORT, true);
  want(FUSE_CAP_DONT_MASK, true);  // the server knows about default ACLs
  want(FUSE_CAP_IOCTL_DIR, false);
  want(FUSE_CAP_READDIRPLUS, true);
  want(FUSE_CAP_READDIRPLUS_AUTO, true);
  want(FUSE_CAP_ASYNC_DIO, true);
  want(FUSE_CAP_PARALLEL_DIROPS, true);
  want(FUSE_CAP_HANDLE_KILLPRIV, true);
  want(FUSE_CAP_CACHE_SYMLINKS, true);
  want(FUSE_CAP_POSIX_ACL, options_.posix_acl);
  // Writes go through; the server is what other clients see.
  want(FUSE_CAP_WRITEBACK_CACHE, false);
  // We know better than modification times when pages are stale: our own writes
  // change those too. See docs/mounting.md.
  want(FUSE_CAP_AUTO_INVAL_DATA, !(conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA));
  want(FUSE_CAP_EXPLICIT_INVAL_DATA, true);
  // Data comes from and goes to memory of our own; a pipe in between only adds
  // system calls.
  want(FUSE_CAP_SPLICE_READ, false);
  want(FUSE_CAP_SPLICE_WRITE, false);
  want(FUSE_CAP_SPLICE_MOVE, false);
  const uint32_t bulk_bytes = remote_.client()->bulk_bytes();
  conn->max_write = std::max(4096u, std::min(options_.max_write, bulk_bytes));
  conn->max_read = max_read_;  // the library wants to hear it twice
  conn->max_readahead = std::min(conn->max_readahead, 1u << 20);
  conn->max_background = 64;
  conn->congestion_threshold = 48;
  conn->time_gran = 1;
}

}  // namespace tripwire::fuse
