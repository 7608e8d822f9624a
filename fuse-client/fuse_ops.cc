// SPDX-License-Identifier: BSD-3-Clause
// The FUSE library's table of operations, each passed on to the FileSystem.
#include <sys/ioctl.h>

#include <cerrno>

#include "fuse-client/file_system.h"

namespace tripwire::fuse {
namespace {

FileSystem& Of(fuse_req_t req) {
  return *static_cast<FileSystem*>(fuse_req_userdata(req));
}

// Wraps a member function `void FileSystem::F(fuse_req_t, Args...)`.
template <auto F>
struct Call;
template <class... Args, void (FileSystem::*F)(fuse_req_t, Args...)>
struct Call<F> {
  static void On(fuse_req_t req, Args... args) { (Of(req).*F)(req, args...); }
};

fuse_lowlevel_ops MakeTable() {
  fuse_lowlevel_ops ops = {};
  ops.init = [](void* userdata, fuse_conn_info* conn) {
    static_cast<FileSystem*>(userdata)->Init(conn);
  };
  ops.lookup = Call<&FileSystem::Lookup>::On;
  ops.forget = Call<&FileSystem::Forget>::On;
  ops.forget_multi = Call<&FileSystem::ForgetMulti>::On;
  ops.getattr = Call<&FileSystem::GetAttr>::On;
  ops.setattr = Call<&FileSystem::SetAttr>::On;
  ops.readlink = Call<&FileSystem::ReadLink>::On;
  ops.access = Call<&FileSystem::Access>::On;
  ops.statfs = Call<&FileSystem::StatFs>::On;
  ops.mknod = Call<&FileSystem::MkNod>::On;
  ops.mkdir = Call<&FileSystem::MkDir>::On;
  ops.unlink = Call<&FileSystem::Unlink>::On;
  ops.rmdir = Call<&FileSystem::RmDir>::On;
  ops.symlink = Call<&FileSystem::SymLink>::On;
  ops.rename = Call<&FileSystem::Rename>::On;
  ops.link = Call<&FileSystem::Link>::On;
  ops.open = Call<&FileSystem::Open>::On;
  ops.create = Call<&FileSystem::Create>::On;
  ops.read = Call<&FileSystem::Read>::On;
  ops.write = Call<&FileSystem::Write>::On;
  ops.flush = Call<&FileSystem::Flush>::On;
  ops.release = Call<&FileSystem::Release>::On;
  ops.fsync = Call<&FileSystem::FSync>::On;
  ops.fallocate = Call<&FileSystem::FAllocate>::On;
  ops.lseek = Call<&FileSystem::LSeek>::On;
  ops.opendir = Call<&FileSystem::OpenDir>::On;
  ops.releasedir = Call<&FileSystem::ReleaseDir>::On;
  ops.fsyncdir = Call<&FileSystem::FSyncDir>::On;
  ops.readdir = [](fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                   fuse_file_info* fi) {
    Of(req).ReadDir(req, ino, size, offset, fi, false);
  };
  ops.readdirplus = [](fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       fuse_file_info* fi) {
    Of(req).ReadDir(req, ino, size, offset, fi, true);
  };
  ops.setxattr = Call<&FileSystem::SetXattr>::On;
  ops.getxattr = Call<&FileSystem::GetXattr>::On;
  ops.listxattr = Call<&FileSystem::ListXattr>::On;
  ops.removexattr = Call<&FileSystem::RemoveXattr>::On;
  ops.getlk = Call<&FileSystem::GetLk>::On;
  ops.setlk = [](fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi,
                 struct flock* lock, int sleep) {
    Of(req).SetLk(req, ino, fi, lock, sleep != 0);
  };
  ops.flock = Call<&FileSystem::FLock>::On;
  ops.ioctl = [](fuse_req_t req, fuse_ino_t, unsigned, void*, fuse_file_info*,
                 unsigned, const void*, size_t, size_t) {
    fuse_reply_err(req, ENOTTY);  // no ioctl means anything across hosts
  };
  ops.copy_file_range = [](fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
                           fuse_file_info* fi_in, fuse_ino_t ino_out,
                           off_t offset_out, fuse_file_info* fi_out, size_t length,
                           int /*flags*/) {
    Of(req).CopyFileRange(req, ino_in, offset_in, fi_in, ino_out, offset_out, fi_out,
                          length);
  };
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& FuseOperations() {
  static const fuse_lowlevel_ops table = MakeTable();
  return table;
}

}  // namespace tripwire::fuse
