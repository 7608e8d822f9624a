// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/lease_keeper.h"

#include <algorithm>
#include <utility>

#include "nic/base/clock.h"

namespace tripwire::fuse {

void LeaseKeeper::Start(uint32_t lease_ms) {
  lease_ms_ = std::max(lease_ms, 50u);
  thread_ = std::thread([this] { Run(); });
}

void LeaseKeeper::Stop() {
  {
    MutexLock lock(&mu_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
  std::vector<NodeRef> files;
  MutexLock lock(&mu_);
  files.swap(files_);  // let go after the lock
}

void LeaseKeeper::Keep(Node* node) {
  MutexLock lock(&mu_);
  if (stop_ || node->kept.exchange(true)) return;
  files_.push_back(nodes_->Ref(node));
}

void LeaseKeeper::Run() {
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stop_ || !files_.empty();
  };
  for (;;) {
    {
      MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&has_work));
      mu_.AwaitWithTimeout(absl::Condition(&stop_), absl::Milliseconds(lease_ms_ / 5));
      if (stop_) return;
    }
    Round();
  }
}

void LeaseKeeper::Round() {
  std::vector<NodeRef> files;
  {
    MutexLock lock(&mu_);
    files.swap(files_);
  }
  std::stable_partition(files.begin(), files.end(), [](const NodeRef& file) {
    return file->recently_active.exchange(false);
  });
  std::vector<NodeRef> kept;
  const uint64_t margin_ns = lease_ms_ * kMillisecond * 2 / 5;
  for (NodeRef& file : files) {
    {
      MutexLock lock(&mu_);
      if (stop_) return;
    }
    bool is_open, has_pages, ends_soon;
    {
      MutexLock lock(&file->mu);
      is_open = file->opens != nullptr;
      has_pages = file->has_pages;
      ends_soon = file->lease_until_ns < SystemClock().NowNs() + margin_ns;
    }
    if (!is_open || kept.size() >= kMost) {
      file->kept.store(false);
      // Opened or read just now: Active has seen it kept and relied on that.
      if (is_open && has_pages && !file->recently_active.load()) drop_(*file.get());
      if (file->recently_active.load()) Keep(file.get());
      continue;
    }
    if (ends_soon && has_pages) renew_(*file.get());
    drop_lapsed_(*file.get());
    kept.push_back(std::move(file));
  }
  MutexLock lock(&mu_);
  for (NodeRef& file : kept) files_.push_back(std::move(file));
}

}  // namespace tripwire::fuse
