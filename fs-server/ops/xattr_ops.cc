// SPDX-License-Identifier: BSD-3-Clause
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "fs-server/ops/ops.h"

namespace tripwire::fs::ops {
namespace {

constexpr size_t kValueMax = 65536;  // XATTR_SIZE_MAX
constexpr size_t kInlineMax = 4096;

int CheckXattrName(const std::string& name) {
  if (name.size() > 255) return ERANGE;
  if (name.empty() || name.find('\0') != std::string::npos) return EINVAL;
  return 0;
}

bool StartsWith(std::string_view name, std::string_view prefix) {
  return name.substr(0, prefix.size()) == prefix;
}

// A server with root's rights must not lend them: trusted and security attributes (file
// capabilities among them) are for root to change.
bool MayChange(const OpContext& ctx, const std::string& name) {
  if (!ctx.server.acts_as_caller() || ctx.caller.uid == 0) return true;
  return StartsWith(name, "user.") || name == "system.posix_acl_access" ||
         name == "system.posix_acl_default";
}

bool MaySee(const OpContext& ctx, std::string_view name) {
  if (name == kHiddenXattr) return false;
  return !ctx.server.acts_as_caller() || ctx.caller.uid == 0 || !StartsWith(name, "trusted.");
}

// Puts the result where the caller has room for it.
int ReplyValue(OpContext& ctx, const char* value, size_t size, uint32_t max_bytes) {
  auto* result = ctx.reply.mutable_xattr();
  result->set_size(static_cast<uint32_t>(size));
  if (max_bytes == 0) return 0;
  if (size > max_bytes) return ERANGE;
  if (size <= ctx.call->bulk_reply_capacity()) {
    ctx.bulk = ctx.call->AllocateBulk(size);
    std::memcpy(ctx.bulk.data(), value, size);
    ctx.bulk_bytes = size;
  } else if (size <= kInlineMax) {
    result->set_value(value, size);
  } else {
    return ERANGE;
  }
  return 0;
}

std::vector<char>& Buffer() {
  thread_local std::vector<char> buffer(kValueMax);
  return buffer;
}

}  // namespace

int GetXattr(OpContext& ctx) {
  const auto& op = ctx.request.getxattr();
  if (const int error = CheckXattrName(op.name()); error != 0) return error;
  if (!MaySee(ctx, op.name())) return ENODATA;
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode); error != 0) return error;
  auto& buffer = Buffer();
  const ssize_t n =
      getxattr(ProcPath(inode.fd()), op.name().c_str(), buffer.data(), buffer.size());
  if (n < 0) {
    const int error = errno;
    if (error == ENODATA && ctx.ReplyAttr(inode) == 0) {
      ctx.reply.mutable_attr()->set_no_xattrs(ctx.HasNoXattrs(inode.fd()));
    }
    return error;
  }
  return ReplyValue(ctx, buffer.data(), static_cast<size_t>(n), op.max_bytes());
}

int ListXattr(OpContext& ctx) {
  const auto& op = ctx.request.listxattr();
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode); error != 0) return error;
  auto& buffer = Buffer();
  const ssize_t n = listxattr(ProcPath(inode.fd()), buffer.data(), buffer.size());
  if (n < 0) return errno;
  size_t kept = 0;
  for (size_t at = 0; at < static_cast<size_t>(n);) {
    const size_t size = strnlen(buffer.data() + at, static_cast<size_t>(n) - at) + 1;
    if (MaySee(ctx, std::string_view(buffer.data() + at, size - 1))) {
      std::memmove(buffer.data() + kept, buffer.data() + at, size);
      kept += size;
    }
    at += size;
  }
  return ReplyValue(ctx, buffer.data(), kept, op.max_bytes());
}

int SetXattr(OpContext& ctx) {
  const auto& op = ctx.request.setxattr();
  if (const int error = CheckXattrName(op.name()); error != 0) return error;
  if ((op.flags() & ~uint32_t{XATTR_CREATE | XATTR_REPLACE}) != 0) return EINVAL;
  if (op.name() == kHiddenXattr) return EOPNOTSUPP;
  if (!MayChange(ctx, op.name())) return EPERM;
  // A private copy: what the kernel checks (ACLs) must be what it stores.
  const auto bulk = ctx.call->bulk_request();
  if (bulk.size() > kValueMax) return E2BIG;
  const std::string value =
      bulk.empty() ? op.value()
                   : std::string(reinterpret_cast<const char*>(bulk.data()), bulk.size());
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode); error != 0) return error;
  const ProcPath path(inode.fd());
  ctx.reply.set_pre_change(ctx.ChangeNow(inode.fd()));
  int error = 0;
  if (op.flags() != 0) ctx.Intend({});
  if (setxattr(path, op.name().c_str(), value.data(), value.size(),
               static_cast<int>(op.flags())) != 0) {
    error = errno;
    if (error == EEXIST && ctx.prior) {  // done by an earlier server?
      auto& buffer = Buffer();
      const ssize_t n = getxattr(path, op.name().c_str(), buffer.data(), buffer.size());
      if (n == static_cast<ssize_t>(value.size()) &&
          std::equal(value.begin(), value.end(), buffer.begin())) {
        error = 0;
      }
    }
  }
  if (error == 0) ctx.Changed(inode.id, pb::RECALL_ATTR);
  const int stat_error = ctx.ReplyAttr(inode);
  return error != 0 ? error : stat_error;
}

int RemoveXattr(OpContext& ctx) {
  const auto& op = ctx.request.removexattr();
  if (const int error = CheckXattrName(op.name()); error != 0) return error;
  if (!MayChange(ctx, op.name())) return EPERM;
  Inode inode;
  if (const int error = ctx.Find(op.object(), &inode); error != 0) return error;
  const ProcPath path(inode.fd());
  ctx.reply.set_pre_change(ctx.ChangeNow(inode.fd()));
  Intent intent;
  intent.had_target = getxattr(path, op.name().c_str(), nullptr, 0) >= 0;
  ctx.Intend(intent);
  int error = removexattr(path, op.name().c_str()) == 0 ? 0 : errno;
  if (error == ENODATA && ctx.prior && ctx.prior->had_target != 0) error = 0;
  if (error == 0) ctx.Changed(inode.id, pb::RECALL_ATTR);
  const int stat_error = ctx.ReplyAttr(inode);
  return error != 0 ? error : stat_error;
}

}  // namespace tripwire::fs::ops
