// SPDX-License-Identifier: BSD-3-Clause
// Taking back what the kernel remembers when the server says that it changes.
//
// Returning from OnNotify tells the server that nothing of it is cached any more,
// and lets another client's change finish. What must not happen is that we wait for
// a kernel lock whose holder waits for the server, which waits for that other client,
// which waits in the same way for us: two clients changing one directory. So:
//  - attributes are forgotten at once; that takes no lock;
//  - a name is forgotten under its directory's lock; while an operation of ours has
//    that lock, all names are marked stale instead, which takes none (Linux 6.16) or,
//    before that, the name is forgotten right after the operation;
//  - writes behind are waited for: nobody but us has a lease on what they write, so the
//    server answers them without asking anybody;
//  - pages are waited for unless a write of ours is under way that may hold them.
// Leases of a second bound what is left of the danger.
#include "fuse-client/op.h"
#include "spdlog/spdlog.h"

namespace tripwire::fuse {

void FileSystem::OnNotify(rpc::Bytes message) {
  pb::Notice notice;
  if (!notice.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    // Whatever it was about must not stay cached.
    spdlog::warn("the server's notice is not a Notice message; forgetting all");
    RecalledEverything();
    return;
  }
  for (const pb::LockGrant& grant : notice.grants()) OnLockGrant(grant);
  if (notice.everything()) RecalledEverything();
  {
    MutexLock gate(&recalls_.gate);
    for (const pb::Recall& recall : notice.recalls()) recalls_.Note(recall.handle());
  }
  for (const pb::Recall& recall : notice.recalls()) Recalled(recall);
}

void FileSystem::Recalled(const pb::Recall& recall) {
  KernelCache* kernel = kernel_.load();
  NodeRef node = nodes_.Find(recall.handle());
  if (!kernel || !node) return;
  auto shared = std::make_shared<Forgetting>(std::move(node));
  Node* const n = shared->node.get();
  const uint64_t id = n->id;
  // Waiting longer than a lease lasts helps nobody.
  const uint64_t give_up_ns = MonotonicNs() + 900 * kMillisecond;
  const auto give_up = [n, give_up_ns] {
    return n->mutations.load() > 0 || MonotonicNs() > give_up_ns;
  };

  if (recall.what() & pb::RECALL_WRITES) EndWriteLease(n, give_up_ns);
  bool drop_pages = false;
  if (recall.what() & (pb::RECALL_ATTR | pb::RECALL_DATA)) {
    {
      MutexLock lock(&n->mu);
      n->lease_until_ns = 0;
      if (recall.what() & pb::RECALL_DATA) {
        // Pages of a file nobody has open can wait for the next open. Of an open
        // one, what is read from now on is new.
        drop_pages =
            n->opens != nullptr && (n->has_pages || n->reads.load() > 0);
        n->pages_change = 0;
        if (drop_pages) n->has_pages = false;
      }
    }
    const bool given = n->attributes_given.exchange(false);
    bool known = !given || kernel->ForgetAttributes(id);
    // A new object, of which the kernel has our answer but has not yet taken it in:
    // it will in a moment, and what it will believe is not true any more.
    while (!known && n->lookups.load() > 0 && MonotonicNs() < give_up_ns) {
      absl::SleepFor(absl::Milliseconds(1));
      known = kernel->ForgetAttributes(id);
    }
  }
  if (drop_pages) {
    if (!invalidator_.Run([this, shared, id] { ForgetPages(id); }, give_up)) {
      spdlog::debug("pages of {} take long to go ({} writes of ours)", id, n->mutations.load());
    }
  }
  if (recall.what() & pb::RECALL_NAMES) {
    const bool locked = n->mutations.load() > 0;
    if ((locked || recall.name().empty()) && kernel->ForgetAllNames()) return;
    if (recall.name().empty()) {
      ForgetNamesIn(*n, *kernel);
      return;
    }
    invalidator_.Run([kernel, shared, id, name = recall.name()] {
      kernel->ForgetName(id, name);
    }, give_up);
  }
}

// For kernels that cannot forget all names at once: the ones we know of. Free names
// that the kernel remembers as free are not known; it does so only for as long as
// their lease.
void FileSystem::ForgetNamesIn(Node& dir, KernelCache& kernel) {
  std::vector<std::string> names;
  nodes_.ForEach([&](Node& node) {
    MutexLock lock(&node.mu);
    if (node.parent_id == dir.id) names.push_back(node.name);
  });
  for (std::string& name : names) {
    invalidator_.Post([&kernel, id = dir.id, name = std::move(name)] {
      kernel.ForgetName(id, name);
    });
  }
}

void FileSystem::RecalledEverything() {
  {
    MutexLock gate(&recalls_.gate);
    recalls_.NoteAll();
  }
  KernelCache* kernel = kernel_.load();
  if (!kernel) return;
  const bool names_done = kernel->ForgetAllNames();
  std::vector<std::pair<uint64_t, std::string>> names;
  nodes_.ForEach([&](Node& node) {
    bool drop_pages;
    {
      MutexLock lock(&node.mu);
      node.lease_until_ns = 0;
      node.pages_change = 0;
      if (node.behind) node.behind->until_ns = 0;
      drop_pages = node.opens && (node.has_pages || node.reads.load() > 0);
      if (drop_pages) node.has_pages = false;
      if (!names_done && node.parent_id != 0) {
        names.emplace_back(node.parent_id, node.name);
      }
    }
    kernel->ForgetAttributes(node.id);
    if (drop_pages) ForgetPagesLater(&node);
  });
  for (auto& [parent, name] : names) {
    invalidator_.Post([kernel, parent = parent, name = std::move(name)] {
      kernel->ForgetName(parent, name);
    });
  }
}

void FileSystem::OnConnection(bool connected, const std::string& why) {
  if (stopping_.load()) return;
  if (!connected) {
    spdlog::warn("lost the server: {}; calls wait until it is back", why);
    disconnected_at_ns_.store(MonotonicNs());
    return;
  }
  const uint64_t since = disconnected_at_ns_.exchange(0);
  if (since == 0) return;
  spdlog::info("the server is back");
  // Longer than a promise lasts without us: it may have been broken meanwhile.
  const uint64_t lease_ns = uint64_t{lease_ms_} * kMillisecond;
  if (MonotonicNs() - since > lease_ns / 2) RecalledEverything();
}

}  // namespace tripwire::fuse
