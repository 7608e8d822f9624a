// SPDX-License-Identifier: BSD-3-Clause
// Extended attributes.
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>

#include "fuse-client/op.h"

namespace tripwire::fuse {
namespace {

constexpr std::string_view kSelinux = "security.selinux";

// Values up to this size travel inside the message.
constexpr size_t kInline = 4096;

// Answers a query for a value (or list) of at most `size` bytes, 0 for its length.
void ReplyValue(Op& op, size_t size) {
  const pb::XattrResult& result = op.reply.xattr();
  if (size == 0) {
    fuse_reply_xattr(op.req, result.size());
    return;
  }
  const char* data = result.value().data();
  size_t length = result.value().size();
  if (op.frame.bulk_reply_capacity != 0 && op.frame.response.bulk_bytes != 0) {
    data = reinterpret_cast<const char*>(op.frame.bulk().data());
    length = op.frame.response.bulk_bytes;
  }
  length = std::min<size_t>(length, result.size());
  if (length > size) {
    fuse_reply_err(op.req, ERANGE);
    return;
  }
  fuse_reply_buf(op.req, data, length);
}

}  // namespace

void FileSystem::GetXattr(fuse_req_t req, fuse_ino_t ino, const char* name,
                          size_t size) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  if (!greeting_.info().xattrs()) {
    fuse_reply_err(req, EOPNOTSUPP);
    return;
  }
  const std::string_view wanted = name;
  if (wanted == kSelinux) {  // the server's labels are not ours
    fuse_reply_err(req, EOPNOTSUPP);
    return;
  }
  if (wanted != kCapability) xattr_asked_ns_.store(MonotonicNs());
  if (KnowsItLacks(node, wanted)) {
    fuse_reply_err(req, ENODATA);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  pb::GetXattr* call = op.call.mutable_getxattr();
  op.Name(node, call->mutable_object()->mutable_handle());
  call->set_name(name);
  call->set_max_bytes(static_cast<uint32_t>(size));
  if (size > kInline) op.frame.bulk_reply_capacity = size;
  if (const int error = op.Call()) {
    if (error == ENODATA && (wanted == kCapability || op.reply.attr().no_xattrs())) {
      ReaderMutexLock gate(&recalls_.gate);
      NoteLacks({op.start_ns, op.recalls_before, op.xattrs_set_before}, node,
                op.reply.attr().no_xattrs(), op.reply.attr_cache_ms());
    }
    fuse_reply_err(req, error);
    return;
  }
  ReplyValue(op, size);
}

void FileSystem::ListXattr(fuse_req_t req, fuse_ino_t ino, size_t size) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  pb::ListXattr* call = op.call.mutable_listxattr();
  op.Name(node, call->mutable_object()->mutable_handle());
  call->set_max_bytes(static_cast<uint32_t>(size));
  if (size > kInline) op.frame.bulk_reply_capacity = size;
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  ReplyValue(op, size);
}

void FileSystem::SetXattr(fuse_req_t req, fuse_ino_t ino, const char* name,
                          const char* value, size_t size, int flags) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  Mutating mutating(node);
  pb::SetXattr* call = op.call.mutable_setxattr();
  op.Name(node, call->mutable_object()->mutable_handle());
  call->set_name(name);
  uint32_t wire_flags = 0;
  if (flags & XATTR_CREATE) wire_flags |= pb::XATTR_FLAG_CREATE;
  if (flags & XATTR_REPLACE) wire_flags |= pb::XATTR_FLAG_REPLACE;
  call->set_flags(wire_flags);
  const iovec bulk = {const_cast<char*>(value), size};
  if (size <= kInline) {
    call->set_value(value, size);
  } else {
    op.frame.bulk_request = {&bulk, 1};
  }
  xattrs_set_.fetch_add(1);
  const int error = op.Call();
  xattrs_set_.fetch_add(1);
  {
    MutexLock lock(&node->mu);
    node->lacks = {};
  }
  if (error == 0 && op.reply.has_attr()) {
    Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kOwnChange,
            op.reply.pre_change());
  }
  fuse_reply_err(req, error);
}

void FileSystem::RemoveXattr(fuse_req_t req, fuse_ino_t ino, const char* name) {
  Node* node = nodes_.Get(ino);
  if (!node) {
    fuse_reply_err(req, ESTALE);
    return;
  }
  Op op(*this, req, Op::Check::kCaller);
  Mutating mutating(node);
  pb::RemoveXattr* call = op.call.mutable_removexattr();
  op.Name(node, call->mutable_object()->mutable_handle());
  call->set_name(name);
  const int error = op.Call();
  if (error == 0 && op.reply.has_attr()) {
    Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kOwnChange,
            op.reply.pre_change());
  }
  fuse_reply_err(req, error);
}

}  // namespace tripwire::fuse
