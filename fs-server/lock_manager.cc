// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/lock_manager.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

namespace tripwire::fs {

bool LockManager::Conflicts(const Request& a, const Request& b) {
  return a.kind == b.kind && !(a.owner == b.owner) && (a.exclusive || b.exclusive) &&
         a.start <= b.end && b.start <= a.end;
}

const LockManager::Request* LockManager::FindConflict(const File& file,
                                                      const Request& request) const {
  const Request* first = nullptr;
  for (const Request& held : file.held) {
    if (Conflicts(held, request) && (first == nullptr || held.start < first->start)) {
      first = &held;
    }
  }
  return first;
}

// Follows who waits for whom from those that hold what `request` wants.
bool LockManager::WouldDeadlock(const File& file, const Request& request) const {
  if (request.kind != Kind::kPosix) return false;
  std::vector<Owner> todo;
  std::vector<Owner> seen;
  auto add_holders = [&](const File& f, const Request& r) {
    for (const Request& held : f.held) {
      if (!Conflicts(held, r)) continue;
      if (std::find(seen.begin(), seen.end(), held.owner) != seen.end()) continue;
      seen.push_back(held.owner);
      todo.push_back(held.owner);
    }
  };
  add_holders(file, request);
  while (!todo.empty()) {
    const Owner owner = todo.back();
    todo.pop_back();
    if (owner == request.owner) return true;
    const auto waits = waits_of_.find({owner.session, owner.id});
    if (waits == waits_of_.end()) continue;
    for (const WaitKey& key : waits->second) {
      const Place& place = waits_.find(key)->second;
      add_holders(files_.find(place.file)->second, place.at->request);
    }
  }
  return false;
}

// Replaces what the owner holds in the range: splits what sticks out on either
// side and merges with neighbours of the same type.
void LockManager::Apply(File* file, const Request& request, bool unlock) {
  std::vector<Request> kept;
  Request merged = request;
  for (const Request& held : file->held) {
    if (held.kind != request.kind || !(held.owner == request.owner)) {
      kept.push_back(held);
      continue;
    }
    const bool same = !unlock && held.exclusive == request.exclusive;
    const bool overlaps = held.start <= request.end && request.start <= held.end;
    const bool touches = (held.end != UINT64_MAX && held.end + 1 == request.start) ||
                         (request.end != UINT64_MAX && request.end + 1 == held.start);
    if (same && (overlaps || touches)) {
      merged.start = std::min(merged.start, held.start);
      merged.end = std::max(merged.end, held.end);
    } else if (!overlaps) {
      kept.push_back(held);
    } else {
      if (held.start < request.start) {
        kept.push_back(held);
        kept.back().end = request.start - 1;
      }
      if (held.end > request.end) {
        kept.push_back(held);
        kept.back().start = request.end + 1;
      }
    }
  }
  if (!unlock) kept.push_back(merged);
  file->held = std::move(kept);
}

void LockManager::OpenHost(File* file, int fd) {
  if (fd >= 0 && !file->host) file->host.emplace(fd);
}

// REQUIRES: no client's lock is in the way.
bool LockManager::TakeOnHost(File* file, const Request& request) {
  if (!file->host) return true;
  const auto strength =
      request.exclusive ? HostLocks::Strength::kExclusive : HostLocks::Strength::kShared;
  return request.kind == Kind::kFlock
             ? file->host->SetWhole(strength)
             : file->host->SetRange(request.start, request.end, strength);
}

// Something in `range` was unlocked: what others still hold of it stays locked on the
// host, piece by piece.
void LockManager::RefreshHost(File* file, const Request& range) {
  if (!file->host) return;
  const auto strength_at = [&](uint64_t at) {
    auto strongest = HostLocks::Strength::kNone;
    for (const Request& held : file->held) {
      if (held.kind != range.kind || at < held.start || at > held.end) continue;
      strongest = std::max(strongest, held.exclusive ? HostLocks::Strength::kExclusive
                                                     : HostLocks::Strength::kShared);
    }
    return strongest;
  };
  if (range.kind == Kind::kFlock) {
    file->host->SetWhole(strength_at(0));
    return;
  }
  std::vector<uint64_t> starts{range.start};  // of pieces all of one strength
  for (const Request& held : file->held) {
    if (held.kind != range.kind) continue;
    if (held.start > range.start && held.start <= range.end) starts.push_back(held.start);
    if (held.end >= range.start && held.end < range.end) starts.push_back(held.end + 1);
  }
  std::sort(starts.begin(), starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  for (size_t i = 0; i < starts.size(); ++i) {
    const uint64_t end = i + 1 < starts.size() ? starts[i + 1] - 1 : range.end;
    file->host->SetRange(starts[i], end, strength_at(starts[i]));
  }
}

void LockManager::RetryLater() {
  if (retry_due_ || !later_) return;
  retry_due_ = true;
  later_(pause_);
}

void LockManager::SetRetry(std::function<void(std::chrono::milliseconds)> later) {
  std::lock_guard lock(mutex_);
  later_ = std::move(later);
}

void LockManager::RetryHost() {
  Finished finished;
  {
    std::lock_guard lock(mutex_);
    retry_due_ = false;
    pause_ = std::min(2 * pause_, kLongestPause);
    std::vector<FileId> busy;
    for (const auto& [id, file] : files_) {
      if (file.host_busy) busy.push_back(id);
    }
    for (const FileId& id : busy) Wake(id, &finished);
    if (!retry_due_) pause_ = kFirstPause;
  }
  Finish(std::move(finished));
}

void LockManager::Enqueue(const FileId& id, File* file, const Request& request,
                          uint64_t wait, Done done) {
  const WaitKey key{request.owner.session, wait};
  file->waiting.push_back({request, wait, std::move(done)});
  waits_[key] = {id, std::prev(file->waiting.end())};
  if (request.kind == Kind::kPosix) {
    waits_of_[{request.owner.session, request.owner.id}].push_back(key);
  }
}

// Takes a request out of the queue; returns the one behind it.
LockManager::Waiters::iterator LockManager::Dequeue(File* file, Waiters::iterator at) {
  const Request& request = at->request;
  const WaitKey key{request.owner.session, at->wait};
  waits_.erase(key);
  if (request.kind == Kind::kPosix) {
    const auto of = waits_of_.find({request.owner.session, request.owner.id});
    std::erase(of->second, key);
    if (of->second.empty()) waits_of_.erase(of);
  }
  return file->waiting.erase(at);
}

bool LockManager::DropOne(const WaitKey& key) {
  const auto found = waits_.find(key);
  if (found == waits_.end()) return false;
  const Place place = found->second;
  Dequeue(&files_.find(place.file)->second, place.at);
  DropIfEmpty(place.file);
  return true;
}

bool LockManager::DropWaitingIn(File* file, uint64_t session) {
  bool any = false;
  for (auto at = file->waiting.begin(); at != file->waiting.end();) {
    const bool mine = at->request.owner.session == session;
    any |= mine;
    at = mine ? Dequeue(file, at) : std::next(at);
  }
  return any;
}

void LockManager::Wake(const FileId& id, Finished* finished) {
  auto it = files_.find(id);
  if (it == files_.end() || held_back_) return;
  File& file = it->second;
  file.host_busy = false;
  for (auto waiter = file.waiting.begin(); waiter != file.waiting.end();) {
    if (FindConflict(file, waiter->request) != nullptr) {
      ++waiter;
      continue;
    }
    if (!TakeOnHost(&file, waiter->request)) {
      file.host_busy = true;
      ++waiter;
      continue;
    }
    Apply(&file, waiter->request, false);
    finished->emplace_back(std::move(waiter->done), 0);
    waiter = Dequeue(&file, waiter);
  }
  if (file.host_busy) RetryLater();
}

void LockManager::DropIfEmpty(const FileId& id) {
  auto it = files_.find(id);
  if (it != files_.end() && it->second.held.empty() && it->second.waiting.empty()) {
    files_.erase(it);
  }
}

int LockManager::Try(const FileId& file, const Request& request, int fd) {
  Finished finished;
  int error = 0;
  {
    std::lock_guard lock(mutex_);
    File& locks = files_[file];
    OpenHost(&locks, fd);
    // As flock(2): converting gives up the old lock first, also when it fails.
    if (request.kind == Kind::kFlock) Apply(&locks, request, true);
    if (FindConflict(locks, request) != nullptr || !TakeOnHost(&locks, request)) {
      error = EAGAIN;
      if (request.kind == Kind::kFlock) RefreshHost(&locks, request);
    } else {
      Apply(&locks, request, false);
    }
    Wake(file, &finished);  // a range may have gone from exclusive to shared
    DropIfEmpty(file);
  }
  Finish(std::move(finished));
  return error;
}

int LockManager::Wait(const FileId& file, const Request& request, uint64_t wait, Done done,
                      int fd) {
  Finished finished;
  int error = 0;
  {
    std::lock_guard lock(mutex_);
    const WaitKey key{request.owner.session, wait};
    if (std::find(cancelled_.begin(), cancelled_.end(), key) != cancelled_.end()) return EINTR;
    DropOne(key);
    File& locks = files_[file];
    OpenHost(&locks, fd);
    if (request.kind == Kind::kFlock) {
      Apply(&locks, request, true);
      RefreshHost(&locks, request);
    }
    if (stopped_) {
      error = EINPROGRESS;  // nobody will say more; the next server is asked again
    } else if (held_back_) {
      Enqueue(file, &locks, request, wait, std::move(done));
      error = EINPROGRESS;
    } else if (FindConflict(locks, request) == nullptr) {
      if (TakeOnHost(&locks, request)) {
        Apply(&locks, request, false);
      } else {
        Enqueue(file, &locks, request, wait, std::move(done));  // Wake has it tried again
        error = EINPROGRESS;
      }
    } else if (WouldDeadlock(locks, request)) {
      error = EDEADLK;
    } else {
      Enqueue(file, &locks, request, wait, std::move(done));
      error = EINPROGRESS;
    }
    Wake(file, &finished);
    DropIfEmpty(file);
  }
  Finish(std::move(finished));
  return error;
}

bool LockManager::Cancel(uint64_t session, uint64_t wait) {
  std::lock_guard lock(mutex_);
  if (DropOne({session, wait})) return true;
  cancelled_.emplace_back(session, wait);
  if (cancelled_.size() > kCancelledKept) cancelled_.pop_front();
  return false;
}

void LockManager::HoldBack() {
  std::lock_guard lock(mutex_);
  held_back_ = true;
}

void LockManager::LetGo() {
  Finished finished;
  {
    std::lock_guard lock(mutex_);
    held_back_ = false;
    std::vector<FileId> ids;
    for (const auto& [id, file] : files_) ids.push_back(id);
    for (const FileId& id : ids) {
      Wake(id, &finished);
      File& file = files_[id];
      for (auto at = file.waiting.begin(); at != file.waiting.end();) {
        if (!WouldDeadlock(file, at->request)) {
          ++at;
          continue;
        }
        finished.emplace_back(std::move(at->done), EDEADLK);
        at = Dequeue(&file, at);
      }
      DropIfEmpty(id);
    }
  }
  Finish(std::move(finished));
}

void LockManager::Unlock(const FileId& file, const Request& range) {
  Finished finished;
  {
    std::lock_guard lock(mutex_);
    auto it = files_.find(file);
    if (it == files_.end()) return;
    Apply(&it->second, range, true);
    RefreshHost(&it->second, range);
    Wake(file, &finished);
    DropIfEmpty(file);
  }
  Finish(std::move(finished));
}

std::optional<LockManager::Request> LockManager::Test(const FileId& file,
                                                      const Request& request, int fd) {
  std::lock_guard lock(mutex_);
  auto it = files_.find(file);
  if (it != files_.end()) {
    const Request* conflict = FindConflict(it->second, request);
    if (conflict != nullptr) return *conflict;
  }
  if (request.kind != Kind::kPosix) return std::nullopt;
  HostLocks::Conflict on_host;
  const bool known = it != files_.end() && it->second.host;
  if (known ? !it->second.host->FindConflict(request.start, request.end, request.exclusive,
                                             &on_host)
            : !HostLocks(fd).FindConflict(request.start, request.end, request.exclusive,
                                          &on_host)) {
    return std::nullopt;
  }
  Request conflict;
  conflict.exclusive = on_host.exclusive;
  conflict.start = on_host.start;
  conflict.end = on_host.end;
  return conflict;
}

void LockManager::DropWaiting(uint64_t session) {
  std::lock_guard lock(mutex_);
  std::vector<FileId> touched;
  for (auto& [id, file] : files_) {
    if (DropWaitingIn(&file, session)) touched.push_back(id);
  }
  for (const FileId& id : touched) DropIfEmpty(id);
}

void LockManager::EndSession(uint64_t session) {
  Finished finished;
  {
    std::lock_guard lock(mutex_);
    std::vector<FileId> touched;
    for (auto& [id, file] : files_) {
      const size_t held = std::erase_if(
          file.held, [&](const Request& r) { return r.owner.session == session; });
      if (DropWaitingIn(&file, session) || held > 0) touched.push_back(id);
      if (held == 0 || file.held.empty()) continue;
      Request all;
      RefreshHost(&file, all);
      all.kind = Kind::kFlock;
      RefreshHost(&file, all);
    }
    for (const FileId& id : touched) {
      auto& file = files_[id];
      if (file.held.empty() && file.host) {  // all of it, of either kind
        file.host->SetRange(0, UINT64_MAX, HostLocks::Strength::kNone);
        file.host->SetWhole(HostLocks::Strength::kNone);
      }
      Wake(id, &finished);
      DropIfEmpty(id);
    }
  }
  Finish(std::move(finished));
}

void LockManager::StopWaiting() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  for (auto& [id, file] : files_) file.waiting.clear();
  waits_.clear();
  waits_of_.clear();
}

size_t LockManager::waiting() {
  std::lock_guard lock(mutex_);
  return waits_.size();
}

}  // namespace tripwire::fs
