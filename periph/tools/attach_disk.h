// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_TOOLS_ATTACH_DISK_H_
#define TRIPWIRE_PERIPH_TOOLS_ATTACH_DISK_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "nic/api/nic.h"
#include "periph/tools/disk_file.h"

namespace tripwire::periph {

struct AttachDiskOptions {
  std::string node;       // empty: the only one that offers devices
  std::string device;     // also the file's name
  std::string directory;  // where the file appears
  bool read_only = false;
  bool shared = false;    // others may write to it meanwhile
  DiskCache cache = DiskCache::kThrough;
  std::vector<std::string> mount_options;  // as for fusermount3: "allow_other"
};

// Makes a remote disk a file in a directory until it is unmounted or `stop_fd` is
// readable; then unmounts it, if it is in use by force. Calls `ready` with the file's path
// when it is there. Errors, before that, are one line for the user.
absl::Status AttachDisk(Nic& nic, const AttachDiskOptions& options, int stop_fd,
                        const std::function<void(const std::string& path)>& ready);

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_TOOLS_ATTACH_DISK_H_
