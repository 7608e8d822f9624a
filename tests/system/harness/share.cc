// SPDX-License-Identifier: BSD-3-Clause
#include "tests/system/harness/share.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

namespace tripwire::systest {

TempDir::TempDir() {
  const char* base = std::getenv("TMPDIR");
  path_ = std::string(base != nullptr && *base != 0 ? base : "/tmp") +
          "/tw-test-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr)
    throw std::runtime_error("mkdtemp failed");
  ::chmod(path_.c_str(), 0755);
}

TempDir::~TempDir() {
  // Never walks into a mount that a failed test left: that may hang.
  MustRun({"rm", "-rf", "--one-file-system", path_}, 120);
}

std::string TempDir::Make(const std::string& name) const {
  const std::string path = path_ + "/" + name;
  if (::mkdir(path.c_str(), 0755) != 0)
    throw std::runtime_error("mkdir " + path);
  return path;
}

std::string MountedType(const std::string& path) {
  std::ifstream mounts("/proc/self/mounts");
  std::string line, type;
  while (std::getline(mounts, line)) {
    std::istringstream fields(line);
    std::string source, target, kind;
    fields >> source >> target >> kind;
    if (target == path) type = kind;
  }
  return type;
}

Mount::~Mount() {
  if (path_.empty()) return;
  Stop();
  if (!MountedType(path_).empty()) ::umount2(path_.c_str(), MNT_DETACH);
  if (::testing::Test::HasFailure()) {
    std::cerr << "--- tw-mount " << path_ << ":\n" << Tail(process_.err());
  }
}

int Mount::Stop() {
  process_.Signal(SIGTERM);
  const auto code = process_.Wait(20);
  if (!code) {
    ADD_FAILURE() << "tw-mount did not end within 20 s of SIGTERM";
    process_.Kill();
    return -1;
  }
  return *code;
}

Share::Share(Wire wire, int clients) : root_(temp_.Make("root")) {
  network_ = std::make_unique<Network>(wire, temp_.path(), clients);
}

Share::~Share() {
  if (server_.Running()) {
    server_.Signal(SIGTERM);
    if (!server_.Wait(20)) {
      ADD_FAILURE() << "tw-fsd did not end within 20 s of SIGTERM";
    }
  }
  if (::testing::Test::HasFailure())
    std::cerr << "--- tw-fsd:\n" << Tail(server_.err());
}

void Share::StartServer(const Argv& more, const std::string& export_options) {
  Argv argv = {Program("tw-fsd"),
               "--node",
               "server",
               "--state-dir",
               temp_.path() + "/state",
               "--port",
               network_->ServerPort(),
               "--export",
               "data=" + root_ + export_options};
  argv.insert(argv.end(), more.begin(), more.end());
  server_ = Process(argv, network_->ServerNode());
  const bool listens = Eventually(30, [&] {
    return server_.err().find("ready: ") != std::string::npos ||
           !server_.Running();
  });
  if (!listens || !server_.Running()) {
    throw std::runtime_error("tw-fsd does not start: " + server_.err());
  }
}

Argv Share::MountCommand(int client, const std::string& mount_point,
                         const std::string& options) const {
  Argv argv = {
      Program("tw-mount"),         "server:data", mount_point, "-f", "--port",
      network_->ClientPort(client)};
  if (!options.empty()) {
    argv.push_back("-o");
    argv.push_back(options);
  }
  return argv;
}

Mount Share::MountAs(int client, const std::string& options) {
  const std::string point =
      temp_.Make("mount" + std::to_string(mounts_made_++));
  Process process(MountCommand(client, point, options),
                  network_->ClientNode(client));
  const bool mounted = Eventually(30, [&] {
    return MountedType(point).rfind("fuse", 0) == 0 || !process.Running();
  });
  if (!mounted || !process.Running()) {
    throw std::runtime_error("no mount: " + process.err() + "\n--- tw-fsd:\n" +
                             Tail(server_.err()));
  }
  return Mount(std::move(process), point);
}

std::string Tail(const std::string& text, size_t bytes) {
  return text.size() <= bytes ? text : "..." + text.substr(text.size() - bytes);
}

}  // namespace tripwire::systest
