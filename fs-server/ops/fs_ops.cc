// SPDX-License-Identifier: BSD-3-Clause
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "fs-server/ops/ops.h"

namespace tripwire::fs::ops {

int Null(OpContext&) { return 0; }

int FsStat(OpContext& ctx) {
  Inode inode;
  if (const int error = ctx.Find(ctx.request.fsstat().handle(), &inode); error != 0) return error;
  struct statfs sfs;
  if (fstatfs(inode.fd(), &sfs) != 0) return errno;
  auto* out = ctx.reply.mutable_fsstat();
  out->set_block_size(static_cast<uint64_t>(sfs.f_bsize));
  out->set_fragment_size(static_cast<uint64_t>(sfs.f_frsize != 0 ? sfs.f_frsize : sfs.f_bsize));
  out->set_blocks(sfs.f_blocks);
  out->set_blocks_free(sfs.f_bfree);
  out->set_blocks_available(sfs.f_bavail);
  out->set_files(sfs.f_files);
  out->set_files_free(sfs.f_ffree);
  out->set_files_available(sfs.f_ffree);
  out->set_name_max(static_cast<uint32_t>(sfs.f_namelen));
  uint64_t fsid = 0;
  std::memcpy(&fsid, &sfs.f_fsid, sizeof(fsid));
  out->set_fsid(fsid);
  out->set_flags(static_cast<uint64_t>(sfs.f_flags) | (ctx.session.read_only ? 1 /* ST_RDONLY */ : 0));
  out->set_type(static_cast<uint64_t>(sfs.f_type));
  return 0;
}

void FillFsInfo(const Export& exported, pb::FsInfo* info) {
  const rpc::ServerOptions options = FileServer::RpcOptions();
  info->set_read_max(options.bulk_bytes);
  info->set_read_preferred(options.bulk_bytes);
  info->set_write_max(options.bulk_bytes);
  info->set_write_preferred(options.bulk_bytes);
  info->set_readdir_preferred(64 * 1024);
  info->set_file_size_max(INT64_MAX);
  info->set_time_delta_ns(1);
  info->set_links(true);
  info->set_symlinks(true);
  info->set_homogeneous(false);
  info->set_can_set_time(true);
  info->set_xattrs(true);
  info->set_locks(true);
  info->set_message_max(options.message_bytes);
  static_cast<void>(exported);
}

int FsInfo(OpContext& ctx) {
  FillFsInfo(ctx.exported, ctx.reply.mutable_fsinfo());
  return 0;
}

int PathConf(OpContext& ctx) {
  Inode inode;
  if (const int error = ctx.Find(ctx.request.pathconf().handle(), &inode); error != 0) return error;
  struct statfs sfs;
  if (fstatfs(inode.fd(), &sfs) != 0) return errno;
  auto* out = ctx.reply.mutable_pathconf();
  errno = 0;
  const long links = fpathconf(inode.fd(), _PC_LINK_MAX);
  out->set_link_max(links > 0 ? static_cast<uint32_t>(links) : INT_MAX);
  out->set_name_max(static_cast<uint32_t>(sfs.f_namelen));
  out->set_no_trunc(true);
  out->set_chown_restricted(true);
  out->set_case_preserving(true);
  out->set_path_max(PATH_MAX);
  out->set_pipe_buf(PIPE_BUF);
  return 0;
}

}  // namespace tripwire::fs::ops
