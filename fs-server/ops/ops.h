// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_OPS_OPS_H_
#define TRIPWIRE_FS_SERVER_OPS_OPS_H_

#include "fs-server/ops/context.h"

// The operations of fs.proto: each reads its part of ctx.request, fills ctx.reply
// and returns 0, an errno or kParked.
namespace tripwire::fs::ops {

// attr_ops.cc
int GetAttr(OpContext& ctx);
int SetAttr(OpContext& ctx);
int Access(OpContext& ctx);
int ReadLink(OpContext& ctx);
// name_ops.cc
int Lookup(OpContext& ctx);
int Remove(OpContext& ctx);
int RmDir(OpContext& ctx);
int Rename(OpContext& ctx);
int Link(OpContext& ctx);
// create_ops.cc
int Create(OpContext& ctx);
int TmpFile(OpContext& ctx);
int MkDir(OpContext& ctx);
int SymLink(OpContext& ctx);
int MkNod(OpContext& ctx);
// dir_ops.cc
int ReadDir(OpContext& ctx);
// open_ops.cc
int Open(OpContext& ctx);
int Close(OpContext& ctx);
// data_ops.cc
int Read(OpContext& ctx);
int Write(OpContext& ctx);
int Commit(OpContext& ctx);
int Sync(OpContext& ctx);
int Fallocate(OpContext& ctx);
int Seek(OpContext& ctx);
int CopyRange(OpContext& ctx);
// xattr_ops.cc
int GetXattr(OpContext& ctx);
int SetXattr(OpContext& ctx);
int ListXattr(OpContext& ctx);
int RemoveXattr(OpContext& ctx);
// fs_ops.cc
int FsStat(OpContext& ctx);
int FsInfo(OpContext& ctx);
int PathConf(OpContext& ctx);
int Null(OpContext& ctx);
void FillFsInfo(const Export& exported, pb::FsInfo* info);
// lock_ops.cc
int Lock(OpContext& ctx);
int ReclaimDone(OpContext& ctx);

}  // namespace tripwire::fs::ops

#endif  // TRIPWIRE_FS_SERVER_OPS_OPS_H_
