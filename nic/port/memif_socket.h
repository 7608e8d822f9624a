// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MEMIF_SOCKET_H_
#define TRIPWIRE_NIC_PORT_MEMIF_SOCKET_H_

#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "nic/port/memif_layout.h"

namespace tripwire {

// Longest path that fits a socket address.
inline constexpr size_t kMaxSocketPathBytes = 107;

// A listening, non-blocking SOCK_SEQPACKET socket with a name in the file
// system. Takes the place of a socket file nobody listens on any more; never
// that of a live listener. Removes its own file, and only its own, when
// destroyed.
class MemifServerSocket {
 public:
  static absl::StatusOr<MemifServerSocket> Listen(const std::string& path);
  MemifServerSocket(MemifServerSocket&&) = default;
  ~MemifServerSocket();

  int fd() const { return fd_.get(); }
  // The next client; without one, an empty descriptor.
  UniqueFd Accept() const;

 private:
  MemifServerSocket() = default;
  UniqueFd fd_;
  std::string path_;
  uint64_t inode_ = 0, device_ = 0;  // of the file that is ours
};

// Connects, without blocking, to whoever listens at `path`. NotFound: no such
// file. Unavailable: nobody listens, or too many wait. InvalidArgument: the
// path is too long.
absl::StatusOr<UniqueFd> ConnectMemifSocket(const std::string& path);

// Whether the process at the other end is of a user who may send this one any
// signal: the same, or root.
bool MayStopUs(int socket);

// One message of the control protocol, with the descriptor that came with it.
struct MemifReceived {
  MemifMessage message;
  UniqueFd fd;

  MemifMessageType type() const {
    return static_cast<MemifMessageType>(message.type.get());
  }
  template <typename T>
  T body() const {
    static_assert(std::is_trivially_copyable_v<T> &&
                  sizeof(T) <= sizeof(message.body));
    T value;
    std::memcpy(&value, message.body, sizeof value);
    return value;
  }
};

// Receives without blocking. Unavailable: nothing there yet. Anything else: the
// peer is gone, or sent what is no message.
absl::StatusOr<MemifReceived> ReceiveMemif(int socket);

absl::Status SendMemifBytes(int socket, MemifMessageType type, const void* body,
                            size_t length_bytes, int fd);
inline absl::Status SendMemif(int socket, MemifMessageType type) {
  return SendMemifBytes(socket, type, nullptr, 0, -1);
}
template <typename T>
absl::Status SendMemif(int socket, MemifMessageType type, const T& body,
                       int fd = -1) {
  static_assert(std::is_trivially_copyable_v<T>);
  return SendMemifBytes(socket, type, &body, sizeof body, fd);
}

// Copies a text into a fixed field, cut to fit and always terminated.
template <size_t N>
void SetMemifText(char (&field)[N], std::string_view text) {
  const size_t length = text.size() < N - 1 ? text.size() : N - 1;
  std::memset(field, 0, N);
  std::memcpy(field, text.data(), length);
}
template <size_t N>
std::string MemifText(const char (&field)[N]) {
  return std::string(field, strnlen(field, N));
}

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MEMIF_SOCKET_H_
