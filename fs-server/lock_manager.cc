// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/lock_manager.h"

#include <algorithm>
#include <cerrno>
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

// Follows who waits for whom from those that hold what `request` wants. Every
// owner's waiting requests are found by looking through all; there are few.
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
    for (const auto& [ticket, id] : tickets_) {
      const File& other = files_.find(id)->second;
      for (const Waiter& waiter : other.waiting) {
        if (waiter.ticket == ticket && waiter.request.kind == Kind::kPosix &&
            waiter.request.owner == owner) {
          add_holders(other, waiter.request);
        }
      }
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

void LockManager::Wake(const FileId& id, Finished* finished) {
  auto it = files_.find(id);
  if (it == files_.end()) return;
  File& file = it->second;
  for (auto waiter = file.waiting.begin(); waiter != file.waiting.end();) {
    if (FindConflict(file, waiter->request) != nullptr) {
      ++waiter;
      continue;
    }
    Apply(&file, waiter->request, false);
    finished->emplace_back(std::move(waiter->done), 0);
    tickets_.erase(waiter->ticket);
    waiter = file.waiting.erase(waiter);
  }
}

void LockManager::DropIfEmpty(const FileId& id) {
  auto it = files_.find(id);
  if (it != files_.end() && it->second.held.empty() && it->second.waiting.empty()) {
    files_.erase(it);
  }
}

int LockManager::Try(const FileId& file, const Request& request) {
  Finished finished;
  int error = 0;
  {
    std::lock_guard lock(mutex_);
    File& locks = files_[file];
    // As flock(2): converting gives up the old lock first, also when it fails.
    if (request.kind == Kind::kFlock) Apply(&locks, request, true);
    if (FindConflict(locks, request) != nullptr) {
      error = EAGAIN;
    } else {
      Apply(&locks, request, false);
    }
    Wake(file, &finished);  // a range may have gone from exclusive to shared
    DropIfEmpty(file);
  }
  Finish(std::move(finished));
  return error;
}

LockManager::Ticket LockManager::Wait(const FileId& file, const Request& request, Done done) {
  Finished finished;
  Ticket ticket = 0;
  {
    std::lock_guard lock(mutex_);
    File& locks = files_[file];
    if (request.kind == Kind::kFlock) Apply(&locks, request, true);
    if (FindConflict(locks, request) == nullptr) {
      Apply(&locks, request, false);
      finished.emplace_back(std::move(done), 0);
    } else if (WouldDeadlock(locks, request)) {
      finished.emplace_back(std::move(done), EDEADLK);
    } else {
      ticket = next_ticket_++;
      locks.waiting.push_back({ticket, file, request, std::move(done)});
      tickets_[ticket] = file;
    }
    Wake(file, &finished);
    DropIfEmpty(file);
  }
  Finish(std::move(finished));
  return ticket;
}

void LockManager::Cancel(Ticket ticket) {
  Done done;
  {
    std::lock_guard lock(mutex_);
    auto it = tickets_.find(ticket);
    if (it == tickets_.end()) return;
    const FileId id = it->second;
    tickets_.erase(it);
    File& file = files_[id];
    auto waiter = std::find_if(file.waiting.begin(), file.waiting.end(),
                               [&](const Waiter& w) { return w.ticket == ticket; });
    if (waiter != file.waiting.end()) {
      done = std::move(waiter->done);
      file.waiting.erase(waiter);
    }
    DropIfEmpty(id);
  }
  if (done) done(EINTR);
}

void LockManager::Unlock(const FileId& file, const Request& range) {
  Finished finished;
  {
    std::lock_guard lock(mutex_);
    auto it = files_.find(file);
    if (it == files_.end()) return;
    Apply(&it->second, range, true);
    Wake(file, &finished);
    DropIfEmpty(file);
  }
  Finish(std::move(finished));
}

std::optional<LockManager::Request> LockManager::Test(const FileId& file,
                                                      const Request& request) {
  std::lock_guard lock(mutex_);
  auto it = files_.find(file);
  if (it == files_.end()) return std::nullopt;
  const Request* conflict = FindConflict(it->second, request);
  if (conflict == nullptr) return std::nullopt;
  return *conflict;
}

void LockManager::EndSession(uint64_t session) {
  Finished finished;
  {
    std::lock_guard lock(mutex_);
    std::vector<FileId> touched;
    for (auto& [id, file] : files_) {
      const size_t before = file.held.size();
      file.held.erase(
          std::remove_if(file.held.begin(), file.held.end(),
                         [&](const Request& r) { return r.owner.session == session; }),
          file.held.end());
      bool changed = file.held.size() != before;
      for (auto waiter = file.waiting.begin(); waiter != file.waiting.end();) {
        if (waiter->request.owner.session != session) {
          ++waiter;
          continue;
        }
        finished.emplace_back(std::move(waiter->done), EINTR);
        tickets_.erase(waiter->ticket);
        waiter = file.waiting.erase(waiter);
        changed = true;
      }
      if (changed) touched.push_back(id);
    }
    for (const FileId& id : touched) {
      Wake(id, &finished);
      DropIfEmpty(id);
    }
  }
  Finish(std::move(finished));
}

void LockManager::StopWaiting() {
  Finished finished;
  {
    std::lock_guard lock(mutex_);
    for (auto& [id, file] : files_) {
      for (Waiter& waiter : file.waiting) finished.emplace_back(std::move(waiter.done), EAGAIN);
      file.waiting.clear();
    }
    tickets_.clear();
  }
  Finish(std::move(finished));
}

size_t LockManager::waiting() {
  std::lock_guard lock(mutex_);
  return tickets_.size();
}

}  // namespace tripwire::fs
