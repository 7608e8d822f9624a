// SPDX-License-Identifier: BSD-3-Clause
// Making, removing and renaming names. All of these hold the directory's lock in
// the kernel while they wait, hence `Mutating`.
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <optional>

#include "fuse-client/op.h"

namespace tripwire::fuse {

void FileSystem::MkNod(fuse_req_t req, fuse_ino_t parent, const char* name,
                       mode_t mode, dev_t rdev) {
  Node* dir = nodes_.Get(parent);
  if (!dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  MutatingNames mutating(dir, name);
  pb::MkNod* call = op.call.mutable_mknod();
  op.Name(dir, call->mutable_dir());
  call->set_name(name);
  call->set_mode(mode);
  call->set_rdev_major(major(rdev));
  call->set_rdev_minor(minor(rdev));
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  KeepDirectory(op, mutating, dir);
  ReplyEntry(op, dir, name);
}

void FileSystem::MkDir(fuse_req_t req, fuse_ino_t parent, const char* name,
                       mode_t mode) {
  Node* dir = nodes_.Get(parent);
  if (!dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  MutatingNames mutating(dir, name);
  pb::MkDir* call = op.call.mutable_mkdir();
  op.Name(dir, call->mutable_dir());
  call->set_name(name);
  call->set_mode(mode & 07777);
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  KeepDirectory(op, mutating, dir);
  ReplyEntry(op, dir, name);
}

void FileSystem::SymLink(fuse_req_t req, const char* target, fuse_ino_t parent,
                         const char* name) {
  Node* dir = nodes_.Get(parent);
  if (!dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  MutatingNames mutating(dir, name);
  pb::SymLink* call = op.call.mutable_symlink();
  op.Name(dir, call->mutable_dir());
  call->set_name(name);
  call->set_target(target);
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  KeepDirectory(op, mutating, dir);
  ReplyEntry(op, dir, name);
}

// The inode that lost a name (of unlink or a rename over it) has changed by us.
void FileSystem::ObserveRemoved(Op& op) {
  if (!op.reply.remove().handle().empty() && op.reply.has_attr() &&
      op.reply.remove().ino() == op.reply.attr().ino()) {
    if (NodeRef node = nodes_.Find(op.reply.remove().handle())) {
      node->ChangedBeside();
      Observe(op, node.get(), op.reply.attr(), 0, Cause::kOwnChange);
    }
  }
}

// Of the other one of two that changed places the reply says nothing.
void FileSystem::ChangedBeside(const Node* dir, std::string_view name) {
  nodes_.ForEach([&](Node& node) {
    {
      MutexLock lock(&node.mu);
      if (node.parent_id != dir->id || node.name != name) return;
    }
    node.ChangedBeside();
  });
}

void FileSystem::Unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Node* dir = nodes_.Get(parent);
  if (!dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  MutatingNames mutating(dir, {});
  pb::Remove* call = op.call.mutable_remove();
  op.Name(dir, call->mutable_dir());
  call->set_name(name);
  const int error = op.Call();
  if (error == 0) {
    ObserveRemoved(op);
    KeepDirectory(op, mutating, dir);
  }
  fuse_reply_err(req, error);
}

void FileSystem::RmDir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Node* dir = nodes_.Get(parent);
  if (!dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  MutatingNames mutating(dir, {});
  pb::RmDir* call = op.call.mutable_rmdir();
  op.Name(dir, call->mutable_dir());
  call->set_name(name);
  const int error = op.Call();
  if (error == 0) KeepDirectory(op, mutating, dir);
  fuse_reply_err(req, error);
}

void FileSystem::Rename(fuse_req_t req, fuse_ino_t parent, const char* name,
                        fuse_ino_t new_parent, const char* new_name,
                        unsigned flags) {
  Node* dir = nodes_.Get(parent);
  Node* new_dir = nodes_.Get(new_parent);
  if (!dir || !new_dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  MutatingNames mutating(dir, new_dir == dir ? new_name : "");
  std::optional<MutatingNames> also_mutating;
  if (new_dir != dir) also_mutating.emplace(new_dir, new_name);
  pb::Rename* call = op.call.mutable_rename();
  op.Name(dir, call->mutable_dir());
  call->set_name(name);
  op.Name(new_dir, call->mutable_new_dir());
  call->set_new_name(new_name);
  call->set_flags(flags);  // the numbers of renameat2(2) are the protocol's
  const int error = op.Call();
  if (error == 0) {
    KeepDirectory(op, mutating, dir);
    if (also_mutating) KeepDirectory(op, *also_mutating, new_dir, /*is_second=*/true);
    if (NodeRef replaced = nodes_.Find(op.reply.remove().handle())) {
      replaced->ChangedBeside();
    }
    if (flags & pb::RENAME_FLAG_EXCHANGE) ChangedBeside(new_dir, new_name);
  }
  if (error == 0 && !op.reply.handle().empty()) {
    if (NodeRef node = nodes_.Find(op.reply.handle())) {
      nodes_.Moved(node.get(), new_dir, new_name);
      node->ChangedBeside();
      if (op.reply.has_attr()) {
        Observe(op, node.get(), op.reply.attr(), op.reply.attr_cache_ms(),
                Cause::kOwnChange);
      }
    }
  }
  fuse_reply_err(req, error);
}

void FileSystem::Link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent,
                      const char* new_name) {
  Node* node = nodes_.Get(ino);
  Node* dir = nodes_.Get(new_parent);
  if (!node || !dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  MutatingNames mutating(dir, new_name);
  Mutating also_mutating(node);
  pb::Link* call = op.call.mutable_link();
  op.NameOpen(node, call->mutable_object());  // it may have no name yet (O_TMPFILE)
  op.Name(dir, call->mutable_dir());
  call->set_name(new_name);
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  if (op.reply.handle().empty()) op.frame.reply().set_handle(node->Handle());
  KeepDirectory(op, mutating, dir);
  KeepAttr(op, also_mutating, node, op.reply.attr());
  ReplyEntry(op, dir, new_name);
}

}  // namespace tripwire::fuse
