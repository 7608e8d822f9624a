// SPDX-License-Identifier: BSD-3-Clause
#include "periph/device/bytes.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "periph/device/device.h"

namespace tripwire::periph {

absl::Status CheckByteFormat(const std::string& wanted) {
  const std::string format(absl::StripAsciiWhitespace(wanted));
  if (format.empty() || format == kByteStream) return absl::OkStatus();
  if (format.find('/') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", format, "' is not a format"));
  }
  return absl::UnimplementedError(
      absl::StrCat("the device has only ", kByteStream, ", not ", format));
}

absl::Status DeviceError(int error, const std::string& what) {
  const std::string message = absl::StrCat(what, ": ", std::strerror(error));
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case EBUSY:
    case ETXTBSY:
    case EWOULDBLOCK:
      return absl::FailedPreconditionError(message);
    case EINVAL:
    case EBADF:
    case EISDIR:
      return absl::UnimplementedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<PathSpec> ParsePathSpec(const std::string& kind,
                                       const std::string& argument) {
  PathSpec spec;
  const std::vector<std::string> parts = absl::StrSplit(argument, ',');
  spec.path = parts[0];
  if (spec.path.empty())
    return absl::InvalidArgumentError(absl::StrCat(kind, ": names no path"));
  if (spec.path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(kind, ": a path has no zero bytes"));
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::pair<std::string, std::string> option =
        absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    if (option.first.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          kind, ": '", argument, "' has an option without a name"));
    }
    spec.options.push_back(option);
  }
  return spec;
}

absl::StatusOr<uint64_t> ParseFrameBytes(const std::string& value) {
  uint64_t bytes = 0;
  if (!absl::SimpleAtoi(value, &bytes) || bytes == 0 ||
      bytes > kMaxByteFrameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("frame=", value, ": it is a number of bytes from 1 to ",
                     kMaxByteFrameBytes));
  }
  return bytes;
}

WakeFd::WakeFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void WakeFd::Signal() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t size = ::write(fd_.get(), &one, sizeof one);
}

bool WakeFd::Clear() const {
  uint64_t count;
  return ::read(fd_.get(), &count, sizeof count) == sizeof count;
}

bool WakeFd::WaitMs(int timeout_ms) const {
  pollfd wait{fd_.get(), POLLIN, 0};
  return ::poll(&wait, 1, timeout_ms) > 0;
}

PathWatch::PathWatch(std::string path, int fd)
    : path_(std::move(path)),
      file_(fd),
      watch_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
  // Removing the name of an open file changes its attributes (the number of its
  // names).
  if (watch_ &&
      ::inotify_add_watch(watch_.get(), path_.c_str(),
                          IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF) < 0) {
    watch_.reset();
  }
}

bool PathWatch::StillThere() const {
  alignas(inotify_event) char events[4096];
  while (::read(watch_.get(), events, sizeof events) > 0) {
  }
  struct stat named, opened;
  return ::stat(path_.c_str(), &named) == 0 && ::fstat(file_, &opened) == 0 &&
         named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

}  // namespace tripwire::periph
