// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MEMIF_HANDSHAKE_H_
#define TRIPWIRE_NIC_PORT_MEMIF_HANDSHAKE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/fd.h"
#include "nic/port/memif_channel.h"
#include "nic/port/memif_socket.h"

namespace tripwire {

// A connection being set up over its control socket, by either side. Continue
// is called whenever the socket is readable; it never blocks.
// Thread safety: none.
class MemifHandshake {
 public:
  explicit MemifHandshake(UniqueFd socket) : socket_(std::move(socket)) {}
  virtual ~MemifHandshake() = default;

  // Handles all messages that are there. True: done. An error: it failed, for
  // this reason; the peer was told.
  absl::StatusOr<bool> Continue();

  int socket() const { return socket_.get(); }
  const std::string& peer_name() const { return peer_name_; }
  // REQUIRES: Continue returned true.
  UniqueFd TakeSocket() { return std::move(socket_); }
  std::unique_ptr<MemifChannel> TakeChannel() { return std::move(channel_); }

 protected:
  virtual absl::StatusOr<bool> Handle(MemifReceived received) = 0;
  bool PeerIsOurs() const;

  UniqueFd socket_;
  std::unique_ptr<MemifChannel> channel_;
  std::string peer_name_;
};

// REQUIRES: Start before anything else.
class MemifServerHandshake final : public MemifHandshake {
 public:
  using MemifHandshake::MemifHandshake;
  absl::Status Start();

 private:
  absl::StatusOr<bool> Handle(MemifReceived received) override;
};

class MemifClientHandshake final : public MemifHandshake {
 public:
  // `shown` is memory that a server of ours may read besides (a memfd, or -1).
  MemifClientHandshake(UniqueFd socket, uint32_t frame_bytes, int shown,
                       uint64_t shown_bytes)
      : MemifHandshake(std::move(socket)),
        frame_bytes_(frame_bytes),
        shown_(shown),
        shown_bytes_(shown_bytes) {}

 private:
  absl::StatusOr<bool> Handle(MemifReceived received) override;
  absl::Status OnHello(const MemifHello& hello);
  absl::Status SendNext();

  const uint32_t frame_bytes_;
  const int shown_;
  const uint64_t shown_bytes_;
  bool shows_ = false;
  int step_ = 0;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MEMIF_HANDSHAKE_H_
