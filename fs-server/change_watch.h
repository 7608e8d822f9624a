// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_CHANGE_WATCH_H_
#define TRIPWIRE_FS_SERVER_CHANGE_WATCH_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "fs-server/inode_store.h"
#include "nic/base/fd.h"

namespace tripwire::fs {

// Tells of changes that other processes on this host make to the exported file
// systems, within some milliseconds (fanotify with file ids; needs root). Changes this
// process makes are not told. A write through a shared mapping is not an event: it is
// seen when the lease ends.
class ChangeWatch {
 public:
  struct Event {
    FileId id;            // the inode, or the directory when `name` is not empty
    uint32_t what = 0;    // pb::RecallWhat
    std::string name;
    bool deleted = false;
  };
  // Called from the watch's own thread. `lost`: events were dropped; anything may
  // have changed.
  using Callback = std::function<void(const std::vector<Event>& events, bool lost)>;

  // Watches the file systems of `stores`, which must outlive it.
  static absl::StatusOr<std::unique_ptr<ChangeWatch>> Start(
      std::vector<const InodeStore*> stores, Callback callback);
  ~ChangeWatch();

 private:
  ChangeWatch() = default;
  void Run();
  void Parse(const uint8_t* data, size_t size, std::vector<Event>* events, bool* lost) const;

  std::vector<const InodeStore*> stores_;
  Callback callback_;
  UniqueFd events_;
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_CHANGE_WATCH_H_
