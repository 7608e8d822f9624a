// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/file_server.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "fs-server/attr.h"
#include "fs-server/identity.h"
#include "fs-server/ops/ops.h"
#include "fs-server/proto/machine.h"
#include "nic/base/random.h"

namespace tripwire::fs {
namespace {

absl::Status MakeDirectories(const std::string& path) {
  for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    const bool last = at == std::string::npos;
    if (mkdir(part.c_str(), last ? 0700 : 0755) != 0 && errno != EEXIST) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot make the state directory ", part));
    }
    if (last) return absl::OkStatus();
  }
}

size_t DescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  return std::min<size_t>(limit.rlim_cur, 1 << 20);
}

// Unstable data survives this process (it is in the kernel), not the machine.
uint64_t BootVerifier() {
  const uint64_t machine = ThisMachine();
  return SipHash({}, &machine, sizeof machine) | 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileServer>> FileServer::Create(ServerConfig config) {
  if (config.exports.empty()) return absl::InvalidArgumentError("nothing to export");
  if (config.state_dir.empty()) config.state_dir = DefaultStateDir();
  if (auto status = MakeDirectories(config.state_dir); !status.ok()) return status;
  auto journal = Journal::Open(config.state_dir, config.sessions);
  if (!journal.ok()) return journal.status();
  auto codec = HandleCodec::Load(config.state_dir);
  if (!codec.ok()) return codec.status();
  const size_t limit = DescriptorLimit();
  const size_t cached = config.cached_fds != 0 ? config.cached_fds : limit / 8;
  // What is left for open files, after the caches and some for all else.
  const size_t reserve = cached * config.exports.size() + 128;
  const size_t open_limit = limit > 2 * reserve ? limit - reserve : limit / 2;
  std::unique_ptr<FileServer> server(new FileServer(std::move(config), *codec, open_limit));
  server->journal_ = *std::move(journal);
  server->acts_as_caller_ = identity::CanSwitch();
  server->verifier_ =
      server->config_.boot_verifier != 0 ? server->config_.boot_verifier : BootVerifier();
  const size_t per_export = std::max<size_t>(cached / server->config_.exports.size(), 16);
  if (auto status = server->OpenExports(per_export); !status.ok()) return status;
  if (server->config_.watch) {
    if (auto status = server->StartWatch(); !status.ok()) return status;
  }
  for (const uint64_t session : server->journal_->LostLockHolders()) {
    server->grace_for_.insert(session);
  }
  server->locks_.SetRetry([raw = server.get()](std::chrono::milliseconds pause) {
    raw->timers_.RunIn(pause, [raw] { raw->locks_.RetryHost(); });
  });
  if (!server->grace_for_.empty()) {
    server->locks_.HoldBack();
    server->timers_.RunIn(std::chrono::milliseconds(server->config_.grace_ms),
                          [raw = server.get()] { raw->EndGrace(); });
  }
  for (const auto& exported : server->exports_) {
    if (exported->unnamed->All().empty()) continue;
    server->timers_.RunIn(std::chrono::milliseconds(server->config_.unclaimed_ms),
                          [raw = server.get()] { raw->DropUnclaimed(); });
    break;
  }
  return server;
}

FileServer::~FileServer() {
  Shutdown();
  watch_.reset();
  timers_.Stop();
}

absl::Status FileServer::StartWatch() {
  std::vector<const InodeStore*> stores;
  for (const auto& exported : exports_) stores.push_back(exported->store.get());
  auto watch = ChangeWatch::Start(
      std::move(stores), [this](const std::vector<ChangeWatch::Event>& events, bool lost) {
        if (lost) return RecallEverything();
        std::vector<Change> changes;
        for (const auto& event : events) {
          changes.push_back({event.id, event.what, event.name, event.deleted});
        }
        Recall(changes);
      });
  if (!watch.ok()) return watch.status();
  watch_ = *std::move(watch);
  return absl::OkStatus();
}

absl::Status FileServer::OpenExports(size_t cached_fds) {
  for (const ExportConfig& config : config_.exports) {
    auto exported = std::make_unique<Export>();
    exported->config = config;
    exported->id = codec_.ExportId(config.name);
    for (const auto& other : exports_) {
      if (other->config.name == config.name) {
        return absl::InvalidArgumentError(
            absl::StrCat("two exports are named '", config.name, "'"));
      }
      if (other->id == exported->id) {
        return absl::InvalidArgumentError(
            absl::StrCat("the names '", config.name, "' and '", other->config.name,
                         "' collide; choose another"));
      }
    }
    const std::string names =
        absl::StrCat(config_.state_dir, "/names.", absl::Hex(exported->id, absl::kZeroPad8));
    auto store = InodeStore::Open(config.directory, names, cached_fds, config_.kernel_handles);
    if (!store.ok()) return store.status();
    exported->store = *std::move(store);
    exported->unnamed = std::make_unique<UnnamedFiles>(config_.state_dir, exported->id,
                                                       exported->store->root_fd());
    exports_.push_back(std::move(exported));
  }
  return absl::OkStatus();
}

rpc::ServerOptions FileServer::RpcOptions() {
  rpc::ServerOptions options;
  options.service = kService;
  options.slots = Journal::kSlots;
  return options;
}

rpc::Server::Callbacks FileServer::Callbacks() {
  rpc::Server::Callbacks callbacks;
  callbacks.call = [this](rpc::Call call) {
    Serve(std::make_shared<rpc::Call>(std::move(call)));
  };
  callbacks.open = [this](const std::shared_ptr<rpc::ServerSession>& session,
                          rpc::Bytes greeting) { return OpenSession(session, greeting); };
  callbacks.close = [this](const std::shared_ptr<rpc::ServerSession>& session) {
    CloseSession(session);
  };
  return callbacks;
}

absl::StatusOr<Export*> FileServer::FindExport(const std::string& name) const {
  if (name.empty() && exports_.size() == 1) return exports_[0].get();
  for (const auto& exported : exports_) {
    if (exported->config.name == name) return exported.get();
  }
  const std::string known =
      absl::StrJoin(exports_, ", ", [](std::string* out, const std::unique_ptr<Export>& e) {
        out->append(e->config.name);
      });
  return absl::NotFoundError(name.empty()
                                 ? absl::StrCat("say which export: ", known)
                                 : absl::StrCat("no export '", name, "' here; there is: ", known));
}

absl::StatusOr<std::vector<uint8_t>> FileServer::OpenSession(
    const std::shared_ptr<rpc::ServerSession>& rpc, rpc::Bytes greeting) {
  pb::Greeting hello;
  if (!hello.ParseFromArray(greeting.data(), static_cast<int>(greeting.size()))) {
    return absl::InvalidArgumentError("malformed greeting");
  }
  if (hello.protocol_version() != pb::PROTOCOL_VERSION) {
    return absl::FailedPreconditionError(
        absl::StrCat("the server speaks version ", static_cast<int>(pb::PROTOCOL_VERSION),
                     " of the file protocol, the client ", hello.protocol_version()));
  }
  auto session = std::make_shared<ClientSession>();
  session->id = rpc->id();
  session->name = absl::StrCat(hello.client_name(), " at ", rpc->peer());
  session->rpc = rpc;
  session->lock_epoch = Random::FromSystem().Next() | 1;
  pb::GreetingReply reply;
  if (!hello.list_exports()) {
    auto exported = FindExport(hello.export_name());
    if (!exported.ok()) return exported.status();
    Export& chosen = **exported;
    session->exported = &chosen;
    session->read_only = hello.read_only() || chosen.config.read_only;
    bool known = false;
    session->journal = journal_->Attach(session->id, &known);
    struct statx stx;
    if (StatFd(chosen.store->root_fd(), &stx) == 0) ToAttr(stx, reply.mutable_root_attr());
    codec_.Encode(chosen.id, chosen.store->root(), reply.mutable_root());
    ops::FillFsInfo(chosen, reply.mutable_info());
    reply.set_export_name(chosen.config.name);
    reply.set_read_only(session->read_only);
  }
  for (const auto& exported : exports_) {
    pb::Export* entry = reply.add_exports();
    entry->set_name(exported->config.name);
    entry->set_read_only(exported->config.read_only);
  }
  reply.set_protocol_version(pb::PROTOCOL_VERSION);
  reply.set_boot_verifier(verifier());
  // A server told what its boot is only plays at being another machine.
  if (config_.boot_verifier == 0) reply.set_machine(ThisMachine());
  reply.set_lease_ms(config_.lease_ms);
  reply.set_server_name(config_.server_name);
  reply.set_acts_as_caller(acts_as_caller_);
  {
    std::lock_guard lock(grace_mutex_);
    if (!grace_for_.empty()) reply.set_grace_ms(config_.grace_ms);
  }
  reply.set_lock_epoch(session->lock_epoch);
  locks_.DropWaiting(session->id);  // of an earlier opening; they are asked for again
  {
    std::unique_lock lock(sessions_mutex_);
    auto& entry = sessions_[session->id];
    if (entry) {  // the RPC layer forgot it, we need not
      std::lock_guard opens_lock(entry->mutex);
      session->opens = std::move(entry->opens);
    }
    entry = session;
  }
  spdlog::info("{} opened '{}'", session->name, reply.export_name());
  std::vector<uint8_t> out(reply.ByteSizeLong());
  reply.SerializeWithCachedSizesToArray(out.data());
  return out;
}

void FileServer::CloseSession(const std::shared_ptr<rpc::ServerSession>& rpc) {
  std::shared_ptr<ClientSession> session;
  {
    std::unique_lock lock(sessions_mutex_);
    auto it = sessions_.find(rpc->id());
    if (it == sessions_.end() || it->second->rpc != rpc) return;
    session = it->second;
    sessions_.erase(it);
  }
  absl::flat_hash_map<uint64_t, std::shared_ptr<OpenFile>> opens;
  {
    std::lock_guard lock(session->mutex);
    opens.swap(session->opens);
  }
  for (auto& [state, file] : opens) opens_.Remove(file);
  locks_.EndSession(session->id);
  leases_.EndSession(session->id);
  if (stopping()) return;
  for (auto& [state, file] : opens) Closed(*session->exported, file->id);
  opens.clear();
  if (session->journal != nullptr) {
    if (rpc->lost()) {
      journal_->Lose(session->journal.get());
    } else {
      journal_->Free(session->journal.get());
    }
  }
  ReclaimFinished(session->id);
  spdlog::info("{} closed", session->name);
}

std::shared_ptr<ClientSession> FileServer::FindSession(uint64_t id) {
  std::shared_lock lock(sessions_mutex_);
  auto it = sessions_.find(id);
  return it == sessions_.end() ? nullptr : it->second;
}

size_t FileServer::session_count() {
  std::shared_lock lock(sessions_mutex_);
  return sessions_.size();
}

void FileServer::AfterGrace(std::function<void()> task) {
  {
    std::lock_guard lock(grace_mutex_);
    if (!grace_for_.empty() && !stopping()) {
      after_grace_.push_back(std::move(task));
      return;
    }
  }
  task();
}

void FileServer::ReclaimFinished(uint64_t session) {
  bool last = false;
  {
    std::lock_guard lock(grace_mutex_);
    last = grace_for_.erase(session) > 0 && grace_for_.empty();
  }
  if (last) EndGrace();
}

void FileServer::EndGrace() {
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard lock(grace_mutex_);
    if (!grace_for_.empty()) {
      spdlog::warn("{} client(s) with locks did not come back; their locks are gone",
                   grace_for_.size());
    }
    grace_for_.clear();
    tasks.swap(after_grace_);
  }
  journal_->ForgetLostLocks();
  locks_.LetGo();
  for (auto& task : tasks) task();
}

void FileServer::Shutdown() {
  if (stopping_.exchange(true)) return;
  std::vector<uint64_t> ids;
  {
    std::shared_lock lock(sessions_mutex_);
    for (const auto& [id, session] : sessions_) ids.push_back(id);
  }
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard lock(grace_mutex_);
    tasks.swap(after_grace_);
  }
  for (auto& task : tasks) task();
  locks_.StopWaiting();
  retries_.Stop();
  absl::flat_hash_set<std::shared_ptr<AwaitingWrites>> awaiting;
  {
    std::lock_guard lock(awaiting_mutex_);
    awaiting.swap(awaiting_writes_);
  }
  for (const auto& one : awaiting) Serve(std::move(one->call));
  if (!awaiting.empty()) identity::AssumeSelf();  // this thread was the callers meanwhile
}

void FileServer::Closed(Export& exported, const FileId& id) {
  if (!exported.unnamed->Has(id) || opens_.Find(id)) return;
  exported.unnamed->Drop(id);
  exported.store->NameLost(id);  // unless it got a name, which will be found again
}

// What an earlier server kept for clients that did not come back.
void FileServer::DropUnclaimed() {
  for (auto& exported : exports_) {
    for (const FileId& id : exported->unnamed->All()) Closed(*exported, id);
  }
}

void FileServer::SchedulePurge() {
  if (purge_scheduled_.exchange(true, std::memory_order_relaxed)) return;
  timers_.RunIn(std::chrono::seconds(5), [this] { Purge(); });
}

void FileServer::Purge() {
  size_t left = 0;
  for (auto& exported : exports_) left += exported->store->Purge();
  purge_scheduled_.store(false, std::memory_order_relaxed);
  if (left > 0) SchedulePurge();
}

}  // namespace tripwire::fs
