// SPDX-License-Identifier: BSD-3-Clause
// What the server's answers say about the pages the kernel holds, and how long those
// may be trusted.
//
// The kernel ignores the attributes in an answer when it was told to forget something
// of the file after it had asked, and then reads by the size it knew before. So pages
// are dropped, whenever possible, while nobody is asking: when the server recalls
// them, when its promise lapses, and before a lock is handed over; and the kernel is
// never told to forget what it was not given.
#include <algorithm>

#include "fuse-client/op.h"
#include "spdlog/spdlog.h"

namespace tripwire::fuse {

// A fifth less than promised: the kernel counts from when it gets to it, and the
// server, when a promise runs out, waits for nobody's answer.
uint64_t FileSystem::TrustedNs(uint32_t ms) {
  constexpr uint32_t kLongestMs = 3'600'000;
  return std::min(ms, kLongestMs) * kMillisecond * 4 / 5;
}

void FileSystem::Observe(const Op& op, Node* node, const pb::Attr& attr,
                         uint32_t cache_ms, Cause cause, uint64_t pre_change) {
  Observe(Asked{op.start_ns, op.recalls_before}, node, attr, cache_ms, cause,
          pre_change);
}

void FileSystem::Observe(Asked asked, Node* node, const pb::Attr& attr,
                         uint32_t cache_ms, Cause cause, uint64_t pre_change) {
  if (node->type != S_IFREG) return;
  const std::string handle = node->Handle();
  bool stale = false;
  {
    // Under the gate, so that a recall is wholly before or wholly after this.
    ReaderMutexLock gate(&recalls_.gate);
    const bool recalled = recalls_.RecalledSince(asked.recalls_before, handle);
    MutexLock lock(&node->mu);
    // While the server has promised to tell us first, every change is our own.
    const bool promised = node->lease_until_ns > MonotonicNs() && !recalled;
    if (!node->has_pages) {
      // None, or only such as were read after the last recall.
      if (cause == Cause::kData) {
        node->has_pages = true;
        node->pages_change = attr.change();
      }
    } else if (node->pages_change != attr.change()) {
      const bool ours = node->pages_change != 0 &&
                        (promised || (pre_change != 0 &&
                                      pre_change == node->pages_change));
      if (ours) {
        node->pages_change = attr.change();
      } else if (node->opens != nullptr) {
        stale = true;
        node->has_pages = false;
      }  // else nobody can look at them before an open, which compares again
    }
    if (!recalled) {
      node->lease_until_ns =
          std::max(node->lease_until_ns, asked.start_ns + TrustedNs(cache_ms));
    }
  }
  if (!stale) return;
  spdlog::debug("pages of {} were stale: cause {}", node->id, static_cast<int>(cause));
  if (cause == Cause::kLook) {
    // The kernel will not take in the attributes of an answer that was under way
    // meanwhile; it asks once more.
    ForgetPages(node->id);
  } else {
    // The kernel may hold locks on the very pages until it has our answer.
    ForgetPagesLater(node);
  }
}

// Asks for the promise on an open file once more; notices what happened meanwhile.
void FileSystem::RenewLease(Node& node, rpc::CancelToken* cancel) {
  Frame frame;
  const Asked asked = {MonotonicNs(), recalls_.Now()};
  frame.timeout_ns = lease_ms_ * kMillisecond;  // the rounds must go on
  pb::Object* object = frame.call().mutable_getattr()->mutable_object();
  object->set_handle(node.Handle());
  {
    MutexLock lock(&node.mu);
    if (!node.opens) return;
    object->set_state(node.opens->state);
  }
  if (remote_.Invoke(frame, cancel) != 0) return;
  const pb::Attr& attr = frame.reply().attr();
  if ((attr.mode() & S_IFMT) != node.type) return;
  Observe(asked, &node, attr, frame.reply().attr_cache_ms(), Cause::kLook);
}

// Others may have written before they let go of the lock that we now have. Whoever
// reads under it must find no page, and no size, from before.
void FileSystem::Revalidate(Node& node) {
  {
    MutexLock lock(&node.mu);
    // What was recalled before we got the lock must be forgotten by now.
    const auto settled = [&node]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(node.mu) {
      return node.forgetting == 0;
    };
    node.mu.AwaitWithTimeout(absl::Condition(&settled),
                             absl::Milliseconds(lease_ms_));
    if (!node.has_pages || node.lease_until_ns > MonotonicNs()) return;
  }
  RenewLease(node);
  DropLapsedPages(node);
}

void FileSystem::DropLapsedPages(Node& node) {
  // While the server is away nothing better can be had; when it is back, everything
  // is forgotten.
  if (disconnected_at_ns_.load() != 0) return;
  {
    MutexLock lock(&node.mu);
    if (!node.has_pages || node.lease_until_ns > MonotonicNs()) return;
    node.has_pages = false;
  }
  ForgetPages(node.id);
}

void FileSystem::DropPages(Node& node) {
  {
    MutexLock lock(&node.mu);
    node.has_pages = false;
  }
  ForgetPages(node.id);
}

void FileSystem::ForgetPages(uint64_t node_id) {
  if (KernelCache* kernel = kernel_.load()) kernel->ForgetPages(node_id);
}

void FileSystem::ForgetPagesLater(Node* node) {
  auto forgetting = std::make_shared<Forgetting>(nodes_.Ref(node));
  invalidator_.Post([this, forgetting] { ForgetPages(forgetting->node->id); });
}

}  // namespace tripwire::fuse
