// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_FS_SERVER_TESTING_LOOPBACK_H_
#define TRIPWIRE_FS_SERVER_TESTING_LOOPBACK_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "nic/comm/rpc.h"

// The RPC contract (nic/comm/rpc.h) within one process and without a NIC, so that
// services and their clients can be tested against each other: sessions, slots,
// reply caches, staged bulk data, notifications, cancellation, cut links and
// killed servers. Calls run on worker threads of the server, as they do in truth.
//
//   Loopback net;
//   auto server = net.Serve(options, callbacks);     // as rpc::Server::Start
//   auto client = net.Connect(client_options);       // as rpc::Client::Connect
//
// Thread-safe. A Loopback may be destroyed before the servers and clients made by it.
namespace tripwire::rpc {

class Loopback {
 public:
  struct Hub;  // what all parts share

  Loopback();
  ~Loopback();

  // Starts serving; replaces a server that was killed or destroyed. Clients left
  // from before open their sessions anew: on_recovered, then their pending calls.
  std::unique_ptr<Server> Serve(ServerOptions options, Server::Callbacks callbacks);

  // In two steps, for a server that wants its rpc::Server before any client
  // comes (to restore replies): Create, RestoreReply..., then Listen.
  std::unique_ptr<Server> Create(ServerOptions options, Server::Callbacks callbacks);
  void Listen(Server& server);

  absl::StatusOr<std::unique_ptr<Client>> Connect(ClientOptions options);

  // As kill -9: from now on nobody sees anything the server does, though its
  // handlers still run to their end. Destroy the rpc::Server afterwards.
  void Kill();

  // Cuts the links: calls wait, replies are lost on their way, notifications
  // wait. Heal resends pending calls; the server answers from its reply cache.
  void Cut();
  void Heal();

  // While the links are cut: as if they stay so for too long. The server's
  // sessions are lost: returns when it has closed them. Clients open them anew
  // after Heal.
  void LoseSessions();

  // While the links are cut: hands the server the calls that wait, as if they had
  // got through just before. Their replies are lost.
  void DeliverCalls();
  // No handler of the server has a call it did not answer yet.
  bool idle() const;

  uint64_t calls() const;          // handed to the server's handler
  uint64_t notifications() const;  // handed to clients

 private:
  std::shared_ptr<Hub> hub_;
};

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_FS_SERVER_TESTING_LOOPBACK_H_
