// SPDX-License-Identifier: BSD-3-Clause
#include "periph/tools/local_pty.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tripwire::periph::tools {
namespace {

// With this, every change of a terminal's settings makes a packet at the
// master's end (asm/termbits.h; <termios.h> hides it). It also takes echo, line
// editing and signals away from the kernel, so that it is for raw terminals,
// which have none.
constexpr uint32_t kExtProc = 0200000;         // EXTPROC
constexpr uint32_t kMarkSpace = 010000000000;  // CMSPAR

absl::Status SystemError(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

std::string Target(const std::string& link) {
  char target[256];
  const ssize_t size = ::readlink(link.c_str(), target, sizeof target);
  return size > 0 ? std::string(target, static_cast<size_t>(size))
                  : std::string();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalPty>> LocalPty::Make(
    const std::string& link, const LineSettings& settings) {
  int master_fd = -1, slave_fd = -1;
  char path[64] = {};
  if (::openpty(&master_fd, &slave_fd, path, nullptr, nullptr) != 0) {
    return SystemError("making a pseudo-terminal");
  }
  auto pty = std::unique_ptr<LocalPty>(new LocalPty(UniqueFd(master_fd), path));
  // Settings stay when it is closed; from then on it counts who has it open.
  const UniqueFd slave(slave_fd);
  for (const int fd : {master_fd, slave_fd}) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(master_fd, F_SETFL, ::fcntl(master_fd, F_GETFL) | O_NONBLOCK);
  const int on = 1;
  if (::ioctl(master_fd, TIOCPKT, &on) != 0) return SystemError(path);
  absl::StatusOr<LineMode> mode = GetLineMode(slave_fd);
  if (!mode.ok()) return mode.status();
  MakeRaw(*mode);
  Apply(settings, *mode);
  mode->local_flags |= kExtProc;
  if (auto status = SetLineMode(slave_fd, *mode); !status.ok()) return status;
  pty->opens_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (pty->opens_ &&
      ::inotify_add_watch(pty->opens_.get(), path, IN_OPEN) < 0) {
    pty->opens_.reset();
  }
  if (auto looked = pty->Look(); !looked.ok()) return looked.status();
  if (auto read = pty->Read(); !read.ok())
    return read.status();  // what we did is no news
  if (!link.empty()) {
    if (auto status = pty->MakeLink(link); !status.ok()) return status;
  }
  return pty;
}

absl::Status LocalPty::MakeLink(const std::string& link) {
  struct stat st;
  // Left by one that was killed.
  if (!Target(link).empty() && ::stat(link.c_str(), &st) != 0)
    ::unlink(link.c_str());
  if (::symlink(path_.c_str(), link.c_str()) != 0) {
    if (errno == EEXIST)
      return absl::AlreadyExistsError(absl::StrCat(link, " is there already"));
    return SystemError(link);
  }
  link_ = link;
  return absl::OkStatus();
}

LocalPty::~LocalPty() {
  if (!link_.empty() && Target(link_) == path_) ::unlink(link_.c_str());
}

absl::StatusOr<std::span<const uint8_t>> LocalPty::Read() {
  for (;;) {
    const ssize_t size = ::read(master_.get(), buffer_, sizeof buffer_);
    if (size < 0 && errno == EINTR) continue;
    // EIO: all was read and no program has it open.
    if (size < 0 && (errno == EAGAIN || errno == EIO))
      return std::span<const uint8_t>();
    if (size < 0) return SystemError(path_);
    // The first byte says what follows (TIOCPKT): data, or nothing but news.
    if (size > 1 && buffer_[0] == TIOCPKT_DATA) {
      return std::span<const uint8_t>(buffer_ + 1,
                                      static_cast<size_t>(size) - 1);
    }
  }
}

absl::StatusOr<size_t> LocalPty::Write(std::span<const uint8_t> bytes) {
  const ssize_t size = ::write(master_.get(), bytes.data(), bytes.size());
  if (size >= 0) return static_cast<size_t>(size);
  if (errno == EAGAIN || errno == EINTR) return size_t{0};
  return SystemError(path_);
}

absl::StatusOr<LocalPty::Seen> LocalPty::Look() {
  const absl::StatusOr<LineMode> mode = GetLineMode(master_.get());
  if (!mode.ok()) return mode.status();
  // A program that takes the flag away has made its last change that we are
  // told of, and one that wants lines or echo is to have them. The flag is not
  // set again: by the time we did, the program might have changed more, which
  // we would undo.
  tells_changes_ = (mode->local_flags & kExtProc) != 0;
  if (tells_changes_ && !IsRaw(*mode)) {
    LineMode cooked = *mode;
    cooked.local_flags &= ~kExtProc;
    if (auto status = SetLineMode(master_.get(), cooked); !status.ok())
      return status;
    tells_changes_ = false;
  }
  Seen seen{.settings = SettingsOf(*mode), .parity = std::nullopt};
  seen.settings.bits = 8;
  seen.settings.parity = LineSettings::Parity::kNone;
  const bool is_odd = (mode->control_flags & PARODD) != 0;
  if ((mode->control_flags & kMarkSpace) != 0) {
    seen.parity =
        is_odd ? LineSettings::Parity::kMark : LineSettings::Parity::kSpace;
  } else if (is_odd) {
    seen.parity = LineSettings::Parity::kOdd;
  }
  return seen;
}

void LocalPty::AwaitRead(int timeout_ms) const {
  if (!IsOpen()) return;
  // Only its own end knows what waits there.
  const UniqueFd slave(
      ::open(path_.c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  pollfd wait{slave.get(), POLLIN, 0};
  for (int unread = 0; timeout_ms > 0; timeout_ms -= 10) {
    // What was written gets there by a kernel thread that may not have run yet:
    // until then nothing is unread. Polling waits for that thread.
    ::poll(&wait, 1, 0);
    if (::ioctl(slave.get(), TIOCINQ, &unread) != 0 || unread == 0) return;
    ::poll(nullptr, 0, 10);
  }
}

bool LocalPty::IsOpen() const {
  pollfd state{master_.get(), 0, 0};
  return ::poll(&state, 1, 0) >= 0 && (state.revents & POLLHUP) == 0;
}

void LocalPty::ClearOpens() {
  char events[4096];
  while (::read(opens_.get(), events, sizeof events) > 0) {
  }
}

}  // namespace tripwire::periph::tools
