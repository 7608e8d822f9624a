// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_MOUNT_OPTIONS_H_
#define TRIPWIRE_FUSE_CLIENT_MOUNT_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "fuse-client/file_system.h"
#include "fuse-client/mount_session.h"

namespace tripwire::fuse {

// Everything the command line says.
struct MountOptions {
  std::string source;       // as given: [NODE]:NAME
  std::string node;         // empty: the only one
  std::string mountpoint;   // as given
  std::vector<std::string> ports;
  std::string own_node;     // our name on the network; empty: the host's
  std::string log_file;
  bool foreground = false;
  bool verbose = false;
  bool fake = false;        // mount -f: check, do nothing
  bool sloppy = false;      // mount -s: pass over unknown options
  bool show_help = false;
  bool show_version = false;

  FsOptions fs;
  std::vector<std::string> kernel_options;  // for mount(2) or fusermount3
  uint32_t max_read = 1u << 20;
  // How long a waiting thread may spin before it sleeps: as long as a call with a
  // megabyte of data takes.
  uint32_t spin_us = 1000;

 private:
  friend class OptionReader;
  bool allow_other_ = false, no_allow_other_ = false;
};

// Reads the arguments of tw-mount, or of mount.tripwire when argv[0] says so
// (there -f means "fake", as mount(8) wants it). `is_root` decides defaults: root's
// mounts are for everybody (allow_other) with permissions checked by the kernel
// (default_permissions); others' are for themselves and the server checks.
// The message of an error is one line fit to show.
absl::Status ParseCommandLine(int argc, const char* const* argv, bool is_root,
                              MountOptions* options);

// Applies one comma-separated list of -o. A comma within a value is written "\,".
absl::Status ApplyOptionList(const std::string& list, MountOptions* options);

extern const char kUsage[];

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_MOUNT_OPTIONS_H_
