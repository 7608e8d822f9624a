// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_UNNAMED_FILES_H_
#define TRIPWIRE_FS_SERVER_UNNAMED_FILES_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fs-server/fd_cache.h"
#include "fs-server/handle.h"
#include "nic/base/fd.h"

namespace tripwire::fs {

// Open files without a name, of one export: kept alive across a restart of the server by
// a link in a directory that no client sees. That directory is in the server's state
// directory, if the export is on the same mount, else `kDirectory` at the export's root;
// it is made when first needed. A link's name is its inode's id: the directory is all the
// record there is.
//
// Where no link can be made (another file system below the export, one without links, no
// permission) a file without a name ends with the server, as it would on its own host.
// Methods act as the server itself and leave the thread so. Thread-safe.
class UnnamedFiles {
 public:
  // The name clients neither find nor list nor make.
  static constexpr char kDirectory[] = ".tripwire-unnamed";

  // `root_fd` must outlive the object. Learns what an earlier server kept.
  UnnamedFiles(const std::string& state_dir, uint32_t export_id, int root_fd);
  ~UnnamedFiles();

  // Links the regular file `fd` (O_PATH or not); whether it is kept now. `exclusive`: it
  // is never to have a name (O_TMPFILE | O_EXCL).
  bool Keep(const FileId& id, int fd, bool exclusive = false);
  // Lets go of a file, if it was kept.
  void Drop(const FileId& id);

  // Whether the file has a link more than clients are to see. Costs nothing when
  // nothing is kept.
  bool Has(const FileId& id) const;
  bool IsExclusive(const FileId& id) const;
  // ESTALE when it is not kept.
  int Find(const FileId& id, SharedFd* fd) const;
  std::vector<FileId> All() const;

 private:
  bool OpenDirectory(bool make);  // REQUIRES mutex_
  void Learn();

  const std::string in_state_;  // path, empty when that is no place for links
  const int root_fd_;
  mutable std::mutex mutex_;
  UniqueFd dir_;
  std::atomic<size_t> count_{0};
  absl::flat_hash_map<FileId, bool> kept_;  // exclusive?
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_UNNAMED_FILES_H_
