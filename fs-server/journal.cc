// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs-server/handle.h"

namespace tripwire::fs {
namespace {

constexpr size_t kPage = 4096;
constexpr char kMagic[8] = {'t', 'w', 'j', 'o', 'u', 'r', 'n', '1'};
constexpr size_t kSessionBytes = kPage + size_t{Journal::kSlots} * Journal::kRecordBytes;

constexpr uint32_t kEmpty = 0;
constexpr uint32_t kIntended = 1;
constexpr uint32_t kDone = 2;

}  // namespace

struct Journal::FileHeader {
  char magic[8];
  uint32_t capacity;
  uint32_t record_bytes;
};

struct Journal::SessionHeader {
  uint64_t id;  // 0: free
  uint64_t opened;  // grows with each Attach; the least is the oldest
  uint32_t holds_locks;
};

// Each part has its own checksum and is whole before `state` names it (a release
// store that pairs with Lookup's acquire load in this or the next server): wherever
// a server dies, what is found is nothing, the intent, or the reply.
struct Journal::Record {
  uint32_t state;
  uint32_t reply_bytes;
  uint64_t sequence;
  uint64_t intent_checksum;
  uint64_t reply_checksum;
  Intent intent;
  uint8_t reply[kRecordBytes - 32 - sizeof(Intent)];

  uint64_t IntentChecksum() const {
    const uint64_t parts[2] = {sequence, SipHash({}, &intent, sizeof(intent))};
    return SipHash({}, parts, sizeof(parts));
  }
  uint64_t ReplyChecksum() const {
    const uint64_t parts[3] = {sequence, reply_bytes, SipHash({}, reply, reply_bytes)};
    return SipHash({}, parts, sizeof(parts));
  }
};

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& state_dir,
                                                       uint32_t sessions) {
  static_assert(sizeof(Record) == kRecordBytes);
  std::unique_ptr<Journal> journal(new Journal);
  journal->capacity_ = sessions;
  journal->map_bytes_ = kPage + sessions * kSessionBytes;
  int flags = MAP_SHARED;
  const std::string path = absl::StrCat(state_dir, "/replies");
  if (state_dir.empty()) {
    flags |= MAP_ANONYMOUS;
  } else {
    journal->fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (journal->fd_ < 0) return absl::ErrnoToStatus(errno, path);
    if (flock(journal->fd_, LOCK_EX | LOCK_NB) != 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          state_dir, ": in use by another tw-fsd; give each its own with --state"));
    }
    struct stat st;
    if (fstat(journal->fd_, &st) != 0 ||
        (static_cast<size_t>(st.st_size) != journal->map_bytes_ &&
         (ftruncate(journal->fd_, 0) != 0 ||
          ftruncate(journal->fd_, static_cast<off_t>(journal->map_bytes_)) != 0))) {
      return absl::ErrnoToStatus(errno, path);
    }
  }
  if (journal->fd_ >= 0 && posix_fallocate(journal->fd_, 0, kPage) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": no space left"));
  }
  void* map = mmap(nullptr, journal->map_bytes_, PROT_READ | PROT_WRITE, flags, journal->fd_, 0);
  if (map == MAP_FAILED) return absl::ErrnoToStatus(errno, path);
  // A child would keep the file, and with it the state directory, in use.
  madvise(map, journal->map_bytes_, MADV_DONTFORK);
  journal->map_ = static_cast<uint8_t*>(map);
  auto* header = reinterpret_cast<FileHeader*>(journal->map_);
  const FileHeader wanted{{kMagic[0], kMagic[1], kMagic[2], kMagic[3], kMagic[4], kMagic[5],
                           kMagic[6], kMagic[7]},
                          sessions,
                          kRecordBytes};
  if (std::memcmp(header, &wanted, sizeof(wanted)) != 0) {
    std::memset(journal->map_, 0, journal->map_bytes_);
    *header = wanted;
  }
  return journal;
}

Journal::~Journal() {
  if (map_ != nullptr) munmap(map_, map_bytes_);
  if (fd_ >= 0) close(fd_);
}

Journal::SessionHeader* Journal::HeaderAt(uint32_t index) const {
  return reinterpret_cast<SessionHeader*>(map_ + kPage + index * kSessionBytes);
}

std::shared_ptr<Journal::Session> Journal::Attach(uint64_t id, bool* known) {
  std::lock_guard lock(mutex_);
  *known = false;
  if (id == 0) return nullptr;
  if (auto it = attached_.find(id); it != attached_.end()) {
    *known = true;
    it->second->lost_ = false;
    return it->second;
  }
  SessionHeader* chosen = nullptr;
  uint64_t newest = 0;
  for (uint32_t i = 0; i < capacity_; ++i) {
    SessionHeader* header = HeaderAt(i);
    newest = std::max(newest, header->opened);
    if (header->id == id) {
      chosen = header;
      *known = true;
      break;
    }
    const auto attached = attached_.find(header->id);
    if (attached != attached_.end() && !attached->second->lost_) continue;
    if (header->id == 0 ? (chosen == nullptr || chosen->id != 0)
                        : (chosen == nullptr ||
                           (chosen->id != 0 && header->opened < chosen->opened))) {
      chosen = header;
    }
  }
  if (chosen == nullptr) return nullptr;
  // Room on disk first: a store into a hole of a full file system would kill us.
  const auto at = static_cast<off_t>(reinterpret_cast<uint8_t*>(chosen) - map_);
  if (fd_ >= 0 && posix_fallocate(fd_, at, kSessionBytes) != 0) return nullptr;
  if (const auto lost = attached_.find(chosen->id); lost != attached_.end()) {
    lost->second->freed_ = true;
    attached_.erase(lost);
  }
  if (!*known) {
    std::memset(static_cast<void*>(chosen), 0, kSessionBytes);
    chosen->id = id;
  }
  chosen->opened = newest + 1;
  auto session = std::make_shared<Session>();
  session->header_ = chosen;
  attached_[id] = session;
  return session;
}

void Journal::Free(Session* session) {
  std::lock_guard lock(mutex_);
  if (session->freed_.exchange(true)) return;
  const uint64_t id = session->header_->id;
  session->header_->holds_locks = 0;
  session->header_->id = 0;
  attached_.erase(id);
}

void Journal::Lose(Session* session) {
  std::lock_guard lock(mutex_);
  if (session->freed_.load(std::memory_order_relaxed)) return;  // mutex held
  session->header_->holds_locks = 0;
  session->lost_ = true;
}

std::vector<uint64_t> Journal::LostLockHolders() {
  std::lock_guard lock(mutex_);
  std::vector<uint64_t> lost;
  for (uint32_t i = 0; i < capacity_; ++i) {
    const SessionHeader* header = HeaderAt(i);
    if (header->id != 0 && header->holds_locks != 0 && !attached_.contains(header->id)) {
      lost.push_back(header->id);
    }
  }
  return lost;
}

void Journal::ForgetLostLocks() {
  std::lock_guard lock(mutex_);
  for (uint32_t i = 0; i < capacity_; ++i) {
    SessionHeader* header = HeaderAt(i);
    if (header->holds_locks != 0 && !attached_.contains(header->id)) header->holds_locks = 0;
  }
}

Journal::Record* Journal::Session::At(uint32_t slot) const {
  if (slot >= kSlots || freed_.load(std::memory_order_acquire)) return nullptr;
  return reinterpret_cast<Record*>(reinterpret_cast<uint8_t*>(header_) + kPage +
                                   size_t{slot} * kRecordBytes);
}

Journal::Found Journal::Session::Lookup(uint32_t slot, uint64_t sequence, Intent* intent,
                                        std::string_view* reply) const {
  Record* record = At(slot);
  if (record == nullptr) return Found::kNothing;
  const uint32_t state = std::atomic_ref(record->state).load(std::memory_order_acquire);
  if (state == kEmpty || record->sequence != sequence ||
      record->intent_checksum != record->IntentChecksum()) {
    return Found::kNothing;
  }
  *intent = record->intent;
  if (state != kDone || record->reply_bytes > sizeof(record->reply) ||
      record->reply_checksum != record->ReplyChecksum()) {
    return Found::kIntent;
  }
  *reply = std::string_view(reinterpret_cast<const char*>(record->reply), record->reply_bytes);
  return Found::kReply;
}

void Journal::Session::Begin(uint32_t slot, uint64_t sequence, const Intent& intent) {
  Record* record = At(slot);
  if (record == nullptr) return;
  std::atomic_ref state(record->state);
  state.store(kEmpty, std::memory_order_release);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  record->sequence = sequence;
  record->intent = intent;
  record->intent_checksum = record->IntentChecksum();
  state.store(kIntended, std::memory_order_release);
}

bool Journal::Session::Finish(uint32_t slot, std::string_view reply) {
  Record* record = At(slot);
  if (record == nullptr || reply.size() > sizeof(record->reply)) return false;
  std::memcpy(record->reply, reply.data(), reply.size());
  record->reply_bytes = static_cast<uint32_t>(reply.size());
  record->reply_checksum = record->ReplyChecksum();
  std::atomic_ref(record->state).store(kDone, std::memory_order_release);
  return true;
}

void Journal::Session::SetHoldsLocks(bool holds) {
  if (!freed_.load(std::memory_order_acquire)) header_->holds_locks = holds ? 1 : 0;
}

}  // namespace tripwire::fs
