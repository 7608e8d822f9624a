// SPDX-License-Identifier: BSD-3-Clause
// The data of open files.
#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fuse-client/op.h"

namespace tripwire::fuse {
namespace {

// Reads and writes up to this size travel inside the message.
constexpr size_t kInline = 4096;
// Smaller writes are copied when they have to be kept; larger ones keep the buffer
// they came in.
constexpr size_t kKeepWholeBuffer = 128 << 10;

}  // namespace

// One call, one copy: from registered memory to the kernel.
void FileSystem::Read(fuse_req_t req, fuse_ino_t, size_t size, off_t offset,
                      fuse_file_info* fi) {
  auto* file = reinterpret_cast<OpenFile*>(fi->fh);
  Reading reading(file->node.get());
  Op op(*this, req, Op::Check::kNone);
  pb::Read* call = op.call.mutable_read();
  op.Name(file->node.get(), file, call->mutable_object());
  call->set_offset(static_cast<uint64_t>(offset));
  call->set_length(static_cast<uint32_t>(size));
  if (size > kInline) op.frame.bulk_reply_capacity = size;
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  lease_keeper_.Active(file->node.get());
  if (op.reply.has_attr()) {
    // The kernel holds the locks of the pages until it has them, hence not kLook.
    Observe(op, file->node.get(), op.reply.attr(), op.reply.attr_cache_ms(),
            Cause::kData);
  }
  if (size > kInline) {
    const size_t got = std::min<size_t>(op.reply.read().length(),
                                        op.frame.response.bulk_bytes);
    fuse_reply_buf(req, reinterpret_cast<const char*>(op.frame.bulk().data()), got);
  } else {
    const std::string& data = op.reply.read().data();
    fuse_reply_buf(req, data.data(), std::min(data.size(), size));
  }
}

void FileSystem::KeepUnstable(const Op& op, OpenFile* file, const char* data,
                              size_t size, uint64_t offset) {
  // What loses it loses us too: a copy would serve nobody.
  if (same_kernel_.load()) return NoteUnsendable(op, file->node.get());
  UnstableData::Segment segment;
  segment.verifier = op.reply.write().verifier();
  segment.offset = offset;
  segment.length = size;
  segment.uid = file->uid;
  segment.gid = file->gid;
  RequestBuffer* whole = current_request.buffer;
  if (whole && *whole && size >= kKeepWholeBuffer && data > whole->get() &&
      data + size <= whole->get() + kRequestBytes) {
    segment.data_start = static_cast<size_t>(data - whole->get());
    segment.buffer = std::move(*whole);
  } else {
    segment.buffer = MallocBuffer(size);
    if (!segment.buffer) return;  // then a crash of the server loses it, as it may
    std::memcpy(segment.buffer.get(), data, size);
  }
  unstable_.Add(file->node.get(), std::move(segment));
}

// What the server did by itself, or has in the kernel we share, cannot be sent again:
// should it be lost before a commit, the commit must fail.
void FileSystem::NoteUnsendable(const Op& op, Node* node) {
  UnstableData::Segment segment;
  segment.verifier = boot_verifier_.load();
  segment.uid = op.caller.uid;
  segment.gid = op.caller.gid;
  unstable_.Add(node, std::move(segment));
}

// Sends the data; an errno. Once the kernel was answered nobody else will try the rest of
// a short write, and learn why it cannot be written.
int FileSystem::SendData(Op& op, bool is_behind, const char* data, size_t size,
                         size_t* written) {
  pb::Write* call = op.call.mutable_write();
  const uint64_t offset = call->offset();
  // Ours until the server has no more to read in it, whatever becomes of the call.
  if (RequestBuffer* whole = current_request.buffer;
      size > kInline && whole && buffers_.IsShown(data)) {
    op.frame.bulk_owner = std::shared_ptr<char>(std::move(*whole));
  }
  *written = 0;
  do {
    const iovec bulk = {const_cast<char*>(data) + *written, size - *written};
    if (size <= kInline) {
      call->set_data(bulk.iov_base, bulk.iov_len);
    } else {
      op.frame.bulk_request = {&bulk, 1};
    }
    call->set_offset(offset + *written);
    const int error = op.Call();
    if (error != 0) return error;
    const size_t more = std::min<size_t>(op.reply.write().length(), bulk.iov_len);
    if (more == 0 && is_behind && size > 0) return EIO;
    *written += more;
  } while (is_behind && *written < size);
  return 0;
}

// One call. The kernel may hold the locks of the pages being written, unless the write
// goes behind: then the kernel has its answer before the call is made.
void FileSystem::Write(fuse_req_t req, fuse_ino_t, const char* data, size_t size,
                       off_t offset, fuse_file_info* fi) {
  auto* file = reinterpret_cast<OpenFile*>(fi->fh);
  Node* node = file->node.get();
  unstable_.WaitForRoom();
  Op op(*this, req, Op::Check::kNone);
  Mutating mutating(node);
  if (fi->writepage) {  // written back by the kernel: on behalf of who opened it
    op.call.mutable_creds()->set_uid(file->uid);
    op.call.mutable_creds()->set_gid(file->gid);
  }
  pb::Write* call = op.call.mutable_write();
  op.Name(node, file, call->mutable_object());
  const bool append = !fi->writepage && (fi->flags & O_APPEND);
  call->set_offset(static_cast<uint64_t>(offset));
  call->set_append(append);
  if (options_.sync || (fi->flags & O_SYNC) == O_SYNC) {
    call->set_stable(pb::FILE_SYNC);
  } else if (fi->flags & O_DSYNC) {
    call->set_stable(pb::DATA_SYNC);
  }
  call->set_kill_suidgid(current_request.kill_suidgid);
  const bool may_go_behind = !append && !fi->writepage && !options_.direct_io &&
                             !(fi->flags & O_DIRECT) && call->stable() == pb::UNSTABLE;
  // A file that is written at one go, as small ones are, needs none.
  call->set_wants_lease(file->is_written.exchange(true) && may_go_behind);
  WriteBehind behind(node);
  int error = may_go_behind ? behind.Begin(op, call->offset(), size) : 0;
  if (error == 0) error = unstable_.TakeError(node);  // of an earlier one
  if (error != 0) {
    fuse_reply_err(req, error);
    return;
  }
  if (behind.has_begun()) {
    fuse_reply_write(req, size);
    op.GoesBehind();
  }
  size_t written = 0;
  error = SendData(op, behind.has_begun(), data, size, &written);
  if (error != 0) {
    if (behind.has_begun()) {
      FailedBehind(node, error);
    } else {
      fuse_reply_err(req, error);
    }
    return;
  }
  const uint64_t where =
      append ? op.reply.write().offset() : static_cast<uint64_t>(offset);
  NoteWritten(op, mutating, file, {data, written}, where);
  if (append && where != static_cast<uint64_t>(offset)) {
    // Others appended meanwhile: pages the kernel has around there are wrong.
    ForgetPagesLater(node);
  }
  if (!behind.has_begun()) fuse_reply_write(req, written);
}

void FileSystem::NoteWritten(const Op& op, const Mutating& mutating, OpenFile* file,
                             std::string_view data, uint64_t offset) {
  Node* node = file->node.get();
  const pb::WriteResult& result = op.reply.write();
  boot_verifier_.store(result.verifier());  // it changes when data was lost, too
  if (result.committed() == pb::UNSTABLE && !data.empty()) {
    KeepUnstable(op, file, data.data(), data.size(), offset);
  }
  Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kData,
          op.reply.pre_change());
  KeepAttr(op, mutating, node, op.reply.attr());
  NoteWriteLease(op, node);
  ReaderMutexLock gate(&recalls_.gate);
  StillLacks({op.start_ns, op.recalls_before}, node, op.reply.attr_cache_ms());
}

int FileSystem::CommitNode(fuse_req_t req, Node* node, OpenFile* file,
                           bool data_only) {
  if (const int error = AwaitWritesBehind(req, node)) return error;
  const uint64_t mark = unstable_.Mark();
  Op op(*this, req, Op::Check::kNone);
  pb::Commit* call = op.call.mutable_commit();
  op.Name(node, file, call->mutable_object());
  call->set_data_only(data_only);
  if (const int error = op.Call()) return error;
  boot_verifier_.store(op.reply.commit().verifier());
  const int resent =
      unstable_.Committed(node, 0, mark, op.reply.commit().verifier(),
                          [this](Node& n, const UnstableData::Segment& s) {
                            return ResendSegment(n, s, false);
                          });
  const int late = unstable_.TakeError(node);
  return late ? late : resent;
}

void FileSystem::FSync(fuse_req_t req, fuse_ino_t, int data_only,
                       fuse_file_info* fi) {
  auto* file = reinterpret_cast<OpenFile*>(fi->fh);
  fuse_reply_err(req, CommitNode(req, file->node.get(), file, data_only != 0));
}

void FileSystem::FAllocate(fuse_req_t req, fuse_ino_t, int mode, off_t offset,
                           off_t length, fuse_file_info* fi) {
  auto* file = reinterpret_cast<OpenFile*>(fi->fh);
  Node* node = file->node.get();
  Op op(*this, req, Op::Check::kNone);
  Mutating mutating(node);
  pb::Fallocate* call = op.call.mutable_fallocate();
  op.Name(node, file, call->mutable_object());
  call->set_mode(static_cast<uint32_t>(mode));
  call->set_offset(static_cast<uint64_t>(offset));
  call->set_length(static_cast<uint64_t>(length));
  const int error = op.Call();
  if (error == 0) {
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
      unstable_.Discard(node, static_cast<uint64_t>(offset),
                        static_cast<uint64_t>(length));
      NoteUnsendable(op, node);
    }
    Observe(op, node, op.reply.attr(), op.reply.attr_cache_ms(), Cause::kOwnChange,
            op.reply.pre_change());
  }
  fuse_reply_err(req, error);
}

void FileSystem::LSeek(fuse_req_t req, fuse_ino_t, off_t offset, int whence,
                       fuse_file_info* fi) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    fuse_reply_err(req, EINVAL);  // the kernel does the others by itself
    return;
  }
  auto* file = reinterpret_cast<OpenFile*>(fi->fh);
  Op op(*this, req, Op::Check::kNone);
  pb::Seek* call = op.call.mutable_seek();
  op.Name(file->node.get(), file, call->mutable_object());
  call->set_offset(static_cast<uint64_t>(offset));
  call->set_whence(whence == SEEK_DATA ? pb::SEEK_FOR_DATA : pb::SEEK_FOR_HOLE);
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  fuse_reply_lseek(req, static_cast<off_t>(op.reply.offset()));
}

void FileSystem::CopyFileRange(fuse_req_t req, fuse_ino_t, off_t offset_in,
                               fuse_file_info* fi_in, fuse_ino_t, off_t offset_out,
                               fuse_file_info* fi_out, size_t length) {
  // A copy may always be shorter than asked; this keeps a call from taking for ever.
  constexpr size_t kMostAtOnce = size_t{128} << 20;
  auto* from = reinterpret_cast<OpenFile*>(fi_in->fh);
  auto* to = reinterpret_cast<OpenFile*>(fi_out->fh);
  Op op(*this, req, Op::Check::kNone);
  Mutating mutating(to->node.get());
  pb::CopyRange* call = op.call.mutable_copy_range();
  op.Name(from->node.get(), from, call->mutable_from());
  op.Name(to->node.get(), to, call->mutable_to());
  call->set_from_offset(static_cast<uint64_t>(offset_in));
  call->set_to_offset(static_cast<uint64_t>(offset_out));
  call->set_length(std::min(length, kMostAtOnce));
  if (const int error = op.Call()) {
    fuse_reply_err(req, error);
    return;
  }
  const size_t copied = std::min<size_t>(op.reply.count(), length);
  if (copied > 0) {
    unstable_.Discard(to->node.get(), static_cast<uint64_t>(offset_out), copied);
    NoteUnsendable(op, to->node.get());
    if (op.reply.has_attr()) {
      Observe(op, to->node.get(), op.reply.attr(), op.reply.attr_cache_ms(),
              Cause::kOwnChange, op.reply.pre_change());
    }
  }
  fuse_reply_write(req, copied);
}

}  // namespace tripwire::fuse
