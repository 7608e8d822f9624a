// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_CLIENT_CONTROL_CHANNEL_H_
#define TRIPWIRE_PERIPH_CLIENT_CONTROL_CHANNEL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/api/nic.h"
#include "nic/comm/rpc.h"
#include "periph/client/peripherals.h"
#include "periph/proto/periph.pb.h"

namespace tripwire::periph {

// What is said of a server's answer that is none to what it was asked.
absl::Status MakesNoSense();

// Of a serialised proto::Request, as long as that lives.
inline rpc::Bytes MessageBytes(const std::string& message) {
  return {reinterpret_cast<const uint8_t*>(message.data()), message.size()};
}

// Calls to one node's service "periph". It rides through lost links; after a
// restart of the server it opens its session anew and runs what was asked for
// with OnRestart. Thread-safe.
class ControlChannel {
 public:
  static absl::StatusOr<std::shared_ptr<ControlChannel>> Connect(
      Nic& nic, const Peripherals::Options& options);
  ~ControlChannel();

  // One call. What the server answered with an error comes back as that error.
  // `timeout_ns` is how long to wait; `during_recovery` is for what runs at a restart.
  absl::Status Call(const proto::Request& request, proto::Reply* reply,
                    uint64_t timeout_ns = kNever, bool during_recovery = false);
  // For calls with bulk data, and asynchronous ones: the message is a
  // proto::Request, the response's a proto::Reply.
  rpc::Client& rpc() { return *client_; }
  static absl::Status ParseReply(rpc::Bytes message, proto::Reply* reply);

  // `run` is called whenever the server has forgotten us (it was restarted),
  // before any pending call is sent again: it may make calls with
  // during_recovery set. Until Forget has returned it may be running.
  uint64_t OnRestart(std::function<void()> run);
  void Forget(uint64_t id);

  const std::string& node() const { return client_->peer(); }
  uint64_t user() const { return user_; }  // random: us, on all our links

 private:
  ControlChannel() = default;
  void Recovered();
  absl::Status Watch(bool during_recovery);

  uint64_t user_ = 0;
  std::function<void(const proto::DeviceEvent&)> on_device_;
  std::atomic<bool> connected_{false};
  std::mutex mutex_;  // held while `run`s run
  std::map<uint64_t, std::function<void()>> on_restart_;
  uint64_t next_id_ = 1;
  std::unique_ptr<rpc::Client> client_;  // last: its threads use the rest
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_CLIENT_CONTROL_CHANNEL_H_
