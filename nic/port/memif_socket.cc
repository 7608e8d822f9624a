// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/memif_socket.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace tripwire {
namespace {

constexpr int kBacklog = 1024;
constexpr int kLockAttempts = 200;  // of 10 ms
constexpr size_t kMaxPassedFds = 8;

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  static_assert(sizeof(address.sun_path) - 1 == kMaxSocketPathBytes);
  if (path.empty()) {
    return absl::InvalidArgumentError("the memif socket path is empty");
  }
  if (path.size() > kMaxSocketPathBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the memif socket path has ", path.size(),
                     " bytes, but a Unix socket path may have at most ",
                     kMaxSocketPathBytes, ": ", path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

UniqueFd NewSocket() {
  return UniqueFd(
      socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

absl::Status CannotListen(const std::string& path, const std::string& why) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot listen on ", path, ": ", why));
}

// Serialises those who look for, remove and replace stale sockets in a
// directory. Best effort: without the lock two that start at once might both
// think a stale socket theirs.
UniqueFd LockDirectory(const std::string& directory) {
  UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int i = 0; fd && i < kLockAttempts; ++i) {
    if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) break;
    usleep(10'000);
  }
  return fd;
}

// Removes the socket file at `path` if nobody listens on it.
absl::Status RemoveStale(const std::string& path, const sockaddr_un& address) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    return CannotListen(path, std::strerror(errno));
  }
  if (!S_ISSOCK(info.st_mode)) {
    return CannotListen(path, "a file that is not a socket is in the way");
  }
  UniqueFd probe = NewSocket();
  if (!probe) return absl::ErrnoToStatus(errno, "cannot create a socket");
  const int result = connect(
      probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (result == 0 || errno == EAGAIN) {
    return CannotListen(path, "in use by a running listener");
  }
  if (errno == EPROTOTYPE) {
    return CannotListen(path, "in use by another kind of socket");
  }
  if (errno != ECONNREFUSED && errno != ENOENT) {
    return CannotListen(path, std::strerror(errno));
  }
  unlink(path.c_str());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MemifServerSocket> MemifServerSocket::Listen(
    const std::string& path) {
  absl::StatusOr<sockaddr_un> address = AddressOf(path);
  if (!address.ok()) return address.status();
  MemifServerSocket self;
  self.fd_ = NewSocket();
  if (!self.fd_) return absl::ErrnoToStatus(errno, "cannot create a socket");

  UniqueFd lock = LockDirectory(DirectoryOf(path));
  auto try_bind = [&] {
    return bind(self.fd(), reinterpret_cast<const sockaddr*>(&*address),
                sizeof *address) == 0;
  };
  bool is_bound = try_bind();
  if (!is_bound && errno == EADDRINUSE) {
    absl::Status removed = RemoveStale(path, *address);
    if (!removed.ok()) return removed;
    is_bound = try_bind();
  }
  if (!is_bound) {
    if (errno == ENOENT) {
      return CannotListen(path, absl::StrCat("directory ", DirectoryOf(path),
                                             " does not exist"));
    }
    return CannotListen(path, std::strerror(errno));
  }
  // From here on the file is ours to remove.
  self.path_ = path;
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    return CannotListen(path, std::strerror(errno));
  }
  self.inode_ = info.st_ino;
  self.device_ = info.st_dev;
  if (listen(self.fd(), kBacklog) != 0) {
    return CannotListen(path, std::strerror(errno));
  }
  return self;
}

MemifServerSocket::~MemifServerSocket() {
  struct stat info;
  if (fd_ && lstat(path_.c_str(), &info) == 0 && info.st_ino == inode_ &&
      info.st_dev == device_) {
    unlink(path_.c_str());
  }
}

UniqueFd MemifServerSocket::Accept() const {
  return UniqueFd(
      accept4(fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

bool MayStopUs(int socket) {
  // What users of other namespaces are seen as, whoever they are there.
  constexpr uid_t kNobody = 65534;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
      size != sizeof peer || peer.uid == kNobody) {
    return false;
  }
  return peer.uid == 0 || peer.uid == getuid();
}

absl::StatusOr<UniqueFd> ConnectMemifSocket(const std::string& path) {
  absl::StatusOr<sockaddr_un> address = AddressOf(path);
  if (!address.ok()) return address.status();
  UniqueFd fd = NewSocket();
  if (!fd) return absl::ErrnoToStatus(errno, "cannot create a socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address),
              sizeof *address) == 0) {
    return fd;
  }
  const int error = errno;
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(absl::StrCat(
          "nothing listens on ", path,
          ": no such socket (start the listener first, or add ',wait')"));
    case ECONNREFUSED:
      return absl::UnavailableError(
          absl::StrCat("nothing listens on ", path,
                       " any more (start the listener, or add ',wait')"));
    case EAGAIN:
      return absl::UnavailableError(
          absl::StrCat("the listener on ", path, " does not answer"));
    case EPROTOTYPE:
      return absl::FailedPreconditionError(
          absl::StrCat(path, " is a socket, but not that of a memif listener"));
    default:
      return absl::FailedPreconditionError(
          absl::StrCat("cannot connect to ", path, ": ", std::strerror(error)));
  }
}

absl::StatusOr<MemifReceived> ReceiveMemif(int socket) {
  MemifReceived received;
  iovec part{&received.message, sizeof received.message};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPassedFds * sizeof(int))];
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t length =
      recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length < 0) {
    if (errno == EAGAIN || errno == EINTR) {
      return absl::UnavailableError("nothing there yet");
    }
    return absl::ErrnoToStatus(errno, "control socket");
  }
  // Own every descriptor that came, so that what we do not want is closed.
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr;
       item = CMSG_NXTHDR(&header, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof fd);
      UniqueFd owned(fd);
      if (!received.fd) received.fd = std::move(owned);
    }
  }
  if (length == 0) return absl::AbortedError("the peer closed the connection");
  if (length != sizeof received.message ||
      (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return absl::InvalidArgumentError("not a memif message");
  }
  return received;
}

absl::Status SendMemifBytes(int socket, MemifMessageType type, const void* body,
                            size_t length_bytes, int fd) {
  MemifMessage message{};
  message.type = static_cast<uint16_t>(type);
  if (length_bytes > sizeof message.body) {
    return absl::InternalError("memif message too long");
  }
  if (length_bytes > 0) std::memcpy(message.body, body, length_bytes);
  iovec part{&message, sizeof message};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(item), &fd, sizeof fd);
  }
  // Control messages are few and the peer reads them at once: a full socket
  // means that it does not.
  if (sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) !=
      static_cast<ssize_t>(sizeof message)) {
    return absl::ErrnoToStatus(errno, "control socket");
  }
  return absl::OkStatus();
}

}  // namespace tripwire
