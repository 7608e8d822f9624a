// SPDX-License-Identifier: BSD-3-Clause
// Byte-range and whole-file locks, kept by the server.
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fuse-client/held_locks.h"
#include "fuse-client/op.h"

namespace tripwire::fuse {
namespace {

pb::LockType TypeOf(int linux_type) {
  switch (linux_type) {
    case F_RDLCK: return pb::LOCK_TYPE_READ;
    case F_WRLCK: return pb::LOCK_TYPE_WRITE;
    default: return pb::LOCK_TYPE_UNLOCK;
  }
}

uint64_t LastByte(uint64_t start, uint64_t length) {
  return length == 0 || length - 1 > UINT64_MAX - start ? UINT64_MAX
                                                        : start + length - 1;
}

// The library turns "to the end of the file" into the largest offset.
pb::Lock PosixLock(const struct flock& lock, uint64_t owner) {
  pb::Lock out;
  out.set_kind(pb::LOCK_KIND_POSIX);
  out.set_type(TypeOf(lock.l_type));
  out.set_owner(owner);
  out.set_pid(static_cast<uint32_t>(lock.l_pid));
  out.set_start(static_cast<uint64_t>(lock.l_start));
  const uint64_t length = static_cast<uint64_t>(lock.l_len);
  const bool to_end = lock.l_len == 0 || lock.l_start > INT64_MAX - lock.l_len;
  out.set_length(to_end ? 0 : length);
  return out;
}

}  // namespace

void FileSystem::GetLk(fuse_req_t req, fuse_ino_t, fuse_file_info* fi,
                       struct flock* wanted) {
  auto* file = reinterpret_cast<OpenFile*>(fi->fh);
  Op op(*this, req, Op::Check::kNone);
  pb::Lock* call = op.call.mutable_lock();
  *call = PosixLock(*wanted, fi->lock_owner);
  call->set_action(pb::LOCK_ACTION_TEST);
  op.Name(file->node.get(), file, call->mutable_object());
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  const pb::LockResult& found = op.reply.lock();
  struct flock out = *wanted;
  if (found.type() == pb::LOCK_TYPE_UNLOCK) {
    out.l_type = F_UNLCK;
  } else {
    out.l_type = found.type() == pb::LOCK_TYPE_WRITE ? F_WRLCK : F_RDLCK;
    out.l_whence = SEEK_SET;
    out.l_start = static_cast<off_t>(found.start());
    out.l_len = static_cast<off_t>(found.length());
    out.l_pid = static_cast<pid_t>(found.pid());
  }
  fuse_reply_lock(req, &out);
}

// Remembers a granted lock, to reclaim it should the server restart.
void FileSystem::RecordLock(OpenFile* file, const pb::Lock& lock) {
  Node* const node = file->node.get();
  MutexLock guard(&node->mu);
  if (lock.kind() == pb::LOCK_KIND_POSIX && lock.type() != pb::LOCK_TYPE_UNLOCK &&
      std::find(file->lock_owners.begin(), file->lock_owners.end(), lock.owner()) ==
          file->lock_owners.end()) {
    file->lock_owners.push_back(lock.owner());
  }
  if (!node->locks) {
    if (lock.type() == pb::LOCK_TYPE_UNLOCK) return;
    node->locks = std::make_unique<HeldLocks>();
  }
  HeldLock held;
  held.kind = lock.kind();
  held.type = lock.type();
  held.owner = lock.owner();
  held.pid = lock.pid();
  held.start = lock.start();
  held.end = LastByte(lock.start(), lock.length());
  node->locks->Apply(held);
}

int FileSystem::CallLock(fuse_req_t req, OpenFile* file, const pb::Lock& lock,
                         uint64_t* epoch) {
  const bool wait = lock.action() == pb::LOCK_ACTION_WAIT;
  for (;;) {
    const uint64_t asked_in = lock_waiters_.epoch();
    Op op(*this, req, Op::Check::kNone);
    pb::Lock* call = op.call.mutable_lock();
    *call = lock;
    op.Name(file->node.get(), file, call->mutable_object());
    op.any_signal_interrupts = wait;
    op.frame.unbounded = wait;
    const int error = op.Call();
    if (epoch) *epoch = asked_in;
    if (error != 0) return error;
    // If the server restarted meanwhile, it may or may not know: tell it again.
    if (lock_waiters_.IfStill(asked_in, [&] { RecordLock(file, lock); })) break;
  }
  if (lock.type() != pb::LOCK_TYPE_UNLOCK) Revalidate(*file->node.get());
  return 0;
}

// The wait was given up, but the server may have granted the lock in that instant:
// puts things back to what we know we hold.
void FileSystem::UndoLock(const LockWait& wait) {
  const pb::Lock& lock = wait.lock;
  std::vector<HeldLock> held;
  const uint64_t end = LastByte(lock.start(), lock.length());
  {
    MutexLock guard(&wait.node->mu);
    if (wait.node->locks) {
      for (const HeldLock& h : wait.node->locks->locks) {
        if (h.kind == lock.kind() && h.owner == lock.owner() &&
            h.start <= end && h.end >= lock.start()) {
          held.push_back(h);
        }
      }
    }
  }
  pb::Lock undo = lock;
  undo.set_action(pb::LOCK_ACTION_TRY);
  const auto call = [&] {
    Frame frame;
    *frame.call().mutable_lock() = undo;
    frame.call().mutable_lock()->mutable_object()->set_handle(wait.node->Handle());
    remote_.Invoke(frame, lock_waiters_.cancel());
  };
  if (held.empty()) {
    undo.set_type(pb::LOCK_TYPE_UNLOCK);
    call();
  }
  for (const HeldLock& h : held) {
    undo.set_type(h.type);
    undo.set_start(h.start);
    undo.set_length(h.end == UINT64_MAX ? 0 : h.end - h.start + 1);
    call();
  }
}

// The end of a wait that was taken. May make calls.
void FileSystem::AnswerWait(LockWait& wait, int error) {
  if (error == 0) Revalidate(*wait.node.get());
  fuse_req_interrupt_func(wait.req, nullptr, nullptr);  // it has returned after this
  fuse_reply_err(wait.req, error);
  lock_waiters_.Answered();
}

void FileSystem::AnswerWaitLater(LockWaiters::Ref wait, int error) {
  lock_waiters_.Run([this, wait = std::move(wait), error] { AnswerWait(*wait, error); });
}

// Tells the server, without waiting, that nobody waits any more. While it has the
// request in its queue, the process gets EINTR when the server has let it go, or the
// lock, if that was granted just before; that is known within a second.
void FileSystem::CancelWait(const LockWaiters::Ref& wait) {
  constexpr uint64_t kSoon = 1 * kSecond;
  if (!remote_.client()->connected()) return GiveUpWait(wait, EINTR);
  pb::Call call;
  call.mutable_lock()->set_action(pb::LOCK_ACTION_CANCEL);
  call.mutable_lock()->set_wait(wait->id);
  remote_.Post(call, kSoon, [this, wait](int error) {
    if (error == ENOENT) return;  // its grant comes
    if (error == 0) {
      if (lock_waiters_.Take(wait)) AnswerWaitLater(wait, EINTR);
    } else {
      GiveUpWait(wait, EINTR);
    }
  });
}

// The process is not kept waiting for what the server will say. Should it have granted
// the lock, it is given back.
void FileSystem::GiveUpWait(const LockWaiters::Ref& wait, int error) {
  const uint64_t epoch = lock_waiters_.epoch();
  if (!lock_waiters_.Take(wait)) return;
  AnswerWaitLater(wait, error);
  pb::Call call;
  call.mutable_lock()->set_action(pb::LOCK_ACTION_CANCEL);
  call.mutable_lock()->set_wait(wait->id);
  remote_.Post(call, kNever, [this, wait, epoch](int answer) {
    if (answer != ENOENT || epoch != lock_waiters_.epoch()) return;
    lock_waiters_.Run([this, wait] { UndoLock(*wait); });
  });
}

void FileSystem::OnLockInterrupt(fuse_req_t, void* data) {
  auto* wait = static_cast<LockWait*>(data);
  LockWaiters& waiters = wait->fs->lock_waiters_;
  if (!waiters.Interrupt(wait)) return;
  // Nothing that may end the wait here and now: the library holds a lock of the request.
  if (LockWaiters::Ref ref = waiters.Find(wait->id)) {
    waiters.Run([fs = wait->fs, ref] { fs->CancelWait(ref); });
  }
}

// Asks for the lock. If the server has the request wait, nobody here does: the process
// gets its answer from OnLockGrant.
void FileSystem::WaitForLock(fuse_req_t req, OpenFile* file, const pb::Lock& lock) {
  const LockWaiters::Ref wait =
      lock_waiters_.Add(this, req, file, nodes_.Ref(file->node.get()), lock);
  if (!wait) {
    fuse_reply_err(req, EINTR);
    return;
  }
  for (;;) {
    uint64_t epoch = 0;
    const int error = CallLock(req, file, wait->lock, &epoch);
    if (error == EINTR || error == options_.patience.error) {
      return GiveUpWait(wait, error);  // it may have been asked all the same
    }
    if (error != EINPROGRESS) {
      if (lock_waiters_.Take(wait)) AnswerWait(*wait, error);
      return;
    }
    // Before it can be granted and so answered.
    fuse_req_interrupt_func(req, &FileSystem::OnLockInterrupt, wait.get());
    switch (lock_waiters_.Queued(wait, epoch)) {
      case LockWaiters::Next::kAskAgain:
        continue;
      case LockWaiters::Next::kCancel:
        return CancelWait(wait);
      case LockWaiters::Next::kGranted:
        return EndWait(wait->id, epoch, wait->error);
      case LockWaiters::Next::kWait:
        return;
    }
  }
}

void FileSystem::EndWait(uint64_t id, uint64_t epoch, int error) {
  LockWaiters::Ref wait =
      lock_waiters_.Granted(id, epoch, error, [this](const LockWait& granted) {
        RecordLock(granted.file, granted.lock);
      });
  // Not on the thread that takes notices: there, nothing may wait for the server.
  if (wait) AnswerWaitLater(std::move(wait), error);
}

void FileSystem::OnLockGrant(const pb::LockGrant& grant) {
  EndWait(grant.wait(), grant.epoch(), grant.error());
}

// The server restarted, and has been told what we hold: now what we wait for.
void FileSystem::AskForLocksAgain(uint64_t epoch) {
  for (const LockWaiters::Ref& wait : lock_waiters_.AllQueued()) {
    Frame frame;
    frame.during_recovery = true;
    *frame.call().mutable_lock() = wait->lock;
    frame.call().mutable_lock()->mutable_object()->set_handle(wait->node->Handle());
    const int error = remote_.Invoke(frame, nullptr);
    if (error != EINPROGRESS) EndWait(wait->id, epoch, error);
  }
}

void FileSystem::AnswerLock(fuse_req_t req, OpenFile* file, const pb::Lock& lock,
                            bool wait) {
  if (wait && lock.type() != pb::LOCK_TYPE_UNLOCK) return WaitForLock(req, file, lock);
  fuse_reply_err(req, CallLock(req, file, lock));
}

void FileSystem::SetLk(fuse_req_t req, fuse_ino_t, fuse_file_info* fi,
                       struct flock* wanted, bool wait) {
  AnswerLock(req, reinterpret_cast<OpenFile*>(fi->fh),
             PosixLock(*wanted, fi->lock_owner), wait);
}

void FileSystem::FLock(fuse_req_t req, fuse_ino_t, fuse_file_info* fi,
                       int operation) {
  pb::Lock lock;
  lock.set_kind(pb::LOCK_KIND_FLOCK);
  lock.set_owner(fi->lock_owner);
  lock.set_pid(static_cast<uint32_t>(fuse_req_ctx(req)->pid));
  switch (operation & ~LOCK_NB) {
    case LOCK_SH: lock.set_type(pb::LOCK_TYPE_READ); break;
    case LOCK_EX: lock.set_type(pb::LOCK_TYPE_WRITE); break;
    default: lock.set_type(pb::LOCK_TYPE_UNLOCK); break;
  }
  AnswerLock(req, reinterpret_cast<OpenFile*>(fi->fh), lock,
             (operation & LOCK_NB) == 0);
}

int FileSystem::DropPosixLocks(fuse_req_t req, OpenFile* file, uint64_t owner) {
  {
    MutexLock guard(&file->node->mu);
    auto& owners = file->lock_owners;
    owners.erase(std::remove(owners.begin(), owners.end(), owner), owners.end());
    if (!file->node->locks || !file->node->locks->Has(pb::LOCK_KIND_POSIX, owner)) {
      return 0;
    }
  }
  pb::Lock unlock;
  unlock.set_kind(pb::LOCK_KIND_POSIX);
  unlock.set_type(pb::LOCK_TYPE_UNLOCK);
  unlock.set_owner(owner);
  return CallLock(req, file, unlock);
}

}  // namespace tripwire::fuse
