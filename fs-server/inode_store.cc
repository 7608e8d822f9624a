// SPDX-License-Identifier: BSD-3-Clause
#include "fs-server/inode_store.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <spdlog/spdlog.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "fs-server/identity.h"

namespace tripwire::fs {
namespace {

constexpr int kStatMask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;
constexpr int kMaxDepth = 4096;  // of directories; paths cannot be longer
constexpr int kCreatingTries = 100;  // see OpenByKernelHandle

// A kernel file handle with room for the largest we can carry.
struct KernelHandle {
  union {
    file_handle header;
    char room[sizeof(file_handle) + FileId::kMaxBytes];
  };
  KernelHandle() {
    header.handle_bytes = FileId::kMaxBytes;
    header.handle_type = 0;
  }
};

// The descriptor, or -1 and errno. While another process makes a file of the
// inode number that the handle's file had, the kernel says ENOMEM (iget_locked()
// finds an inode with I_CREATING set). That is over in microseconds, and the
// answer then is another one; a kernel that has no memory stays with it.
int OpenByKernelHandle(int mount_fd, KernelHandle* handle) {
  for (int tries = 1;; ++tries) {
    {
      identity::ReadAnything privilege;
      const int fd = open_by_handle_at(mount_fd, &handle->header, O_PATH | O_CLOEXEC);
      if (fd >= 0 || errno != ENOMEM || tries == kCreatingTries) return fd;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(10 * tries));  // 50 ms in all
  }
}

bool ToId(const KernelHandle& handle, uint64_t fs, FileId* id) {
  const unsigned size = handle.header.handle_bytes;
  const int type = handle.header.handle_type;
  if (size > FileId::kMaxBytes || type < 0 || type >= FileId::kMapped) return false;
  *id = FileId{};
  id->fs = fs;
  id->type = static_cast<uint16_t>(type);
  id->size = static_cast<uint8_t>(size);
  std::memcpy(id->bytes.data(), handle.header.f_handle, size);
  return true;
}

std::string LinkOf(int fd) {
  char name[64];
  std::snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
  char target[PATH_MAX];
  const ssize_t n = readlink(name, target, sizeof(target));
  if (n <= 0) return "";
  std::string path(target, static_cast<size_t>(n));
  while (!path.empty() && path.back() == '/') path.pop_back();  // "/" becomes ""
  return path;
}

bool IsPrefix(const std::string& prefix, const std::string& path) {
  return path.size() >= prefix.size() && path.compare(0, prefix.size(), prefix) == 0 &&
         (path.size() == prefix.size() || path[prefix.size()] == '/');
}

uint64_t DeviceOf(const struct statx& stx) {
  return uint64_t{stx.stx_dev_major} << 32 | stx.stx_dev_minor;
}

// Names the file system, the same after a restart where it can.
uint64_t KeyOf(int fd, bool by_handle, const struct statx& stx, uint64_t* fsid) {
  struct statfs sfs;
  uint64_t words[4] = {by_handle, 0, 0, DeviceOf(stx)};
  if (fstatfs(fd, &sfs) == 0) {
    std::memcpy(&words[1], &sfs.f_fsid, sizeof(words[1]));
    words[2] = static_cast<uint64_t>(sfs.f_type);
    if (words[1] != 0) words[3] = 0;  // device numbers may change at the next boot
  }
  *fsid = words[1];
  return SipHash({}, words, sizeof(words));
}

}  // namespace

absl::StatusOr<std::unique_ptr<InodeStore>> InodeStore::Open(const std::string& directory,
                                                             const std::string& names_file,
                                                             size_t cached_fds,
                                                             bool kernel_handles) {
  std::unique_ptr<InodeStore> store(
      new InodeStore(cached_fds, names_file, kernel_handles && identity::CanSwitch()));
  store->root_fd_.reset(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!store->root_fd_) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot export ", directory));
  }
  struct statx stx;
  if (statx(store->root_fd_.get(), "", AT_EMPTY_PATH, kStatMask, &stx) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot export ", directory));
  }
  store->root_path_ = LinkOf(store->root_fd_.get());
  store->root_mount_ =
      store->Register(store->root_fd_.get(), static_cast<int>(stx.stx_mnt_id));
  const int error = store->Identify(store->root_fd_.get(), {}, "", &store->root_id_);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("cannot export ", directory));
  return store;
}

std::shared_ptr<const InodeStore::Mount> InodeStore::Register(int fd, int mount_id) {
  auto mount = std::make_shared<Mount>();
  mount->mount_id = mount_id;
  struct statx stx;
  if (statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, kStatMask, &stx) != 0) return nullptr;
  char name[64];
  std::snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
  // The kernel wants a real descriptor here; directories and files only, as
  // opening anything else may have effects.
  if (S_ISDIR(stx.stx_mode) || S_ISREG(stx.stx_mode)) {
    identity::ReadAnything privilege;
    mount->fd.reset(open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  }
  mount->path = LinkOf(fd);
  KernelHandle handle;
  int id = 0;
  if (mount->fd && kernel_handles_ &&
      name_to_handle_at(fd, "", &handle.header, &id, AT_EMPTY_PATH) == 0) {
    UniqueFd probe(OpenByKernelHandle(mount->fd.get(), &handle));
    mount->by_handle = static_cast<bool>(probe);
  }
  if (!mount->by_handle) mount->fd.reset();
  mount->key = KeyOf(fd, mount->by_handle, stx, &mount->fsid);
  std::unique_lock lock(mounts_mutex_);
  for (const auto& known : mounts_) {
    if (known->mount_id == mount_id && known->key == mount->key) return known;
  }
  mounts_.push_back(mount);
  return mount;
}

std::shared_ptr<const InodeStore::Mount> InodeStore::MountOf(int fd, int mount_id) {
  if (auto known = KnownMount(mount_id)) return known;
  return Register(fd, mount_id);
}

std::shared_ptr<const InodeStore::Mount> InodeStore::KnownMount(int mount_id) const {
  std::shared_lock lock(mounts_mutex_);
  for (const auto& mount : mounts_) {
    if (mount->mount_id == mount_id) return mount;
  }
  return nullptr;
}

std::shared_ptr<const InodeStore::Mount> InodeStore::MountByKey(uint64_t key) {
  for (int attempt = 0;; ++attempt) {
    {
      std::shared_lock lock(mounts_mutex_);
      for (const auto& mount : mounts_) {
        if (mount->key == key) return mount;
      }
    }
    if (attempt == 1) return nullptr;
    ScanMounts();
  }
}

// A handle from before a restart may be on a mount nobody walked into since.
void InodeStore::ScanMounts() {
  std::ifstream file("/proc/self/mountinfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string id, parent, device, root, point;
    if (!(fields >> id >> parent >> device >> root >> point)) continue;
    std::string path;
    for (size_t i = 0; i < point.size(); ++i) {  // \040 and the like
      if (point[i] == '\\' && i + 3 < point.size()) {
        path += static_cast<char>((point[i + 1] - '0') * 64 + (point[i + 2] - '0') * 8 +
                                  (point[i + 3] - '0'));
        i += 3;
      } else {
        path += point[i];
      }
    }
    if (!IsPrefix(root_path_, path) || path.size() <= root_path_.size() + 1) continue;
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    identity::ReadAnything privilege;
    UniqueFd fd(static_cast<int>(syscall(SYS_openat2, root_fd_.get(),
                                         path.c_str() + root_path_.size() + 1, &how,
                                         sizeof(how))));
    struct statx stx;
    if (fd && statx(fd.get(), "", AT_EMPTY_PATH, kStatMask, &stx) == 0) {
      MountOf(fd.get(), static_cast<int>(stx.stx_mnt_id));
    }
  }
}

int InodeStore::Find(const FileId& id, SharedFd* fd) {
  *fd = cache_.Find(id);
  if (*fd) return 0;
  const int error = id.type == FileId::kMapped ? OpenByName(id, fd) : [&] {
    auto mount = MountByKey(id.fs);
    return mount && mount->by_handle ? OpenByHandle(*mount, id, fd) : ESTALE;
  }();
  if (error == 0) cache_.Insert(id, *fd);
  return error;
}

int InodeStore::OpenByHandle(const Mount& mount, const FileId& id, SharedFd* fd) {
  KernelHandle handle;
  handle.header.handle_bytes = id.size;
  handle.header.handle_type = id.type;
  std::memcpy(handle.header.f_handle, id.bytes.data(), id.size);
  int opened;
  for (int attempt = 0;; ++attempt) {
    opened = OpenByKernelHandle(mount.fd.get(), &handle);
    if (opened >= 0) break;
    if ((errno != EMFILE && errno != ENFILE) || attempt == 1) {
      return errno == EINVAL || errno == ENOENT ? ESTALE : errno;
    }
    cache_.Purge(true);
  }
  *fd = Share(opened);
  struct stat st;
  if (fstat(opened, &st) != 0) return errno;
  if (S_ISDIR(st.st_mode) && !IsBeneathRoot(opened)) return ESTALE;
  return 0;
}

bool InodeStore::IsBeneathRoot(int fd) const {
  return IsPrefix(LinkOf(root_fd_.get()), LinkOf(fd));
}

// Goes up to an inode whose descriptor is at hand, then down again by name.
int InodeStore::OpenByName(const FileId& id, SharedFd* fd) {
  std::vector<std::pair<FileId, std::string>> way;  // innermost first
  FileId at = id;
  SharedFd dir;
  int dir_fd = -1;
  while (true) {
    if (at == root_id_) {
      dir_fd = root_fd_.get();
      break;
    }
    if ((dir = cache_.Find(at))) {
      dir_fd = dir->get();
      break;
    }
    auto place = names_.Get(at);
    if (!place && at.type != FileId::kMapped) {
      const int error = Find(at, &dir);  // a submount below a directory with handles
      if (error != 0) return error;
      dir_fd = dir->get();
      break;
    }
    if (!place || way.size() >= kMaxDepth) return ESTALE;
    way.emplace_back(at, std::move(place->name));
    at = place->dir;
  }
  if (way.empty()) {  // the root itself
    const int copy = openat(dir_fd, ".", O_PATH | O_CLOEXEC);
    if (copy < 0) return errno;
    *fd = Share(copy);
    return 0;
  }
  for (auto step = way.rbegin(); step != way.rend(); ++step) {
    int opened;
    {
      identity::ReadAnything privilege;
      opened = openat(dir_fd, step->second.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    if (opened < 0) return errno == ENOENT || errno == ENOTDIR ? ESTALE : errno;
    SharedFd next = Share(opened);
    struct statx stx;
    if (statx(opened, "", AT_EMPTY_PATH, kStatMask, &stx) != 0) return errno;
    auto mount = MountOf(opened, static_cast<int>(stx.stx_mnt_id));
    if (!mount) return ESTALE;
    if (step->first.type == FileId::kMapped) {
      FileId mapped;
      MappedId(*mount, stx, {}, "", &mapped);
      if (!(mapped == step->first)) return ESTALE;  // another inode has the name now
    }
    dir = std::move(next);
    dir_fd = dir->get();
  }
  *fd = dir;
  return 0;
}

void InodeStore::MappedId(const Mount& mount, const struct statx& stx, const FileId& parent,
                          std::string_view name, FileId* id) {
  *id = FileId{};
  id->fs = mount.key;
  id->type = FileId::kMapped;
  const uint64_t words[3] = {
      DeviceOf(stx), stx.stx_ino,
      (stx.stx_mask & STATX_BTIME) != 0
          ? static_cast<uint64_t>(stx.stx_btime.tv_sec) * 1'000'000'000u + stx.stx_btime.tv_nsec
          : 0};
  id->size = sizeof(words);
  std::memcpy(id->bytes.data(), words, sizeof(words));
  if (!name.empty()) names_.Put(*id, parent, name);
}

int InodeStore::Identify(int fd, const FileId& parent, std::string_view name, FileId* id) {
  KernelHandle handle;
  int mount_id = 0;
  if (kernel_handles_) {  // else no mount is open by handle
    if (name_to_handle_at(fd, "", &handle.header, &mount_id, AT_EMPTY_PATH) == 0) {
      auto mount = MountOf(fd, mount_id);
      if (!mount) return EIO;
      if (mount->by_handle && ToId(handle, mount->key, id)) return 0;
    }
  }
  struct statx stx;
  if (statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, kStatMask, &stx) != 0) return errno;
  auto mount = MountOf(fd, static_cast<int>(stx.stx_mnt_id));
  if (!mount) return EIO;
  MappedId(*mount, stx, parent, name, id);
  return 0;
}

int InodeStore::IdentifyAt(int dir_fd, const FileId& parent, const char* name,
                           uint64_t expected_ino,
                           absl::FunctionRef<void(const FileId&)> found, FileId* id,
                           struct statx* stx) {
  constexpr int kFlags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  KernelHandle handle;
  int mount_id = 0;
  if (kernel_handles_ &&
      name_to_handle_at(dir_fd, name, &handle.header, &mount_id, 0) == 0) {
    auto mount = KnownMount(mount_id);
    if (!mount) return EXDEV;
    if (mount->by_handle) {
      if (!ToId(handle, mount->key, id)) return EXDEV;
      found(*id);
      if (statx(dir_fd, name, kFlags, kStatMask, stx) != 0) return errno;
      const bool same = stx->stx_ino == expected_ino &&
                        static_cast<int>(stx->stx_mnt_id) == mount_id;
      return same ? 0 : EXDEV;
    }
  }
  if (statx(dir_fd, name, kFlags, kStatMask, stx) != 0) return errno;
  auto mount = KnownMount(static_cast<int>(stx->stx_mnt_id));
  if (!mount || mount->by_handle || stx->stx_ino != expected_ino) return EXDEV;
  MappedId(*mount, *stx, parent, name, id);
  found(*id);
  const FileId before = *id;
  if (statx(dir_fd, name, kFlags, kStatMask, stx) != 0) return errno;
  MappedId(*mount, *stx, parent, name, id);
  return *id == before ? 0 : EXDEV;
}

int InodeStore::Walk(int dir_fd, const FileId& dir, const char* name, FileId* id,
                     SharedFd* fd) {
  int opened;
  for (int attempt = 0;; ++attempt) {
    opened = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (opened >= 0) break;
    if ((errno != EMFILE && errno != ENFILE) || attempt == 1) return errno;
    cache_.Purge(true);
  }
  *fd = Share(opened);
  const int error = Identify(opened, dir, name, id);
  if (error == 0) cache_.Insert(*id, *fd);
  return error;
}

bool InodeStore::FromKernel(const void* fsid, int type, const uint8_t* bytes, size_t size,
                            FileId* id) const {
  uint64_t wanted = 0;
  std::memcpy(&wanted, fsid, sizeof(wanted));
  if (size > FileId::kMaxBytes || type < 0 || type >= FileId::kMapped) return false;
  std::shared_lock lock(mounts_mutex_);
  for (const auto& mount : mounts_) {
    if (!mount->by_handle || mount->fsid != wanted) continue;
    *id = FileId{};
    id->fs = mount->key;
    id->type = static_cast<uint16_t>(type);
    id->size = static_cast<uint8_t>(size);
    std::memcpy(id->bytes.data(), bytes, size);
    return true;
  }
  return false;
}

void InodeStore::NameMoved(const FileId& id, const FileId& new_dir,
                           std::string_view new_name) {
  if (id.type == FileId::kMapped) names_.Put(id, new_dir, new_name);
}

}  // namespace tripwire::fs
