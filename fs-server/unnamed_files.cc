// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/unnamed_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "fs-server/identity.h"

namespace tripwire::fs {
namespace {

constexpr char kExclusive = 'x';  // ends the name of a file that is never to be linked

// Whether a link from one of these directories into the other can be made.
std::string IfSameMount(const std::string& state_dir, int root_fd, uint32_t export_id) {
  constexpr unsigned kMask = STATX_BASIC_STATS | STATX_MNT_ID;
  struct statx state, root;
  if (state_dir.empty() || statx(AT_FDCWD, state_dir.c_str(), 0, kMask, &state) != 0 ||
      statx(root_fd, "", AT_EMPTY_PATH, kMask, &root) != 0 ||
      (state.stx_mask & root.stx_mask & STATX_MNT_ID) == 0 ||
      state.stx_mnt_id != root.stx_mnt_id || state.stx_dev_major != root.stx_dev_major ||
      state.stx_dev_minor != root.stx_dev_minor) {
    return {};
  }
  return absl::StrCat(state_dir, "/unnamed.", absl::Hex(export_id, absl::kZeroPad8));
}

std::string NameOf(const FileId& id, bool exclusive) {
  std::string raw(reinterpret_cast<const char*>(&id.fs), sizeof(id.fs));
  raw.append(reinterpret_cast<const char*>(&id.type), sizeof(id.type));
  raw.append(reinterpret_cast<const char*>(id.bytes.data()), id.size);
  std::string name = absl::BytesToHexString(raw);
  if (exclusive) name += kExclusive;
  return name;
}

std::optional<FileId> IdOf(std::string name, bool* exclusive) {
  constexpr size_t kHead = sizeof(FileId::fs) + sizeof(FileId::type);
  *exclusive = !name.empty() && name.back() == kExclusive;
  if (*exclusive) name.pop_back();
  if (name.size() % 2 != 0 || name.size() < 2 * kHead ||
      name.size() > 2 * (kHead + FileId::kMaxBytes) ||
      name.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return std::nullopt;
  }
  const std::string raw = absl::HexStringToBytes(name);
  FileId id;
  std::memcpy(&id.fs, raw.data(), sizeof(id.fs));
  std::memcpy(&id.type, raw.data() + sizeof(id.fs), sizeof(id.type));
  id.size = static_cast<uint8_t>(raw.size() - kHead);
  std::memcpy(id.bytes.data(), raw.data() + kHead, id.size);
  return id;
}

}  // namespace

UnnamedFiles::UnnamedFiles(const std::string& state_dir, uint32_t export_id, int root_fd)
    : in_state_(IfSameMount(state_dir, root_fd, export_id)), root_fd_(root_fd) {
  std::lock_guard lock(mutex_);
  if (OpenDirectory(false)) Learn();
}

UnnamedFiles::~UnnamedFiles() {
  if (!dir_) return;
  // Leaves no trace, if it can: not while there is something in it.
  if (in_state_.empty()) {
    unlinkat(root_fd_, kDirectory, AT_REMOVEDIR);
  } else {
    rmdir(in_state_.c_str());
  }
}

bool UnnamedFiles::OpenDirectory(bool make) {
  if (dir_) return true;
  const int at = in_state_.empty() ? root_fd_ : AT_FDCWD;
  const char* path = in_state_.empty() ? kDirectory : in_state_.c_str();
  if (make && mkdirat(at, path, 0700) != 0 && errno != EEXIST) return false;
  UniqueFd dir(openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat st;
  // Somebody else's directory is no place to trust.
  if (!dir || fstat(dir.get(), &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
    return false;
  }
  dir_ = std::move(dir);
  return true;
}

void UnnamedFiles::Learn() {
  DIR* listing = fdopendir(fcntl(dir_.get(), F_DUPFD_CLOEXEC, 0));
  if (listing == nullptr) return;
  while (const dirent* entry = readdir(listing)) {
    bool exclusive = false;
    if (auto id = IdOf(entry->d_name, &exclusive)) kept_[*id] = exclusive;
  }
  closedir(listing);
  count_ = kept_.size();
}

bool UnnamedFiles::Keep(const FileId& id, int fd, bool exclusive) {
  std::lock_guard lock(mutex_);
  if (kept_.contains(id)) return true;
  if (identity::AssumeSelf() != 0 || !OpenDirectory(true)) return false;
  char path[40];
  std::snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  if (linkat(AT_FDCWD, path, dir_.get(), NameOf(id, exclusive).c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return false;
  }
  kept_[id] = exclusive;
  count_ = kept_.size();
  return true;
}

void UnnamedFiles::Drop(const FileId& id) {
  if (count_.load() == 0) return;
  std::lock_guard lock(mutex_);
  const auto it = kept_.find(id);
  if (it == kept_.end() || identity::AssumeSelf() != 0) return;
  unlinkat(dir_.get(), NameOf(id, it->second).c_str(), 0);
  kept_.erase(it);
  count_ = kept_.size();
}

bool UnnamedFiles::Has(const FileId& id) const {
  if (count_.load() == 0) return false;
  std::lock_guard lock(mutex_);
  return kept_.contains(id);
}

bool UnnamedFiles::IsExclusive(const FileId& id) const {
  if (count_.load() == 0) return false;
  std::lock_guard lock(mutex_);
  const auto it = kept_.find(id);
  return it != kept_.end() && it->second;
}

int UnnamedFiles::Find(const FileId& id, SharedFd* fd) const {
  if (count_.load() == 0) return ESTALE;
  std::lock_guard lock(mutex_);
  const auto it = kept_.find(id);
  if (it == kept_.end()) return ESTALE;
  identity::ReadAnything privilege;
  const int opened = openat(dir_.get(), NameOf(id, it->second).c_str(),
                            O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (opened < 0) return errno == ENOENT ? ESTALE : errno;
  *fd = Share(opened);
  return 0;
}

std::vector<FileId> UnnamedFiles::All() const {
  std::lock_guard lock(mutex_);
  std::vector<FileId> all;
  for (const auto& [id, exclusive] : kept_) all.push_back(id);
  return all;
}

}  // namespace tripwire::fs
