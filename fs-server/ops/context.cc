// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/ops/context.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "fs-server/attr.h"
#include "nic/base/clock.h"

namespace tripwire::fs {
namespace {

uint64_t NowNs() {
  SystemClock clock;
  return clock.NowNs();
}

// More names than fit are some.
constexpr size_t kXattrNamesBytes = 256;

// What listxattr(2) returned.
bool NoneListed(const char* names, ssize_t n) {
  if (n < 0) return errno == EOPNOTSUPP;
  for (ssize_t at = 0; at < n;) {
    const std::string_view name(names + at, strnlen(names + at, static_cast<size_t>(n - at)));
    if (name != kHiddenXattr) return false;
    at += static_cast<ssize_t>(name.size()) + 1;
  }
  return true;
}

}  // namespace

int CheckName(const std::string& name) {
  if (name.size() > 255) return ENAMETOOLONG;
  if (name.empty() || name == "." || name == "..") return EINVAL;
  if (name == UnnamedFiles::kDirectory) return ENOENT;
  if (name.find('/') != std::string::npos || name.find('\0') != std::string::npos) return EINVAL;
  return 0;
}

int ToOpenFlags(uint32_t flags) {
  int out = O_CLOEXEC | O_NOCTTY;
  switch (flags & (pb::OPEN_READ | pb::OPEN_WRITE)) {
    case pb::OPEN_READ | pb::OPEN_WRITE:
      out |= O_RDWR;
      break;
    case pb::OPEN_WRITE:
      out |= O_WRONLY;
      break;
    default:  // neither: as O_RDONLY, which is what open(2) has for O_PATH-like uses
      out |= O_RDONLY;
  }
  if ((flags & pb::OPEN_TRUNCATE) != 0) {
    if ((flags & pb::OPEN_WRITE) == 0) return -1;
    out |= O_TRUNC;
  }
  if ((flags & pb::OPEN_DIRECT) != 0) out |= O_DIRECT;
  if ((flags & pb::OPEN_DSYNC) != 0) out |= O_DSYNC;
  if ((flags & pb::OPEN_SYNC) != 0) out |= O_SYNC;
  if ((flags & pb::OPEN_NOATIME) != 0) out |= O_NOATIME;
  if ((flags & pb::OPEN_DIRECTORY) != 0) out |= O_DIRECTORY;
  return out;
}

int OpContext::WritesFirst(const FileId& id) {
  if (!server.leases().HasWriters() || server.stopping()) return 0;
  const auto other = server.leases().TakeWriter(id, session.id, NowNs());
  if (!other) return 0;
  written = id;
  writer = *other;
  return kWritesFirst;
}

int OpContext::Find(const std::string& handle, Inode* inode) {
  const int error = FindAnyway(handle, inode);
  return error != 0 ? error : WritesFirst(inode->id);
}

int OpContext::FindAnyway(const std::string& handle, Inode* inode) {
  auto id = server.codec().Decode(exported.id, handle);
  if (!id) return ESTALE;
  inode->id = *id;
  const int error = store.Find(*id, &inode->path);
  if (error != ESTALE) return error;
  // Its last name is gone, but somebody has it open, or had when the server ended.
  if (exported.unnamed->Find(*id, &inode->path) == 0) return 0;
  auto open = server.opens().Find(*id);
  if (!open) return error;
  const int copy = fcntl(open->fd.get(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return errno;
  inode->path = Share(copy);
  return 0;
}

int OpContext::Find(const pb::Object& object, Inode* inode, bool need_state) {
  if (object.state() != 0) {
    inode->open = session.FindOpen(object.state());
    if (inode->open) {
      auto id = server.codec().Decode(exported.id, object.handle());
      if (!id || !(*id == inode->open->id)) return EBADF;
      inode->id = *id;
      return WritesFirst(*id);
    }
    if (need_state) {
      reply.set_state_lost(true);
      return EBADF;
    }
  }
  const int error = Find(object.handle(), inode);
  if (error == ESTALE && object.state() != 0) reply.set_state_lost(true);
  return error;
}

bool OpContext::GrantUnder(const FileId& id, uint8_t what, uint64_t now_ns) {
  const uint64_t lease_ns = uint64_t{server.config().lease_ms} * kMillisecond;
  return lease_ns == 0 ||
         server.leases().Grant(id, session.id, what, now_ns + lease_ns, now_ns);
}

void OpContext::Grant(const FileId& id, uint8_t what) {
  const uint32_t ms = GrantUnder(id, what, NowNs()) ? server.config().lease_ms : 0;
  if ((what & LeaseTable::kInode) != 0) reply.set_attr_cache_ms(ms);
  if ((what & LeaseTable::kNames) != 0) reply.set_name_cache_ms(ms);
}

bool OpContext::GrantWrites(const FileId& id) {
  const uint64_t lease_ns = uint64_t{server.config().lease_ms} * kMillisecond;
  const uint64_t now_ns = NowNs();
  return lease_ns != 0 &&
         server.leases().GrantWrites(id, session.id, now_ns + lease_ns, now_ns);
}

bool OpContext::HasNoXattrs(int fd) {
  char names[kXattrNamesBytes];
  return NoneListed(names, listxattr(ProcPath(fd), names, sizeof(names)));
}

bool OpContext::HasNoXattrs(int dir_fd, const char* name) {
  char path[320];
  char names[kXattrNamesBytes];
  std::snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir_fd, name);
  return NoneListed(names, llistxattr(path, names, sizeof(names)));
}
int OpContext::ReplyAttr(const Inode& inode, bool with_handle, int sync_flags) {
  Grant(inode.id, LeaseTable::kInode);
  struct statx stx;
  if (const int error = StatFd(inode.fd(), &stx, sync_flags); error != 0) return error;
  FillAttr(inode.id, stx, reply.mutable_attr());
  if (with_handle) server.codec().Encode(exported.id, inode.id, reply.mutable_handle());
  return 0;
}

void OpContext::FillAttr(const FileId& id, const struct statx& stx, pb::Attr* attr) const {
  ToAttr(stx, attr);
  if (stx.stx_nlink > 0 && exported.unnamed->Has(id)) attr->set_nlink(stx.stx_nlink - 1);
}

void OpContext::ReplyDirAttr(const Inode& dir, bool is_second) {
  Grant(dir.id, LeaseTable::kNames | LeaseTable::kInode);
  struct statx stx;
  if (StatFd(dir.fd(), &stx) != 0) return;
  ToAttr(stx, is_second ? reply.mutable_dir_attr2() : reply.mutable_dir_attr());
}

void OpContext::Intend(Intent intent) {
  if (intended || session.journal == nullptr) return;
  intended = true;
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  intent.op = static_cast<uint32_t>(request.op_case());
  intent.realtime_ns = now.tv_sec * 1'000'000'000 + now.tv_nsec;
  if (prior) intent = *prior;  // the evidence is from before the first attempt
  session.journal->Begin(call->slot(), call->sequence(), intent);
}

uint64_t OpContext::ChangeNow(int fd) const {
  struct statx stx;
  return StatFd(fd, &stx) == 0 ? ChangeOf(stx) : 0;
}

int OpContext::OpenData(const Inode& inode, uint32_t flags, UniqueFd* fd) {
  struct stat st;
  if (fstat(inode.fd(), &st) != 0) return errno;
  if (S_ISLNK(st.st_mode)) return ELOOP;
  if (S_ISDIR(st.st_mode)) {
    if ((flags & pb::OPEN_WRITE) != 0) return EISDIR;
  } else if ((flags & pb::OPEN_DIRECTORY) != 0) {
    return ENOTDIR;
  } else if (!S_ISREG(st.st_mode)) {
    return ENXIO;  // FIFOs, sockets and devices are the client's own to open
  }
  const int open_flags = ToOpenFlags(flags);
  if (open_flags < 0) return EINVAL;
  const ProcPath path(inode.fd());
  for (int attempt = 0;; ++attempt) {
    fd->reset(open(path, open_flags));
    if (*fd) return 0;
    if (errno == EACCES && (flags & pb::OPEN_EXEC) != 0 &&
        faccessat(inode.fd(), "", X_OK, AT_EACCESS | AT_EMPTY_PATH) == 0 &&
        server.acts_as_caller()) {
      // May be executed, so its text may be read, as far as the client's kernel needs.
      identity::ReadAnything privilege;
      fd->reset(open(path, O_RDONLY | O_CLOEXEC));
      return *fd ? 0 : errno;
    }
    if ((errno != EMFILE && errno != ENFILE) || attempt == 1) return errno;
    store.Purge(true);
  }
}

int OpContext::OpenDataAgain(const Inode& inode, uint32_t flags, UniqueFd* fd) {
  int error = OpenData(inode, flags, fd);
  if (error != EACCES || !server.acts_as_caller()) return error;
  struct statx stx;
  if (StatFd(inode.fd(), &stx) == 0 && stx.stx_uid == caller.uid) {
    error = identity::AssumeSelf();
    if (error == 0) error = OpenData(inode, flags, fd);
  }
  return error;
}

int OpContext::DataFd(const Inode& inode, uint32_t flags, UniqueFd* holder, int* fd) {
  if (inode.open) {
    *fd = inode.open->fd.get();
    return 0;
  }
  const int error = OpenData(inode, flags, holder);
  *fd = holder->get();
  return error;
}

int OpContext::AddOpen(uint64_t state, const FileId& id, UniqueFd fd, uint32_t flags,
                       bool directory) {
  auto file = std::make_shared<OpenFile>();
  file->fd = std::move(fd);
  file->id = id;
  file->session = session.id;
  file->flags = flags;
  file->directory = directory;
  std::shared_ptr<OpenFile> replaced;
  {
    std::lock_guard lock(session.mutex);
    auto& entry = session.opens[state];
    replaced = std::exchange(entry, file);
  }
  server.opens().Add(file);
  if (replaced) server.opens().Remove(replaced);
  reply.mutable_open()->set_state(state);
  return 0;
}

}  // namespace tripwire::fs
