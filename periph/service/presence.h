// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_PERIPH_SERVICE_PRESENCE_H_
#define TRIPWIRE_PERIPH_SERVICE_PRESENCE_H_

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "nic/comm/rpc.h"
#include "periph/service/registry.h"

namespace tripwire::periph {

// Tells sessions that asked for it when a device comes or goes. While there are any, each
// device is asked every second, on a thread of this; without, it sleeps.
class PresenceWatch {
 public:
  PresenceWatch();
  ~PresenceWatch();

  // Before anything else. The registry must outlive this' last Watch.
  void SetRegistry(Registry& registry) { registry_ = &registry; }
  // The session hears of every device as it is now, then of changes.
  void Watch(const std::shared_ptr<rpc::ServerSession>& session, const Asker& asker);
  void Forget(uint64_t session_id);
  // Some device may have come or gone: look now.
  void Nudge();
  void Stop();

 private:
  struct State {
    bool present = false;
    std::string why;
    bool operator==(const State&) const = default;
  };
  struct Watcher {
    std::shared_ptr<rpc::ServerSession> session;
    Asker asker;
    std::map<std::string, State> told;  // by device
  };
  void Run();
  void Look();

  Registry* registry_ = nullptr;
  std::mutex mutex_;  // all below
  std::condition_variable changed_;
  bool stopping_ = false;
  bool nudged_ = false;
  std::map<uint64_t, Watcher> watchers_;  // by session
  std::thread thread_;
};

}  // namespace tripwire::periph

#endif  // TRIPWIRE_PERIPH_SERVICE_PRESENCE_H_
