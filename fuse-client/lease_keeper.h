// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_LEASE_KEEPER_H_
#define TRIPWIRE_FUSE_CLIENT_LEASE_KEEPER_H_

#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "fuse-client/mutex.h"
#include "fuse-client/node_table.h"

namespace tripwire::fuse {

// Keeps the pages of open files true.
//
// The kernel serves reads of cached pages, and programs read mapped ones, without
// asking us. That is right while the server's promise to recall them lasts, a second
// or so; so for files that are open the promise is renewed before it ends, or, when
// there are many, the pages of those that were not asked for lately are dropped: then
// the next access asks. Closed files cost nothing; opening one compares its change
// attribute. With no file open, no timer runs. Thread-safe.
class LeaseKeeper {
 public:
  // `renew` asks the server for the file's attributes; `drop` forgets its pages, and
  // `drop_lapsed` does when the promise has ended.
  using Action = std::function<void(Node&)>;
  LeaseKeeper(NodeTable* nodes, Action renew, Action drop, Action drop_lapsed)
      : nodes_(nodes),
        renew_(std::move(renew)),
        drop_(std::move(drop)),
        drop_lapsed_(std::move(drop_lapsed)) {}
  ~LeaseKeeper() { Stop(); }

  void Start(uint32_t lease_ms);
  void Stop();

  // The file is open and has just been opened or read: cheap when it is kept.
  void Active(Node* node) {
    node->recently_active.store(true, std::memory_order_relaxed);
    if (!node->kept.load(std::memory_order_relaxed)) Keep(node);
  }

 private:
  // Files whose leases are renewed. With as many, and nobody using them, some percent of
  // a processor.
  static constexpr size_t kMost = 1024;
  void Keep(Node* node);
  void Run();
  void Round();

  NodeTable* const nodes_;
  const Action renew_, drop_, drop_lapsed_;
  uint32_t lease_ms_ = 1000;
  Mutex mu_;
  std::vector<NodeRef> files_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_LEASE_KEEPER_H_
