// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_INODE_STORE_H_
#define TRIPWIRE_FS_SERVER_INODE_STORE_H_

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "fs-server/fd_cache.h"
#include "fs-server/handle.h"
#include "fs-server/name_map.h"

namespace tripwire::fs {

// The inodes below one exported directory: from ids to descriptors and back.
//
// Where the kernel can open by handle and we may ask it to, an id is the kernel's
// handle and nothing is remembered. Elsewhere (an unprivileged server, a file
// system without handles) an id is (device, inode, birth time) and NameMap
// remembers where it was last seen.
//
// Invariants:
//  1. Every descriptor given out is O_PATH: finding an inode never opens a FIFO or
//     a device, and grants nothing.
//  2. An id only ever comes from a descriptor reached from the root by single
//     checked names without following links, so it is of an inode in the export.
//  3. A directory found by id that is no longer below the root is refused.
// Thread-safe. Methods return 0 or an errno.
class InodeStore {
 public:
  // `names_file`: where NameMap persists, when it is needed.
  static absl::StatusOr<std::unique_ptr<InodeStore>> Open(const std::string& directory,
                                                          const std::string& names_file,
                                                          size_t cached_fds,
                                                          bool kernel_handles = true);

  const FileId& root() const { return root_id_; }
  int root_fd() const { return root_fd_.get(); }
  bool uses_kernel_handles() const { return root_mount_->by_handle; }

  // ESTALE when the inode is no more.
  int Find(const FileId& id, SharedFd* fd);

  // The id of what `fd` (O_PATH or not) is open on, which was found as `name` in
  // `parent`. Caches nothing.
  int Identify(int fd, const FileId& parent, std::string_view name, FileId* id);

  // The same by name and without opening it, together with its attributes. `found` is called
  // with the id before the attributes are read (again, if need be). Fails with EXDEV where only
  // Identify can tell (mount points, files replaced meanwhile).
  // REQUIRES: `name` is a checked component.
  int IdentifyAt(int dir_fd, const FileId& parent, const char* name, uint64_t expected_ino,
                 absl::FunctionRef<void(const FileId&)> found, FileId* id, struct statx* stx);

  // Opens `name` in `dir` as the current identity, never following a link, and
  // tells its id. The descriptor is cached.
  int Walk(int dir_fd, const FileId& dir, const char* name, FileId* id, SharedFd* fd);

  void Remember(const FileId& id, const SharedFd& fd) { cache_.Insert(id, fd); }
  void Forget(const FileId& id) { cache_.Erase(id); }
  size_t Purge(bool everything = false) { return cache_.Purge(everything); }

  // The id of an inode named by a kernel event: file system id and file handle.
  bool FromKernel(const void* fsid, int type, const uint8_t* bytes, size_t size,
                  FileId* id) const;

  // A rename or link gave `id` this name; for ids that depend on names.
  void NameMoved(const FileId& id, const FileId& new_dir, std::string_view new_name);
  // The inode has no name any more.
  void NameLost(const FileId& id) {
    Forget(id);
    if (id.type == FileId::kMapped) names_.Erase(id);
  }

 private:
  struct Mount {
    uint64_t key = 0;
    int mount_id = 0;
    bool by_handle = false;
    uint64_t fsid = 0;  // as statfs(2) has it
    UniqueFd fd;  // any object on it, for open_by_handle_at
    std::string path;  // as the kernel calls its root, without trailing '/'
  };

  InodeStore(size_t cached_fds, const std::string& names_file, bool kernel_handles)
      : kernel_handles_(kernel_handles), cache_(cached_fds), names_(names_file) {}
  // The mount `fd` is on, registering it when it is new.
  std::shared_ptr<const Mount> MountOf(int fd, int mount_id);
  std::shared_ptr<const Mount> KnownMount(int mount_id) const;
  std::shared_ptr<const Mount> MountByKey(uint64_t key);
  std::shared_ptr<const Mount> Register(int fd, int mount_id);
  void ScanMounts();
  int OpenByHandle(const Mount& mount, const FileId& id, SharedFd* fd);
  int OpenByName(const FileId& id, SharedFd* fd);
  bool IsBeneathRoot(int fd) const;
  void MappedId(const Mount& mount, const struct statx& stx, const FileId& parent,
                std::string_view name, FileId* id);

  const bool kernel_handles_;
  UniqueFd root_fd_;
  FileId root_id_;
  std::shared_ptr<const Mount> root_mount_;
  std::string root_path_;
  FdCache cache_;
  NameMap names_;
  mutable std::shared_mutex mounts_mutex_;
  std::vector<std::shared_ptr<const Mount>> mounts_;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_INODE_STORE_H_
