// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_PORT_MEMIF_LOBBY_H_
#define TRIPWIRE_NIC_PORT_MEMIF_LOBBY_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "nic/base/fd.h"
#include "nic/port/memif_socket.h"

namespace tripwire {

// The listening socket of one or several ports, each of which a thread of its
// own may drive. Whichever port hears of a client first accepts it, for the
// port that has the fewest; from then on the client is that port's alone.
//
// Thread-safe.
class MemifLobby {
 public:
  // A client's place at a port: counted there for as long as it exists.
  class Seat {
   public:
    Seat() = default;
    Seat(std::shared_ptr<MemifLobby> lobby, size_t port)
        : lobby_(std::move(lobby)), port_(port) {}
    Seat(Seat&& other) noexcept
        : lobby_(std::exchange(other.lobby_, nullptr)), port_(other.port_) {}
    Seat& operator=(Seat&& other) noexcept {
      std::swap(lobby_, other.lobby_);
      std::swap(port_, other.port_);
      return *this;
    }
    ~Seat();
    size_t port() const { return port_; }

   private:
    std::shared_ptr<MemifLobby> lobby_;
    size_t port_ = 0;
  };
  struct Client {
    UniqueFd socket;  // empty: there was none
    Seat seat;
  };

  static std::shared_ptr<MemifLobby> Create(MemifServerSocket socket,
                                            size_t ports);

  int socket() const { return socket_.fd(); }
  // Readable when TakeGiven has somebody.
  int bell(size_t port) const { return ports_[port].bell.get(); }

  // The next client that waits, or none, with errno as accept(2) set it.
  Client Accept();
  // Hands it to the port of its seat.
  void Give(Client client);
  Client TakeGiven(size_t port);
  // The port is no more: nobody is seated there, and those given to it are
  // turned away.
  void Close(size_t port);

 private:
  struct PortState {
    UniqueFd bell;
    size_t seated = 0;
    bool is_closed = false;
    std::deque<Client> given;
  };
  MemifLobby(MemifServerSocket socket, size_t ports);

  const MemifServerSocket socket_;
  std::weak_ptr<MemifLobby> self_;
  std::mutex mutex_;
  std::vector<PortState> ports_;  // `bell` never changes
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_PORT_MEMIF_LOBBY_H_
