// SPDX-License-Identifier: BSD-3-Clause
// Serves a directory and mounts it again, in one process and without a NIC:
//   loopback_mount DIRECTORY MOUNTPOINT [MOUNTPOINT...] [-o OPTIONS] [--squash WHOM]
// For tests of the mount, and to measure what the mount itself costs. Stays until
// SIGTERM; prints "ready" when everything is mounted.
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "fs-server/file_server.h"
#include "fs-server/testing/loopback.h"
#include "fuse-client/mount_runner.h"
#include "fuse-client/mount_table.h"
#include "nic/base/process.h"
#include "spdlog/spdlog.h"

namespace {

int Fail(const std::string& what) {
  std::fprintf(stderr, "loopback_mount: %s\n", what.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tripwire;
  std::vector<std::string> words;
  std::string mount_options, squash = "none";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "-o" && i + 1 < argc) {
      mount_options = argv[++i];
    } else if (word == "--squash" && i + 1 < argc) {
      squash = argv[++i];
    } else {
      words.push_back(word);
    }
  }
  if (words.size() < 2) return Fail("need DIRECTORY and MOUNTPOINT");
  if (const char* level = std::getenv("LOG")) {
    spdlog::set_level(spdlog::level::from_str(level));
  }

  BlockServiceSignals();

  char state[] = "/tmp/tw-loopback-XXXXXX";
  if (!mkdtemp(state)) return Fail("mkdtemp");
  fs::ServerConfig config;
  auto exported = fs::ParseExport("data=" + words[0] + ",squash=" + squash);
  if (!exported.ok()) return Fail(std::string(exported.status().message()));
  config.exports.push_back(*exported);
  config.state_dir = state;
  auto files = fs::FileServer::Create(config);
  if (!files.ok()) return Fail(std::string(files.status().message()));
  rpc::Loopback net;
  auto server = net.Serve(fs::FileServer::RpcOptions(), (*files)->Callbacks());

  std::vector<std::unique_ptr<fuse::MountRunner>> mounts;
  for (size_t i = 1; i < words.size(); ++i) {
    std::vector<const char*> arguments = {"tw-mount", ":data", words[i].c_str()};
    if (!mount_options.empty()) {
      arguments.push_back("-o");
      arguments.push_back(mount_options.c_str());
    }
    fuse::MountOptions options;
    absl::Status status =
        fuse::ParseCommandLine(static_cast<int>(arguments.size()), arguments.data(),
                               geteuid() == 0, &options);
    if (!status.ok()) return Fail(std::string(status.message()));
    auto point = fuse::CheckMountPoint(words[i]);
    if (!point.ok()) return Fail(std::string(point.status().message()));
    mounts.push_back(std::make_unique<fuse::MountRunner>(options, *point));
    status = mounts.back()->Start(
        [&](rpc::ClientOptions o) { return net.Connect(std::move(o)); });
    if (!status.ok()) return Fail(std::string(status.message()));
  }
  std::puts("ready");
  std::fflush(stdout);
  mounts[0]->Run();
  mounts.clear();
  (*files)->Shutdown();
  server.reset();
  const std::string cleanup = std::string("rm -rf ") + state;
  return std::system(cleanup.c_str());
}
