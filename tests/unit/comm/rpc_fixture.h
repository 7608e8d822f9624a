// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_TESTS_UNIT_COMM_RPC_FIXTURE_H_
#define TRIPWIRE_TESTS_UNIT_COMM_RPC_FIXTURE_H_

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "nic/comm/rpc.h"
#include "tests/unit/comm/test_wire.h"

namespace tripwire::rpc {

inline std::string Text(Bytes bytes) { return {bytes.begin(), bytes.end()}; }
inline Bytes View(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::vector<uint8_t> Vector(const std::string& text) {
  return {text.begin(), text.end()};
}

// A gate that opens once.
class Latch {
 public:
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

class RpcTest : public ::testing::Test {
 protected:
  void StartServer(Server::Callbacks callbacks, ServerOptions options = {}) {
    if (server_nic_ == nullptr) server_nic_ = wire_.MakeNic(0, "server");
    auto server = Server::Start(*server_nic_, options, std::move(callbacks));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  absl::Status StartClient(ClientOptions options = {}) {
    if (client_nic_ == nullptr) client_nic_ = wire_.MakeNic(1, "client");
    options.node = "server";
    auto client = Client::Connect(*client_nic_, std::move(options));
    if (!client.ok()) return client.status();
    client_ = *std::move(client);
    return absl::OkStatus();
  }
  // The callbacks of both name locals of the test, and are called to the end.
  void Stop() {
    client_.reset();
    server_.reset();
  }
  absl::Status Ask(const std::string& question, std::string* answer,
                   uint64_t timeout_ns = kNever, CancelToken* token = nullptr) {
    Request request;
    request.message = View(question);
    request.timeout_ns = timeout_ns;
    Response response;
    const absl::Status status = client_->Invoke(request, &response, token);
    *answer = Text(response.message);
    return status;
  }

  TestWire wire_;
  std::unique_ptr<Nic> server_nic_, client_nic_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Client> client_;
};

inline void Echo(Call call) { call.Reply(call.request()); }

}  // namespace tripwire::rpc

#endif  // TRIPWIRE_TESTS_UNIT_COMM_RPC_FIXTURE_H_
