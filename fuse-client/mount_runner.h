// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FUSE_CLIENT_MOUNT_RUNNER_H_
#define TRIPWIRE_FUSE_CLIENT_MOUNT_RUNNER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fuse-client/file_system.h"
#include "fuse-client/mount_options.h"
#include "fuse-client/mount_session.h"

namespace tripwire::fuse {

using ConnectFunction = std::function<absl::StatusOr<std::unique_ptr<rpc::Client>>(
    rpc::ClientOptions options)>;

// A mount from connecting to unmounting. For one thread, except Interrupted.
class MountRunner {
 public:
  // `mountpoint` as CheckMountPoint returned it.
  MountRunner(MountOptions options, std::string mountpoint)
      : options_(std::move(options)), mountpoint_(std::move(mountpoint)) {}
  ~MountRunner();

  // Connects and mounts. The error is one line for the user.
  absl::Status Start(const ConnectFunction& connect);
  const std::string& device() const { return session_->device(); }

  // Serves until the file system is unmounted or one of SIGTERM, SIGINT and SIGHUP
  // arrives (they must be blocked in all threads), and then unmounts it.
  void Run();
  // Unmounts, however busy it is.
  void Stop();

  FileSystem& file_system() { return *fs_; }

 private:
  void Unmount();

  const MountOptions options_;
  const std::string mountpoint_;
  std::unique_ptr<FileSystem> fs_;
  std::unique_ptr<rpc::Client> client_;
  std::unique_ptr<MountSession> session_;
};

}  // namespace tripwire::fuse

#endif  // TRIPWIRE_FUSE_CLIENT_MOUNT_RUNNER_H_
