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
  absl::MutexLock guard(&node->mu);
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
                         bool wait) {
  Op op(*this, req, Op::Check::kNone);
  pb::Lock* call = op.call.mutable_lock();
  *call = lock;
  call->set_action(wait ? pb::LOCK_ACTION_WAIT : pb::LOCK_ACTION_TRY);
  op.Name(file->node.get(), file, call->mutable_object());
  op.any_signal_interrupts = wait;
  op.frame.unbounded = wait;
  const int error = op.Call();
  if (error == 0) RecordLock(file, lock);
  if (error == 0 && lock.type() != pb::LOCK_TYPE_UNLOCK) Revalidate(*file->node.get());
  return error;
}

// The wait was given up, but the server may have granted the lock in that instant:
// puts things back to what we know we hold.
void FileSystem::UndoCancelledLock(fuse_req_t req, OpenFile* file,
                                   const pb::Lock& lock) {
  std::vector<HeldLock> held;
  const uint64_t end = LastByte(lock.start(), lock.length());
  {
    absl::MutexLock guard(&file->node->mu);
    if (file->node->locks) {
      for (const HeldLock& h : file->node->locks->locks) {
        if (h.kind == lock.kind() && h.owner == lock.owner() &&
            h.start <= end && h.end >= lock.start()) {
          held.push_back(h);
        }
      }
    }
  }
  pb::Lock undo = lock;
  if (held.empty()) {
    undo.set_type(pb::LOCK_TYPE_UNLOCK);
    CallLock(req, file, undo, false);
  }
  for (const HeldLock& h : held) {
    undo.set_type(h.type);
    undo.set_start(h.start);
    undo.set_length(h.end == UINT64_MAX ? 0 : h.end - h.start + 1);
    CallLock(req, file, undo, false);
  }
}

void FileSystem::WaitForLock(fuse_req_t req, OpenFile* file, const pb::Lock& lock) {
  constexpr absl::Duration kFirstPause = absl::Milliseconds(5);
  constexpr absl::Duration kLongestPause = absl::Milliseconds(100);
  absl::Duration pause = kFirstPause;
  int error = EAGAIN;
  while (error == EAGAIN) {
    if (lock_waiters_.TryPark()) {
      error = CallLock(req, file, lock, true);
      lock_waiters_.Unpark();
      break;
    }
    const bool going_on = lock_waiters_.Pause(pause);
    pause = std::min(pause * 2, kLongestPause);
    error = !going_on || fuse_req_interrupted(req)
                ? EINTR
                : CallLock(req, file, lock, false);
  }
  if (error == EINTR) UndoCancelledLock(req, file, lock);
  fuse_reply_err(req, error);
}

void FileSystem::AnswerLock(fuse_req_t req, OpenFile* file, const pb::Lock& lock,
                            bool wait) {
  const int error = CallLock(req, file, lock, false);
  if (error != EAGAIN || !wait) {
    fuse_reply_err(req, error);
    return;
  }
  lock_waiters_.Start(
      [this, req, file, lock] { WaitForLock(req, file, lock); });
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
    absl::MutexLock guard(&file->node->mu);
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
  return CallLock(req, file, unlock, false);
}

}  // namespace tripwire::fuse
