// SPDX-License-Identifier: BSD-3-Clause
#include <cerrno>
#include <memory>
#include <utility>

#include "fs-server/ops/ops.h"

namespace tripwire::fs::ops {
namespace {

bool ToRequest(const OpContext& ctx, const pb::Lock& op, LockManager::Request* out) {
  if (op.kind() != pb::LOCK_KIND_POSIX && op.kind() != pb::LOCK_KIND_FLOCK) return false;
  if (op.start() > INT64_MAX) return false;
  out->kind = op.kind() == pb::LOCK_KIND_POSIX ? LockManager::Kind::kPosix
                                               : LockManager::Kind::kFlock;
  out->exclusive = op.type() == pb::LOCK_TYPE_WRITE;
  out->owner = {ctx.session.id, op.owner()};
  out->pid = op.pid();
  if (out->kind == LockManager::Kind::kFlock) return true;  // all of the file
  out->start = op.start();
  if (op.length() != 0) {
    if (op.length() - 1 > UINT64_MAX - op.start()) return false;
    out->end = op.start() + (op.length() - 1);
    if (out->end >= INT64_MAX) out->end = UINT64_MAX;
  }
  return true;
}

int FdOf(const Inode& inode) { return inode.open || inode.path ? inode.fd() : -1; }

// Answers a call that left its worker.
void AnswerLater(FileServer& server, std::shared_ptr<rpc::Call> call, uint64_t session,
                 int error) {
  pb::Reply reply;
  reply.set_error(error);
  std::vector<uint8_t> message(reply.ByteSizeLong());
  reply.SerializeWithCachedSizesToArray(message.data());
  server.Answer(std::move(call), message, {}, 0, true, session, {});
}

void Try(FileServer& server, std::shared_ptr<rpc::Call> call, const Inode& inode,
         const LockManager::Request& request) {
  const int error =
      server.stopping() ? EAGAIN : server.locks().Try(inode.id, request, FdOf(inode));
  AnswerLater(server, std::move(call), request.owner.session, error);
}

// Neither the call nor a thread waits: the client hears of the grant by a notice.
int Wait(OpContext& ctx, const Inode& inode, const LockManager::Request& request) {
  const uint64_t session = ctx.session.id;
  const uint64_t wait = ctx.request.lock().wait();
  if (wait == 0) return EINVAL;
  return ctx.server.locks().Wait(
      inode.id, request, wait,
      [&server = ctx.server, session, wait, epoch = ctx.session.lock_epoch](int error) {
        server.TellGrant(session, wait, epoch, error);
      },
      FdOf(inode));
}

int Test(OpContext& ctx, const Inode& inode, const LockManager::Request& request) {
  auto* result = ctx.reply.mutable_lock();
  const auto conflict = ctx.server.locks().Test(inode.id, request, FdOf(inode));
  if (!conflict) return 0;
  result->set_type(conflict->exclusive ? pb::LOCK_TYPE_WRITE : pb::LOCK_TYPE_READ);
  result->set_start(conflict->start);
  result->set_length(conflict->end == UINT64_MAX ? 0 : conflict->end - conflict->start + 1);
  if (conflict->owner.session == ctx.session.id) result->set_pid(conflict->pid);
  return 0;
}

}  // namespace

int Lock(OpContext& ctx) {
  const auto& op = ctx.request.lock();
  if (op.action() == pb::LOCK_ACTION_CANCEL) {
    return ctx.server.locks().Cancel(ctx.session.id, op.wait()) ? 0 : ENOENT;
  }
  auto id = ctx.server.codec().Decode(ctx.exported.id, op.object().handle());
  if (!id) return ESTALE;
  LockManager::Request request;
  if (!ToRequest(ctx, op, &request)) return EINVAL;
  if (op.type() == pb::LOCK_TYPE_UNLOCK) {
    ctx.server.locks().Unlock(*id, request);
    return 0;
  }
  if (op.type() != pb::LOCK_TYPE_READ && op.type() != pb::LOCK_TYPE_WRITE) return EINVAL;
  Inode inode;
  // A lock on what cannot be reached (an opened file, while the server restarts) is a
  // lock among clients.
  const int found = ctx.Find(op.object(), &inode);
  if (found == kWritesFirst) return found;
  if (found != 0) inode = {*id, nullptr, nullptr};
  ctx.reply.Clear();
  if (op.action() == pb::LOCK_ACTION_TEST) return Test(ctx, inode, request);
  if (op.action() != pb::LOCK_ACTION_TRY && op.action() != pb::LOCK_ACTION_WAIT) return EINVAL;
  if (ctx.session.journal) ctx.session.journal->SetHoldsLocks(true);
  if (op.action() == pb::LOCK_ACTION_WAIT) return Wait(ctx, inode, request);
  FileServer& server = ctx.server;
  if (op.reclaim()) {
    Try(server, std::move(ctx.call), inode, request);
  } else {
    server.AfterGrace([&server, call = std::move(ctx.call), inode, request] {
      Try(server, call, inode, request);
    });
  }
  return kParked;
}

int ReclaimDone(OpContext& ctx) {
  ctx.server.ReclaimFinished(ctx.session.id);
  return 0;
}

}  // namespace tripwire::fs::ops
