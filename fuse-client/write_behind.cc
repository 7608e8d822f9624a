// SPDX-License-Identifier: BSD-3-Clause
// Writes behind: a program goes on while its write is on its way to the server.
//
// Only while the server promises that nobody else sees the file without asking us first
// (a write lease, renewed by the answer to each write). What we do with the file
// ourselves waits for the writes behind that began before (Op::Call), and so does the
// answer to a recall. So nobody can tell, but by the time it takes; and by errors, which
// the next write, fsync or close of the file tells.
#include <algorithm>
#include <cerrno>

#include "fuse-client/op.h"

namespace tripwire::fuse {
namespace {

// One is being written there while the next is on its way.
constexpr size_t kMostBehind = 2;

bool Overlaps(const WritesBehind& behind, uint64_t begin, uint64_t end) {
  return std::any_of(behind.under_way.begin(), behind.under_way.end(),
                     [&](const WritesBehind::Range& range) {
                       return begin < range.end && range.begin < end;
                     });
}

// Those that have begun by now. Used under the node's lock.
class Earlier {
 public:
  explicit Earlier(const WritesBehind& behind) : behind_(behind), last_(behind.begun) {}
  absl::Condition are_over() { return absl::Condition(this, &Earlier::AreOver); }

 private:
  bool AreOver() const {
    return behind_.under_way.empty() || behind_.under_way.front().number > last_;
  }

  const WritesBehind& behind_;
  const uint64_t last_;
};

}  // namespace

int WriteBehind::Begin(Op& op, uint64_t offset, size_t size) {
  const uint64_t end = offset + size;
  MutexLock lock(&node_->mu);
  if (!node_->behind) return 0;
  struct Wanted {
    WritesBehind* behind;
    uint64_t begin, end;
  } wanted = {node_->behind.get(), offset, end};
  const auto has_room = [](Wanted* w) {
    return w->behind->until_ns <= MonotonicNs() ||
           (w->behind->under_way.size() < kMostBehind &&
            !Overlaps(*w->behind, w->begin, w->end));
  };
  const absl::Condition condition(+has_room, &wanted);
  if (const int error = op.Await(node_, condition)) return error;
  WritesBehind& behind = *node_->behind;
  if (behind.until_ns <= MonotonicNs()) return 0;
  number_ = ++behind.begun;
  behind.under_way.push_back({number_, offset, end});
  return 0;
}

void WriteBehind::End() {
  if (number_ == 0) return;
  MutexLock lock(&node_->mu);
  node_->mutated_ns.store(MonotonicNs());
  auto& under_way = node_->behind->under_way;
  under_way.erase(std::find_if(under_way.begin(), under_way.end(),
                               [this](const WritesBehind::Range& range) {
                                 return range.number == number_;
                               }));
  number_ = 0;
}

// Another may have begun meanwhile: a program that writes on and on lets others through.
int FileSystem::AwaitWritesBehind(Op& op, Node* node) {
  MutexLock lock(&node->mu);
  if (!node->behind) return 0;
  Earlier earlier(*node->behind);
  return op.Await(node, earlier.are_over());
}

int FileSystem::AwaitWritesBehind(fuse_req_t req, Node* node) {
  {
    MutexLock lock(&node->mu);
    if (!node->behind || node->behind->under_way.empty()) return 0;
  }
  Op op(*this, req, Op::Check::kNone);
  return AwaitWritesBehind(op, node);
}

void FileSystem::AwaitWritesBehind(Node* node) {
  MutexLock lock(&node->mu);
  if (!node->behind) return;
  Earlier earlier(*node->behind);
  node->mu.Await(earlier.are_over());
}

bool FileSystem::AskAgainIfWrittenBehind(Op& op, Node* node) {
  {
    MutexLock lock(&node->mu);
    if (!node->behind || (node->behind->under_way.empty() &&
                          node->mutated_ns.load() < op.start_ns)) {
      return true;
    }
  }
  if (AwaitWritesBehind(op, node) != 0) return false;
  Frame frame;
  frame.call().mutable_getattr()->mutable_object()->set_handle(node->Handle());
  if (remote_.Invoke(frame, nullptr) != 0) return false;
  pb::Reply& reply = op.frame.reply();
  const bool no_xattrs = reply.attr().no_xattrs();
  *reply.mutable_attr() = frame.reply().attr();
  reply.mutable_attr()->set_no_xattrs(no_xattrs);
  reply.set_attr_cache_ms(frame.reply().attr_cache_ms());
  return (reply.attr().mode() & S_IFMT) == node->type;
}

void FileSystem::NoteWriteLease(const Op& op, Node* node) {
  ReaderMutexLock gate(&recalls_.gate);
  MutexLock lock(&node->mu);
  if (!op.reply.write().lease() ||
      recalls_.RecalledSince(op.recalls_before, node->handle)) {
    return;
  }
  if (!node->behind) node->behind = std::make_unique<WritesBehind>();
  node->behind->until_ns = std::max(node->behind->until_ns,
                                    op.start_ns + TrustedNs(op.reply.attr_cache_ms()));
}

// The kernel believes that the data is there.
void FileSystem::FailedBehind(Node* node, int error) {
  unstable_.Failed(node, error);
  {
    MutexLock lock(&node->mu);
    node->behind->until_ns = 0;
  }
  ForgetPagesLater(node);
}

// No more begin, and those under way are over, when this returns: unless it takes longer
// than the server waits.
void FileSystem::EndWriteLease(Node* node, uint64_t give_up_ns) {
  MutexLock lock(&node->mu);
  if (!node->behind) return;
  node->behind->until_ns = 0;
  const auto none = [](WritesBehind* behind) { return behind->under_way.empty(); };
  const uint64_t now_ns = MonotonicNs();
  node->mu.AwaitWithTimeout(
      absl::Condition(+none, node->behind.get()),
      absl::Nanoseconds(give_up_ns > now_ns ? give_up_ns - now_ns : 0));
}

}  // namespace tripwire::fuse
