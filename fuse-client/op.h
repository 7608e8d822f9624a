// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_OP_H_
#define TRIPWIRE_FUSE_CLIENT_OP_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "fuse-client/file_system.h"
#include "fuse-client/mutex.h"

namespace tripwire::fuse {

uint64_t MonotonicNs();

// Counts something under way.
class Counted {
 public:
  explicit Counted(std::atomic<int>* count) : count_(count) { count_->fetch_add(1); }
  ~Counted() { count_->fetch_sub(1); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<int>* const count_;
};

// Room for what a change makes known: of what its thread last made unknown.
extern thread_local std::unique_ptr<KnownAttr> spare_known;

// While one exists, the node is being changed by a call of ours.
class Mutating : public Counted {
 public:
  explicit Mutating(Node* node) : Mutating(node, Names::kForget, {}) {}
  ~Mutating() { node_->mutated_ns.store(MonotonicNs()); }  // before it is uncounted
  // Whether no other change of ours has been under way with this one, so that the
  // attributes in its reply are the last.
  bool WasAlone() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(node_->mu) {
    return was_first_ && number_ == node_->mutations_begun;
  }

 protected:
  enum class Names { kForget, kKeep };
  Mutating(Node* node, Names names, std::string_view added)
      : Counted(&node->mutations), node_(node) {
    MutexLock lock(&node->mu);
    number_ = ++node->mutations_begun;
    was_first_ = node->mutations.load() == 1;
    if (node->known) spare_known = std::move(node->known);
    if (names == Names::kForget) node->names.reset();
    if (node->names && !added.empty()) node->names->Add(added);
  }

 private:
  Node* const node_;
  uint64_t number_;
  bool was_first_;
};

// The same of a directory's names, of which `added` will be one, or, when it is empty, a
// known one will be none.
class MutatingNames : public Mutating {
 public:
  MutatingNames(Node* dir, std::string_view added)
      : Mutating(dir, Names::kKeep, added) {}
};

// While one exists, data of the node is on its way to the kernel's pages.
class Reading : public Counted {
 public:
  explicit Reading(Node* node) : Counted(&node->reads) {}
};

// While one exists, the kernel is being told to forget the node's pages.
struct Forgetting {
  explicit Forgetting(NodeRef ref) : node(std::move(ref)) {
    MutexLock lock(&node->mu);
    ++node->forgetting;
  }
  ~Forgetting() {
    MutexLock lock(&node->mu);
    --node->forgetting;
  }
  Forgetting(const Forgetting&) = delete;
  Forgetting& operator=(const Forgetting&) = delete;

  const NodeRef node;
};

// One file operation under way: its call, its caller and what a repetition needs.
// Lives on the stack of the thread that runs it.
class Op {
 public:
  // Whether the server may have to check permissions, for which it must know the
  // caller's supplementary groups.
  enum class Check { kNone, kCaller };

  Op(FileSystem& fs, fuse_req_t req, Check check);
  Op(FileSystem& fs, const fuse_ctx& caller, Check check);
  ~Op();
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  // Names a node in a call by its handle, or an object by handle and open state;
  // filled in again when the call must be repeated under another handle.
  void Name(Node* node, std::string* field);
  void Name(Node* node, OpenFile* file, pb::Object* object);
  // The same with whatever open state keeps the node alive.
  void NameOpen(Node* node, pb::Object* object);

  // Makes the call, after writes behind of what it names; an errno. Repeats it when the
  // server lost an open state or the handle went stale but the object is still where it
  // was.
  int Call();

  // The kernel was answered, and the call goes on: it is a write behind.
  void GoesBehind() {
    req = nullptr;
    is_behind_ = true;
  }
  // Waits for a condition of the node that others bring about; EINTR when the program
  // is ended meanwhile.
  int Await(Node* node, const absl::Condition& condition)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(node->mu);

  FileSystem& fs;
  // Null for requests the FUSE library does not know, and for those answered already.
  fuse_req_t req;
  const fuse_ctx caller;
  Frame frame;
  pb::Call& call;
  const pb::Reply& reply;
  const uint64_t start_ns;
  const uint64_t recalls_before;
  const uint64_t xattrs_set_before;
  bool any_signal_interrupts = false;  // waits for locks

 private:
  struct Named {
    Node* node;
    OpenFile* file;
    std::string* handle;
  };
  static void OnInterrupt(fuse_req_t req, void* op);
  void FillCredentials(Check check);
  void HeedInterrupts();
  void HeedNone();
  bool IsCancelled();
  int Invoke();
  bool Repeat(int error, int attempt);

  rpc::CancelToken token_;
  std::array<Named, 2> named_;
  size_t named_count_ = 0;
  bool watched_ = false;
  bool is_behind_ = false;
};

// One write, as far as it goes behind. Ends with the object, at the latest.
class WriteBehind {
 public:
  explicit WriteBehind(Node* node) : node_(node) {}
  ~WriteBehind() { End(); }
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // Begins, if it may; waits for earlier ones where it must. EINTR when the program
  // is ended meanwhile.
  int Begin(Op& op, uint64_t offset, size_t size);
  bool has_begun() const { return number_ != 0; }
  void End();

 private:
  Node* const node_;
  uint64_t number_ = 0;
};

inline constexpr std::string_view kCapability = "security.capability";

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_OP_H_
