// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/op.h"

#include <cerrno>
#include <vector>

namespace tripwire::fuse {

thread_local RawRequest current_request;
thread_local std::unique_ptr<KnownAttr> spare_known;

uint64_t MonotonicNs() { return SystemClock().NowNs(); }

Op::Op(FileSystem& file_system, fuse_req_t request, Check check)
    : fs(file_system),
      req(request),
      caller(*fuse_req_ctx(request)),
      call(frame.call()),
      reply(frame.reply()),
      start_ns(MonotonicNs()),
      recalls_before(fs.recalls_.Now()),
      xattrs_set_before(fs.xattrs_set_.load()) {
  FillCredentials(check);
}

Op::Op(FileSystem& file_system, const fuse_ctx& who, Check check)
    : fs(file_system),
      req(nullptr),
      caller(who),
      call(frame.call()),
      reply(frame.reply()),
      start_ns(MonotonicNs()),
      recalls_before(fs.recalls_.Now()),
      xattrs_set_before(fs.xattrs_set_.load()) {
  FillCredentials(check);
}

Op::~Op() = default;

void Op::FillCredentials(Check check) {
  pb::Credentials* creds = call.mutable_creds();
  creds->set_uid(caller.uid);
  creds->set_gid(caller.gid);
  creds->set_umask(caller.umask);
  // Root either may do everything or, squashed, is nobody: its groups never matter. Nor
  // do anybody's where the server is one user for all.
  if (check == Check::kNone || caller.uid == 0 || !fs.acts_as_caller_.load()) return;
  static thread_local std::vector<uint32_t> groups;
  fs.groups_.Get(caller.pid, &groups);
  creds->mutable_groups()->Add(groups.begin(), groups.end());
}

void Op::Name(Node* node, std::string* field) {
  *field = node->Handle();
  if (named_count_ < named_.size()) named_[named_count_++] = {node, nullptr, field};
}

void Op::Name(Node* node, OpenFile* file, pb::Object* object) {
  Name(node, object->mutable_handle());
  if (file) {
    object->set_state(file->state);
    named_[named_count_ - 1].file = file;
  }
}

void Op::NameOpen(Node* node, pb::Object* object) {
  Name(node, object->mutable_handle());
  MutexLock lock(&node->mu);
  if (node->opens) object->set_state(node->opens->state);
}

void Op::OnInterrupt(fuse_req_t, void* self) {
  Op* op = static_cast<Op*>(self);
  if (op->any_signal_interrupts) {
    op->token_.Cancel();
    return;
  }
  op->watched_ = true;
  op->fs.interrupts_.Watch(op, op->caller.pid, &op->token_);
}

void Op::HeedInterrupts() {
  if (req) fuse_req_interrupt_func(req, &Op::OnInterrupt, this);
}

void Op::HeedNone() {
  if (req) fuse_req_interrupt_func(req, nullptr, nullptr);
  if (std::exchange(watched_, false)) fs.interrupts_.Unwatch(this);
}

int Op::Await(Node* node, const absl::Condition& condition) {
  if (condition.Eval()) return 0;
  node->mu.Unlock();
  HeedInterrupts();
  node->mu.Lock();
  // Nobody but us looks at the token: it is asked now and then.
  while (!IsCancelled() &&
         !node->mu.AwaitWithTimeout(condition, absl::Milliseconds(20))) {
  }
  node->mu.Unlock();
  HeedNone();
  node->mu.Lock();
  return IsCancelled() ? EINTR : 0;
}

bool Op::IsCancelled() {
  std::lock_guard lock(token_.state->mutex);
  return token_.state->cancelled;
}

int Op::Call() {
  for (size_t i = 0; i < named_count_ && !is_behind_; ++i) {
    if (const int error = fs.AwaitWritesBehind(*this, named_[i].node)) return error;
  }
  HeedInterrupts();
  const int error = Invoke();
  HeedNone();
  return error;
}

int Op::Invoke() {
  int error = 0;
  for (int attempt = 0;; ++attempt) {
    error = fs.remote_.Invoke(frame, &token_);
    if (error == 0 || !Repeat(error, attempt)) break;
  }
  // An open file that could not be opened again: gone, as far as users can tell.
  if (error == EBADF && reply.state_lost()) return ESTALE;
  return error;
}

bool Op::Repeat(int error, int attempt) {
  if (attempt >= 3) return false;
  if (error == EBADF && reply.state_lost()) {
    for (size_t i = 0; i < named_count_; ++i) {
      if (!named_[i].file) continue;
      if (fs.Reclaim(*named_[i].file, frame.during_recovery) != 0) return false;
    }
    return true;
  }
  if (error == ESTALE) {
    bool refreshed = false;
    for (size_t i = 0; i < named_count_; ++i) {
      if (fs.RefreshHandle(named_[i].node, frame.during_recovery) != 0) continue;
      const std::string handle = named_[i].node->Handle();
      refreshed |= handle != *named_[i].handle;
      *named_[i].handle = handle;
    }
    return refreshed;
  }
  return false;
}

}  // namespace tripwire::fuse
