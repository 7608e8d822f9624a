// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/daemon.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>

#include "fuse-client/mount_table.h"
#include "nic/base/daemon.h"

namespace tripwire::fuse {

MountGuard MountGuard::Fork() {
  TellingPipe pipe = TellingPipe::Make("tw-mount", 32);
  const pid_t child = fork();
  if (child != 0) {
    pipe.read.reset();
    return MountGuard(child > 0 ? std::move(pipe.write) : UniqueFd());
  }
  // Ends when its owner does, not before: no signal to the group may end it.
  pipe.write.reset();
  setsid();
  prctl(PR_SET_NAME, "tw-mount-guard");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) {
    std::signal(signal, SIG_IGN);
  }
  StandardFilesToNull();
  if (chdir("/") != 0) _exit(1);
  // Nothing of the owner's must stay open because of us: sockets, pipes, terminals.
  const int keep = pipe.read.get();
  if (keep > 3) close_range(3, static_cast<unsigned>(keep) - 1, 0);
  close_range(static_cast<unsigned>(keep) + 1, ~0u, 0);
  const std::string word = TellingPipe::ReadAll(keep);
  const size_t end = word.find('\0');
  if (end != std::string::npos) {
    const std::string mountpoint = word.substr(0, end);
    const std::string device = word.substr(end + 1);
    const bool ended = device.find('\0') != std::string::npos;
    if (!ended && !device.empty() && DeviceOfMount(mountpoint) == device) {
      DetachMount(mountpoint);
    }
  }
  _exit(0);
}

void MountGuard::Mounted(const std::string& mountpoint, const std::string& device) {
  if (pipe_) TellingPipe::WriteAll(pipe_.get(), mountpoint + '\0' + device);
}

void MountGuard::Ended() {
  if (pipe_) TellingPipe::WriteAll(pipe_.get(), std::string(1, '\0'));
}

}  // namespace tripwire::fuse
