// SPDX-License-Identifier: BSD-3-Clause
// Going on after the server restarted, and keeping unstable data until it is durable.
#include <cerrno>
#include <cstring>

#include "fuse-client/held_locks.h"
#include "fuse-client/op.h"
#include "spdlog/spdlog.h"

namespace tripwire::fuse {

// The server that answers now knows nothing of us. Pending calls wait until this
// returns; so nothing here may wait for them, nor for kernel locks they hold.
void FileSystem::OnRecovered(rpc::Bytes greeting_reply) {
  pb::GreetingReply greeting;
  if (!greeting.ParseFromArray(greeting_reply.data(),
                               static_cast<int>(greeting_reply.size())) ||
      greeting.root().empty()) {
    spdlog::error("the restarted server's greeting makes no sense; going on as before");
    return;
  }
  spdlog::info("the server restarted; opening again what was open");
  for (LockWaiters::Ref& wait : lock_waiters_.Begin(greeting.lock_epoch())) {
    AnswerWaitLater(std::move(wait), EINTR);
  }
  NoteServer(greeting);
  nodes_.SetRoot({greeting.root(), greeting.root_attr().ino(),
                  greeting.root_attr().fsid(), S_IFDIR});
  RecalledEverything();
  size_t files = 0, lost = 0;
  nodes_.ForEach([&](Node& node) {
    for (const OpenHandle& open : OpensOf(node)) {
      ++files;
      if (ReclaimState(node, open, true) != 0) ++lost;
    }
    ReclaimLocks(node);
  });
  Frame frame;
  frame.during_recovery = true;
  frame.call().mutable_reclaim_done();
  remote_.Invoke(frame, nullptr);
  AskForLocksAgain(greeting.lock_epoch());
  unstable_.ServerRestarted(greeting.boot_verifier(),
                            [this](Node& node, const UnstableData::Segment& segment) {
                              return ResendSegment(node, segment, true);
                            });
  if (files > 0) spdlog::info("{} of {} open files are open again", files - lost, files);
}

// A copy: the files may be closed while we talk to the server.
std::vector<FileSystem::OpenHandle> FileSystem::OpensOf(Node& node) {
  std::vector<OpenHandle> opens;
  MutexLock lock(&node.mu);
  for (const OpenFile* file = node.opens; file; file = file->next) {
    opens.push_back({file->state, file->flags, file->uid, file->gid});
  }
  return opens;
}

int FileSystem::ReclaimState(Node& node, const OpenHandle& open,
                             bool during_recovery) {
  int error = 0;
  for (int attempt = 0; attempt < 2; ++attempt) {
    Frame frame;
    frame.during_recovery = during_recovery;
    frame.call().mutable_creds()->set_uid(open.uid);
    frame.call().mutable_creds()->set_gid(open.gid);
    pb::Open* call = frame.call().mutable_open();
    call->set_handle(node.Handle());
    call->set_state(open.state);
    call->set_flags(open.flags & ~static_cast<uint32_t>(pb::OPEN_TRUNCATE));
    call->set_reclaim(true);
    error = remote_.Invoke(frame, nullptr);
    if (error != ESTALE || RefreshHandle(&node, during_recovery) != 0) break;
  }
  if (error != 0) {
    spdlog::warn("an open file could not be opened again ({})", std::strerror(error));
  }
  return error;
}

int FileSystem::Reclaim(const OpenFile& file, bool during_recovery) {
  return ReclaimState(*file.node.get(), {file.state, file.flags, file.uid, file.gid},
                      during_recovery);
}

void FileSystem::ReclaimLocks(Node& node) {
  std::vector<HeldLock> locks;
  uint64_t state = 0;
  {
    MutexLock lock(&node.mu);
    if (!node.locks || !node.opens) return;
    locks = node.locks->locks;
    state = node.opens->state;
  }
  for (const HeldLock& held : locks) {
    Frame frame;
    frame.during_recovery = true;
    pb::Lock* call = frame.call().mutable_lock();
    call->mutable_object()->set_handle(node.Handle());
    call->mutable_object()->set_state(state);
    call->set_kind(held.kind);
    call->set_type(held.type);
    call->set_action(pb::LOCK_ACTION_TRY);
    call->set_owner(held.owner);
    call->set_pid(held.pid);
    call->set_start(held.start);
    call->set_length(held.end == UINT64_MAX ? 0 : held.end - held.start + 1);
    call->set_reclaim(true);
    if (const int error = remote_.Invoke(frame, nullptr)) {
      spdlog::error("a lock was lost in the server's restart ({})",
                    std::strerror(error));
    }
  }
}

// The node's handle is stale: looks for the same object where it was last seen.
int FileSystem::RefreshHandle(Node* node, bool during_recovery, int depth) {
  constexpr int kDeepest = 256;
  if (node->id == NodeTable::kRootId || depth > kDeepest) return ESTALE;
  uint64_t parent_id;
  uint32_t parent_generation;
  std::string name;
  {
    MutexLock lock(&node->mu);
    parent_id = node->parent_id;
    parent_generation = node->parent_generation;
    name = node->name;
  }
  NodeRef parent = nodes_.Acquire(parent_id);
  if (!parent || parent->generation != parent_generation || name.empty()) {
    return ESTALE;
  }
  for (int attempt = 0; attempt < 2; ++attempt) {
    Frame frame;
    frame.during_recovery = during_recovery;
    frame.call().mutable_creds()->set_uid(0);
    pb::Lookup* call = frame.call().mutable_lookup();
    call->set_dir(parent->Handle());
    call->set_name(name);
    const int error = remote_.Invoke(frame, nullptr);
    if (error == ESTALE &&
        RefreshHandle(parent.get(), during_recovery, depth + 1) == 0) {
      continue;
    }
    const pb::Attr& attr = frame.reply().attr();
    // Something else by the same name is not what was open.
    if (error != 0 || attr.ino() != node->ino || attr.fsid() != node->fsid ||
        (attr.mode() & S_IFMT) != node->type || frame.reply().handle().empty()) {
      return ESTALE;
    }
    nodes_.Rekey(node, frame.reply().handle());
    return 0;
  }
  return ESTALE;
}

int FileSystem::ResendSegment(Node& node, const UnstableData::Segment& segment,
                              bool during_recovery) {
  if (segment.length == 0) return EIO;  // see NoteUnsendable
  Frame frame;
  frame.during_recovery = during_recovery;
  frame.call().mutable_creds()->set_uid(segment.uid);
  frame.call().mutable_creds()->set_gid(segment.gid);
  pb::Write* call = frame.call().mutable_write();
  call->mutable_object()->set_handle(node.Handle());
  {
    MutexLock lock(&node.mu);
    for (const OpenFile* file = node.opens; file; file = file->next) {
      if (file->flags & pb::OPEN_WRITE) call->mutable_object()->set_state(file->state);
    }
  }
  call->set_offset(segment.offset);
  call->set_stable(pb::FILE_SYNC);
  const iovec bulk = {const_cast<char*>(segment.data()), segment.length};
  frame.bulk_request = {&bulk, 1};
  const int error = remote_.Invoke(frame, nullptr);
  if (error != 0) return error;
  return frame.reply().write().length() == segment.length ? 0 : EIO;
}

// Makes everything written so far durable: one call for each file system.
void FileSystem::CommitEverything(uint64_t timeout_ns,
                                  rpc::CancelToken* cancel) {
  for (int round = 0; round < 16; ++round) {
    NodeRef node = unstable_.Any();
    if (!node) return;
    const uint64_t mark = unstable_.Mark();
    Frame frame;
    frame.timeout_ns = timeout_ns;
    frame.call().mutable_creds()->set_uid(0);
    pb::Object* object = frame.call().mutable_sync()->mutable_object();
    object->set_handle(node->Handle());
    {
      MutexLock lock(&node->mu);
      if (node->opens) object->set_state(node->opens->state);
    }
    int error = remote_.Invoke(frame, cancel);
    if (error == ESTALE) {
      // The file is gone, and what was written to it with it; the root is not.
      object->set_handle(nodes_.Get(NodeTable::kRootId)->Handle());
      object->clear_state();
      error = remote_.Invoke(frame, cancel);
    }
    if (error == EINTR) return;
    if (error != 0) {
      spdlog::warn("the server could not make data durable ({})", std::strerror(error));
      return;
    }
    const uint64_t verifier = frame.reply().has_commit()
                                  ? frame.reply().commit().verifier()
                                  : boot_verifier_.load();
    unstable_.Committed(nullptr, node->fsid, mark, verifier,
                        [this](Node& n, const UnstableData::Segment& segment) {
                          return ResendSegment(n, segment, false);
                        });
  }
}

void FileSystem::CommitterLoop() {
  constexpr absl::Duration kOldest = absl::Seconds(15);
  constexpr size_t kKeepBytes = 64 << 20;
  for (;;) {
    const auto work = unstable_.WaitForWork(options_.unstable_bytes / 4, kOldest);
    if (work == UnstableData::Work::kStopped) return;
    CommitEverything(kNever, &committer_cancel_);
    // Nobody is writing much: what the last burst needed is not kept for the next.
    if (work == UnstableData::Work::kOld) buffers_.Trim(kKeepBytes);
    if (unstable_.bytes() >= options_.unstable_bytes / 4) {
      absl::SleepFor(absl::Milliseconds(20));  // the server is in trouble: no spinning
    }
  }
}

}  // namespace tripwire::fuse
