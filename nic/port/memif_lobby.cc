// SPDX-License-Identifier: BSD-3-Clause
#include "nic/port/memif_lobby.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace tripwire {

MemifLobby::Seat::~Seat() {
  if (lobby_ == nullptr) return;
  std::lock_guard lock(lobby_->mutex_);
  --lobby_->ports_[port_].seated;
}

MemifLobby::MemifLobby(MemifServerSocket socket, size_t ports)
    : socket_(std::move(socket)), ports_(ports) {
  for (PortState& port : ports_) {
    port.bell = UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  }
}

std::shared_ptr<MemifLobby> MemifLobby::Create(MemifServerSocket socket,
                                               size_t ports) {
  std::shared_ptr<MemifLobby> lobby(new MemifLobby(std::move(socket), ports));
  for (const PortState& port : lobby->ports_) {
    if (!port.bell) return nullptr;
  }
  lobby->self_ = lobby;
  return lobby;
}

MemifLobby::Client MemifLobby::Accept() {
  Client client;
  client.socket = socket_.Accept();
  if (!client.socket) return client;
  std::lock_guard lock(mutex_);
  size_t emptiest = ports_.size();
  for (size_t i = 0; i < ports_.size(); ++i) {
    if (ports_[i].is_closed) continue;
    if (emptiest == ports_.size() ||
        ports_[i].seated < ports_[emptiest].seated) {
      emptiest = i;
    }
  }
  ++ports_[emptiest].seated;  // the caller's port, at least, is open
  client.seat = Seat(self_.lock(), emptiest);
  return client;
}

void MemifLobby::Give(Client client) {
  const size_t to = client.seat.port();
  {
    std::lock_guard lock(mutex_);
    if (!ports_[to].is_closed) {
      ports_[to].given.push_back(std::move(client));
      const uint64_t one = 1;
      [[maybe_unused]] auto n = write(ports_[to].bell.get(), &one, sizeof one);
    }
  }
  // If it was closed meanwhile, the client is turned away here, and will try
  // again.
}

MemifLobby::Client MemifLobby::TakeGiven(size_t port) {
  std::lock_guard lock(mutex_);
  PortState& state = ports_[port];
  if (state.given.empty()) {
    uint64_t count;
    [[maybe_unused]] auto n = read(state.bell.get(), &count, sizeof count);
    return {};
  }
  Client client = std::move(state.given.front());
  state.given.pop_front();
  return client;
}

void MemifLobby::Close(size_t port) {
  std::deque<Client> given;  // goes after the lock, which their seats need
  std::lock_guard lock(mutex_);
  ports_[port].is_closed = true;
  given.swap(ports_[port].given);
}

}  // namespace tripwire
