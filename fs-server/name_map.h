// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_NAME_MAP_H_
#define TRIPWIRE_FS_SERVER_NAME_MAP_H_

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "fs-server/handle.h"
#include "nic/base/fd.h"

namespace tripwire::fs {

// Where each inode was last seen: its directory and its name there. For file
// systems whose inodes cannot be opened by handle. A place is a hint, which the
// user checks against the inode's id. Kept in an append-only file, read when the server
// starts, so that handles outlive it. Thread-safe.
class NameMap {
 public:
  struct Place {
    FileId dir;
    std::string name;
  };

  explicit NameMap(std::string file) : file_(std::move(file)) {}

  // Loads the file at first use.
  void Put(const FileId& id, const FileId& dir, std::string_view name);
  std::optional<Place> Get(const FileId& id);
  void Erase(const FileId& id);
  size_t size();

 private:
  void Load();
  void Rewrite();
  void Append(const FileId& id, const FileId& dir, std::string_view name);

  const std::string file_;
  std::mutex mutex_;
  bool loaded_ = false;
  absl::flat_hash_map<FileId, Place> places_;
  UniqueFd log_;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_NAME_MAP_H_
