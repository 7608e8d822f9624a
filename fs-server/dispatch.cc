// SPDX-License-Identifier: BSD-3-Clause
//
// From a call's bytes to an operation and back to a reply.
#include <google/protobuf/arena.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fs-server/ops/ops.h"

namespace tripwire::fs {
namespace {

struct OpInfo {
  int (*run)(OpContext&) = nullptr;
  bool as_caller = true;   // permission matters, or new things need an owner
  bool keep_reply = false; // running it twice would be wrong or wasteful
  bool journaled = false;  // ... also by the next server
  bool changes = false;    // refused on read-only exports
};

OpInfo InfoOf(pb::Call::OpCase op) {
  constexpr bool kSelf = false, kCaller = true;
  constexpr bool kAgain = false, kOnce = true;
  constexpr bool kForget = false, kJournal = true;
  constexpr bool kReads = false, kChanges = true;
  switch (op) {
    case pb::Call::kNull:
      return {ops::Null, kSelf, kAgain, kForget, kReads};
    case pb::Call::kGetattr:
      return {ops::GetAttr, kSelf, kAgain, kForget, kReads};
    case pb::Call::kSetattr:
      return {ops::SetAttr, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kLookup:
      return {ops::Lookup, kCaller, kAgain, kForget, kReads};
    case pb::Call::kAccess:
      return {ops::Access, kCaller, kAgain, kForget, kReads};
    case pb::Call::kReadlink:
      return {ops::ReadLink, kSelf, kAgain, kForget, kReads};
    case pb::Call::kOpen:  // whether it changes depends on the flags
      return {ops::Open, kCaller, kOnce, kForget, kReads};
    case pb::Call::kClose:
      return {ops::Close, kSelf, kOnce, kForget, kReads};
    case pb::Call::kCreate:
      return {ops::Create, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kTmpfile:
      return {ops::TmpFile, kCaller, kOnce, kForget, kChanges};
    case pb::Call::kMkdir:
      return {ops::MkDir, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kSymlink:
      return {ops::SymLink, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kMknod:
      return {ops::MkNod, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kRemove:
      return {ops::Remove, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kRmdir:
      return {ops::RmDir, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kRename:
      return {ops::Rename, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kLink:
      return {ops::Link, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kReaddir:
      return {ops::ReadDir, kCaller, kAgain, kForget, kReads};
    case pb::Call::kRead:
      return {ops::Read, kCaller, kAgain, kForget, kReads};
    case pb::Call::kWrite:
      return {ops::Write, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kCommit:
      return {ops::Commit, kCaller, kAgain, kForget, kReads};
    case pb::Call::kSync:
      return {ops::Sync, kCaller, kAgain, kForget, kReads};
    case pb::Call::kFallocate:
      return {ops::Fallocate, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kSeek:
      return {ops::Seek, kCaller, kAgain, kForget, kReads};
    case pb::Call::kCopyRange:
      return {ops::CopyRange, kCaller, kOnce, kForget, kChanges};
    case pb::Call::kFsstat:
      return {ops::FsStat, kSelf, kAgain, kForget, kReads};
    case pb::Call::kFsinfo:
      return {ops::FsInfo, kSelf, kAgain, kForget, kReads};
    case pb::Call::kPathconf:
      return {ops::PathConf, kSelf, kAgain, kForget, kReads};
    case pb::Call::kGetxattr:
      return {ops::GetXattr, kCaller, kAgain, kForget, kReads};
    case pb::Call::kSetxattr:
      return {ops::SetXattr, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kListxattr:
      return {ops::ListXattr, kCaller, kAgain, kForget, kReads};
    case pb::Call::kRemovexattr:
      return {ops::RemoveXattr, kCaller, kOnce, kJournal, kChanges};
    case pb::Call::kLock:
      return {ops::Lock, kSelf, kOnce, kForget, kReads};
    case pb::Call::kReclaimDone:
      return {ops::ReclaimDone, kSelf, kAgain, kForget, kReads};
    case pb::Call::OP_NOT_SET:
      break;
  }
  return {};
}

// Who the caller is on this export, as NFS exports have it: with root squashed, user
// and group 0 become the anonymous ones; with all squashed, everybody does.
void MapCaller(const ExportConfig& config, const pb::Credentials& creds, Caller* caller) {
  caller->umask = creds.umask();
  if (config.squash == Squash::kAll) {
    caller->uid = config.anon_uid;
    caller->gid = config.anon_gid;
    caller->groups.clear();
    return;
  }
  caller->uid = creds.uid();
  caller->gid = creds.gid();
  caller->groups.assign(creds.groups().begin(), creds.groups().end());
  if (config.squash == Squash::kNone) return;
  if (caller->gid == 0) caller->gid = config.anon_gid;
  std::replace(caller->groups.begin(), caller->groups.end(), 0u, config.anon_gid);
  if (caller->uid != 0) return;
  caller->uid = config.anon_uid;
  caller->groups.clear();
}

// Messages of one call live in one block, reused from call to call.
struct Scratch {
  Scratch() : block(32 * 1024), arena(Options()) {}
  google::protobuf::ArenaOptions Options() {
    google::protobuf::ArenaOptions options;
    options.initial_block = block.data();
    options.initial_block_size = block.size();
    return options;
  }
  std::vector<char> block;
  google::protobuf::Arena arena;
  std::vector<uint8_t> message;
};

const std::vector<uint8_t>& Serialize(const pb::Reply& reply, Scratch* scratch) {
  scratch->message.resize(reply.ByteSizeLong());
  reply.SerializeWithCachedSizesToArray(scratch->message.data());
  return scratch->message;
}

// The journal answers a CREATE that opened what it made, for another server: here the
// file is not open yet. Where this fails, its first use will say `state_lost`.
void OpenAsCreated(OpContext* ctx, std::string_view stored) {
  if (ctx->request.op_case() != pb::Call::kCreate) return;
  const pb::Create& op = ctx->request.create();
  pb::Reply reply;
  Inode inode;
  UniqueFd fd;
  if (op.state() == 0 || ctx->session.FindOpen(op.state()) ||
      !reply.ParseFromArray(stored.data(), static_cast<int>(stored.size())) ||
      reply.error() != 0 || ctx->Find(reply.handle(), &inode) != 0 ||
      !ctx->server.opens().HasRoom()) {
    return;
  }
  MapCaller(ctx->exported.config, ctx->request.creds(), &ctx->caller);
  if (identity::Assume(ctx->caller) != 0) return;
  const uint32_t flags = op.flags() & ~static_cast<uint32_t>(pb::OPEN_TRUNCATE);
  if (ctx->OpenDataAgain(inode, flags, &fd) != 0) return;
  ctx->AddOpen(op.state(), inode.id, std::move(fd), flags, false);
}

// Whether the journal answers. Otherwise tells what it knows.
bool AnswerFromJournal(OpContext* ctx) {
  if (ctx->session.journal == nullptr) return false;
  Intent intent;
  std::string_view stored;
  switch (ctx->session.journal->Lookup(ctx->call->slot(), ctx->call->sequence(), &intent,
                                       &stored)) {
    case Journal::Found::kReply:
      OpenAsCreated(ctx, stored);
      ctx->call->Reply({reinterpret_cast<const uint8_t*>(stored.data()), stored.size()});
      return true;
    case Journal::Found::kIntent:
      if (intent.op == static_cast<uint32_t>(ctx->request.op_case())) ctx->prior = intent;
      return false;
    case Journal::Found::kNothing:
      return false;
  }
  return false;
}

// So that the next server can give the same answer.
void RecordReply(OpContext* ctx, const std::vector<uint8_t>& message) {
  auto view = [](const auto& bytes) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  if (ctx->session.journal->Finish(ctx->call->slot(), view(message))) return;
  // Too long with everything; the client can ask for the rest.
  pb::Reply essence;
  essence.set_error(ctx->reply.error());
  essence.set_handle(ctx->reply.handle());
  *essence.mutable_attr() = ctx->reply.attr();
  ctx->session.journal->Finish(ctx->call->slot(), view(essence.SerializeAsString()));
}

int RunOp(OpContext* ctx, const OpInfo& info) {
  if (info.run == nullptr) return EOPNOTSUPP;
  if (info.changes && (ctx->session.read_only || ctx->exported.config.read_only)) return EROFS;
  const pb::Credentials& creds = ctx->request.creds();
  if (creds.groups_size() > 1000) return EINVAL;
  MapCaller(ctx->exported.config, creds, &ctx->caller);
  if (info.as_caller) {
    if (const int error = identity::Assume(ctx->caller); error != 0) return error;
  }
  return info.run(*ctx);
}

}  // namespace

void FileServer::Serve(std::shared_ptr<rpc::Call> call) {
  thread_local Scratch scratch;
  scratch.arena.Reset();
  auto* request = google::protobuf::Arena::CreateMessage<pb::Call>(&scratch.arena);
  auto* reply = google::protobuf::Arena::CreateMessage<pb::Reply>(&scratch.arena);
  const rpc::Bytes bytes = call->request();
  auto session = FindSession(call->session()->id());
  if (!session || session->exported == nullptr ||
      !request->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    calls_[pb::Call::OP_NOT_SET].fetch_add(1, std::memory_order_relaxed);
    reply->set_error(EPROTO);
    call->Reply(Serialize(*reply, &scratch));
    return;
  }
  if (!purge_scheduled_.load(std::memory_order_relaxed)) SchedulePurge();
  const OpInfo info = InfoOf(request->op_case());
  calls_.at(request->op_case()).fetch_add(1, std::memory_order_relaxed);
  OpContext ctx(this, session, std::move(call), *request, reply);
  if (info.journaled && AnswerFromJournal(&ctx)) return;
  int error = RunOp(&ctx, info);
  if (error == kParked) return;
  if (error == kWritesFirst) return ServeAfterWrites(std::move(ctx.call), ctx.written, ctx.writer);
  reply->set_error(error);
  if (error != 0) {
    ctx.bulk.Reset();
    ctx.bulk_bytes = 0;
  }
  Serialize(*reply, &scratch);
  if (ctx.intended) RecordReply(&ctx, scratch.message);
  Answer(std::move(ctx.call), scratch.message, std::move(ctx.bulk), ctx.bulk_bytes,
         info.keep_reply, session->id, ctx.changes);
}

uint64_t FileServer::calls() const {
  uint64_t sum = 0;
  for (const auto& count : calls_) sum += count.load(std::memory_order_relaxed);
  return sum;
}

std::vector<std::pair<std::string, uint64_t>> FileServer::calls_by_operation() const {
  std::vector<std::pair<std::string, uint64_t>> counts;
  const auto* operations = pb::Call::descriptor()->FindOneofByName("op");
  for (int i = 0; i < operations->field_count(); ++i) {
    const auto* field = operations->field(i);
    const uint64_t count =
        calls_.at(static_cast<size_t>(field->number())).load(std::memory_order_relaxed);
    if (count != 0) counts.emplace_back(std::string(field->name()), count);
  }
  return counts;
}

}  // namespace tripwire::fs
