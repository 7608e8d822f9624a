// SPDX-License-Identifier: BSD-3-Clause
// Looking up and describing objects.
#include <sys/statvfs.h>

#include <cerrno>

#include "fuse-client/op.h"

namespace tripwire::fuse {

// One call, or none for a name known not to exist. Replies: entry, negative entry (no
// ino) when the server lets us remember that the name is free, error.
void FileSystem::Lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Node* dir = nodes_.Get(parent);
  const std::string_view wanted = name;
  if (!dir) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  if (wanted == "." || wanted == "..") {  // from a file server above us
    LookupDots(req, dir, wanted == "..");
    return;
  }
  if (AnswerKnownAbsent(req, dir, wanted)) return;
  Op op(*this, req, Op::Check::kCaller);
  pb::Lookup* call = op.call.mutable_lookup();
  op.Name(dir, call->mutable_dir());
  call->set_name(name);
  call->set_xattrs(XattrsAreWanted());
  const bool knows_names = KnowsNames(dir);
  call->set_dir_change(knows_names);
  const int error = op.Call();
  if (knows_names) NoteLookedIn(op, dir, error == 0 || error == ENOENT);
  if (error == 0) {
    ReplyEntry(op, dir, wanted);
    return;
  }
  if (error != ENOENT || op.reply.name_cache_ms() == 0) {
    fuse_reply_err(req, error);
    return;
  }
  size_t listing_bytes = 0;
  const NodeRef missed = MissedOften(dir, &listing_bytes);
  const fuse_ctx caller = op.caller;
  ReplyAbsent(op, dir);
  if (missed) ListNames(caller, missed, listing_bytes);
}

void FileSystem::ReplyAbsent(Op& op, Node* dir) {
  fuse_entry_param entry = {};
  ReaderMutexLock gate(&recalls_.gate);
  entry.entry_timeout = TimeoutsFor(op, false, 0, op.reply.name_cache_ms()).entry;
  if (entry.entry_timeout > 0 &&
      !recalls_.RecalledSince(op.recalls_before, dir->Handle())) {
    fuse_reply_entry(op.req, &entry);
  } else {
    fuse_reply_err(op.req, ENOENT);
  }
}

// "." and ".." of a node by its number: what NFS export and open_by_handle_at(2)
// ask. Known nodes only; one the kernel has forgotten is stale.
void FileSystem::LookupDots(fuse_req_t req, Node* dir, bool parent) {
  NodeRef node = nodes_.Acquire(dir->id);
  if (node && parent && dir->id != NodeTable::kRootId) {
    uint64_t id;
    uint32_t generation;
    {
      MutexLock lock(&dir->mu);
      id = dir->parent_id;
      generation = dir->parent_generation;
    }
    node = nodes_.Acquire(id);
    if (node && node->generation != generation) node = {};
  }
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kNone);
  op.NameOpen(node.get(), op.call.mutable_getattr()->mutable_object());
  const int error = op.Call();
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  fuse_entry_param entry = {};
  entry.ino = node->id;
  entry.generation = node->generation;
  FillStat(op.reply.attr(), &entry.attr);
  const std::string handle = node->Handle();
  nodes_.Enter({handle, node->ino, node->fsid, node->type}, nullptr, {});
  if (fuse_reply_entry(req, &entry) != 0) nodes_.Forget(entry.ino, 1);
}

void FileSystem::Forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups) {
  nodes_.Forget(ino, lookups);
  fuse_reply_none(req);
}

void FileSystem::ForgetMulti(fuse_req_t req, size_t count,
                             fuse_forget_data* forgets) {
  for (size_t i = 0; i < count; ++i) {
    nodes_.Forget(forgets[i].ino, forgets[i].nlookup);
  }
  fuse_reply_none(req);
}

void FileSystem::GetAttr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  if (AnswerKnownAttr(req, node)) return;
  Op op(*this, req, Op::Check::kNone);
  op.NameOpen(node, op.call.mutable_getattr()->mutable_object());
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kLook);
  ReplyAttr(op, node);
}

int FileSystem::StatX(const fuse_ctx& caller, fuse_ino_t ino, pb::Attr* attr,
                      struct stat* basic, double* timeout_s) {
  Node* node = nodes_.Get(ino);
  if (!node) return ESTALE;
  Op op(*this, caller, Op::Check::kNone);
  op.NameOpen(node, op.call.mutable_getattr()->mutable_object());
  if (const int error = op.Call()) return error;
  if ((op.reply.attr().mode() & S_IFMT) != node->type) return ESTALE;
  Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kLook);
  *attr = op.reply.attr();
  FillStat(*attr, basic);
  ReaderMutexLock gate(&recalls_.gate);
  *timeout_s = TimeoutsFor(op, node->type == S_IFDIR, op.reply.attr_cache_ms(), 0).attr;
  if (recalls_.RecalledSince(op.recalls_before, node->Handle())) *timeout_s = 0;
  node->attributes_given.store(true);
  return 0;
}

namespace {

void FillSetAttr(const struct stat& attr, int to_set, pb::SetAttr* call) {
  uint32_t fields = 0;
  if (to_set & FUSE_SET_ATTR_MODE) {
    fields |= pb::SET_MODE;
    call->set_mode(attr.st_mode & 07777);
  }
  if (to_set & FUSE_SET_ATTR_UID) {
    fields |= pb::SET_UID;
    call->set_uid(attr.st_uid);
  }
  if (to_set & FUSE_SET_ATTR_GID) {
    fields |= pb::SET_GID;
    call->set_gid(attr.st_gid);
  }
  if (to_set & FUSE_SET_ATTR_SIZE) {
    fields |= pb::SET_SIZE;
    call->set_size(static_cast<uint64_t>(attr.st_size));
    if (current_request.kill_suidgid) fields |= pb::SET_KILL_SUIDGID;
  }
  if (to_set & FUSE_SET_ATTR_ATIME_NOW) {
    fields |= pb::SET_ATIME_NOW;
  } else if (to_set & FUSE_SET_ATTR_ATIME) {
    fields |= pb::SET_ATIME;
    call->set_atime_s(attr.st_atim.tv_sec);
    call->set_atime_ns(static_cast<uint32_t>(attr.st_atim.tv_nsec));
  }
  if (to_set & FUSE_SET_ATTR_MTIME_NOW) {
    fields |= pb::SET_MTIME_NOW;
  } else if (to_set & FUSE_SET_ATTR_MTIME) {
    fields |= pb::SET_MTIME;
    call->set_mtime_s(attr.st_mtim.tv_sec);
    call->set_mtime_ns(static_cast<uint32_t>(attr.st_mtim.tv_nsec));
  }
  call->set_fields(fields);
}

}  // namespace

void FileSystem::SetAttr(fuse_req_t req, fuse_ino_t ino, struct stat* attr,
                         int to_set, fuse_file_info* fi) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  Mutating mutating(node);
  pb::SetAttr* call = op.call.mutable_setattr();
  op.Name(node, fi ? reinterpret_cast<OpenFile*>(fi->fh) : nullptr,
          call->mutable_object());
  FillSetAttr(*attr, to_set, call);
  const int error = op.Call();
  if (to_set & FUSE_SET_ATTR_SIZE) {
    // Data beyond the new end must not come back when it is sent again. Even when
    // the call failed it may have got so far.
    unstable_.Discard(node, static_cast<uint64_t>(attr->st_size), UINT64_MAX);
  }
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kOwnChange,
          op.reply.pre_change());
  ReplyAttr(op, node);
}

void FileSystem::ReadLink(fuse_req_t req, fuse_ino_t ino) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kNone);
  op.Name(node, op.call.mutable_readlink()->mutable_handle());
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  const std::string& target = op.reply.target();
  if (target.empty() || target.size() > 4095 ||
      target.find('\0') != std::string::npos) {
    fuse_reply_err(req, EIO);
    return;
  }
  fuse_reply_readlink(req, target.c_str());
}

void FileSystem::Access(fuse_req_t req, fuse_ino_t ino, int mask) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  pb::Access* call = op.call.mutable_access();
  op.Name(node, call->mutable_handle());
  call->set_mask(static_cast<uint32_t>(mask) & 7);  // the bits of access(2)
  fuse_reply_err(req, op.Call());
}

void FileSystem::StatFs(fuse_req_t req, fuse_ino_t ino) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kNone);
  op.Name(node, op.call.mutable_fsstat()->mutable_handle());
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  const pb::FsStatResult& result = op.reply.fsstat();
  struct statvfs out = {};
  out.f_bsize = result.block_size();
  out.f_frsize = result.fragment_size() ? result.fragment_size() : 4096;
  out.f_blocks = result.blocks();
  out.f_bfree = result.blocks_free();
  out.f_bavail = result.blocks_available();
  out.f_files = result.files();
  out.f_ffree = result.files_free();
  out.f_favail = result.files_available();
  out.f_namemax = result.name_max() ? result.name_max() : 255;
  fuse_reply_statfs(req, &out);
}

}  // namespace tripwire::fuse
