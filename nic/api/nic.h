// SPDX-License-Identifier: BSD-3-Clause
#ifndef TRIPWIRE_NIC_API_NIC_H_
#define TRIPWIRE_NIC_API_NIC_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nic/base/clock.h"
#include "nic/datapath/counters.h"
#include "nic/datapath/types.h"
#include "nic/port/port.h"

namespace tripwire {

class Context;

struct NicOptions {
  // This node's name on its segments; need not be unique (a node may run several
  // NICs; services tell them apart). Empty: the host name.
  std::string node;
  std::vector<std::unique_ptr<Port>> ports;  // at least one

  // A thread that sleeps on the ports and acts when nobody else does: keeps links
  // alive, answers peers, moves event fds. Without it the NIC runs only while
  // somebody waits or calls Poll (simulations, single-threaded programs).
  bool service_thread = true;

  // Waiting: spin at most this long before blocking; adapts downwards when waits
  // turn out long. 0 never spins.
  uint64_t max_spin_ns = 50 * kMicrosecond;

  Clock* clock = nullptr;  // nullptr: the system's; must outlive the NIC
  uint64_t seed = 0;       // 0: random; for epochs and link ids

  uint64_t keepalive_ns = 1 * kSecond;     // probe a link silent for so long
  uint64_t peer_timeout_ns = 6 * kSecond;  // declare it lost after so long
  bool go_back_n = false;     // for comparison with selective repeat
  // Where every link begins to number its frames, both ways: 1 is the protocol's.
  // Tests of the numbers' wrap begin elsewhere, at both ends.
  uint64_t first_sequence = 1;
  bool checksum = true;       // CRC32C on frames, except over reliable ports
};

struct NodeInfo {
  std::string node;
  std::vector<std::string> services;
  std::string port;  // the port it was heard on, as the user named it
  MacAddress mac;
};

// Who watches the ports while threads are blocked. Normally one of them does,
// and whatever arrives wakes that one first. A thread that waits for rare news
// leaves the watch to others (at last, to the service thread), so as not to be
// woken for what is theirs; nor does it spin.
enum class PortWatch : uint8_t { kTake, kLeave };

// A NIC embedded in this process: one engine over one or more ports.
//
// Thread safety: all methods of Nic, and of the contexts made from it, may be
// called from any thread. One lock guards the engine; whoever waits drives it.
class Nic {
 public:
  static absl::StatusOr<std::unique_ptr<Nic>> Open(NicOptions options);
  ~Nic();  // REQUIRES: its contexts are gone
  Nic(const Nic&) = delete;

  // A context: one application's protected view of the NIC.
  std::unique_ptr<Context> CreateContext(const ContextQuotas& quotas = {});

  // Who is there: asks on every port and collects answers for `wait_ns`, or until
  // `enough(nodes)`.
  std::vector<NodeInfo> Discover(
      uint64_t wait_ns,
      absl::FunctionRef<bool(const std::vector<NodeInfo>&)> enough =
          [](const std::vector<NodeInfo>&) { return false; });

  // Does what is due now, without blocking: receives, places, answers, retries.
  // Returns whether anything happened.
  bool Poll();
  // When Poll must next be called even if no frame arrives, on the NIC's clock.
  uint64_t NextDeadlineNs();

  // Drives the NIC until `ready()` holds (true) or `deadline_ns` on the NIC's
  // clock passes (false): spins briefly, then blocks. `ready` is called with the
  // NIC locked, possibly from another thread while this one is blocked, so it
  // must be short, must not call the NIC, and may only read memory that the
  // network or Completions change, or that Notify() is called for.
  bool WaitUntil(absl::FunctionRef<bool()> ready, uint64_t deadline_ns,
                 PortWatch watch = PortWatch::kTake);
  // Makes blocked WaitUntil calls look again at what they wait for.
  void Notify();

  Clock& clock();
  const std::string& node() const;
  NicCounters counters();
  // Per port, in the order given.
  std::vector<PortCounters> port_counters();

  class Impl;
  Impl& impl() { return *impl_; }

 private:
  explicit Nic(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tripwire

#endif  // TRIPWIRE_NIC_API_NIC_H_
