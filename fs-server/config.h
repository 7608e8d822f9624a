// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_CONFIG_H_
#define TRIPWIRE_FS_SERVER_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tripwire::fs {

// Which callers are turned into the anonymous user, as in NFS exports.
enum class Squash { kNone, kRoot, kAll };

struct ExportConfig {
  std::string name;
  std::string directory;
  bool read_only = false;
  Squash squash = Squash::kRoot;
  uint32_t anon_uid = 65534;
  uint32_t anon_gid = 65534;
};

// Reads NAME=DIR[,ro][,rw][,squash=root|all|none][,anonuid=N][,anongid=N]. A comma
// in DIR is written "\,". The message of an error is fit to show to the user.
absl::StatusOr<ExportConfig> ParseExport(const std::string& spec);

struct ServerConfig {
  std::vector<ExportConfig> exports;
  // Where the handle key and the reply journal live; made if missing.
  std::string state_dir;
  std::string server_name;
  uint32_t lease_ms = 1000;    // how long clients may cache without asking
  // How long a file without a name outlives the server's restart unless its client opens it.
  uint32_t unclaimed_ms = 60'000;
  uint32_t grace_ms = 15000;   // how long lost clients may reclaim locks
  uint32_t sessions = 256;     // of which the journal keeps replies
  size_t cached_fds = 0;       // 0: an eighth of the descriptor limit
  bool kernel_handles = true;  // false: never open by handle, as on file systems that cannot
  bool watch = false;          // recall what others change on this host, at once
  uint64_t boot_verifier = 0;  // 0: from the kernel's boot id
};

// $XDG_STATE_HOME/tripwire, else ~/.local/state/tripwire; /var/lib/tripwire for root.
std::string DefaultStateDir();

}  // namespace tripwire::fs

#endif  // TRIPWIRE_FS_SERVER_CONFIG_H_
