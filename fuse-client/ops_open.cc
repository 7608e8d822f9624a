// SPDX-License-Identifier: BSD-3-Clause
// Opening, creating and closing files.
#include <fcntl.h>

#include <cerrno>

#include "fuse-client/held_locks.h"
#include "fuse-client/op.h"

namespace tripwire::fuse {
namespace {

constexpr int kOpenedToExecute = 0x20;  // __FMODE_EXEC, as execve(2) passes it

uint32_t OpenFlagsOf(int linux_flags) {
  uint32_t flags = 0;
  switch (linux_flags & O_ACCMODE) {
    case O_RDONLY: flags = pb::OPEN_READ; break;
    case O_WRONLY: flags = pb::OPEN_WRITE; break;
    default: flags = pb::OPEN_READ | pb::OPEN_WRITE; break;
  }
  if (linux_flags & O_TRUNC) flags |= pb::OPEN_TRUNCATE;
  if (linux_flags & O_NOATIME) flags |= pb::OPEN_NOATIME;
  if (linux_flags & kOpenedToExecute) flags |= pb::OPEN_EXEC;
  // Not OPEN_APPEND: written-back pages of a mapping come through the same state;
  // each appending write says so itself. Not OPEN_DIRECT or OPEN_SYNC: the former
  // is about this host's cache, and syncing is asked for by write or commit.
  return flags;
}

}  // namespace

OpenFile* FileSystem::MakeOpenFile(const Op& op, Node* node, uint64_t state,
                                   int linux_flags, bool* keep_cache) {
  auto* file = new OpenFile;
  file->state = state;
  file->node = nodes_.Ref(node);
  file->flags = OpenFlagsOf(linux_flags);
  file->uid = op.caller.uid;
  file->gid = op.caller.gid;
  file->append = (linux_flags & O_APPEND) != 0;
  const uint64_t change = op.reply.attr().change();
  if (linux_flags & O_TRUNC) node->ChangedBeside();
  MutexLock lock(&node->mu);
  const bool promised = node->lease_until_ns > MonotonicNs();
  *keep_cache = node->has_pages && node->pages_change != 0 && change != 0 &&
                (node->pages_change == change || promised);
  // Otherwise the kernel drops them now; the next read or write brings new ones.
  if (*keep_cache) {
    node->pages_change = change;
  } else {
    node->has_pages = false;
  }
  file->next = node->opens;
  if (node->opens) node->opens->prev = file;
  node->opens = file;
  lease_keeper_.Active(node);
  return file;
}

void FileSystem::FillOpenReply(const OpenFile* file, bool keep_cache,
                               fuse_file_info* fi) const {
  fi->fh = reinterpret_cast<uint64_t>(file);
  fi->keep_cache = keep_cache;
  // The kernel would put appended data where it thinks the end is; the server may
  // know better, so appended data does not pass through the page cache.
  fi->direct_io = options_.direct_io || file->append;
  fi->noflush = options_.local_posix && !(file->flags & pb::OPEN_WRITE);
}

void FileSystem::CloseState(const std::string& handle, uint64_t state) {
  Frame frame;
  pb::Close* call = frame.call().mutable_close();
  call->set_handle(handle);
  call->set_state(state);
  remote_.Post(frame.call());
}

// Nobody waits for a close: one message, no wait.
void FileSystem::CloseFile(OpenFile* file, const fuse_file_info* fi) {
  Node* node = file->node.get();
  AwaitWritesBehind(node);  // they use the file
  Frame frame;
  pb::Close* call = frame.call().mutable_close();
  call->set_state(file->state);
  {
    MutexLock lock(&node->mu);
    call->set_handle(node->handle);
    if (file->prev) {
      file->prev->next = file->next;
    } else {
      node->opens = file->next;
    }
    if (file->next) file->next->prev = file->prev;
    if (fi && fi->flock_release && node->locks) {
      call->set_unlock_flock(true);
      call->set_flock_owner(fi->lock_owner);
      node->locks->Drop(pb::LOCK_KIND_FLOCK, fi->lock_owner);
    }
    if (node->locks) {
      for (const uint64_t owner : file->lock_owners) {
        if (!node->locks->Has(pb::LOCK_KIND_POSIX, owner)) continue;
        call->set_unlock_posix(true);
        call->set_posix_owner(owner);
        node->locks->Drop(pb::LOCK_KIND_POSIX, owner);
      }
    }
    if (!node->opens) {
      node->locks.reset();
      if (node->behind) node->behind->until_ns = 0;  // as the server has it
    }
  }
  remote_.Post(frame.call());
  delete file;
}

void FileSystem::Open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  pb::Open* call = op.call.mutable_open();
  const uint64_t state = NextState();
  op.Name(node, call->mutable_handle());
  call->set_state(state);
  call->set_flags(OpenFlagsOf(fi->flags));
  if (const int error = op.Call()) {
    // The server may have opened it all the same.
    if (error == EINTR || error == options_.patience.error) {
      CloseState(node->Handle(), state);
    }
    fuse_reply_err(req, error);
    return;
  }
  if (fi->flags & O_TRUNC) unstable_.Discard(node, 0, UINT64_MAX);
  bool keep_cache = false;
  OpenFile* file = MakeOpenFile(op, node, state, fi->flags, &keep_cache);
  Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kOwnChange,
          op.reply.attr().change());
  FillOpenReply(file, keep_cache, fi);
  if (fuse_reply_open(req, fi) != 0) CloseFile(file, nullptr);
}

void FileSystem::Create(fuse_req_t req, fuse_ino_t parent, const char* name,
                        mode_t mode, fuse_file_info* fi) {
  Node* dir = nodes_.Get(parent);
  if (!dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  MutatingNames mutating(dir, name);
  pb::Create* call = op.call.mutable_create();
  const uint64_t state = NextState();
  op.Name(dir, call->mutable_dir());
  call->set_name(name);
  call->set_how(fi->flags & O_EXCL ? pb::CREATE_GUARDED : pb::CREATE_UNCHECKED);
  call->set_mode(mode & 07777);
  call->set_state(state);
  call->set_flags(OpenFlagsOf(fi->flags));
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  fuse_entry_param entry = {};
  Node* node = nullptr;
  if (!MakeEntry(op, dir, name, &entry, &node)) {
    fuse_reply_err(req, EIO);
    return;
  }
  if (node->type != S_IFREG) {  // someone else's object, and we asked for no state
    nodes_.Forget(entry.ino, 1);
    fuse_reply_err(req, EEXIST);
    return;
  }
  if (fi->flags & O_TRUNC) unstable_.Discard(node, 0, UINT64_MAX);
  KeepDirectory(op, mutating, dir);
  bool keep_cache = false;
  OpenFile* file = MakeOpenFile(op, node, state, fi->flags, &keep_cache);
  Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kOwnChange,
          op.reply.attr().change());
  FillOpenReply(file, keep_cache, fi);
  int sent;
  {
    ReaderMutexLock gate(&recalls_.gate);
    if (recalls_.RecalledSince(op.recalls_before, op.reply.handle())) {
      entry.attr_timeout = 0;
    }
    if (recalls_.RecalledSince(op.recalls_before, dir->Handle())) {
      entry.entry_timeout = 0;
    }
    node->attributes_given.store(true);
    if (op.reply.open().created()) {  // perhaps with an ACL, from its directory
      NoteLacks({op.start_ns, op.recalls_before, op.xattrs_set_before}, node, false,
                op.reply.attr_cache_ms());
    }
    sent = fuse_reply_create(req, &entry, fi);
  }
  if (sent != 0) {
    CloseFile(file, nullptr);
    nodes_.Forget(entry.ino, 1);
  }
}

FileSystem::TmpFileResult FileSystem::TmpFile(const fuse_ctx& caller,
                                              fuse_ino_t parent, mode_t mode,
                                              int flags) {
  TmpFileResult result;
  Node* dir = nodes_.Get(parent);
  if (!dir) {
    result.error = ESTALE;
    return result;
  }
  Op op(*this, caller, Op::Check::kCaller);
  pb::TmpFile* call = op.call.mutable_tmpfile();
  const uint64_t state = NextState();
  op.Name(dir, call->mutable_dir());
  call->set_mode(mode & 07777);
  call->set_state(state);
  call->set_flags(OpenFlagsOf(flags & ~O_TRUNC));
  call->set_exclusive(flags & O_EXCL);
  result.error = op.Call();
  if (result.error != 0) return result;
  Node* node = nullptr;
  if (!MakeEntry(op, nullptr, {}, &result.entry, &node) || node->type != S_IFREG) {
    result.error = EIO;
    return result;
  }
  bool keep_cache = false;
  OpenFile* file = MakeOpenFile(op, node, state, flags, &keep_cache);
  result.fh = reinterpret_cast<uint64_t>(file);
  node->attributes_given.store(true);
  return result;
}

void FileSystem::DropTmpFile(const TmpFileResult& result) {
  CloseFile(reinterpret_cast<OpenFile*>(result.fh), nullptr);
  nodes_.Forget(result.entry.ino, 1);
}

// Runs at each close(2) of a descriptor. No call to the server unless the process
// holds byte-range locks on the file. Reports what writing behind, and sending again, met.
void FileSystem::Flush(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  auto* file = reinterpret_cast<OpenFile*>(fi->fh);
  int error = AwaitWritesBehind(req, file->node.get());
  if (const int unlock = DropPosixLocks(req, file, fi->lock_owner)) error = unlock;
  if (const int late = unstable_.TakeError(file->node.get())) error = late;
  fuse_reply_err(req, error);
}

void FileSystem::Release(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  CloseFile(reinterpret_cast<OpenFile*>(fi->fh), fi);
  fuse_reply_err(req, 0);
}

}  // namespace tripwire::fuse
