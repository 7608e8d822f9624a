// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_CONTROL_SERVICE_H_
#define TRIPWIRE_PERIPH_SERVICE_CONTROL_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/comm/rpc.h"
#include "periph/service/disk_service.h"
#include "periph/service/presence.h"
#include "periph/service/registry.h"
#include "periph/service/served_call.h"

namespace tripwire::periph {

// Serves calls: the service "periph". What each call does is in a file of its group
// (calls_*.cc, disk_service.h); here is who asks, and which group it is. Thread-safe;
// runs on the workers of the RPC server.
class ControlService {
 public:
  using StatOf =
      std::function<std::vector<proto::StreamStat>(const std::string& device, const Asker& asker)>;
  // `disks` may be null: the service has none then.
  ControlService(Registry& registry, PresenceWatch& presence, StatOf stat,
                 std::unique_ptr<DiskService> disks);

  static rpc::ServerOptions RpcOptions();
  rpc::Server::Callbacks Callbacks();

  uint64_t calls() const { return calls_.load(std::memory_order_relaxed); }
  uint64_t malformed() const { return malformed_.load(std::memory_order_relaxed); }
  size_t session_count();

 private:
  absl::StatusOr<std::vector<uint8_t>> OpenSession(
      const std::shared_ptr<rpc::ServerSession>& session, rpc::Bytes greeting);
  void CloseSession(const std::shared_ptr<rpc::ServerSession>& session);
  void Serve(rpc::Call call);
  void Dispatch(ServedCall call);

  // calls_devices.cc
  void List(ServedCall call);
  void Info(ServedCall call);
  void Stat(ServedCall call);
  void Watch(ServedCall call);
  // calls_controls.cc
  void Controls(ServedCall call);
  void SetControl(ServedCall call);

  Registry& registry_;
  PresenceWatch& presence_;
  const StatOf stat_;
  const std::unique_ptr<DiskService> disks_;
  std::mutex mutex_;
  std::map<uint64_t, Asker> sessions_;
  std::atomic<uint64_t> calls_{0}, malformed_{0};
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_CONTROL_SERVICE_H_
