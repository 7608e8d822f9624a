// SPDX-License-Identifier: BSD-3-Clause
#include "fuse-client/mount_table.h"

#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

extern char** environ;

namespace tripwire::fuse {
namespace {

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '7';
    };
    if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// The line of the topmost mount on `path`, split at spaces.
std::vector<std::string> FindMount(std::string_view mountinfo,
                                   std::string_view path) {
  std::vector<std::string> found;
  const absl::string_view text(mountinfo.data(), mountinfo.size());
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    std::vector<std::string> fields = absl::StrSplit(line, ' ');
    if (fields.size() > 6 && Unescape(fields[4]) == path) found = std::move(fields);
  }
  return found;
}

std::string MountInfo() {
  std::ifstream in("/proc/self/mountinfo");
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Like realpath(3), but looks only at the parent: the directory itself may be the
// root of a file system that does not answer.
std::string AbsolutePath(const std::string& path) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const size_t slash = trimmed.rfind('/');
  std::string parent = slash == std::string::npos ? "."
                       : slash == 0               ? "/"
                                                  : trimmed.substr(0, slash);
  const std::string name =
      slash == std::string::npos ? trimmed : trimmed.substr(slash + 1);
  char resolved[PATH_MAX];
  if (name.empty() || name == "." || name == "..") {
    return realpath(trimmed.c_str(), resolved) ? resolved : "";
  }
  if (!realpath(parent.c_str(), resolved)) return "";
  parent = resolved;
  return parent == "/" ? absl::StrCat("/", name) : absl::StrCat(parent, "/", name);
}

}  // namespace

std::string DeviceOfMount(std::string_view mountinfo, std::string_view path) {
  const std::vector<std::string> fields = FindMount(mountinfo, path);
  return fields.empty() ? "" : fields[2];
}

std::string DeviceOfMount(std::string_view path) {
  return DeviceOfMount(MountInfo(), path);
}

void DetachMount(const std::string& path) {
  if (geteuid() == 0 &&
      umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
    return;
  }
  std::string target = path;
  char program[] = "fusermount3";
  char unmount[] = "-u", quiet[] = "-q", lazy[] = "-z", end[] = "--";
  char* const argv[] = {program, unmount, quiet, lazy, end, target.data(), nullptr};
  pid_t pid = 0;
  if (posix_spawnp(&pid, program, nullptr, nullptr, argv, environ) != 0) return;
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
}

absl::StatusOr<std::string> CheckMountPoint(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("the mount point is empty");
  std::string absolute = AbsolutePath(path);
  if (absolute.empty()) {
    return absl::NotFoundError(absl::StrCat("mount point ", path, ": ",
                                            std::strerror(errno),
                                            "; create it with mkdir -p"));
  }
  const std::vector<std::string> mount = FindMount(MountInfo(), absolute);
  for (size_t i = 6; i + 2 < mount.size(); ++i) {
    if (mount[i] == "-" && mount[i + 1] == "fuse.tripwire") {
      struct stat st;
      const bool dead = stat(absolute.c_str(), &st) != 0 && errno == ENOTCONN;
      return absl::AlreadyExistsError(absl::StrCat(
          absolute, dead ? " has a dead mount of " : " is in use: it is a mount of ",
          Unescape(mount[i + 2]), "; unmount it with umount ", absolute));
    }
  }
  struct stat st;
  if (lstat(absolute.c_str(), &st) != 0) {
    if (errno == ENOENT) {
      return absl::NotFoundError(absl::StrCat(
          "mount point ", absolute, " does not exist; create it with mkdir -p"));
    }
    return absl::UnavailableError(
        absl::StrCat("mount point ", absolute, ": ", std::strerror(errno)));
  }
  if (S_ISLNK(st.st_mode)) {
    char resolved[PATH_MAX];
    if (!realpath(absolute.c_str(), resolved)) {
      return absl::NotFoundError(absl::StrCat("mount point ", absolute,
                                              " is a symbolic link to nowhere"));
    }
    return CheckMountPoint(resolved);
  }
  if (!S_ISDIR(st.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("mount point ", absolute, " is not a directory"));
  }
  if (geteuid() != 0 && access(absolute.c_str(), W_OK) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("you may not mount on ", absolute,
                     ": users mount on directories they can write to"));
  }
  return absolute;
}

}  // namespace tripwire::fuse
