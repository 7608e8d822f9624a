// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/mount_runner.h"

#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "nic/base/fd.h"
#include "nic/base/process.h"
#include "spdlog/spdlog.h"

extern char** environ;

namespace tripwire::fuse {
namespace {

// Writes back what programs still have mapped: by another process, for this one
// must be free to serve it. Gives up after `timeout`.
void SyncBefore(const std::string& mountpoint, absl::Duration timeout) {
  std::string target = mountpoint;
  char program[] = "sync", flag[] = "-f", end[] = "--";
  char* const argv[] = {program, flag, end, target.data(), nullptr};
  pid_t pid = 0;
  if (posix_spawnp(&pid, program, nullptr, nullptr, argv, environ) != 0) return;
  const absl::Time deadline = absl::Now() + timeout;
  while (waitpid(pid, nullptr, WNOHANG) == 0) {
    if (absl::Now() > deadline) {
      kill(pid, SIGKILL);  // it ends when the mount's connection does
      return;
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
}

}  // namespace

MountRunner::~MountRunner() { Stop(); }

absl::Status MountRunner::Start(const ConnectFunction& connect) {
  FsOptions fs_options = options_.fs;
  fs_options.client_name = absl::StrCat(HostName(), ":", mountpoint_);
  fs_options.max_read = options_.max_read;
  fs_ = std::make_unique<FileSystem>(fs_options);
  rpc::ClientOptions client_options;
  client_options.node = options_.node;
  fs_->Configure(&client_options);
  auto client = connect(std::move(client_options));
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  if (absl::Status status = fs_->Start(client_.get()); !status.ok()) return status;

  SessionOptions session_options;
  session_options.mountpoint = mountpoint_;
  session_options.source = absl::StrCat(
      options_.node.empty() ? client_->peer() : options_.node, ":",
      options_.fs.export_name.empty() ? fs_->greeting().export_name()
                                      : options_.fs.export_name);
  session_options.mount_options = options_.kernel_options;
  session_options.max_read = fs_->max_read();
  if (fs_->greeting().read_only() && !options_.fs.read_only) {
    session_options.mount_options.push_back("ro");
    spdlog::info("{} is exported read-only", session_options.source);
  }
  auto session = MountSession::Mount(std::move(session_options), fs_.get());
  if (!session.ok()) return session.status();
  session_ = *std::move(session);
  return absl::OkStatus();
}

void MountRunner::Run() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  UniqueFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC));
  UniqueFd over_fd(eventfd(0, EFD_CLOEXEC));
  std::thread waiter([&] {
    session_->Wait();
    const uint64_t one = 1;
    if (write(over_fd.get(), &one, sizeof(one)) < 0) spdlog::error("eventfd failed");
  });
  pollfd fds[] = {{signal_fd.get(), POLLIN, 0}, {over_fd.get(), POLLIN, 0}};
  for (;;) {
    if (poll(fds, 2, -1) < 0) continue;  // EINTR
    if (fds[1].revents) {
      spdlog::info("{} was unmounted", mountpoint_);
    } else if (fds[0].revents) {
      signalfd_siginfo info;
      if (read(signal_fd.get(), &info, sizeof(info)) > 0) {
        spdlog::info("ending on signal {}", info.ssi_signo);
      }
    } else {
      continue;
    }
    break;
  }
  Unmount();
  waiter.join();
  Stop();
}

void MountRunner::Unmount() {
  if (!session_ || session_->Wait(absl::ZeroDuration())) return;
  // umount(2) flushes through us, and may wait for a server that is gone: so on a
  // thread of its own.
  std::promise<bool> unmounted;
  std::future<bool> clean = unmounted.get_future();
  std::thread unmounter(
      [&] { unmounted.set_value(session_->TryUnmount()); });
  const auto ready = [&](int seconds) {
    return clean.wait_for(std::chrono::seconds(seconds)) == std::future_status::ready;
  };
  bool answered = ready(5);
  if (!answered || !clean.get()) {
    spdlog::warn("{} is in use: taking it away all the same", mountpoint_);
    if (answered) SyncBefore(mountpoint_, absl::Seconds(3));
    session_->Detach();
    session_->Abandon();
    if (!answered) answered = ready(2);
  }
  if (!answered || !session_->Wait(absl::Seconds(2))) {
    // Threads still wait for a server that does not answer. Nothing more can be
    // done for them; the process ends, and the kernel tells everyone who still
    // looks at the mount that it is gone.
    spdlog::warn("ending while calls wait for the server");
    spdlog::shutdown();
    std::_Exit(0);
  }
  unmounter.join();
}

void MountRunner::Stop() {
  Unmount();
  if (fs_) fs_->Stop();
  session_.reset();
  client_.reset();
}

}  // namespace tripwire::fuse
