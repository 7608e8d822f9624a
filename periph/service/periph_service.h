// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_PERIPH_SERVICE_H_
#define TRIPWIRE_PERIPH_SERVICE_PERIPH_SERVICE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "nic/api/nic.h"
#include "nic/api/stats/stats.h"
#include "nic/comm/rpc.h"
#include "periph/service/control_service.h"
#include "periph/service/presence.h"
#include "periph/service/registry.h"
#include "periph/service/stream_service.h"

namespace tripwire::periph {

// Offers devices on a NIC, which must outlive it: the calls and the streams.
class PeriphService {
 public:
  static absl::StatusOr<std::unique_ptr<PeriphService>> Start(Nic& nic,
                                                              std::vector<DeviceConfig> devices);
  ~PeriphService();

  // For `tw stat`.
  std::vector<stats::Group> Counters();
  StreamCounters stream_counters() { return streams_->counters(); }
  uint64_t malformed_calls() const { return control_->malformed(); }

 private:
  explicit PeriphService(std::vector<DeviceConfig> devices);

  PresenceWatch presence_;
  Registry registry_;
  std::unique_ptr<StreamService> streams_;
  std::unique_ptr<ControlService> control_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_PERIPH_SERVICE_H_
