// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/unstable_data.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/time/clock.h"
#include "spdlog/spdlog.h"

namespace tripwire::fuse {

void UnstableData::Add(Node* node, Segment segment) {
  MutexLock lock(&mu_);
  segment.sequence = next_sequence_++;
  bytes_ += segment.length;
  if (files_.empty()) oldest_ = absl::Now();
  File& file = files_[node];
  if (!file.node) file.node = nodes_->Ref(node);
  // A small write that repeats the range of the one before replaces it.
  if (!file.segments.empty()) {
    Segment& last = file.segments.back();
    if (last.offset == segment.offset && last.length == segment.length &&
        last.verifier == segment.verifier) {
      bytes_ -= last.length;
      file.segments.pop_back();
    }
  }
  file.segments.push_back(std::move(segment));
}

void UnstableData::Discard(Node* node, uint64_t offset, uint64_t length) {
  MutexLock lock(&mu_);
  auto it = files_.find(node);
  if (it == files_.end()) return;
  const uint64_t end = length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
  std::deque<Segment> kept;
  for (Segment& s : it->second.segments) {
    const uint64_t s_end = s.offset + s.length;
    if (s_end <= offset || s.offset >= end) {
      kept.push_back(std::move(s));
      continue;
    }
    if (s_end > end) {  // a tail remains: its own copy
      Segment tail;
      tail.sequence = s.sequence;
      tail.verifier = s.verifier;
      tail.uid = s.uid;
      tail.gid = s.gid;
      tail.offset = end;
      tail.length = s_end - end;
      tail.buffer = MallocBuffer(tail.length);
      if (tail.buffer) {
        std::memcpy(tail.buffer.get(), s.data() + (end - s.offset), tail.length);
        bytes_ += tail.length;
        kept.push_back(std::move(tail));
      }
    }
    if (s.offset < offset) {
      bytes_ -= s_end - offset;
      s.length = offset - s.offset;
      kept.push_back(std::move(s));
    } else {
      bytes_ -= s.length;
    }
  }
  it->second.segments = std::move(kept);
  if (it->second.segments.empty()) files_.erase(it);
}

uint64_t UnstableData::Mark() {
  MutexLock lock(&mu_);
  return next_sequence_;
}

int UnstableData::Committed(Node* node, uint64_t fsid, uint64_t mark,
                            uint64_t verifier, const Resend& resend) {
  std::vector<std::pair<NodeRef, Segment>> lost;
  std::vector<NodeRef> done;  // released without the lock
  {
    MutexLock lock(&mu_);
    if (node != nullptr) {
      if (auto it = files_.find(node); it != files_.end()) {
        Settle(it, mark, verifier, &lost, &done);
      }
    } else {
      for (auto it = files_.begin(); it != files_.end();) {
        it = it->first->fsid == fsid ? Settle(it, mark, verifier, &lost, &done)
                                     : std::next(it);
      }
    }
    // One file's commit makes the others no younger.
    if (files_.empty()) {
      oldest_ = absl::InfiniteFuture();
    } else if (node == nullptr) {
      oldest_ = absl::Now();
    }
  }
  return ResendAll(std::move(lost), resend);
}

UnstableData::Files::iterator UnstableData::Settle(
    Files::iterator it, uint64_t mark, uint64_t verifier,
    std::vector<std::pair<NodeRef, Segment>>* lost, std::vector<NodeRef>* done) {
  File& file = it->second;
  std::deque<Segment> kept;
  for (Segment& s : file.segments) {
    if (s.sequence >= mark) {
      kept.push_back(std::move(s));
      continue;
    }
    bytes_ -= s.length;
    if (s.verifier != verifier) {
      lost->emplace_back(nodes_->Ref(it->first), std::move(s));
    }
  }
  file.segments = std::move(kept);
  if (!file.segments.empty()) return std::next(it);
  done->push_back(std::move(file.node));
  return files_.erase(it);
}

void UnstableData::ServerRestarted(uint64_t verifier, const Resend& resend) {
  std::vector<std::pair<NodeRef, Segment>> lost;
  {
    MutexLock lock(&mu_);
    for (auto& [node, file] : files_) {
      std::deque<Segment> kept;
      for (Segment& s : file.segments) {
        if (s.verifier == verifier) {
          kept.push_back(std::move(s));
          continue;
        }
        bytes_ -= s.length;
        lost.emplace_back(nodes_->Ref(node), std::move(s));
      }
      file.segments = std::move(kept);
    }
  }
  ResendAll(std::move(lost), resend);
  std::vector<NodeRef> done;
  MutexLock lock(&mu_);
  for (auto it = files_.begin(); it != files_.end();) {
    if (it->second.segments.empty()) {
      done.push_back(std::move(it->second.node));
      it = files_.erase(it);
    } else {
      ++it;
    }
  }
}

int UnstableData::ResendAll(std::vector<std::pair<NodeRef, Segment>> segments,
                            const Resend& resend) {
  int first_error = 0;
  for (auto& [node, segment] : segments) {
    const int error = resend(*node.get(), segment);
    if (error != 0) {
      spdlog::error("data written before the server restarted could not be "
                    "written again ({}): {} bytes at {} are lost",
                    std::strerror(error), segment.length, segment.offset);
      if (first_error == 0) first_error = error;
      MutexLock lock(&mu_);
      errors_[node.get()] = {nodes_->Ref(node.get()), error};
    }
  }
  return first_error;
}

void UnstableData::Failed(Node* node, int error) {
  MutexLock lock(&mu_);
  errors_.try_emplace(node, nodes_->Ref(node), error);
}

int UnstableData::TakeError(Node* node) {
  NodeRef keep;
  MutexLock lock(&mu_);
  auto it = errors_.find(node);
  if (it == errors_.end()) return 0;
  const int error = it->second.second;
  keep = std::move(it->second.first);
  errors_.erase(it);
  return error;
}

bool UnstableData::Has(Node* node) {
  MutexLock lock(&mu_);
  return files_.count(node) != 0;
}

size_t UnstableData::bytes() {
  MutexLock lock(&mu_);
  return bytes_;
}

NodeRef UnstableData::Any() {
  MutexLock lock(&mu_);
  if (files_.empty()) return {};
  return nodes_->Ref(files_.begin()->first);
}

void UnstableData::WaitForRoom() {
  MutexLock lock(&mu_);
  const auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return bytes_ < most_bytes_ || stop_;
  };
  mu_.Await(absl::Condition(&room));
}

UnstableData::Work UnstableData::WaitForWork(size_t threshold, absl::Duration age) {
  MutexLock lock(&mu_);
  for (;;) {
    if (stop_) return Work::kStopped;
    if (bytes_ >= threshold) return Work::kMuch;
    if (!files_.empty() && absl::Now() - oldest_ >= age) return Work::kOld;
    const auto changed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return stop_ || bytes_ >= threshold;
    };
    const auto started = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return stop_ || !files_.empty();
    };
    if (files_.empty()) {
      mu_.Await(absl::Condition(&started));  // idle: not one timer
    } else {
      mu_.AwaitWithDeadline(absl::Condition(&changed), oldest_ + age);
    }
  }
}

void UnstableData::Stop() {
  MutexLock lock(&mu_);
  stop_ = true;
}

}  // namespace tripwire::fuse
