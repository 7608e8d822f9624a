// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_SYSTEM_HARNESS_SHARE_H_
#define TRIPWIRE_TESTS_SYSTEM_HARNESS_SHARE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/system/harness/network.h"
#include "tests/system/harness/process.h"

namespace tripwire::systest {

// A directory of its own below the temporary directory, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  // A new empty directory in it.
  std::string Make(const std::string& name) const;

 private:
  std::string path_;
};

// The file-system type of whatever is mounted at exactly `path`; empty when
// nothing is.
std::string MountedType(const std::string& path);

// A mount: the tw-mount process (in the foreground) and where it is.
class Mount {
 public:
  Mount(Process process, std::string path)
      : process_(std::move(process)), path_(std::move(path)) {}
  Mount(Mount&&) = default;
  Mount& operator=(Mount&&) = default;
  ~Mount();

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const {
    return path_ + "/" + name;
  }
  Process& process() { return process_; }
  // SIGTERM, and the exit code.
  int Stop();

 private:
  Process process_;
  std::string path_;
};

// A server and its mounts, of one exported directory.
class Share {
 public:
  explicit Share(Wire wire, int clients = 2);
  ~Share();

  Network& network() { return *network_; }
  // The exported directory, seen directly.
  const std::string& root() const { return root_; }
  std::string InRoot(const std::string& name) const {
    return root_ + "/" + name;
  }
  const TempDir& temp() const { return temp_; }

  // Starts tw-fsd, with these besides --port, --node and --export. The export's
  // options (",ro") come from `export_options`.
  void StartServer(const Argv& more = {},
                   const std::string& export_options = ",squash=none");
  Process& server() { return server_; }
  // SIGKILL, as a crash.
  void CrashServer() { server_.Kill(); }

  // Mounts as client number `client` and waits until it is there; throws if
  // tw-mount ends first or takes too long. `options` are for -o.
  Mount MountAs(int client, const std::string& options = "");
  // The command line that MountAs uses.
  Argv MountCommand(int client, const std::string& mount_point,
                    const std::string& options) const;

 private:
  TempDir temp_;
  std::string root_;
  std::unique_ptr<Network> network_;
  Process server_;
  int mounts_made_ = 0;
};

// Prints what the programs said when a test fails.
std::string Tail(const std::string& text, size_t bytes = 3000);

}  // namespace tripwire::systest

#endif  // TRIPWIRE_TESTS_SYSTEM_HARNESS_SHARE_H_
